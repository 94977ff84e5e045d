#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

static const struct {
    const char *name;
    enum log_level level;
} levels[] = {
    {"error", LOG_LEVEL_ERROR},
    {"warning", LOG_LEVEL_WARNING},
    {"info", LOG_LEVEL_INFO},
    {"debug", LOG_LEVEL_DEBUG},
};

static enum log_level threshold = LOG_LEVEL_INFO; /* the loop may change it at any time */
static bool journal;                              /* written before threads begin, then only read */

bool log_level_of(const char *name, enum log_level *ret)
{
    for (size_t i = 0; i < N_ELEMENTS(levels); i++)
        if (strcmp(levels[i].name, name) == 0) {
            *ret = levels[i].level;
            return true;
        }
    return false;
}

const char *log_level_name(enum log_level level)
{
    for (size_t i = 0; i < N_ELEMENTS(levels); i++)
        if (levels[i].level == level)
            return levels[i].name;
    return "?";
}

void log_setup(enum log_level level)
{
    journal = getenv("JOURNAL_STREAM") != NULL;
    log_set_level(level);
}

void log_set_level(enum log_level level)
{
    __atomic_store_n(&threshold, level, __ATOMIC_RELAXED);
}

/* A line stays a line, whatever bytes come from outside. */
static void blank_controls(char *line)
{
    for (; *line; line++)
        if ((unsigned char)*line < 0x20 || *line == 0x7f)
            *line = '?';
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[1024];
    int prefix, size;
    va_list args;

    if (level > __atomic_load_n(&threshold, __ATOMIC_RELAXED))
        return;
    prefix = journal ? snprintf(line, sizeof(line), "<%d>", level)
                     : snprintf(line, sizeof(line), "sessiond %s: ", log_level_name(level));

    va_start(args, format);
    size = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix - 1, format, args);
    va_end(args);
    if (size < 0)
        return;
    blank_controls(line + prefix);

    size = (int)strlen(line);
    line[size++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)size) < 0)
        return; /* nobody is left to be told */
}
