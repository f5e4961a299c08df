// Bilinear upsampling, argmax and softmax without the full-size logits: see upsample.py.
//
// The values are those of F.interpolate(..., align_corners=False), bit for bit: horizontally first,
// and each mixture as fused(first, 1 - share, second * share).
#include "vector.h"

#define STRIPS 4 // that a thread takes at a time

typedef struct { // _Job in upsample.py
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
    Floats most;    // that the class can be in each cell of a block
    uint32_t cells; // in which it may win, or counts in a softmax: a bit each
    int32_t class;
} Candidate;

typedef struct {
    Floats upper, lower; // mixtures along the two rows of logits
    int32_t class;
} Line;

typedef struct { // of a thread
    Line *lines;
    Candidate *candidates; // in order of their classes
    int64_t found;         // so many
} Scratch;

typedef struct { // a vector of columns of the output rows between the same two rows of logits
    int64_t first_row, rows, column, count;
    int64_t upper, lower, start; // what the columns count from, in a plane of logits
    int64_t near;                // whether they are all below LANES
    Ints from, to;               // each pixel's columns of logits
    Floats share;                // of the latter
} Patch;

static inline Floats load(const float *from, int64_t count) { // the last one fills up
    if (count == LANES) return *(const Floats *)from;
    Floats values;
    for (int64_t i = 0; i < LANES; i++) values[i] = from[i < count ? i : count - 1];
    return values;
}

// List the classes that may win in one of `count` cells, or count there: whose largest corner
// reaches the floor, the best of all smallest corners. Each of the six roundings of a mixture is
// off by 2^-24 of the largest corner at most.
static inline void survey(const Job *job, Scratch *scratch, const float *above, int64_t count) {
    const int64_t plane = job->height * job->width, right = job->width > 1;
    const int64_t below = job->height > 1 ? job->width : 0;
    Candidate *next = scratch->candidates;
    Floats floor = -__builtin_inff();
    for (int64_t class = 0; class < job->classes; class++, above += plane) {
        __builtin_prefetch(above + below + job->width); // of the next strip
        const Floats a = load(above, count), b = load(above + right, count);
        const Floats c = load(above + below, count), d = load(above + below + right, count);
        const Floats low = smaller(smaller(a, b), smaller(c, d));
        const Floats high = larger(larger(a, b), larger(c, d));
        const Floats margin = larger(high, -low) * 0x1p-20f;
        floor = larger(low - margin - job->negligible, floor);
        next->most = high + margin, next->class = (int32_t)class;
        next += bits(next->most >= floor) != 0; // so far
    }
    scratch->found = next - scratch->candidates;
    for (int64_t i = 0; i < scratch->found; i++)
        scratch->candidates[i].cells = bits(scratch->candidates[i].most >= floor);
}

static inline Floats mix_across(const Patch *patch, const float *row) {
    const Floats from = gather(row, patch->from, patch->near);
    const Floats to = gather(row, patch->to, patch->near);
    return fused(from, 1 - patch->share, to * patch->share);
}

static inline Floats mix_down(Floats upper, Floats lower, float share) {
    return fused(upper, (Floats)(1 - share), lower * share);
}

static inline void put_labels(const Job *job, int64_t at, int64_t count, Ints labels) {
    uint8_t *bytes = (uint8_t *)job->labels + at;
    uint16_t *shorts = (uint16_t *)job->labels + at;
    if (count < LANES) {
        for (int64_t i = 0; i < count; i++) {
            if (job->label_bytes == 1) bytes[i] = (uint8_t)labels[i];
            else shorts[i] = (uint16_t)labels[i];
        }
    } else if (job->label_bytes == 1) {
        *(Bytes *)bytes = __builtin_convertvector(labels, Bytes);
    } else {
        *(Shorts *)shorts = __builtin_convertvector(labels, Shorts);
    }
}

static inline void put_confidence(const Job *job, int64_t at, int64_t count, Floats confidence) {
    if (count == LANES) *(Floats *)(job->confidence + at) = confidence;
    else for (int64_t i = 0; i < count; i++) job->confidence[at + i] = confidence[i];
}

// Interpolate the candidates in one of `cells`, a bit each.
static inline void interpolate(const Job *job, const Scratch *scratch, const Patch *patch,
                               uint32_t cells) {
    Line *line = scratch->lines;
    for (const Candidate *c = scratch->candidates; c < scratch->candidates + scratch->found; c++) {
        if (!(c->cells & cells)) continue;
        const float *plane = job->logits + c->class * job->height * job->width + patch->start;
        line->upper = mix_across(patch, plane + patch->upper);
        line->lower = mix_across(patch, plane + patch->lower);
        line++->class = c->class;
    }
    for (int64_t y = patch->first_row; y < patch->first_row + patch->rows; y++) {
        Ints winner = 0;
        Floats best = -__builtin_inff(), sum = 0;
        for (const Line *l = scratch->lines; l < line; l++) {
            const Floats value = mix_down(l->upper, l->lower, job->down[y]);
            winner = value > best ? (Ints)l->class : winner;
            best = larger(value, best);
        }
        put_labels(job, y * job->columns + patch->column, patch->count, winner);
        if (!job->confidence) continue;
        for (const Line *l = scratch->lines; l < line; l++) {
            const Floats term = exp_of(mix_down(l->upper, l->lower, job->down[y]) - best);
            sum += winner == (Ints)l->class ? 0 : term; // whose 1 would swallow the small ones
        }
        put_confidence(job, y * job->columns + patch->column, patch->count, 1 / (1 + sum));
    }
}

// Where a patch's columns find their logits.
static inline void locate(const Job *job, Patch *patch) {
    const int32_t *left = job->left + patch->column;
    const int64_t last = patch->count - 1, reach = job->width - LANES;
    if (last == LANES - 1) patch->from = *(const Ints *)left;
    else for (int64_t i = 0; i < LANES; i++) patch->from[i] = left[i < last ? i : last];
    const Ints next = patch->from + 1, end = (int32_t)job->width - 1;
    patch->to = next < end ? next : end;
    patch->start = left[0] < reach ? left[0] : reach;
    patch->near = reach >= 0 && patch->to[LANES - 1] - patch->start < LANES;
    if (!patch->near) patch->start = 0;
    patch->from -= (int32_t)patch->start, patch->to -= (int32_t)patch->start;
    patch->share = load(job->across + patch->column, patch->count);
}

// The cells that a patch lies in, a bit each, of those that were surveyed from `first` on. What is
// right of the outer pixels' centres belongs to the last.
static inline uint32_t cells_of(const Job *job, const Patch *patch, int64_t first) {
    const int32_t *left = job->left + patch->column;
    const int64_t from = left[0] - first, to = left[patch->count - 1] - first;
    return (2u << (to < LANES ? to : LANES - 1)) - (1u << (from < LANES ? from : LANES - 1));
}

// Label the columns from `first` to `end`, whose cells have been surveyed from `cell` on.
static inline void patches(const Job *job, const Scratch *scratch, Patch *patch, int64_t first,
                           int64_t end, int64_t cell) {
    patch->count = end - first < LANES ? end - first : LANES;
    for (int64_t x = first; x < end; x += LANES) {
        patch->column = x < end - patch->count ? x : end - patch->count; // the last reaches back
        const uint32_t cells = cells_of(job, patch, cell);
        int64_t rivals = 0;
        int32_t winner = 0;
        for (int64_t i = 0; i < scratch->found; i++)
            if (scratch->candidates[i].cells & cells)
                rivals++, winner = scratch->candidates[i].class;
        if (rivals > 1 || job->confidence) {
            locate(job, patch);
            interpolate(job, scratch, patch, cells);
            continue;
        }
        for (int64_t y = patch->first_row; y < patch->first_row + patch->rows; y++)
            put_labels(job, y * job->columns + patch->column, patch->count, winner);
    }
}

static void list_all(const Job *job, Scratch *scratch) {
    for (int32_t class = 0; class < job->classes; class++)
        scratch->candidates[class] = (Candidate){.cells = ~0u, .class = class};
    scratch->found = job->classes;
}

static void do_strip(const Job *job, Scratch *scratch, int64_t strip) {
    const int64_t first = job->strips[strip], top = job->top[first];
    const int64_t bottom = top < job->height - 1 ? top + 1 : top;
    Patch patch = {.first_row = first, .rows = job->strips[strip + 1] - first};
    patch.upper = top * job->width, patch.lower = bottom * job->width;
    if (!job->cells) { // too small to be worth a look
        list_all(job, scratch);
        return patches(job, scratch, &patch, 0, job->columns, 0);
    }
    const int64_t last = job->height > 1 ? job->height - 2 : 0;
    const float *above = job->logits + (top < last ? top : last) * job->width;
    const int64_t cells = job->width > 1 ? job->width - 1 : 1;
    const int64_t count = cells < LANES ? cells : LANES;
    for (int64_t next = 0; next < cells; next += LANES) {
        const int64_t cell = next < cells - count ? next : cells - count; // the last reaches back
        if (count == LANES) survey(job, scratch, above + cell, LANES);
        else survey(job, scratch, above, count);
        patches(job, scratch, &patch, job->cells[cell], job->cells[cell + count], cell);
    }
}

// Do the strips that are left, beside other threads that have the same job and other memory,
// for a line and a candidate of each class.
KERNEL(upsample)(Job *job, Line *memory) {
    Scratch scratch = {memory, (Candidate *)(memory + job->classes), 0};
    int64_t first;
    while ((first = __atomic_fetch_add(&job->next, STRIPS, __ATOMIC_RELAXED)) < job->num_strips)
        for (int64_t strip = first; strip < first + STRIPS && strip < job->num_strips; strip++)
            do_strip(job, &scratch, strip);
}
