// Keys and values into their pages, and the statistics of each page touched.
// D (head size) and P (tokens per page) are macros.
#pragma once
#include <algorithm>

#include "vectors.h"

struct Store {
    const float *k, *v;
    int64_t k_head, k_token, v_head, v_token;  // strides; the last axis is dense
    const int64_t* slots;
    float *k_pages, *v_pages;
    int64_t head_stride, stats_stride;  // floats between heads of the pages and the statistics
    float *first, *second;              // mean and variance, or low and high, or null
    int32_t bounds, H, N, threads;
};

static void page_moments(const float* keys, int count, float* mean, float* var) {
    float m[D] = {}, s[D] = {};
    const float weight = 1.0f / count;
    for (int t = 0; t < count; t++)
        for (int d = 0; d < D; d++) m[d] += keys[t * D + d];
    for (int d = 0; d < D; d++) m[d] *= weight;
    for (int t = 0; t < count; t++)
        for (int d = 0; d < D; d++) {
            const float x = keys[t * D + d] - m[d];
            s[d] += x * x;
        }
    for (int d = 0; d < D; d++) {
        mean[d] = m[d];
        var[d] = s[d] * weight;
    }
}

static void page_bounds(const float* keys, int count, float* low, float* high) {
    std::copy_n(keys, D, low);
    std::copy_n(keys, D, high);
    for (int t = 1; t < count; t++)
        for (int d = 0; d < D; d++) {
            const float x = keys[t * D + d];
            low[d] = x < low[d] || x != x ? x : low[d];
            high[d] = x > high[d] || x != x ? x : high[d];
        }
}

// Tokens i..j of one head, all of one page.
static void store_run(const Store& c, int h, int i, int j) {
    const int64_t page = c.slots[i] / P;
    for (int t = i; t < j; t++) {
        const int64_t at = h * c.head_stride + c.slots[t] * D;
        std::copy_n(c.k + h * c.k_head + t * c.k_token, D, c.k_pages + at);
        std::copy_n(c.v + h * c.v_head + t * c.v_token, D, c.v_pages + at);
    }
    if (!c.first) return;
    const float* keys = c.k_pages + h * c.head_stride + page * P * D;
    const int count = int(c.slots[j - 1] % P) + 1;
    const int64_t at = h * c.stats_stride + page * D;
    (c.bounds ? page_bounds : page_moments)(keys, count, c.first + at, c.second + at);
}
