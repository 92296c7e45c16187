// y = x W^T for few rows x over packed weights; see skinny_linear/README.md.
//
// Weights are packed in blocks of 16 outputs, [N / 16, INPUTS, 16], so that one load serves 16
// outputs of every row. Each output adds its products in order, one fused multiply-add each,
// whatever the number of rows, threads or blocks in flight: a row's bits depend on that row alone.
#pragma once
#include <algorithm>

#include "small.h"

constexpr int MOST = 8;   // rows one tile can hold
constexpr int TALL = 6;   // rows of a tile among several: by 3 blocks, 18 of 32 registers add up
constexpr int SHORT = 3;  // blocks whose weights stay in cache while all rows pass
constexpr int MANY = 64;  // rows that a gated pair takes at most
constexpr int LONG = 24;  // blocks read in one stream where one tile holds every row
constexpr int ROOM = W * (MANY * SHORT > MOST * LONG ? MANY * SHORT : MOST * LONG);

struct In {
    const float* x;  // [M, INPUTS]
    int M;
};

// Where outputs go: y itself, or a buffer that holds the unit alone.
struct Out {
    float* y;
    const float *bias, *add;  // [N] and as y, or null
    int stride, first, N;     // floats from row to row, first output held, outputs in all
};

// ``next`` is asked for meanwhile, a cache line per step of the sum: so the weights of the next
// blocks come from memory while these are multiplied.
template <int INPUTS, int ROWS, int WIDE>
static void tile(const In& in, const float* weights, const Out& out, int row, int block,
                 const float* next) {
    const float *x = in.x + int64_t(row) * INPUTS, *w = weights + int64_t(block) * INPUTS * W;
    vf acc[WIDE][ROWS];
    for (int b = 0; b < WIDE; b++)
        for (int m = 0; m < ROWS; m++) acc[b][m] = vf{};
    for (int k = 0; k < INPUTS; k++) {
        if (next) __builtin_prefetch(next + k * W, 0, 2);
        for (int b = 0; b < WIDE; b++) {
            const vf v = load(w + (b * INPUTS + k) * W);
            for (int m = 0; m < ROWS; m++) acc[b][m] += v * x[m * INPUTS + k];
        }
    }
    for (int b = 0; b < WIDE; b++) {
        const int first = (block + b) * W, width = std::min(W, out.N - first);
        vf offset = {};
        if (out.bias) std::memcpy(&offset, out.bias + first, 4 * width);
        for (int m = 0; m < ROWS; m++) {
            const int64_t at = int64_t(row + m) * out.stride + first - out.first;
            vf sum = acc[b][m] + offset;
            if (out.add) {
                vf before = {};
                std::memcpy(&before, out.add + at, 4 * width);
                sum = before + sum;
            }
            std::memcpy(out.y + at, &sum, 4 * width);
        }
    }
}

// Few rows leave registers free: take more blocks at once, or additions wait for each other.
template <int INPUTS, int ROWS>
static void band(const In& in, const float* w, const Out& out, int row, int low, int high,
                 const float* next) {
    constexpr int WIDE = ROWS <= 2 ? 8 : ROWS == 3 ? 6 : ROWS <= 4 ? 4 : 3;
    int block = low;
    for (; block + WIDE <= high; block += WIDE)
        tile<INPUTS, ROWS, WIDE>(in, w, out, row, block, next);
    for (; block < high; block++) tile<INPUTS, ROWS, 1>(in, w, out, row, block, nullptr);
}

template <int INPUTS, int ROWS = MOST>
static void some(const In& in, const float* w, const Out& out, int row, int rows, int low, int high,
                 const float* next) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) return band<INPUTS, ROWS>(in, w, out, row, low, high, next);
        some<INPUTS, ROWS - 1>(in, w, out, row, rows, low, high, next);
    }
}

// Blocks low..high of every row, in tiles as equal as can be. Weights from ``after`` on, up to
// ``end``, are what the thread reads next: one block of them is asked for under each tile.
template <int INPUTS>
static void unit(const In& in, const float* w, const Out& out, int low, int high,
                 const float* after, const float* end) {
    const int tiles = in.M <= MOST ? 1 : (in.M + TALL - 1) / TALL;
    for (int t = 0, row = 0; t < tiles; t++) {
        const int rows = in.M / tiles + (t < in.M % tiles);
        const float* next = after + int64_t(t) * INPUTS * W;
        const bool asks = tiles > 1 && t < SHORT && next < end;
        some<INPUTS>(in, w, out, row, rows, low, high, asks ? next : nullptr);
        row += rows;
    }
}

// silu(x G^T) * (x U^T) of blocks low..high, all of them whole; rows at most MANY. Weights from
// ``after`` on, up to ``end``, are read next.
template <int INPUTS>
static void gated_unit(const In& in, const float* w, const float* up, int blocks, float* y, int low,
                       int high, const float* after, const float* end) {
    const int room = (high - low) * W, N = blocks * W;
    const int64_t block = int64_t(INPUTS) * W;
    float g[ROOM], u[ROOM];  // M rows of what the unit computes
    const Out own = {g, nullptr, nullptr, room, low * W, N};
    const Out other = {u, nullptr, nullptr, room, low * W, N};
    unit<INPUTS>(in, w, own, low, high, up + low * block, up + high * block);
    unit<INPUTS>(in, up, other, low, high, after, end);
    for (int m = 0; m < in.M; m++)
        for (int i = 0; i < room; i += W)
            save(y + int64_t(m) * N + low * W + i,
                 gated(load(g + m * room + i), load(u + m * room + i)));
}

// How many blocks a unit has, for M rows.
static inline int unit_blocks(int M, int blocks) {
    const int parts = 2 * ((blocks + 2 * LONG - 1) / (2 * LONG));  // even, for two threads
    return M <= MOST ? (blocks + parts - 1) / parts : SHORT;
}
