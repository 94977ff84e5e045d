#include "samples.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Every function here takes what it reads from `*at`, and ends its text with a NUL byte. */

static const char name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789";

/* A name, up to the character `end`, which becomes its NUL byte. Return: NULL if that is not what stands there. */
static const char *take_name(char **at, char end)
{
    char *name = *at;
    size_t size = strspn(name, name_characters);

    if (size == 0 || (*name >= '0' && *name <= '9') || name[size] != end)
        return NULL;
    name[size] = '\0';
    *at = name + size + 1;
    return name;
}

/* "text", with \\, \" and \n for what cannot stand there. */
static const char *take_quoted(char **at)
{
    char *from = *at + 1, *to = from;
    const char *text = to;

    if (**at != '"')
        return NULL;
    for (; *from && *from != '"'; from++) {
        if (*from != '\\') {
            *to++ = *from;
            continue;
        }
        from++;
        if (*from != '\\' && *from != '"' && *from != 'n')
            return NULL;
        *to++ = *from == 'n' ? '\n' : *from;
    }
    if (*from != '"')
        return NULL;
    *at = from + 1;
    *to = '\0';
    return text;
}

/* label="value",…} */
static bool take_labels(char **at, struct sample *sample)
{
    while (**at != '}') {
        size_t n = sample->n_labels;

        if (n == SAMPLE_LABELS || !(sample->labels[n].name = take_name(at, '=')) ||
            !(sample->labels[n].value = take_quoted(at)))
            return false;
        sample->n_labels++;
        if (**at == ',')
            ++*at;
        else if (**at != '}')
            return false;
    }
    ++*at;
    return true;
}

static bool take_sample(char *line, struct sample *ret)
{
    char *at = line, *end;
    bool has_labels = line[strcspn(line, "{ ")] == '{';

    *ret = (struct sample){.name = take_name(&at, has_labels ? '{' : ' ')};
    if (!ret->name || (has_labels && (!take_labels(&at, ret) || *at++ != ' ')))
        return false;
    ret->value = strtod(at, &end);
    return end != at && *end == '\0' && *at != ' ';
}

const char *sample_label(const struct sample *sample, const char *name)
{
    for (size_t i = 0; i < sample->n_labels; i++)
        if (strcmp(sample->labels[i].name, name) == 0)
            return sample->labels[i].value;
    return "";
}

size_t samples_read(char *text, void (*each)(const struct sample *sample, void *arg), void *arg)
{
    struct sample sample;
    size_t n = 0;

    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        n++;
        if (*line == '\0' || *line == '#')
            continue;
        if (!take_sample(line, &sample))
            return n;
        each(&sample, arg);
    }
    return 0;
}
