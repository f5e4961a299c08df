// The weight's gradient in a convolution of each channel by itself; depthwise.py calls it.
//
// Channels lie side by side, so that 16 of them make a vector; rows are widened to float, with the
// padding's zeros around them, before they are used.
#include "vector.h"

typedef uint32_t Words __attribute__((ext_vector_type(LANES)));

typedef struct {
    const void *grad, *x; // (h, w, C) and (H, W, C), of one image
    float *slope;         // (blocks of 16 channels, k, k, 16)
    float *scratch;       // (W + 2 padding + w, 16)
    int32_t half;         // x and grad are bfloat16, not float
    int32_t height, width, grad_height, grad_width, channels;
    int32_t kernel, stride, padding, dilation, first, last; // the channels to work on
} Task;

static void load(
    const Task *t, Floats *to, const void *from, ptrdiff_t row, int count, int channel
) {
    ptrdiff_t place = row * count * t->channels + channel;
    const int used = t->last - channel < LANES ? t->last - channel : LANES;
    for (int i = 0; i < count; i++, place += t->channels) {
        const uint16_t *half = (const uint16_t *)from + place;
        const float *full = (const float *)from + place;
        if (used == LANES && t->half) {
            const Words words = __builtin_convertvector(*(const Shorts *)half, Words) << 16;
            to[i] = __builtin_bit_cast(Floats, words);
        } else if (used == LANES) {
            to[i] = *(const Floats *)full;
        } else {
            Words words = 0;
            for (int c = 0; c < used; c++)
                words[c] = t->half ? (uint32_t)half[c] << 16 : ((const uint32_t *)full)[c];
            to[i] = __builtin_bit_cast(Floats, words);
        }
    }
}

static void clear(Floats *to, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) to[i] = 0;
}

// One row of grad and one of x: what they add to a row of the kernel's gradient.
static inline __attribute__((always_inline)) void correlate(
    const Task *t, Floats *slope, const Floats *grad, const Floats *x, const int kernel
) {
    Floats even[7], odd[7]; // two sums of each, since an addition waits for the one before
    for (int k = 0; k < kernel; k++) even[k] = odd[k] = 0;
    const int width = t->grad_width;
    for (int i = 0; i + 1 < width; i += 2)
        for (int k = 0; k < kernel; k++) {
            even[k] += grad[i] * x[i * t->stride + k * t->dilation];
            odd[k] += grad[i + 1] * x[(i + 1) * t->stride + k * t->dilation];
        }
    if (width % 2)
        for (int k = 0; k < kernel; k++)
            even[k] += grad[width - 1] * x[(width - 1) * t->stride + k * t->dilation];
    for (int k = 0; k < kernel; k++) slope[k] += even[k] + odd[k];
}

KERNEL(depthwise_weight_gradient)(const Task *t) {
    Floats *x = (Floats *)t->scratch, *grad = x + t->width + 2 * t->padding;
    clear(x, t->width + 2 * t->padding);
    for (int channel = t->first; channel < t->last; channel += LANES) {
        Floats *slope = (Floats *)t->slope + channel / LANES * t->kernel * t->kernel;
        clear(slope, t->kernel * t->kernel);
        for (int y = 0; y < t->grad_height; y++) {
            load(t, grad, t->grad, y, t->grad_width, channel);
            for (int k = 0; k < t->kernel; k++) {
                const int row = y * t->stride - t->padding + k * t->dilation;
                if (row < 0 || row >= t->height) continue;
                load(t, x + t->padding, t->x, row, t->width, channel);
                Floats *part = slope + k * t->kernel;
                if (t->kernel == 3) correlate(t, part, grad, x, 3);
                else if (t->kernel == 5) correlate(t, part, grad, x, 5);
                else correlate(t, part, grad, x, t->kernel);
            }
        }
    }
}
