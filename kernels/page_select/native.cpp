// Page mass from key statistics, and the pages that reach a coverage; see naive.py.
// D (head size) and G (queries per KV head) are macros.
#include <algorithm>
#include <limits>
#include <vector>

#include "../native/vectors.h"

constexpr int NV = (D + W - 1) / W;
constexpr int LAST = D - (NV - 1) * W;
constexpr int64_t ALONE = 1 << 8;  // pages in all below which threads cost more than they give

struct Estimate {
    const float *q, *first, *second;
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

static inline void row(const float* p, vf (&v)[NV]) {
    for (int i = 0; i < NV - 1; i++) v[i] = load(p + i * W);
    v[NV - 1] = load_part<LAST>(p + (NV - 1) * W);
}

// Dot products of q with the statistics of up to sixteen listed pages; lanes past `here` repeat.
static inline vf dots(const vf (&q)[NV], const float* stats, const int32_t* list, int here) {
    vf a[W];
#pragma GCC unroll 16
    for (int t = 0; t < W; t++) {
        vf x[NV];
        row(stats + int64_t(list[t < here ? t : here - 1]) * D, x);
        a[t] = q[0] * x[0];
        for (int i = 1; i < NV; i++) a[t] += q[i] * x[i];
    }
    return sums(a);
}

// Square roots; rounding may leave a variance a little below 0.
static inline vf root(vf a) {
    float x[W];
    save(x, a);
    for (int t = 0; t < W; t++) x[t] = std::sqrt(x[t] < 0.0f ? 0.0f : x[t]);
    return load(x);
}

static inline void fetch(const float* p) {
    for (int i = 0; i < D * 4; i += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(p) + i, 0, 3);
}

// Softmax in place over n scores padded to whole vectors with -inf.
static void softmax(float* s, int n) {
    float top = s[0];
    for (int j = 1; j < n; j++) top = s[j] > top ? s[j] : top;
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

static void estimate_head(const Estimate& c, int b, int h, std::vector<float>& room) {
    const int n = c.n_pages[b], wide = (c.n + W - 1) / W * W;
    room.assign(size_t(wide) * G, -std::numeric_limits<float>::infinity());
    const int32_t* list = c.table + int64_t(b) * c.n;
    const float *first = c.first + h * c.head_stride, *second = c.second + h * c.head_stride;
    vf q[G][NV], other[G][NV];  // with moments q and q^2; with bounds the two signed parts of q
    for (int g = 0; g < G; g++) {
        row(c.q + ((int64_t(b) * c.H + h) * G + g) * D, q[g]);
        for (int i = 0; i < NV; i++) {
            const vf x = q[g][i];
            other[g][i] = c.bounds ? (x > 0.0f ? x : vf{}) : x * x;
            if (c.bounds) q[g][i] = x > 0.0f ? vf{} : x;
        }
    }
    const float whole = std::log(float(c.page_tokens));
    for (int j0 = 0; j0 < n; j0 += W) {
        const int here = std::min(W, n - j0);
        for (int t = 0; t < here; t++) {
            const int64_t ahead = int64_t(list[std::min(j0 + W + t, n - 1)]) * D;
            fetch(first + ahead);
            fetch(second + ahead);
        }
        for (int g = 0; g < G; g++) {
            const vf near = dots(q[g], first, list + j0, here);
            const vf far = dots(other[g], second, list + j0, here);
            save(&room[size_t(g) * wide + j0], (near + (c.bounds ? far : root(far))) * c.scale + whole);
        }
    }
    const float last = std::log(float(c.tails[b])) - whole;
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

static void select_head(const Select& c, int b, int h, std::vector<uint64_t>& room,
                        std::vector<char>& wanted) {
    const int n = c.n_pages[b];
    const int64_t at = (int64_t(b) * c.H + h) * c.n;
    const float* mass = c.mass + at;
    const int32_t* list = c.table + int64_t(b) * c.n;
    const int floor = std::min(n, std::max(c.least, c.first + c.recent));
    int count = 0;
    double reached = 0.0;
    room.clear();
    wanted.assign(n, 0);
    for (int j = 0; j < n; j++) {
        const float m = mass[j] > 0.0f ? mass[j] : 0.0f;  // NaN counts as 0
        if (j < c.first || j >= n - c.recent) {
            wanted[j] = 1;
            reached += m;
            count++;
            continue;
        }
        uint32_t bits;  // of a float >= 0, ordered as the float is; ties by position
        std::memcpy(&bits, &m, 4);
        room.push_back(uint64_t(bits) << 32 | (0xffffffffu - uint32_t(j)));
    }
    const bool all = c.coverage[b] >= 1.0f;
    std::make_heap(room.begin(), room.end());
    for (auto end = room.end(); end != room.begin(); --end) {
        if (!all && count >= floor && reached >= double(c.coverage[b])) break;
        std::pop_heap(room.begin(), end);
        const int j = int(0xffffffffu - uint32_t(*(end - 1)));
        wanted[j] = 1;
        reached += mass[j] > 0.0f ? mass[j] : 0.0f;
        count++;
    }
    int32_t* out = c.pages + at;
    for (int j = 0; j < n; j++)
        if (wanted[j]) *out++ = list[j];
    if (c.n) std::fill(out, c.pages + at + c.n, list[std::max(n, 1) - 1]);
    c.kept[int64_t(b) * c.H + h] = count;
}

extern "C" void estimate(const Estimate* call) {
    const Estimate& c = *call;
    const bool together = int64_t(c.B) * c.H * c.n >= ALONE;
#pragma omp parallel num_threads(c.threads) if (together)
    {
        std::vector<float> room;
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < c.B * c.H; u++) estimate_head(c, u / c.H, u % c.H, room);
    }
}

extern "C" void select_pages(const Select* call) {
    const Select& c = *call;
    const bool together = int64_t(c.B) * c.H * c.n >= ALONE;
#pragma omp parallel num_threads(c.threads) if (together)
    {
        std::vector<uint64_t> room;
        std::vector<char> wanted;
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < c.B * c.H; u++) select_head(c, u / c.H, u % c.H, room, wanted);
    }
}
