// Queries and keys turned by the angle of their position, in place; see naive.py.
// D (head size) is a macro.
#include "../native/small.h"

constexpr int64_t ALONE = 1 << 16;  // numbers below which threads cost more than they give

struct Call {
    float* x;               // [N, *, D], rows ``stride`` apart
    const float *cos, *sin;  // [N, D]
    int64_t stride;
    int32_t N, heads, threads;
};

extern "C" void rotate(const Call* call) {
    const Call& c = *call;
    const bool together = int64_t(c.N) * c.heads * D >= ALONE;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int n = 0; n < c.N; n++)
        for (int h = 0; h < c.heads; h++)
            turn<D>(c.x + n * c.stride + h * D, c.cos + int64_t(n) * D, c.sin + int64_t(n) * D);
}
