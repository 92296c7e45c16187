// Page mass from key statistics, and the pages that reach a coverage; see page_select/naive.py.
// D (head size) and G (queries per KV head) are macros.
#pragma once
#include <algorithm>
#include <limits>
#include <vector>

#include "head.h"

struct Estimate {
    const float* q;
    int64_t q_row;  // floats between rows of q; a row is dense
    const float *first, *second;
    int64_t head_stride;  // floats between heads of the statistics
    const int32_t *table, *n_pages, *tails;
    float scale;
    float* mass;  // [B, H, n]
    int32_t bounds, page_tokens, B, H, n, threads;
};

struct Select {
    const float* mass;
    const int32_t *table, *n_pages;
    const float* coverage;
    int32_t *pages, *kept;
    int32_t first, recent, least, B, H, n, threads;
};

// Dot products of each query with the statistics of up to sixteen of ``left`` listed pages; where
// fewer are left the last is repeated. A row is read once for all queries.
static inline void dots(const vf (&q)[G][NV], const float* stats, const int32_t* list, int left,
                        vf (&out)[G]) {
    vf a[G][W];
#pragma GCC unroll 16
    for (int t = 0; t < W; t++) {
        vf x[NV];
        row(stats + int64_t(list[std::min(t, left - 1)]) * D, x);
        for (int g = 0; g < G; g++) {
            a[g][t] = q[g][0] * x[0];
            for (int i = 1; i < NV; i++) a[g][t] += q[g][i] * x[i];
        }
    }
    for (int g = 0; g < G; g++) out[g] = sums(a[g]);
}

// Square roots; rounding may leave a variance a little below 0.
static inline vf root(vf a) {
    float x[W];
    save(x, a);
    for (int t = 0; t < W; t++) x[t] = std::sqrt(x[t] < 0.0f ? 0.0f : x[t]);
    return load(x);
}

// Softmax in place over n scores padded to whole vectors with -inf.
static void softmax(float* s, int n) {
    vf most = load(s);
    for (int j = W; j < n; j += W) {
        const vf x = load(s + j);
        most = x > most ? x : most;
    }
    float top = greatest(most);
    if (!(top > -std::numeric_limits<float>::infinity())) top = 0.0f;
    vf total = {};
    for (int j = 0; j < n; j += W) {
        vf w = vexp(load(s + j) - top);
        total += w;
        save(s + j, w);
    }
    const float weight = 1.0f / sum(total);
    for (int j = 0; j < n; j += W) save(s + j, load(s + j) * weight);
}

// Scores of a row's pages for each query of a head, ``room[g][j]``. ASK for the next sixteen where
// pages are scattered; where they are not it was measured to slow the reading.
template <bool ASK>
static void score(const Estimate& c, const vf (&q)[G][NV], const vf (&other)[G][NV], int b, int h,
                  std::vector<float>& room) {
    const int n = c.n_pages[b];
    const size_t wide = room.size() / G;
    const int32_t* list = c.table + int64_t(b) * c.n;
    const float *first = c.first + h * c.head_stride, *second = c.second + h * c.head_stride;
    const float whole = std::log(float(c.page_tokens));
    for (int j = 0; j < n; j += W) {
        for (int t = j + W; ASK && t < std::min(j + 2 * W, n); t++) {
            fetch(first + int64_t(list[t]) * D);
            fetch(second + int64_t(list[t]) * D);
        }
        vf near[G], far[G];
        dots(q, first, list + j, n - j, near);
        dots(other, second, list + j, n - j, far);
        for (int g = 0; g < G; g++)
            save(&room[g * wide + j], (near[g] + (c.bounds ? far[g] : root(far[g]))) * c.scale + whole);
    }
}

static void estimate_head(const Estimate& c, int b, int h, std::vector<float>& room) {
    const int n = c.n_pages[b], wide = (c.n + W - 1) / W * W;
    room.assign(size_t(wide) * G, -std::numeric_limits<float>::infinity());
    vf q[G][NV], other[G][NV];  // with moments q and q^2; with bounds the two signed parts of q
    for (int g = 0; g < G; g++) {
        row(c.q + b * c.q_row + (int64_t(h) * G + g) * D, q[g]);
        for (int i = 0; i < NV; i++) {
            const vf x = q[g][i];
            other[g][i] = c.bounds ? (x > 0.0f ? x : vf{}) : x * x;
            if (c.bounds) q[g][i] = x > 0.0f ? vf{} : x;
        }
    }
    if (scattered(c.table + int64_t(b) * c.n, n))
        score<true>(c, q, other, b, h, room);
    else
        score<false>(c, q, other, b, h, room);
    const float last = std::log(float(c.tails[b])) - std::log(float(c.page_tokens));
    for (int g = 0; g < G && n; g++) {
        room[size_t(g) * wide + n - 1] += last;
        std::fill(&room[size_t(g) * wide] + n, &room[size_t(g) * wide] + wide,
                  -std::numeric_limits<float>::infinity());
        softmax(&room[size_t(g) * wide], n);
    }
    float* mass = c.mass + (int64_t(b) * c.H + h) * c.n;
    for (int j = 0; j < c.n; j++) {
        float m = 0.0f;
        for (int g = 0; g < G; g++) m += room[size_t(g) * wide + j];
        mass[j] = j < n ? m * (1.0f / G) : 0.0f;
    }
}

// The list of a head holds ``count`` pages: after them the row's last one.
static void finish(const Select& c, int b, int h, int count) {
    const int64_t bh = int64_t(b) * c.H + h;
    c.kept[bh] = count;
    if (!c.n) return;
    const int32_t last = c.table[int64_t(b) * c.n + std::max(c.n_pages[b], 1) - 1];
    std::fill(c.pages + bh * c.n + count, c.pages + (bh + 1) * c.n, last);
}

// Pages in falling order of mass without sorting them: they are dealt into classes by the leading
// bits of their mass, and only the class in which the coverage is reached is put in order.
struct Classes {
    static constexpr int SHIFT = 20;                   // leaves the exponent and three bits
    static constexpr int N = (0x3f800000 >> SHIFT) + 1;  // a mass is at most 1
    double mass[N];
    int32_t count[N];
    std::vector<uint64_t> order;  // of one class, ties by position
    std::vector<char> wanted;

    static uint32_t bits(float m) {  // of a float >= 0: ordered as the float is
        uint32_t x;
        std::memcpy(&x, &m, 4);
        return x;
    }
    static int of(float m) { return std::min(int(bits(m) >> SHIFT), N - 1); }
};

static inline float worth(float m) { return m > 0.0f ? m : 0.0f; }  // NaN counts as 0

static void select_head(const Select& c, int b, int h, Classes& of) {
    const int n = c.n_pages[b];
    const int64_t at = (int64_t(b) * c.H + h) * c.n;
    const float* mass = c.mass + at;
    const int32_t* list = c.table + int64_t(b) * c.n;
    if (c.coverage[b] >= 1.0f) {
        std::copy_n(list, n, c.pages + at);
        return finish(c, b, h, n);
    }
    const int floor = std::min(n, std::max(c.least, c.first + c.recent));
    const int low = std::min(n, c.first), high = std::max(low, n - c.recent);  // between the pins
    int count = low + n - high;
    double reached = 0.0;
    std::fill_n(of.mass, Classes::N, 0.0);
    std::fill_n(of.count, Classes::N, 0);
    of.wanted.assign(n, 1);
    for (int j = 0; j < n; j++) {
        const float m = worth(mass[j]);
        if (j < low || j >= high) {
            reached += m;
            continue;
        }
        of.mass[Classes::of(m)] += m;
        of.count[Classes::of(m)]++;
        of.wanted[j] = 0;
    }
    const auto enough = [&] { return count >= floor && reached >= double(c.coverage[b]); };
    int k = Classes::N;  // classes from here on are wanted whole
    while (!enough() && k > 0) {
        k--;
        if (count + of.count[k] < floor || reached + of.mass[k] < double(c.coverage[b])) {
            count += of.count[k];
            reached += of.mass[k];
            continue;
        }
        of.order.clear();
        for (int j = low; j < high; j++)
            if (Classes::of(worth(mass[j])) == k)
                of.order.push_back(uint64_t(Classes::bits(worth(mass[j]))) << 32 | (0xffffffffu - uint32_t(j)));
        std::make_heap(of.order.begin(), of.order.end());
        for (auto end = of.order.end(); end != of.order.begin() && !enough(); --end) {
            std::pop_heap(of.order.begin(), end);
            const int j = int(0xffffffffu - uint32_t(*(end - 1)));
            of.wanted[j] = 1;
            reached += worth(mass[j]);
            count++;
        }
        if (enough()) k++;  // this class was looked at page by page
    }
    int32_t* out = c.pages + at;
    for (int j = 0; j < n; j++)
        if (of.wanted[j] || Classes::of(worth(mass[j])) >= k) *out++ = list[j];
    finish(c, b, h, count);
}
