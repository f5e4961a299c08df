// Losses and gradients of upsampled logits; loss.py says what the names mean.
//
// An output row at a time: its vertical mixture of two rows of logits, then each pixel's mixture
// of two columns of that, all classes at once in vectors of 16 lanes, which every processor level
// adds up in the same order.
#include "vector.h"

typedef struct {
    const float *logits;          // (h, w, classes), one image
    const uint8_t *target, *kept; // (H, W); kept may be NULL
    const int32_t *top, *left;    // (H), (W): the row, the column before each pixel
    const float *down, *across;   // (H), (W): the next one's share
    const float *own, *every, *dice_own, *dice_every; // (padded)
    float *losses;   // (H, W)
    double *sums;    // (1 + 2 padded): loss; probabilities; those of the pixels' own class
    float *gradient; // (h, w, classes), or NULL
    float *seam;     // (w, classes): of the row after the band; NULL for an image's last band
    float *scratch;  // (4 w + 2, padded)
    int32_t classes, padded, height, width, columns, first, last; // h, w, W, rows of pixels
} Band;

static inline Floats at(const float *from) { return *(const Floats *)from; }

static inline void put(float *to, Floats values) { *(Floats *)to = values; }

static inline float total(Floats v) {
    float part[LANES];
    put(part, v);
    for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] += part[i + n];
    return part[0];
}

static inline float largest(Floats v) {
    float part[LANES];
    put(part, v);
    for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] = part[i + n] > part[i] ? part[i + n] : part[i];
    return part[0];
}

static inline double logarithm(float x) { // of x >= 1
    union { float f; uint32_t i; } number = {x}, power;
    int exponent = (int)(number.i >> 23) - 127;
    power.i = (uint32_t)(127 - exponent) << 23;
    double m = (double)x * power.f; // 1 to 2
    if (m > 1.41421356) m /= 2, exponent++;
    const double f = (m - 1) / (m + 1), q = f * f;
    const double series = 1 + q * (1. / 3 + q * (1. / 5 + q * (1. / 7 + q * (1. / 9 + q / 11))));
    return exponent * 0.69314718055994531 + 2 * f * series;
}

static void fill(float *to, float value, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) to[i] = value;
}

// line (w, padded): the mixture of two rows of logits, and what never wins where there is no class.
static void mix(const Band *b, float *line, int y) {
    const int below = b->top[y] + 1 < b->height ? b->top[y] + 1 : b->top[y];
    const ptrdiff_t row = (ptrdiff_t)b->width * b->classes;
    const float *upper = b->logits + b->top[y] * row, *lower = b->logits + below * row;
    const float share = b->down[y], rest = 1 - share;
    for (int x = 0; x < b->width; x++, line += b->padded) {
        for (int k = 0; k < b->classes; k++) line[k] = upper[k] * rest + lower[k] * share;
        for (int k = b->classes; k < b->padded; k++) line[k] = -1e30f;
        upper += b->classes, lower += b->classes;
    }
}

static void store(const Band *b, float *to, const float *row) { // (w, padded) to (w, classes)
    for (int x = 0; x < b->width; x++, to += b->classes, row += b->padded)
        for (int k = 0; k < b->classes; k++) to[k] = row[k];
}

// Pixel x of row y: its loss, what it adds to the sums, and to the gradient of the mixed row.
static inline void pixel(
    const Band *b, const float *line, float *slope, float *e, float *seen, float all, int y, int x
) {
    const ptrdiff_t place = (ptrdiff_t)y * b->columns + x;
    const int label = b->target[place], padded = b->padded;
    if (label >= b->classes) return;
    const ptrdiff_t left = (ptrdiff_t)b->left[x] * padded;
    const ptrdiff_t right = b->left[x] + 1 < b->width ? left + padded : left;
    const float share = b->across[x], rest = 1 - share;
    Floats best = -1e30f, sum = 0, tilt = 0, dice = 0;
    for (int k = 0; k < padded; k += LANES) {
        const Floats z = at(line + left + k) * rest + at(line + right + k) * share;
        best = z > best ? z : best;
        put(e + k, z);
    }
    const float peak = largest(best), depth = e[label] - peak;
    for (int k = 0; k < padded; k += LANES) {
        const Floats d = at(e + k) - peak, power = exp_of(d);
        sum += power;
        tilt += at(b->every + k) * d;
        dice += at(b->dice_every + k) * power;
        put(e + k, power);
    }
    const float scale = total(sum), own = b->own[label], inverse = 1 / scale;
    const float mine = e[label] * inverse;
    const double loss = (own + all) * logarithm(scale) - own * depth - total(tilt);
    const int kept = !b->kept || b->kept[place];
    b->sums[0] += kept ? loss : 0;
    if (b->losses) b->losses[place] = (float)loss;
    if (!b->gradient) {
        for (int k = 0; k < padded; k += LANES) put(seen + k, at(seen + k) + at(e + k) * inverse);
        b->sums[1 + padded + label] += mine;
        return;
    }
    const float ce = (float)kept, pull = b->dice_own[label] * mine;
    const float base = ce * (own + all) - total(dice) * inverse - pull;
    for (int k = 0; k < padded; k += LANES) {
        const Floats p = at(e + k) * inverse;
        const Floats g = p * (at(b->dice_every + k) + base) - at(b->every + k) * ce;
        put(slope + left + k, at(slope + left + k) + g * rest);
        put(slope + right + k, at(slope + right + k) + g * share);
    }
    slope[left + label] += (pull - ce * own) * rest;
    slope[right + label] += (pull - ce * own) * share;
}

KERNEL(upsampled_loss)(const Band *b) {
    const ptrdiff_t row = (ptrdiff_t)b->width * b->padded;
    float *line = b->scratch, *slope = line + row, *upper = slope + row, *lower = upper + row;
    float *e = lower + row, *seen = e + b->padded, all = 0;
    for (int k = 0; k < b->padded; k++) all += b->every[k];
    fill(upper, 0, 2 * row);
    for (int y = b->first; y < b->last; y++) {
        mix(b, line, y);
        fill(slope, 0, row);
        fill(seen, 0, b->padded);
        for (int x = 0; x < b->columns; x++) pixel(b, line, slope, e, seen, all, y, x);
        for (int k = 0; k < b->padded; k++) b->sums[1 + k] += seen[k];
        if (!b->gradient) continue;
        const float share = b->down[y], rest = 1 - share;
        float *under = b->top[y] + 1 < b->height ? lower : upper;
        for (ptrdiff_t i = 0; i < row; i++) upper[i] += slope[i] * rest;
        for (ptrdiff_t i = 0; i < row; i++) under[i] += slope[i] * share;
        if (y + 1 < b->last && b->top[y + 1] == b->top[y]) continue;
        store(b, b->gradient + (ptrdiff_t)b->top[y] * b->width * b->classes, upper);
        float *swap = upper;
        upper = lower, lower = swap;
        fill(lower, 0, row);
    }
    if (!b->gradient || b->first == b->last) return;
    const int next = b->top[b->last - 1] + 1; // a row of cells that the next band adds to, too
    if (next == b->height) return;
    store(b, b->seam ? b->seam : b->gradient + (ptrdiff_t)next * b->width * b->classes, upper);
}
