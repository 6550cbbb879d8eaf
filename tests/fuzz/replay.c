/* replay.c - runs a fuzzer over the files of directories, without libFuzzer: so the seeds, and what was found once, are tests of
 * every build. Each file is also run cut to half and with some of its bytes changed. */
#include "base/rng.h"
#include "fuzz.h"

#include <dirent.h>

static void run(uint8_t *data, size_t size, uint64_t seed) {
    fvi_rng rng = {seed};
    LLVMFuzzerTestOneInput(data, size);
    LLVMFuzzerTestOneInput(data, size / 2);
    for (int i = 0; size > 0 && i < 20; i++) {
        size_t at = (size_t)fvi_rng_below(&rng, (int64_t)size);
        uint8_t old = data[at];
        data[at] = (uint8_t)fvi_rng_next(&rng);
        LLVMFuzzerTestOneInput(data, size);
        data[at] = old;
    }
}

static int run_file(const char *path, uint64_t seed) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long size = -1;
    if (f != NULL && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0) {
        rewind(f);
        data = malloc((size_t)size + 1);
        size = data != NULL && fread(data, 1, (size_t)size, f) == (size_t)size ? size : -1;
    }
    if (f != NULL) {
        fclose(f);
    }
    if (size >= 0) {
        run(data, (size_t)size, seed);
    } else {
        fprintf(stderr, "cannot read %s\n", path);
    }
    free(data);
    return size >= 0 ? 0 : 1;
}

static int run_directory(const char *path, int *files) {
    DIR *dir = opendir(path);
    if (dir == NULL) {
        fprintf(stderr, "no directory %s\n", path);
        return 1;
    }
    int failed = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char name[1024];
        if (entry->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            failed |= run_file(name, (uint64_t)++ * files);
        }
    }
    closedir(dir);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0, files = 0;
    for (int i = 1; i < argc; i++) {
        failed |= run_directory(argv[i], &files);
    }
    printf("%d files\n", files);
    return failed != 0 || files == 0;
}
