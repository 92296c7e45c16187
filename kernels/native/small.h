// What a decoder does to a row between its products: norms, rotations, gates.
#pragma once
#include "vectors.h"

constexpr int CHAINS = 4;  // sums in flight: one alone waits for each addition

static inline vf some_floats(const float* p, int n) {  // n < W; absent lanes are 0
    vf v = {};
    std::memcpy(&v, p, 4 * n);
    return v;
}

static inline float mean_square(const float* x, int d) {
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
    const vf rest = some_floats(x + i, d - i);
    acc[1] += rest * rest;
    return sum((acc[0] + acc[1]) + (acc[2] + acc[3])) / d;
}

// y = weight x / sqrt(mean(x^2) + eps)
static inline void normalise(const float* x, const float* weight, float* y, int d, float eps) {
    const float scale = 1.0f / std::sqrt(mean_square(x, d) + eps);
    int i = 0;
    for (; i + W <= d; i += W) save(y + i, load(weight + i) * (load(x + i) * scale));
    for (; i < d; i++) y[i] = weight[i] * (x[i] * scale);
}

// A head of DIM numbers turned in place by the angles of its position.
template <int DIM>
static inline void turn(float* x, const float* cos, const float* sin) {
    constexpr int H = DIM / 2;
    float low[H];
    for (int i = 0; i < H; i++) {
        low[i] = x[i] * cos[i] - x[i + H] * sin[i];
        x[i + H] = x[i + H] * cos[i + H] + x[i] * sin[i + H];
    }
    std::memcpy(x, low, sizeof low);
}

// u g / (1 + exp(-g)); exp is capped where it would overflow: there it is about 1e-36 u.
static inline vf gated(vf g, vf u) {
    const vf e = vexp(g < -87.0f ? (vf{} + 87.0f) : -g);
    return g * u / (e + 1.0f);
}
