// The numbers of one head, or of one key, as vectors. D (head size) is a macro.
#pragma once
#include "vectors.h"

constexpr int NV = (D + W - 1) / W;
constexpr int LAST = D - (NV - 1) * W;  // floats in the last vector

static inline void row(const float* p, vf (&v)[NV]) {
    for (int i = 0; i < NV - 1; i++) v[i] = load(p + i * W);
    v[NV - 1] = load_part<LAST>(p + (NV - 1) * W);
}

// Ask for a row that is read soon, as far as the second cache: into the first it was slower.
static inline void fetch(const float* p) {
    for (int i = 0; i < D * 4; i += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(p) + i, 0, 2);
}

// Whether so many pages do not follow each other that the hardware's own reading ahead fails.
static bool scattered(const int32_t* list, int n) {
    int jumps = 0;
    for (int j = 1; j < n; j++) jumps += list[j] != list[j - 1] + 1;
    return jumps * 8 > n;
}
