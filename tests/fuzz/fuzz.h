/*
 * What the fuzz targets share. A target gets any bytes; what must hold for all of them is written with MUST, which
 * ends the process in every build, so that libFuzzer and replay.c notice.
 */
#ifndef SESSIOND_FUZZ_H
#define SESSIOND_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            (void)fprintf(stderr, "%s:%d: must be: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
