// Sixteen floats at a time, in the vector dialect that GCC and Clang share.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

constexpr int W = 16;
typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));

static inline vf load(const float* p) {
    vf v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline void save(float* p, vf v) { std::memcpy(p, &v, sizeof v); }

// The last vector of a row of N floats may be cut short; absent lanes read as 0.
template <int N>
static inline vf load_part(const float* p) {
    if constexpr (N >= W) return load(p);
    vf v = {};
    std::memcpy(&v, p, 4 * N);
    return v;
}

// A fixed tree, so that the sum does not depend on the compiler's mood.
static inline float sum(vf a) {
    v8 lo, hi;
    std::memcpy(&lo, &a, 32);
    std::memcpy(&hi, reinterpret_cast<const char*>(&a) + 32, 32);
    v8 b = lo + hi;
    v4 x, y;
    std::memcpy(&x, &b, 16);
    std::memcpy(&y, reinterpret_cast<const char*>(&b) + 16, 16);
    v4 c = x + y;
    return (c[0] + c[2]) + (c[1] + c[3]);
}

// exp by Cody-Waite reduction and the degree-5 polynomial of Cephes; 2 ulp below 88. NaN stays NaN.
static inline vf vexp(vf x) {
    vf y0 = x;
    x = x < -87.0f ? (vf{} - 87.0f) : x;
    vf t = x * 1.44269504f;
    vi n = __builtin_convertvector(t + (t < 0.0f ? (vf{} - 0.5f) : (vf{} + 0.5f)), vi);
    vf f = __builtin_convertvector(n, vf);
    vf r = x - f * 0.693359375f + f * 2.12194440e-4f;
    vf y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    vi bits = (n + 127) << 23;
    vf scale;
    std::memcpy(&scale, &bits, sizeof scale);
    y = y * scale;
    y = y0 < -87.0f ? vf{} : y;
    return y0 == y0 ? y : y0;
}

// Sums of sixteen vectors at once, lane t holding that of a[t]: 45 operations, not sixteen trees.
// Halves of two vectors are added side by side, then quarters, eighths and lanes.
#define ENTROPIC_FOLD(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
static inline vf sums(vf (&a)[W]) {
    for (int t = 0; t < 8; t++)
        a[t] = ENTROPIC_FOLD(a[t], a[t + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               ENTROPIC_FOLD(a[t], a[t + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int t = 0; t < 4; t++)
        a[t] = ENTROPIC_FOLD(a[t], a[t + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               ENTROPIC_FOLD(a[t], a[t + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int t = 0; t < 2; t++)
        a[t] = ENTROPIC_FOLD(a[t], a[t + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               ENTROPIC_FOLD(a[t], a[t + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return ENTROPIC_FOLD(a[0], a[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           ENTROPIC_FOLD(a[0], a[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
#undef ENTROPIC_FOLD

// The greatest lane; where one is NaN the result is NaN or another lane.
static inline float greatest(vf a) {
    v8 lo, hi;
    std::memcpy(&lo, &a, 32);
    std::memcpy(&hi, reinterpret_cast<const char*>(&a) + 32, 32);
    v8 b = lo > hi ? lo : hi;
    v4 x, y;
    std::memcpy(&x, &b, 16);
    std::memcpy(&y, reinterpret_cast<const char*>(&b) + 16, 16);
    v4 c = x > y ? x : y;
    const float m = c[0] > c[1] ? c[0] : c[1], n = c[2] > c[3] ? c[2] : c[3];
    return m > n ? m : n;
}

static inline vi lanes() { return vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
