// Bilinear upsampling, argmax and softmax without the full-size logits: see infer/upsample.py.
//
// The values are those of F.interpolate(..., align_corners=False), bit for bit: horizontally first,
// and each mixture as fused(first, 1 - share, second * share).
#include "vector.h"

#define ROWS 16     // of output that share their two rows of logits, at most
#define COLUMNS 256 // of output that are interpolated together

typedef struct { // as _Job in infer/upsample.py
    const float *logits;   // (classes, height, width)
    void *labels;          // (output rows, columns), of 1 or 2 bytes
    float *confidence;     // (output rows, columns), or NULL
    const int32_t *strips; // first output row of each strip, and the end of the last
    const int32_t *top;    // each output row's row of logits above it
    const float *down;     // and the share of the one below
    const int32_t *left;   // each output column's column of logits to the left
    const float *across;   // and the share of the one to the right
    const int32_t *cells;  // first output column of each cell, and the end of the last; or NULL
    int64_t classes, height, width, columns, num_strips, label_bytes;
    int64_t next; // strip that nobody has taken yet
    float negligible; // distance to the winner from which a class does not count in a softmax
} Job;

typedef struct {
    float best[ROWS][COLUMNS], sum[ROWS][COLUMNS];
    int32_t winner[ROWS][COLUMNS];
    float upper[COLUMNS], lower[COLUMNS]; // one class, interpolated along the strip's two rows
    int64_t rivals, counted; // how many
    int32_t chosen[]; // classes that may win, in order; and, from job->classes on, that count
} Scratch;

typedef struct { // part of an output row strip
    int64_t first_row, rows, first_column, columns;
} Patch;

static inline Floats load(const float *from, int64_t count) { // the last one fills up
    if (count == LANES) return *(const Floats *)from;
    Floats values;
    for (int64_t i = 0; i < LANES; i++) values[i] = from[i < count ? i : count - 1];
    return values;
}

// The least and the largest that a class can be in each of `count` cells, rounding included: each
// of the six roundings of a mixture is off by 2^-24 of the largest corner at most.
static inline void bounds(const Job *job, const float *above, int64_t count, Floats *least,
                          Floats *most) {
    const float *below = above + (job->height > 1) * job->width;
    const int64_t right = job->width > 1;
    const Floats a = load(above, count), b = load(above + right, count);
    const Floats c = load(below, count), d = load(below + right, count);
    const Floats low = smaller(smaller(a, b), smaller(c, d));
    const Floats high = larger(larger(a, b), larger(c, d));
    const Floats margin = larger(high, -low) * 0x1p-20f;
    *least = low - margin, *most = high + margin;
}

typedef struct {
    Floats floor;  // what the best class reaches at least, everywhere in the cell
    Floats second; // what all classes but the first candidate stay under
    Ints first;    // the class that may reach highest
} Cells;

static inline Cells survey(const Job *job, const float *above, int64_t count) {
    Floats least, most, first = -__builtin_inff(), second = first, floor = first;
    Ints index = 0;
    for (int64_t class = 0; class < job->classes; class++) {
        bounds(job, above + class * job->height * job->width, count, &least, &most);
        floor = larger(least, floor);
        second = larger(second, smaller(first, most));
        index = most > first ? (Ints)(int32_t)class : index;
        first = larger(most, first);
    }
    return (Cells){floor, second, index};
}

// List the classes that reach the floor of one of `count` cells; returns how many do.
static inline int64_t choose(const Job *job, const float *above, int64_t count, Floats floor,
                             int32_t *chosen) {
    int64_t found = 0;
    for (int64_t class = 0; class < job->classes; class++) {
        Floats least, most;
        bounds(job, above + class * job->height * job->width, count, &least, &most);
        chosen[found] = (int32_t)class;
        found += __builtin_reduce_or(most >= floor) != 0;
    }
    return found;
}

// Loops over a patch's columns go on to a whole vector: what they compute there, nobody reads.

static void mix_across(const Job *job, const float *row, Patch patch, float *out) {
    const int64_t last = job->width - 1;
    for (int64_t x = 0; x < patch.columns; x += LANES) {
        const int64_t count = patch.columns - x < LANES ? patch.columns - x : LANES;
        const int32_t *left = job->left + patch.first_column + x;
        const Floats share = load(job->across + patch.first_column + x, count);
        Floats from, to;
        for (int64_t i = 0; i < LANES; i++) {
            const int64_t at = left[i < count ? i : 0];
            from[i] = row[at], to[i] = row[at + (at < last)];
        }
        *(Floats *)(out + x) = fused(from, 1 - share, to * share);
    }
}

static void mix_rows(const Job *job, Scratch *scratch, Patch patch, int32_t class) {
    const int64_t top = job->top[patch.first_row], bottom = top + (top < job->height - 1);
    const float *plane = job->logits + class * job->height * job->width;
    mix_across(job, plane + top * job->width, patch, scratch->upper);
    mix_across(job, plane + bottom * job->width, patch, scratch->lower);
}

static inline Floats mixture(const Scratch *scratch, int64_t column, float share) {
    const Floats upper = *(const Floats *)(scratch->upper + column);
    const Floats lower = *(const Floats *)(scratch->lower + column);
    return fused(upper, (Floats)(1 - share), lower * share);
}

static void raise_best(const Job *job, Scratch *scratch, Patch patch, int32_t class) {
    for (int64_t y = 0; y < patch.rows; y++) {
        const float share = job->down[patch.first_row + y];
        for (int64_t x = 0; x < patch.columns; x += LANES) {
            const Floats value = mixture(scratch, x, share);
            Floats *best = (Floats *)(scratch->best[y] + x);
            Ints *winner = (Ints *)(scratch->winner[y] + x);
            *winner = value > *best ? (Ints)class : *winner;
            *best = larger(value, *best);
        }
    }
}

static void add_exp(const Job *job, Scratch *scratch, Patch patch) {
    for (int64_t y = 0; y < patch.rows; y++) {
        const float share = job->down[patch.first_row + y];
        for (int64_t x = 0; x < patch.columns; x += LANES) {
            const Floats best = *(const Floats *)(scratch->best[y] + x);
            *(Floats *)(scratch->sum[y] + x) += exp_of(mixture(scratch, x, share) - best);
        }
    }
}

static void put_labels(const Job *job, int64_t row, int64_t column, int64_t count,
                       const int32_t *restrict from) {
    const int64_t at = row * job->columns + column;
    uint8_t *restrict bytes = (uint8_t *)job->labels + at;
    uint16_t *restrict shorts = (uint16_t *)job->labels + at;
    if (job->label_bytes == 1) {
        for (int64_t i = 0; i < count; i++) bytes[i] = (uint8_t)from[i];
    } else {
        for (int64_t i = 0; i < count; i++) shorts[i] = (uint16_t)from[i];
    }
}

static void fill(float *restrict to, int64_t count, float value) {
    for (int64_t i = 0; i < count; i++) to[i] = value;
}

// Interpolate the chosen classes over a patch of at most ROWS x COLUMNS.
static void interpolate(const Job *job, Scratch *scratch, Patch patch) {
    for (int64_t y = 0; y < patch.rows; y++) {
        fill(scratch->best[y], patch.columns, -__builtin_inff());
        fill(scratch->sum[y], patch.columns, 0);
        fill((float *)scratch->winner[y], patch.columns, 0);
    }
    for (int64_t i = 0; i < scratch->rivals; i++) {
        mix_rows(job, scratch, patch, scratch->chosen[i]);
        raise_best(job, scratch, patch, scratch->chosen[i]);
    }
    for (int64_t i = 0; i < scratch->counted; i++) {
        mix_rows(job, scratch, patch, scratch->chosen[job->classes + i]);
        add_exp(job, scratch, patch);
    }
    for (int64_t y = 0; y < patch.rows; y++) {
        const int64_t row = patch.first_row + y;
        put_labels(job, row, patch.first_column, patch.columns, scratch->winner[y]);
        if (!job->confidence) continue;
        float *to = job->confidence + row * job->columns + patch.first_column;
        for (int64_t x = 0; x < patch.columns; x++) to[x] = 1 / scratch->sum[y][x];
    }
}

// Label a patch whose cells, from `first_cell` on, have one candidate each.
static void flood(const Job *job, Scratch *scratch, Patch patch, const int32_t *candidates,
                  int64_t first_cell) {
    const int32_t *left = job->left + patch.first_column;
    const int64_t last = job->width - 2 - first_cell; // right of the outer pixels' centres, too
    for (int64_t x = 0; x < patch.columns; x++) {
        const int64_t cell = left[x] - first_cell;
        scratch->winner[0][x] = candidates[cell < last || last < 0 ? cell : last];
    }
    for (int64_t y = 0; y < patch.rows; y++)
        put_labels(job, patch.first_row + y, patch.first_column, patch.columns, scratch->winner[0]);
}

// Do the strip's columns from `first` to `end`; `candidates` as for flood, or NULL.
static void patches(const Job *job, Scratch *scratch, Patch strip, int64_t first, int64_t end,
                    const int32_t *candidates, int64_t first_cell) {
    for (int64_t x = first; x < end; x += COLUMNS) {
        const int64_t columns = end - x < COLUMNS ? end - x : COLUMNS;
        const Patch patch = {strip.first_row, strip.rows, x, columns};
        if (candidates)
            flood(job, scratch, patch, candidates, first_cell);
        else
            interpolate(job, scratch, patch);
    }
}

// Do `count` cells from `first_cell` on.
static inline void block(const Job *job, Scratch *scratch, Patch strip, int64_t first_cell,
                         int64_t count) {
    const int64_t top = job->top[strip.first_row], last = job->height > 1 ? job->height - 2 : 0;
    const float *above = job->logits + (top < last ? top : last) * job->width + first_cell;
    const int64_t first = job->cells[first_cell], end = job->cells[first_cell + count];
    const Cells cells = survey(job, above, count);
    if (!job->confidence && !__builtin_reduce_or(cells.second >= cells.floor)) {
        int32_t candidates[LANES];
        *(Ints *)candidates = cells.first;
        return patches(job, scratch, strip, first, end, candidates, first_cell);
    }
    int32_t *counted = scratch->chosen + job->classes;
    scratch->rivals = choose(job, above, count, cells.floor, scratch->chosen);
    if (job->confidence)
        scratch->counted = choose(job, above, count, cells.floor - job->negligible, counted);
    patches(job, scratch, strip, first, end, NULL, first_cell);
}

static void choose_all(const Job *job, Scratch *scratch) {
    for (int32_t class = 0; class < job->classes; class++)
        scratch->chosen[class] = scratch->chosen[job->classes + class] = class;
    scratch->rivals = job->classes;
    scratch->counted = job->confidence ? job->classes : 0;
}

static void do_strip(const Job *job, Scratch *scratch, Patch strip) {
    if (!job->cells) { // too small to be worth a look
        choose_all(job, scratch);
        return patches(job, scratch, strip, 0, job->columns, NULL, 0);
    }
    const int64_t cells = job->width > 1 ? job->width - 1 : 1;
    if (cells < LANES) return block(job, scratch, strip, 0, cells);
    for (int64_t cell = 0; cell < cells; cell += LANES) // the last one reaches back over done cells
        block(job, scratch, strip, cell < cells - LANES ? cell : cells - LANES, LANES);
}

// Do the strips that are left, beside other threads that have the same job and other scratch.
KERNEL(upsample)(Job *job, Scratch *scratch) {
    int64_t index;
    scratch->counted = 0;
    while ((index = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED)) < job->num_strips) {
        const int64_t first = job->strips[index], rows = job->strips[index + 1] - first;
        do_strip(job, scratch, (Patch){first, rows, 0, job->columns});
    }
}
