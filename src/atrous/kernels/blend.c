// The colours of labels over a photo; blend.py calls it, and has the same in NumPy.
//
// Neighbours mostly have the same label, so that 16 pixels at a time are mixed with one colour.
#include "kernel.h"

enum { LANES = 16 };
typedef uint8_t Bytes __attribute__((ext_vector_type(16), aligned(1)));
typedef uint16_t Words __attribute__((ext_vector_type(16)));

static inline void mix(uint8_t *to, const uint8_t *photo, uint16_t weight, Words color) {
    const Words wide = __builtin_convertvector(*(const Bytes *)photo, Words);
    *(Bytes *)to = __builtin_convertvector((wide * weight + color) >> 8, Bytes);
}

// `photo` (height, width, 3) and `labels` (height, width) to the upper left part of a canvas with
// `stride` bytes a row. `weights` (256,) of the photo and `colors` (256, 3): both in 256ths.
KERNEL(blend)(
    const uint8_t *photo, const uint8_t *labels, const uint16_t *weights, const uint16_t *colors,
    uint8_t *canvas, int64_t height, int64_t width, int64_t stride
) {
    for (int64_t y = 0; y < height; y++, labels += width, photo += 3 * width, canvas += stride)
        for (int64_t x = 0, end; x < width; x = end) {
            for (end = x + 1; end < width && labels[end] == labels[x];) end++;
            const uint16_t weight = weights[labels[x]], *color = colors + 3 * labels[x];
            int64_t i = 3 * x;
            if (end - x >= LANES) {
                const uint16_t r = color[0], g = color[1], b = color[2];
                const Words first = {r, g, b, r, g, b, r, g, b, r, g, b, r, g, b, r};
                const Words second = {g, b, r, g, b, r, g, b, r, g, b, r, g, b, r, g};
                const Words third = {b, r, g, b, r, g, b, r, g, b, r, g, b, r, g, b};
                for (; i + 3 * LANES <= 3 * end; i += 3 * LANES) {
                    mix(canvas + i, photo + i, weight, first);
                    mix(canvas + i + LANES, photo + i + LANES, weight, second);
                    mix(canvas + i + 2 * LANES, photo + i + 2 * LANES, weight, third);
                }
            }
            for (; i < 3 * end; i++) canvas[i] = (photo[i] * weight + color[i % 3]) >> 8;
        }
}
