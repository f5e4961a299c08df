// What every kernel file includes: no C library, only what the compiler brings.
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

// LEVEL is the processor level that the file is being compiled for (see build.py).
#define JOIN_(name, level) name##_v##level
#define JOIN(name, level) JOIN_(name, level)
#define KERNEL(name) EXPORT void JOIN(name, LEVEL)
