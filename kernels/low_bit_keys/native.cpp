// Page mass from 4-bit keys, and the coding of new keys; see naive.py for what they compute.
// D (head size, a multiple of 32), G (queries per KV head) and P (tokens per page) are macros.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../native/vectors.h"

constexpr int BYTES = D / 2;       // of a key's codes
constexpr int NB = BYTES / W;      // vectors of them
constexpr int PW = (P + W - 1) / W * W;
constexpr int AHEAD = 4;           // pages fetched ahead
constexpr int64_t ALONE = 1 << 8;  // pages in all below which threads cost more than they give
constexpr float NOTHING = -std::numeric_limits<float>::infinity();
typedef uint8_t vb __attribute__((vector_size(W)));

struct Estimate {
    const float* q;  // [B, H, G, D]
    const uint8_t* codes;
    const uint16_t *scale, *low;  // float16 bits
    int64_t code_head, range_head;  // elements between heads
    const int32_t *table, *n_pages, *tails;
    float scaling;
    float* mass;  // [B, H, n]
    int32_t B, H, n, threads;
};

// float16 bits to float32, subnormals included: shift into place, then correct the exponent.
static inline float widen(uint16_t h) {
    uint32_t bits = uint32_t(h & 0x7fff) << 13 | uint32_t(h & 0x8000) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f * 5.192296858534828e33f;  // 2^112
}

struct Query {
    vf even[G][NB], odd[G][NB];
    float total[G];
};

static Query split(const float* q) {
    Query out;
    for (int g = 0; g < G; g++, q += D) {
        out.total[g] = 0.0f;
        for (int i = 0; i < NB; i++) {
            vf even, odd;
            for (int j = 0; j < W; j++) {
                even[j] = q[2 * (i * W + j)];
                odd[j] = q[2 * (i * W + j) + 1];
            }
            out.even[g][i] = even;
            out.odd[g][i] = odd;
            out.total[g] += sum(even + odd);
        }
    }
    return out;
}

// Scores of a page's first `count` tokens; what lies behind them is read and thrown away.
static void score(const Query& q, const uint8_t* codes, const uint16_t* scale,
                  const uint16_t* low, float scaling, int count, float (&s)[G][PW]) {
    for (int first = 0; first < count; first += W) {
        vf part[G][W], step, least;
        for (int j = 0; j < W; j++) {
            const int t = std::min(first + j, P - 1);
            step[j] = widen(scale[t]);
            least[j] = widen(low[t]);
            for (int g = 0; g < G; g++) part[g][j] = vf{};
            for (int i = 0; i < NB; i++) {
                vb both;
                std::memcpy(&both, codes + t * BYTES + i * W, W);
                const vi wide = __builtin_convertvector(both, vi);  // by way of int: one step each
                const vf even = __builtin_convertvector(wide & 15, vf);
                const vf odd = __builtin_convertvector(wide >> 4, vf);
                for (int g = 0; g < G; g++)
                    part[g][j] += q.even[g][i] * even + q.odd[g][i] * odd;
            }
        }
        for (int g = 0; g < G; g++) {
            const vf z = (sums(part[g]) * step + q.total[g] * least) * scaling;
            save(s[g] + first, lanes() + first < count ? z : vf{} + NOTHING);
        }
    }
}

// Each page's sum of weights relative to its own maximum; both kept, [G, n] each.
static void head(const Estimate& c, int b, int h, std::vector<float>& room) {
    const int n = c.n_pages[b];
    room.resize(size_t(2) * G * c.n);
    float *tops = room.data(), *parts = tops + size_t(G) * c.n;
    const int32_t* list = c.table + int64_t(b) * c.n;
    const uint8_t* codes = c.codes + h * c.code_head;
    const uint16_t *scale = c.scale + h * c.range_head, *low = c.low + h * c.range_head;
    const Query q = split(c.q + (int64_t(b) * c.H + h) * G * D);
    for (int j = 0; j < n; j++) {
        const int64_t at = int64_t(list[j]) * P, ahead = int64_t(list[std::min(j + AHEAD, n - 1)]) * P;
        for (int i = 0; i < P * BYTES; i += 64) __builtin_prefetch(codes + ahead * BYTES + i, 0, 2);
        __builtin_prefetch(scale + ahead, 0, 2);
        __builtin_prefetch(low + ahead, 0, 2);
        alignas(64) float s[G][PW];
        for (int g = 0; g < G; g++)
            for (int i = 0; i < PW; i += W) save(s[g] + i, vf{} + NOTHING);
        score(q, codes + at * BYTES, scale + at, low + at, c.scaling, j == n - 1 ? c.tails[b] : P, s);
        for (int g = 0; g < G; g++) {
            float top = greatest(load(s[g]));
            for (int i = W; i < PW; i += W) top = std::max(top, greatest(load(s[g] + i)));
            const float base = top == NOTHING ? 0.0f : top;
            vf all = {};
            for (int i = 0; i < PW; i += W) all += vexp(load(s[g] + i) - base);
            tops[size_t(g) * c.n + j] = top;
            parts[size_t(g) * c.n + j] = sum(all);
        }
    }
    float* mass = c.mass + (int64_t(b) * c.H + h) * c.n;
    std::fill(mass, mass + c.n, 0.0f);
    for (int g = 0; g < G && n; g++) {
        float *top = tops + size_t(g) * c.n, *part = parts + size_t(g) * c.n, total = 0.0f;
        const float peak = *std::max_element(top, top + n);
        for (int j = 0; j < n; j++) {
            part[j] *= top[j] == NOTHING ? 0.0f : std::exp(top[j] - peak);
            total += part[j];
        }
        const float weight = 1.0f / (total * G);
        for (int j = 0; j < n; j++) mass[j] += part[j] * weight;
    }
}

extern "C" void estimate(const Estimate* call) {
    const Estimate& c = *call;
    const bool together = int64_t(c.B) * c.H * c.n >= ALONE;
#pragma omp parallel num_threads(c.threads) if (together)
    {
        std::vector<float> room;
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < c.B * c.H; u++) head(c, u / c.H, u % c.H, room);
    }
}
