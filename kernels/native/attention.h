// Attention of B query tokens over listed pages; see paged_decode/naive.py for what it computes.
//
// A row's pages are cut into chunks of SPLIT, whatever the number of threads; each chunk keeps a
// running maximum, sum and weighted value sum (online softmax), and chunks are merged in order. So
// a row's bits depend on its own list alone: not on threads, batch, or where the pages lie.
// D (head size), G (queries per KV head) and P (tokens per page) are macros.
#pragma once
#include <algorithm>
#include <limits>

#include "head.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define ON_ITS_OWN __attribute__((noinline))

constexpr int SPLIT = 64;  // pages in a chunk: enough work for a thread at long context
constexpr int AHEAD = 1;   // pages asked for ahead where they do not follow each other
constexpr int PV = (P + W - 1) / W;
constexpr int PART = NV * W + 2;  // a chunk's value sum, maximum and sum
constexpr float NOTHING = -std::numeric_limits<float>::infinity();

struct Attention {
    const float* q;
    int64_t q_row;  // floats between rows of q; a row is dense
    const float *k, *v;
    int64_t head_stride;  // floats between heads of k and v
    const int32_t* pages;
    int64_t pages_row, pages_head;  // strides of pages; 0 where one list serves all heads
    const int32_t *kept, *tails;
    const float* surprisal;  // [pool, P] or null
    float scale;
    float *out, *lse;
    float *mass, *weighted;  // [B, H, m] or null
    float *parts;            // scratch [B * H * splits, G, PART]
    float *page_parts;       // scratch [B * H, 3, G, m] or null
    int32_t B, H, m, splits, threads;
};

struct Running {
    vf acc[G][NV];
    float top[G], total[G];
};

// Scores of a page: lanes past count are -inf. ``next`` is asked for meanwhile where ASK is set.
template <bool ASK>
static ALWAYS_INLINE void scores(const vf (&q)[G][NV], const float* k, const float* next, int count,
                                 vf (&s)[G][PV]) {
    for (int block = 0; block < PV; block++) {
        const int first = block * W, here = std::min(count - first, std::min(W, P - first));
        for (int g = 0; g < G; g++) {
            vf a[W];
#pragma GCC unroll 16
            for (int t = 0; t < W; t++) {
                const int at = first + t < P ? first + t : P - 1;
                if (ASK && g == 0) fetch(next + at * D);  // one by one: a burst fills the queue
                vf key[NV];
                row(k + at * D, key);
                vf x = q[g][0] * key[0];
                for (int i = 1; i < NV; i++) x += q[g][i] * key[i];
                a[t] = x;
            }
            s[g][block] = lanes() < here ? sums(a) : vf{} + NOTHING;
        }
    }
}

// Turn a page's scores into weights relative to the running maximum; return their sum.
static float weigh(Running& run, int g, const vf (&s)[PV], float (&weights)[PV * W]) {
    vf most = s[0];
    for (int i = 1; i < PV; i++) most = s[i] > most ? s[i] : most;
    const float top = greatest(most);
    if (top > run.top[g]) {
        const float shrink = std::exp(run.top[g] - top);
        run.total[g] *= shrink;
        for (int i = 0; i < NV; i++) run.acc[g][i] *= shrink;
        run.top[g] = top;
    }
    const float base = run.top[g] == NOTHING ? 0.0f : run.top[g];  // -inf minus -inf is NaN
    vf all = {};
    for (int i = 0; i < PV; i++) {
        const vf w = vexp(s[i] - base);
        all += w;
        save(weights + i * W, w);
    }
    const float part = sum(all);
    run.total[g] += part;
    return part;
}

struct Page {
    const float *k, *v;
    const float *next_k, *next_v;  // asked for meanwhile where ASK is set
    int count;                     // tokens
};

// Add a page's values to what runs, by their weights; leave these and their sums.
template <bool ASK>
static ALWAYS_INLINE void add(Running& run, const vf (&q)[G][NV], const Page& page,
                              float (&s)[G][PV * W], float (&part)[G]) {
    vf raw[G][PV];
    scores<ASK>(q, page.k, page.next_k, page.count, raw);
    for (int g = 0; g < G; g++) part[g] = weigh(run, g, raw[g], s[g]);
    for (int t = 0; t < P; t++) {
        if (ASK) fetch(page.next_v + t * D);
        if (t >= page.count) continue;
        vf value[NV];
        row(page.v + t * D, value);
        for (int g = 0; g < G; g++)
            for (int i = 0; i < NV; i++) run.acc[g][i] += s[g][t] * value[i];
    }
}

// Note what a page weighs relative to the running maximum, and its surprisal under these weights.
static void note(const Attention& c, const Running& run, int bh, int j, int count, int page,
                 const float (&s)[G][PV * W], const float (&part)[G]) {
    for (int g = 0; g < G; g++) {
        float* p = c.page_parts + (int64_t(bh) * 3 * G + g) * c.m + j;
        p[0] = run.top[g];
        p[int64_t(G) * c.m] = part[g];
        if (!c.surprisal) continue;
        const float* nats = c.surprisal + int64_t(page) * P;
        float w = 0.0f;
        for (int t = 0; t < count; t++) w += nats[t] == nats[t] ? s[g][t] * nats[t] : 0.0f;
        p[2 * int64_t(G) * c.m] = w;
    }
}

// The same for scattered pages; on its own, because inlined it was measured to be slower.
static ON_ITS_OWN void add_far(Running& run, const vf (&q)[G][NV], const Page& page,
                               float (&s)[G][PV * W], float (&part)[G]) {
    add<true>(run, q, page, s, part);
}

// Pages low..high of a row; on its own, lest its speed depend on the function it is called from.
template <bool ASK>
static ON_ITS_OWN void pages(const Attention& c, Running& out, const vf (&q)[G][NV], int bh,
                             int low, int high, const int32_t* list) {
    const int h = bh % c.H, kept = c.kept[bh], tail = c.tails[bh / c.H];
    const float *k0 = c.k + h * c.head_stride, *v0 = c.v + h * c.head_stride;
    Running run = out;
    for (int j = low; j < high; j++) {
        const int64_t at = int64_t(list[j]) * P * D;
        const int64_t ahead = int64_t(list[std::min(j + AHEAD, high - 1)]) * P * D;
        const int count = j == kept - 1 ? tail : P;
        alignas(64) float s[G][PV * W];
        float part[G];
        const Page page = {k0 + at, v0 + at, k0 + ahead, v0 + ahead, count};
        if constexpr (ASK)
            add_far(run, q, page, s, part);
        else
            add<false>(run, q, page, s, part);
        if (c.page_parts) note(c, run, bh, j, count, list[j], s, part);
    }
    out = run;
}

static void chunk(const Attention& c, int b, int h, int split) {
    const int bh = b * c.H + h, kept = c.kept[bh];
    const int low = split * SPLIT, high = std::min(low + SPLIT, kept);
    if (low >= kept) return;
    const int32_t* list = c.pages + b * c.pages_row + h * c.pages_head;
    Running run;
    vf q[G][NV];
    for (int g = 0; g < G; g++) {
        row(c.q + b * c.q_row + (int64_t(h) * G + g) * D, q[g]);
        for (int i = 0; i < NV; i++) {
            q[g][i] *= c.scale;
            run.acc[g][i] = vf{};
        }
        run.top[g] = NOTHING;
        run.total[g] = 0.0f;
    }
    if (scattered(list + low, high - low))
        pages<true>(c, run, q, bh, low, high, list);
    else
        pages<false>(c, run, q, bh, low, high, list);
    float* out = c.parts + (int64_t(bh) * c.splits + split) * G * PART;
    for (int g = 0; g < G; g++, out += PART) {
        for (int i = 0; i < NV; i++) save(out + i * W, run.acc[g][i]);
        out[NV * W] = run.top[g];
        out[NV * W + 1] = run.total[g];
    }
}

// What a page weighs: its sum, brought from its own maximum to the row's.
static void page_shares(const Attention& c, int bh, int g, float top, float total) {
    const float* p = c.page_parts + (int64_t(bh) * 3 * G + g) * c.m;
    const float base = top == NOTHING ? 0.0f : top, weight = 1.0f / (total * G);
    for (int j = 0; j < c.kept[bh]; j++) {
        float share = (p[j] == NOTHING ? 0.0f : std::exp(p[j] - base)) * weight;
        if (c.mass) c.mass[int64_t(bh) * c.m + j] += share * p[int64_t(G) * c.m + j];
        if (c.weighted) c.weighted[int64_t(bh) * c.m + j] += share * p[2 * int64_t(G) * c.m + j];
    }
}

static void merge(const Attention& c, int bh) {
    const int kept = c.kept[bh], used = (kept + SPLIT - 1) / SPLIT;
    for (int64_t j = int64_t(bh) * c.m; j < int64_t(bh + 1) * c.m; j++) {
        if (c.mass) c.mass[j] = 0.0f;
        if (c.weighted) c.weighted[j] = 0.0f;
    }
    for (int g = 0; g < G; g++) {
        const float* part = c.parts + (int64_t(bh) * c.splits * G + g) * PART;
        float top = NOTHING, total = 0.0f;
        for (int s = 0; s < used; s++) top = std::max(top, part[int64_t(s) * G * PART + NV * W]);
        const float base = top == NOTHING ? 0.0f : top;
        vf out[NV] = {};
        for (int s = 0; s < used; s++) {
            const float* p = part + int64_t(s) * G * PART;
            const float w = std::exp(p[NV * W] - base);
            total += w * p[NV * W + 1];
            for (int i = 0; i < NV; i++) out[i] += w * load(p + i * W);
        }
        const float weight = used ? 1.0f / total : 0.0f;
        alignas(64) float flat[NV * W];
        for (int i = 0; i < NV; i++) save(flat + i * W, out[i] * weight);
        std::memcpy(c.out + (int64_t(bh) * G + g) * D, flat, D * sizeof(float));
        c.lse[int64_t(bh) * G + g] = used ? top + std::log(total) : NOTHING;
        if (c.page_parts) page_shares(c, bh, g, top, total);
    }
}

#undef ALWAYS_INLINE
#undef ON_ITS_OWN
