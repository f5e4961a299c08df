// Dense CRF: permutohedral lattices and mean field; crf.py has the same in NumPy, and calls
// it from several threads.
//
// Values are rows of eight classes, and these lie in chunks: (chunks, rows, WIDE).
#include "vector.h"

#define WIDE 8    // classes in a row
#define CORNERS 6 // of a simplex of the appearance kernel
#define FEWER 3   // of one of the smoothness kernel

typedef float Row __attribute__((ext_vector_type(WIDE), aligned(4)));

typedef struct { // _Lattice in crf.py
    const float *features; // (dimensions, columns): the pixels', scaled, and zeros up to LANES
    uint64_t *keys;        // (points + 1): of each point; the first is none
    int32_t *table;        // points by the hash of their key, 0 where there is none
    int32_t *corners;      // (pixels, dimensions + 1): the points around each pixel
    float *weights;        // (pixels, dimensions + 1): its shares in them
    int32_t *neighbors;    // (dimensions + 1, points + 1, 2): along each axis, after and before
    int64_t dimensions, pixels, columns, points;
    int64_t table_shift;   // of a hash of 64 bits
    float strength;        // of the kernel, with what makes up for the blur
} Lattice;

typedef struct { // _Job
    const Lattice *appearance, *smoothness;
    const float *coarse, *fine; // (chunks, points + 1, WIDE): blurred; or NULL at the start
    const float *logits;        // (chunks, rows, WIDE)
    float *beliefs;             // the same: probabilities
    int64_t chunks, rows;       // rows: pixels, and one more where they are odd
} Job;

typedef struct {
    uint64_t one, axis[CORNERS]; // what 1 in all coordinates, d + 1 in one of them adds to a key
    uint64_t zero;               // the key of the origin
} Packing;

static inline Row row(const float *from) { return *(const Row *)from; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A key holds all coordinates but the last, which is minus their sum; Python knows that they fit.
static Packing packing(int64_t dimensions) {
    const int64_t bits = 60 / dimensions;
    Packing packing = {0};
    for (int64_t i = 0; i < dimensions; i++) {
        packing.one += (uint64_t)1 << bits * i;
        packing.zero += (uint64_t)1 << (bits * i + bits - 1);
        packing.axis[i] = (uint64_t)(dimensions + 1) << bits * i;
    }
    return packing;
}

// The place in the table of a point with this key, or the free one where it belongs.
static inline int32_t *place(const Lattice *lattice, uint64_t key) {
    const uint64_t last = ~(uint64_t)0 >> lattice->table_shift;
    uint64_t slot = key * 0x9E3779B97F4A7C15 >> lattice->table_shift;
    while (lattice->table[slot] && lattice->keys[lattice->table[slot]] != key)
        slot = (slot + 1) & last;
    return lattice->table + slot;
}

static inline Floats nearest(Floats x) {
    const Floats round = 12582912.0f; // 1.5 * 2^23: what is added to it loses its fraction
    return (x + round) - round;
}

// The simplex around each of LANES pixels: its corner of remainder 0, each coordinate's rank by the
// distance from that, and the corners' shares. (Adams et al. 2010, section 3.)
static inline void enclose(const Lattice *lattice, int64_t first, Ints *origin, Ints *rank,
                           Floats *share) {
    const int64_t d = lattice->dimensions;
    Floats at[CORNERS], away[CORNERS], sum = 0;
    Ints excess = 0;
    for (int64_t j = d; j > 0; j--) { // onto the plane where the coordinates' sum is 0
        const float *features = lattice->features + (j - 1) * lattice->columns + first;
        const Floats feature = *(const Floats *)features;
        at[j] = sum - (float)j * feature;
        sum += feature;
    }
    at[0] = sum;
    for (int64_t i = 0; i <= d; i++) {
        const Floats multiple = nearest(at[i] * (1.0f / (float)(d + 1)));
        origin[i] = __builtin_convertvector(multiple, Ints) * (int32_t)(d + 1);
        away[i] = at[i] - multiple * (float)(d + 1);
        excess += __builtin_convertvector(multiple, Ints);
        rank[i] = 0, share[i] = 0;
    }
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = i + 1; j <= d; j++) {
            const Ints nearer = away[i] < away[j]; // -1 if so
            rank[i] -= nearer, rank[j] += 1 + nearer;
        }
    share[d + 1] = 0;
    for (int64_t i = 0; i <= d; i++) { // back onto the plane
        rank[i] += excess;
        const Ints wrap = ((rank[i] < 0) - (rank[i] > (int32_t)d)) * -(int32_t)(d + 1);
        rank[i] += wrap, origin[i] += wrap;
        away[i] = (at[i] - __builtin_convertvector(origin[i], Floats)) * (1.0f / (float)(d + 1));
        for (int64_t k = 0; k <= d; k++) {
            const Floats part = rank[i] == (int32_t)(d - k) ? away[i] : 0;
            share[k] += part, share[k + 1] -= part;
        }
    }
    share[0] += 1 + share[d + 1];
}

// Find the points around every pixel, and number them from 1 as they come.
KERNEL(crf_points)(Lattice *lattice) {
    const int64_t d = lattice->dimensions;
    const Packing step = packing(d);
    Ints origin[CORNERS], rank[CORNERS];
    Floats share[CORNERS + 1];
    uint64_t last[CORNERS] = {0};
    int32_t points[CORNERS] = {0};
    for (int64_t first = 0; first < lattice->pixels; first += LANES) {
        enclose(lattice, first, origin, rank, share);
        for (int64_t lane = 0; lane < least(LANES, lattice->pixels - first); lane++) {
            uint64_t key = step.zero, order[CORNERS];
            for (int64_t i = 0; i <= d; i++) {
                key += step.axis[i] / (uint64_t)(d + 1) * (uint64_t)(int64_t)origin[i][lane];
                order[rank[i][lane]] = step.axis[i];
            }
            for (int64_t k = 0; k <= d; k++) {
                const int64_t entry = (first + lane) * (d + 1) + k;
                if (key != last[k]) { // mostly the neighbour's
                    int32_t *found = place(lattice, key);
                    if (!*found) lattice->keys[*found = (int32_t)++lattice->points] = key;
                    last[k] = key, points[k] = *found;
                }
                lattice->corners[entry] = points[k];
                lattice->weights[entry] = share[k][lane];
                key += step.one - order[d - k]; // to the corner of the next remainder
            }
        }
    }
}

// Find the neighbours of each point along an axis: -1 in all coordinates but one, which gets d.
KERNEL(crf_neighbors)(const Lattice *lattice, int64_t axis) {
    const Packing step = packing(lattice->dimensions);
    int32_t *neighbors = lattice->neighbors + 2 * axis * (lattice->points + 1);
    for (int64_t i = 1; i <= lattice->points; i++) {
        const int32_t after = *place(lattice, lattice->keys[i] + step.axis[axis] - step.one);
        neighbors[2 * i] = after;
        if (after) neighbors[2 * after + 1] = (int32_t)i;
    }
}

static inline void share_out(const Lattice *lattice, const float *values, float *to,
                             int64_t corners) {
    for (int64_t i = 0; i <= lattice->points; i++) *(Row *)(to + WIDE * i) = 0;
    for (int64_t i = 0; i < lattice->pixels; i++)
        for (int64_t k = i * corners; k < (i + 1) * corners; k++)
            *(Row *)(to + WIDE * (int64_t)lattice->corners[k]) +=
                lattice->weights[k] * row(values + WIDE * i);
}

// Share out a chunk of values (rows, WIDE) among the points, and blur them along each axis: into
// `to` (points + 1, WIDE), with a second such buffer. The first row of both becomes zeros.
KERNEL(crf_blur)(const Lattice *lattice, const float *values, float *to, float *other) {
    const int64_t rows = lattice->points + 1, corners = lattice->dimensions + 1;
    float *from = corners % 2 ? other : to;
    to = corners % 2 ? to : other;
    if (corners == CORNERS) share_out(lattice, values, from, CORNERS);
    else share_out(lattice, values, from, FEWER);
    *(Row *)to = 0;
    for (int64_t axis = 0; axis < corners; axis++) {
        const int32_t *neighbors = lattice->neighbors + 2 * axis * rows;
        for (int64_t i = 1; i < rows; i++) {
            const Row after = row(from + WIDE * (int64_t)neighbors[2 * i]);
            const Row before = row(from + WIDE * (int64_t)neighbors[2 * i + 1]);
            *(Row *)(to + WIDE * i) = row(from + WIDE * i) + 0.5f * (after + before);
        }
        float *swap = from;
        from = to, to = swap;
    }
}

static inline Row collect(const Lattice *lattice, const float *blurred, int64_t pixel,
                          int64_t corners) {
    const int32_t *points = lattice->corners + pixel * corners;
    const float *weights = lattice->weights + pixel * corners;
    Row sum = 0;
    for (int64_t k = 0; k < corners; k++)
        sum += weights[k] * row(blurred + WIDE * (int64_t)points[k]);
    return lattice->strength * sum;
}

// Divide the weights of each pixel by the root of what the filter has made of ones.
KERNEL(crf_normalize)(const Lattice *lattice, const float *blurred) {
    const int64_t corners = lattice->dimensions + 1;
    for (int64_t i = 0; i < lattice->pixels; i++) {
        const float total = collect(lattice, blurred, i, corners)[0];
        const float scale = 1 / __builtin_sqrtf(total + 1e-20f);
        for (int64_t k = 0; k < corners; k++) lattice->weights[i * corners + k] *= scale;
    }
}

#define SWAP(v, n) /* each lane for the one n away, of eight */                                  \
    __builtin_shufflevector(v, v, 0 ^ n, 1 ^ n, 2 ^ n, 3 ^ n, 4 ^ n, 5 ^ n, 6 ^ n, 7 ^ n, 8 ^ n, \
                            9 ^ n, 10 ^ n, 11 ^ n, 12 ^ n, 13 ^ n, 14 ^ n, 15 ^ n)

// Turn logits into probabilities, of two pixels at a time, whose classes are `chunk` floats apart.
static inline void softmax(float *pair, int64_t chunks, int64_t chunk) {
    Floats most = *(const Floats *)pair, sum = 0;
    for (int64_t c = 1; c < chunks; c++) most = larger(most, *(Floats *)(pair + c * chunk));
    most = larger(most, SWAP(most, 4));
    most = larger(most, SWAP(most, 2));
    most = larger(most, SWAP(most, 1));
    for (int64_t c = 0; c < chunks; c++) {
        Floats *values = (Floats *)(pair + c * chunk);
        *values = exp_of(*values - most);
        sum += *values;
    }
    sum += SWAP(sum, 4);
    sum += SWAP(sum, 2);
    sum += SWAP(sum, 1);
    for (int64_t c = 0; c < chunks; c++) *(Floats *)(pair + c * chunk) /= sum;
}

// Set the beliefs of the rows from `first` to `end`, two even numbers, to the probabilities after
// the messages of the others, or before there are any.
KERNEL(crf_update)(const Job *job, int64_t first, int64_t end) {
    const Lattice *appearance = job->appearance, *smoothness = job->smoothness;
    const int64_t chunk = WIDE * job->rows;
    for (int64_t c = 0; c < job->chunks; c++) {
        const float *logits = job->logits + c * chunk;
        float *beliefs = job->beliefs + c * chunk;
        for (int64_t i = first; i < end; i++) *(Row *)(beliefs + WIDE * i) = row(logits + WIDE * i);
        if (!job->coarse) continue;
        const float *coarse = job->coarse + c * WIDE * (appearance->points + 1);
        const float *fine = job->fine + c * WIDE * (smoothness->points + 1);
        for (int64_t i = first; i < least(end, appearance->pixels); i++)
            *(Row *)(beliefs + WIDE * i) +=
                collect(appearance, coarse, i, CORNERS) + collect(smoothness, fine, i, FEWER);
    }
    for (int64_t i = first; i < end; i += 2)
        softmax(job->beliefs + WIDE * i, job->chunks, chunk);
}
