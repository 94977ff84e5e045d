/*
 * Reads the text that Prometheus reads, strictly: each line is empty, a comment, or one sample. The text is read in
 * place, and changed by it. No state; one thread.
 */
#ifndef SESSIOND_CLI_SAMPLES_H
#define SESSIOND_CLI_SAMPLES_H

#include <stddef.h>

enum { SAMPLE_LABELS = 4 }; /* a sample of ours has two at most */

/* name{label="value",…} value. The texts are borrowed from what is read. */
struct sample {
    const char *name;
    struct {
        const char *name, *value;
    } labels[SAMPLE_LABELS];
    size_t n_labels;
    double value;
};

/* The value of a label. Return: "" if there is none. */
const char *sample_label(const struct sample *sample, const char *name);

/* Calls for each sample, in the order of the text. Return: 0, or the number of the first line that is none of the
 * three; what stands behind it is not read. */
size_t samples_read(char *text, void (*each)(const struct sample *sample, void *arg), void *arg);

#endif
