// Call a kernel of a library that ships, on the system that this program runs on: a server on
// standard input and output for tools/foreign_kernels.py, which says what is sent.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <windows.h>
#else
#include <dlfcn.h>
#endif

enum { BLOCKS = 64, ARGUMENTS = 8, GUARD = 64, FILL = 0xa5 };

typedef void (*Kernel)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);

static void *library;

static void *symbol(const char *name) {
#if defined(_WIN32)
    void *found = (void *)GetProcAddress((HMODULE)library, name);
#else
    void *found = dlsym(library, name);
#endif
    if (!found) fprintf(stderr, "no function %s\n", name), exit(3);
    return found;
}

static void get(void *to, size_t count) {
    if (count && fread(to, count, 1, stdin) != 1) exit(0); // the caller has gone
}

static int64_t number(void) {
    int64_t value;
    get(&value, sizeof value);
    return value;
}

static int64_t serve(char **blocks, char **memory, int64_t *sizes) {
    const int64_t count = number();
    for (int64_t i = 0; i < count; i++) { // each with its own place within 64 bytes, and guards
        sizes[i] = number();
        const int64_t place = number();
        memory[i] = malloc((size_t)sizes[i] + 3 * GUARD + 64);
        memset(memory[i], FILL, (size_t)sizes[i] + 3 * GUARD + 64);
        const uintptr_t start = ((uintptr_t)memory[i] + GUARD + 63) / 64 * 64;
        blocks[i] = (char *)start + place;
        get(blocks[i], (size_t)sizes[i]);
    }
    for (int64_t left = number(); left; left--) { // pointers from one block to another
        char *const from = blocks[number()];
        void **const field = (void **)(from + number());
        char *const to = blocks[number()];
        *field = to + number();
    }
    char name[64] = {0};
    get(name, (size_t)number() % sizeof name);
    int64_t a[ARGUMENTS] = {0};
    const int64_t arguments = number();
    for (int64_t i = 0; i < arguments; i++) {
        const int64_t block = number(), value = number();
        a[i] = block < 0 ? value : (int64_t)(intptr_t)(blocks[block] + value);
    }
    ((Kernel)symbol(name))(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
    return count;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
#if defined(_WIN32)
    _setmode(_fileno(stdin), _O_BINARY), _setmode(_fileno(stdout), _O_BINARY);
    library = (void *)LoadLibraryA(argv[1]);
#else
    library = dlopen(argv[1], RTLD_NOW);
#endif
    if (!library) return fprintf(stderr, "%s is not loaded\n", argv[1]), 3;
    const int64_t level = ((int (*)(void))symbol("processor_level"))();
    fwrite(&level, sizeof level, 1, stdout), fflush(stdout);
    static char *blocks[BLOCKS], *memory[BLOCKS];
    static int64_t sizes[BLOCKS];
    for (;;) {
        const int64_t count = serve(blocks, memory, sizes);
        for (int64_t i = 0; i < count; i++) {
            int64_t intact = 1;
            for (int g = 1; g <= GUARD; g++)
                intact &= (unsigned char)blocks[i][-g] == FILL &&
                          (unsigned char)blocks[i][sizes[i] + g - 1] == FILL;
            fwrite(&intact, sizeof intact, 1, stdout);
            fwrite(blocks[i], 1, (size_t)sizes[i], stdout);
            free(memory[i]);
        }
        fflush(stdout);
    }
}
