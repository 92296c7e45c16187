// y = u g / (1 + exp(-g)), number by number; see naive.py.
#include <algorithm>

#include "../native/vectors.h"

constexpr int64_t CHUNK = 1 << 12;  // numbers one thread takes at a time
constexpr int64_t ALONE = 1 << 15;  // numbers below which threads cost more than they give

struct Call {
    const float *gate, *up;
    float* y;
    int64_t n;
    int32_t threads;
};

// exp is capped where it would overflow: there y is about 1e-36 u instead of even less.
static inline vf gated(vf g, vf u) {
    const vf e = vexp(g < -87.0f ? (vf{} + 87.0f) : -g);
    return g * u / (e + 1.0f);
}

static void chunk(const Call& c, int64_t low, int64_t high) {
    int64_t i = low;
    for (; i + W <= high; i += W) save(c.y + i, gated(load(c.gate + i), load(c.up + i)));
    if (i < high) {
        const size_t bytes = 4 * (high - i);
        vf g = {}, u = {};
        std::memcpy(&g, c.gate + i, bytes);
        std::memcpy(&u, c.up + i, bytes);
        const vf y = gated(g, u);
        std::memcpy(c.y + i, &y, bytes);
    }
}

extern "C" void gated_silu(const Call* call) {
    const Call& c = *call;
    const int64_t chunks = (c.n + CHUNK - 1) / CHUNK;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (c.n >= ALONE)
    for (int64_t j = 0; j < chunks; j++) chunk(c, j * CHUNK, std::min((j + 1) * CHUNK, c.n));
}
