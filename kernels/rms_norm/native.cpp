// y = w x / sqrt(mean(x^2) + eps), row by row; see naive.py.
#include "../native/vectors.h"

constexpr int64_t ALONE = 1 << 16;  // numbers below which threads cost more than they give
constexpr int CHAINS = 4;           // sums in flight: one alone waits for each addition

struct Call {
    const float *x, *weight;  // [rows, d], [d]
    float* y;                 // [rows, d]
    float eps;
    int32_t rows, d, threads;
};

static inline vf some(const float* p, int n) {  // n < W; absent lanes are 0
    vf v = {};
    std::memcpy(&v, p, 4 * n);
    return v;
}

static float mean_square(const float* x, int d) {
    vf acc[CHAINS] = {};
    int i = 0;
    for (; i + CHAINS * W <= d; i += CHAINS * W)
        for (int c = 0; c < CHAINS; c++) {
            const vf v = load(x + i + c * W);
            acc[c] += v * v;
        }
    for (; i + W <= d; i += W) {
        const vf v = load(x + i);
        acc[0] += v * v;
    }
    const vf rest = some(x + i, d - i);
    acc[1] += rest * rest;
    return sum((acc[0] + acc[1]) + (acc[2] + acc[3])) / d;
}

static void row(const float* x, const float* weight, float* y, int d, float eps) {
    const float scale = 1.0f / std::sqrt(mean_square(x, d) + eps);
    int i = 0;
    for (; i + W <= d; i += W) save(y + i, load(weight + i) * (load(x + i) * scale));
    for (; i < d; i++) y[i] = weight[i] * (x[i] * scale);
}

extern "C" void rms_norm(const Call* call) {
    const Call& c = *call;
    const bool together = int64_t(c.rows) * c.d >= ALONE;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int n = 0; n < c.rows; n++) {
        const int64_t at = int64_t(n) * c.d;
        row(c.x + at, c.weight, c.y + at, c.d, c.eps);
    }
}
