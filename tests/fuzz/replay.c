/*
 * Runs a fuzz target over files, and over the files of folders: replay_NAME tests/fuzz/corpus/NAME. Needs no fuzzer,
 * so the kept inputs are tests with every compiler. A target that finds something ends the process; the last line
 * names the file.
 */
#include <ftw.h>
#include <sys/stat.h>

#include "fuzz.h"

static size_t n_inputs;

static uint8_t *read_file(const char *path, size_t size)
{
    /* As long as the input and no longer, so that a byte read behind it is noticed. */
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");

    if (!data || !file || fread(data, 1, size, file) != size) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    (void)fclose(file);
    return data;
}

static int on_file(const char *path, const struct stat *status, int type, struct FTW *place)
{
    uint8_t *data;

    (void)place;
    if (type != FTW_F)
        return type == FTW_D ? 0 : -1;
    printf("%s\n", path);
    (void)fflush(stdout);
    data = read_file(path, (size_t)status->st_size);
    (void)LLVMFuzzerTestOneInput(data, (size_t)status->st_size);
    free(data);
    n_inputs++;
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (nftw(argv[i], on_file, 16, FTW_PHYS) != 0) {
            (void)fprintf(stderr, "%s: cannot be read\n", argv[i]);
            return EXIT_FAILURE;
        }
    printf("%zu inputs replayed\n", n_inputs);
    return n_inputs > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
