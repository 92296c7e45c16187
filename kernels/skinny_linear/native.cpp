// y = x W^T + b for few rows x; see naive.py for what it computes.
//
// Weights are packed in blocks of 16 outputs, [N / 16, K, 16], so that one load serves 16 outputs
// of every row. Each output adds its K products in order, one fused multiply-add each, whatever the
// number of rows, threads or blocks in flight: a row's bits depend on that row alone.
// K (inputs) is a macro.
#include <algorithm>

#include "../native/vectors.h"

constexpr int MOST = 8;   // rows one tile can hold
constexpr int TALL = 6;   // rows of a tile among several: by 4 blocks, 24 of 32 registers add up
constexpr int SHORT = 4;  // blocks whose weights stay in cache while all rows pass
constexpr int LONG = 24;  // blocks read in one stream where one tile holds every row
constexpr int64_t ALONE = 1 << 16;  // products below which threads cost more than they give

struct Call {
    const float *x, *w, *bias;  // [M, K], [blocks, K, 16], [N] or null
    float* y;                   // [M, N]
    int32_t M, N, blocks, threads;
};

template <int ROWS, int WIDE>
static void tile(const Call& c, int row, int block) {
    const float *x = c.x + int64_t(row) * K, *w = c.w + int64_t(block) * K * W;
    vf acc[WIDE][ROWS];
    for (int b = 0; b < WIDE; b++)
        for (int m = 0; m < ROWS; m++) acc[b][m] = vf{};
    for (int k = 0; k < K; k++)
        for (int b = 0; b < WIDE; b++) {
            const vf v = load(w + (b * K + k) * W);
            for (int m = 0; m < ROWS; m++) acc[b][m] += v * x[m * K + k];
        }
    for (int b = 0; b < WIDE; b++) {
        const int first = (block + b) * W, width = std::min(W, c.N - first);
        vf offset = {};
        if (c.bias) std::memcpy(&offset, c.bias + first, 4 * width);
        for (int m = 0; m < ROWS; m++) {
            const vf out = acc[b][m] + offset;
            std::memcpy(c.y + int64_t(row + m) * c.N + first, &out, 4 * width);
        }
    }
}

// Few rows leave registers free: take more blocks at once, or additions wait for each other.
template <int ROWS>
static void band(const Call& c, int row, int low, int high) {
    constexpr int WIDE = ROWS <= 2 ? 8 : ROWS == 3 ? 6 : ROWS <= 6 ? 4 : 3;
    int block = low;
    for (; block + WIDE <= high; block += WIDE) tile<ROWS, WIDE>(c, row, block);
    for (; block < high; block++) tile<ROWS, 1>(c, row, block);
}

template <int ROWS = MOST>
static void some(const Call& c, int row, int rows, int low, int high) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) return band<ROWS>(c, row, low, high);
        some<ROWS - 1>(c, row, rows, low, high);
    }
}

extern "C" void linear(const Call* call) {
    const Call& c = *call;
    const int stride = c.M <= MOST ? LONG : SHORT;
    const int tiles = c.M <= MOST ? 1 : (c.M + TALL - 1) / TALL;
    const int units = (c.blocks + stride - 1) / stride;
    const bool together = int64_t(c.M) * c.N * K >= ALONE;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int u = 0; u < units; u++) {
        const int low = u * stride, high = std::min(low + stride, c.blocks);
        for (int t = 0, row = 0; t < tiles; t++) {  // tiles as equal as can be
            const int rows = c.M / tiles + (t < c.M % tiles);
            some(c, row, rows, low, high);
            row += rows;
        }
    }
}
