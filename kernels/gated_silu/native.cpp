// y = u g / (1 + exp(-g)), number by number; see naive.py.
#include "../native/small.h"

constexpr int64_t ALONE = 1 << 14;  // numbers below which threads cost more than they give

struct Call {
    const float *gate, *up;  // [rows, d], rows ``stride`` apart
    float* y;                // [rows, d]
    int64_t rows, d, stride;
    int32_t threads;
};

static void row(const float* gate, const float* up, float* y, int64_t d) {
    int64_t i = 0;
    for (; i + W <= d; i += W) save(y + i, gated(load(gate + i), load(up + i)));
    if (i < d) {
        const size_t bytes = 4 * (d - i);
        vf g = {}, u = {};
        std::memcpy(&g, gate + i, bytes);
        std::memcpy(&u, up + i, bytes);
        const vf out = gated(g, u);
        std::memcpy(y + i, &out, bytes);
    }
}

extern "C" void gated_silu(const Call* call) {
    const Call& c = *call;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (c.rows * c.d >= ALONE)
    for (int64_t n = 0; n < c.rows; n++)
        row(c.gate + n * c.stride, c.up + n * c.stride, c.y + n * c.d, c.d);
}
