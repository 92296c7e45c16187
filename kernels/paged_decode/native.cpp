// Attention of B query tokens over listed pages; see naive.py for what it computes.
//
// A row's pages are cut into chunks of SPLIT, whatever the number of threads; each chunk keeps a
// running maximum, sum and weighted value sum (online softmax), and chunks are merged in order. So
// a row's bits depend on its own list alone: not on threads, batch, or where the pages lie.
// D (head size), G (queries per KV head) and P (tokens per page) are macros.
#include <algorithm>
#include <limits>

#include "../native/vectors.h"

constexpr int SPLIT = 64;  // pages in a chunk: enough work for a thread at long context
constexpr int AHEAD = 2;   // pages prefetched ahead; random pages defeat the hardware's guess
constexpr int NV = (D + W - 1) / W;
constexpr int LAST = D - (NV - 1) * W;  // floats in a row's last vector
constexpr int PV = (P + W - 1) / W;
constexpr int PART = NV * W + 2;  // a chunk's value sum, maximum and sum
constexpr float NOTHING = -std::numeric_limits<float>::infinity();

struct Call {
    const float *q, *k, *v;
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

static inline void row(const float* p, vf (&v)[NV]) {
    for (int i = 0; i < NV - 1; i++) v[i] = load(p + i * W);
    v[NV - 1] = load_part<LAST>(p + (NV - 1) * W);
}

static inline void fetch(const float* p) {
    for (int i = 0; i < D * 4; i += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(p) + i, 0, 2);
}

struct Running {
    vf acc[G][NV];
    float top[G], total[G];
};

// Scores of a page: lanes past count are -inf.
static void scores(const vf (&q)[G][NV], const float* k, const float* next, int count,
                   vf (&s)[G][PV]) {
    for (int block = 0; block < PV; block++) {
        const int first = block * W, here = std::min(count - first, std::min(W, P - first));
        for (int g = 0; g < G; g++) {
            vf a[W];
#pragma GCC unroll 16
            for (int t = 0; t < W; t++) {
                const int at = first + t < P ? first + t : P - 1;
                if (g == 0) fetch(next + at * D);  // one by one: a burst would fill the queue
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

static void chunk(const Call& c, int b, int h, int split) {
    const int bh = b * c.H + h, kept = c.kept[bh];
    const int low = split * SPLIT, high = std::min(low + SPLIT, kept);
    if (low >= kept) return;
    const int32_t* list = c.pages + b * c.pages_row + h * c.pages_head;
    const float *k0 = c.k + h * c.head_stride, *v0 = c.v + h * c.head_stride;
    Running run;
    vf q[G][NV];
    for (int g = 0; g < G; g++) {
        row(c.q + (int64_t(bh) * G + g) * D, q[g]);
        for (int i = 0; i < NV; i++) {
            q[g][i] *= c.scale;
            run.acc[g][i] = vf{};
        }
        run.top[g] = NOTHING;
        run.total[g] = 0.0f;
    }
    for (int j = low; j < high; j++) {
        const int64_t at = int64_t(list[j]) * P * D;
        const int64_t ahead = int64_t(list[std::min(j + AHEAD, high - 1)]) * P * D;
        const int count = j == kept - 1 ? c.tails[b] : P;
        vf raw[G][PV];
        scores(q, k0 + at, k0 + ahead, count, raw);
        alignas(64) float s[G][PV * W];
        float part[G];
        for (int g = 0; g < G; g++) part[g] = weigh(run, g, raw[g], s[g]);
        for (int t = 0; t < P; t++) {
            fetch(v0 + ahead + t * D);
            if (t >= count) continue;
            vf value[NV];
            row(v0 + at + t * D, value);
            for (int g = 0; g < G; g++)
                for (int i = 0; i < NV; i++) run.acc[g][i] += s[g][t] * value[i];
        }
        if (!c.page_parts) continue;
        for (int g = 0; g < G; g++) {
            float* p = c.page_parts + (int64_t(bh) * 3 * G + g) * c.m + j;
            p[0] = run.top[g];
            p[int64_t(G) * c.m] = part[g];
            if (!c.surprisal) continue;
            const float* nats = c.surprisal + int64_t(list[j]) * P;
            float w = 0.0f;
            for (int t = 0; t < count; t++) w += nats[t] == nats[t] ? s[g][t] * nats[t] : 0.0f;
            p[2 * int64_t(G) * c.m] = w;
        }
    }
    float* out = c.parts + (int64_t(bh) * c.splits + split) * G * PART;
    for (int g = 0; g < G; g++, out += PART) {
        for (int i = 0; i < NV; i++) save(out + i * W, run.acc[g][i]);
        out[NV * W] = run.top[g];
        out[NV * W + 1] = run.total[g];
    }
}

// What a page weighs: its sum, brought from its own maximum to the row's.
static void page_shares(const Call& c, int bh, int g, float top, float total) {
    const float* p = c.page_parts + (int64_t(bh) * 3 * G + g) * c.m;
    const float base = top == NOTHING ? 0.0f : top, weight = 1.0f / (total * G);
    for (int j = 0; j < c.kept[bh]; j++) {
        float share = (p[j] == NOTHING ? 0.0f : std::exp(p[j] - base)) * weight;
        if (c.mass) c.mass[int64_t(bh) * c.m + j] += share * p[int64_t(G) * c.m + j];
        if (c.weighted) c.weighted[int64_t(bh) * c.m + j] += share * p[2 * int64_t(G) * c.m + j];
    }
}

static void merge(const Call& c, int bh) {
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

extern "C" int32_t split_pages() { return SPLIT; }
extern "C" int32_t part_floats() { return G * PART; }

extern "C" void decode(const Call* call) {
    const Call& c = *call;
    const int rows = c.B * c.H;
#pragma omp parallel num_threads(c.threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < rows * c.splits; u++)
            chunk(c, u / c.splits / c.H, u / c.splits % c.H, u % c.splits);
#pragma omp for schedule(static)
        for (int bh = 0; bh < rows; bh++) merge(c, bh);
    }
}
