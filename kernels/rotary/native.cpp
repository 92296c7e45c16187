// Queries and keys turned by the angle of their position, in place; see naive.py.
// D (head size) is a macro.
#include "../native/vectors.h"

constexpr int64_t ALONE = 1 << 16;  // numbers below which threads cost more than they give

struct Call {
    float* x;               // [N, *, D], rows ``stride`` apart
    const float *cos, *sin;  // [N, D]
    int64_t stride;
    int32_t N, heads, threads;
};

static void head(float* x, const float* cos, const float* sin) {
    constexpr int H = D / 2;
    float low[H];
    for (int i = 0; i < H; i++) {
        low[i] = x[i] * cos[i] - x[i + H] * sin[i];
        x[i + H] = x[i + H] * cos[i + H] + x[i] * sin[i + H];
    }
    std::memcpy(x, low, sizeof low);
}

extern "C" void rotate(const Call* call) {
    const Call& c = *call;
    const bool together = int64_t(c.N) * c.heads * D >= ALONE;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int n = 0; n < c.N; n++)
        for (int h = 0; h < c.heads; h++)
            head(c.x + n * c.stride + h * D, c.cos + int64_t(n) * D, c.sin + int64_t(n) * D);
}
