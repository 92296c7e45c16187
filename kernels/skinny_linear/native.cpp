// y = x W^T + b for few rows x; see naive.py for what it computes.
// K (inputs) is a macro.
#include "../native/products.h"

constexpr int64_t ALONE = 1 << 16;  // products below which threads cost more than they give

struct Call {
    const float *x, *w, *bias;  // [M, K], [blocks, K, 16], [N] or null
    const float* up;            // [blocks, K, 16] of a second layer, or null; then N = 16 blocks
    float* y;                   // [M, N]; with ``up``, silu(x W^T) * (x Up^T)
    int32_t M, N, blocks, threads;
};

extern "C" void linear(const Call* call) {
    const Call& c = *call;
    const int stride = unit_blocks(c.M, c.blocks), units = (c.blocks + stride - 1) / stride;
    const bool together = int64_t(c.M) * c.N * K >= ALONE;
    const In in = {c.x, c.M};
    const Out out = {c.y, c.bias, nullptr, c.N, 0, c.N};
    const float* end = c.w + int64_t(c.blocks) * K * W;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int u = 0; u < units; u++) {
        const int low = u * stride, high = std::min(low + stride, c.blocks);
        const float* after = c.w + int64_t(high) * K * W;
        if (c.up)
            gated_unit<K>(in, c.w, c.up, c.blocks, c.y, low, high, after, end);
        else
            unit<K>(in, c.w, out, low, high, after, end);
    }
}
