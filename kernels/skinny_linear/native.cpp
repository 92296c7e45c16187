// y = x W^T + b for few rows x; see naive.py for what it computes.
//
// Weights are packed in blocks of 16 outputs, [N / 16, K, 16], so that one load serves 16 outputs
// of every row. Each output adds its K products in order, one fused multiply-add each, whatever the
// number of rows, threads or blocks in flight: a row's bits depend on that row alone.
// K (inputs) is a macro.
#include <algorithm>

#include "../native/vectors.h"

constexpr int MOST = 8;   // rows one tile can hold
constexpr int TALL = 6;   // rows of a tile among several: by 3 blocks, 18 of 32 registers add up
constexpr int SHORT = 3;  // blocks whose weights stay in cache while all rows pass
constexpr int MANY = 64;  // rows that a gated pair takes at most
constexpr int LONG = 24;  // blocks read in one stream where one tile holds every row
constexpr int ROOM = W * (MANY * SHORT > MOST * LONG ? MANY * SHORT : MOST * LONG);
constexpr int64_t ALONE = 1 << 16;  // products below which threads cost more than they give

struct Call {
    const float *x, *w, *bias;  // [M, K], [blocks, K, 16], [N] or null
    const float* up;            // [blocks, K, 16] of a second layer, or null; then N = 16 blocks
    float* y;                   // [M, N]; with ``up``, silu(x W^T) * (x Up^T)
    int32_t M, N, blocks, threads;
};

// Where a tile goes: y itself, or a buffer that holds the unit alone.
struct Out {
    float* y;
    int stride, first, N;  // floats from row to row, first output held, outputs in all
};

// ``next`` is asked for meanwhile, a cache line per step of the sum: so the weights of the next
// blocks come from memory while these are multiplied.
template <int ROWS, int WIDE>
static void tile(const Call& c, const float* weights, Out out, int row, int block,
                 const float* next) {
    const float *x = c.x + int64_t(row) * K, *w = weights + int64_t(block) * K * W;
    vf acc[WIDE][ROWS];
    for (int b = 0; b < WIDE; b++)
        for (int m = 0; m < ROWS; m++) acc[b][m] = vf{};
    for (int k = 0; k < K; k++) {
        if (next) __builtin_prefetch(next + k * W, 0, 2);
        for (int b = 0; b < WIDE; b++) {
            const vf v = load(w + (b * K + k) * W);
            for (int m = 0; m < ROWS; m++) acc[b][m] += v * x[m * K + k];
        }
    }
    for (int b = 0; b < WIDE; b++) {
        const int first = (block + b) * W, width = std::min(W, out.N - first);
        vf offset = {};
        if (c.bias) std::memcpy(&offset, c.bias + first, 4 * width);
        for (int m = 0; m < ROWS; m++) {
            const vf sum = acc[b][m] + offset;
            std::memcpy(out.y + int64_t(row + m) * out.stride + first - out.first, &sum, 4 * width);
        }
    }
}

// Few rows leave registers free: take more blocks at once, or additions wait for each other.
template <int ROWS>
static void band(const Call& c, const float* w, Out out, int row, int low, int high,
                 const float* next) {
    constexpr int WIDE = ROWS <= 2 ? 8 : ROWS == 3 ? 6 : ROWS <= 4 ? 4 : 3;
    int block = low;
    for (; block + WIDE <= high; block += WIDE) tile<ROWS, WIDE>(c, w, out, row, block, next);
    for (; block < high; block++) tile<ROWS, 1>(c, w, out, row, block, nullptr);
}

template <int ROWS = MOST>
static void some(const Call& c, const float* w, Out out, int row, int rows, int low, int high,
                 const float* next) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) return band<ROWS>(c, w, out, row, low, high, next);
        some<ROWS - 1>(c, w, out, row, rows, low, high, next);
    }
}

// Blocks low..high of every row, in tiles as equal as can be. Weights from ``after`` on, up to
// ``end``, are what the thread reads next: one block of them is asked for under each tile.
static void unit(const Call& c, const float* w, Out out, int low, int high, const float* after,
                 const float* end) {
    const int tiles = c.M <= MOST ? 1 : (c.M + TALL - 1) / TALL;
    for (int t = 0, row = 0; t < tiles; t++) {
        const int rows = c.M / tiles + (t < c.M % tiles);
        const float* next = after + int64_t(t) * K * W;
        const bool asks = tiles > 1 && t < SHORT && next < end;
        some(c, w, out, row, rows, low, high, asks ? next : nullptr);
        row += rows;
    }
}

// silu as in gated_silu/native.cpp: exp is capped where it would overflow.
static inline vf gated(vf g, vf u) {
    const vf e = vexp(g < -87.0f ? (vf{} + 87.0f) : -g);
    return g * u / (e + 1.0f);
}

static void gate(const Call& c, int low, int high) {
    const int room = (high - low) * W;
    const int64_t block = int64_t(K) * W;
    float g[ROOM], u[ROOM];  // M rows of what the unit computes
    const Out own = {g, room, low * W, c.N}, other = {u, room, low * W, c.N};
    unit(c, c.w, own, low, high, c.up + low * block, c.up + high * block);
    unit(c, c.up, other, low, high, c.w + high * block, c.w + c.blocks * block);
    for (int m = 0; m < c.M; m++)
        for (int i = 0; i < room; i += W)
            save(c.y + int64_t(m) * c.N + low * W + i,
                 gated(load(g + m * room + i), load(u + m * room + i)));
}

extern "C" void linear(const Call* call) {
    const Call& c = *call;
    const int parts = 2 * ((c.blocks + 2 * LONG - 1) / (2 * LONG));  // even, for two threads
    const int stride = c.M <= MOST ? (c.blocks + parts - 1) / parts : SHORT;
    const int units = (c.blocks + stride - 1) / stride;
    const bool together = int64_t(c.M) * c.N * K >= ALONE;
    const Out out = {c.y, c.N, 0, c.N};
    const float* end = c.w + int64_t(c.blocks) * K * W;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int u = 0; u < units; u++) {
        const int low = u * stride, high = std::min(low + stride, c.blocks);
        if (c.up)
            gate(c, low, high);
        else
            unit(c, c.w, out, low, high, c.w + int64_t(high) * K * W, end);
    }
}
