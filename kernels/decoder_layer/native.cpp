// One decoder layer for a few one-token rows, in one parallel region; see naive.py.
//
// Every part does what its own kernel does, through the same code, so that a layer gives the bits
// of its modules called one after the other. Between two parts threads wait for each other, or go
// on with rows that are their own.
// WIDTH (numbers of a token), INNER (outputs of the gated pair), HEADS (of keys), G (queries per
// key head), D (head size) and P (tokens per page) are macros.
#include <omp.h>

#include <atomic>

#include "../native/attention.h"
#include "../native/choice.h"
#include "../native/pages.h"
#include "../native/products.h"

constexpr int QUERIES = HEADS * G, ALL = QUERIES + 2 * HEADS;  // heads of one row's projection
constexpr int THREADS = 64;                                    // at most
constexpr int BEFORE = 1, CHOOSE = 2, ATTEND = 4, AFTER = 8;   // phases

struct Call {
    const float* x;                             // [M, WIDTH]
    float* y;                                   // [M, WIDTH]
    const float *cos, *sin;                     // [M, D]
    const float *first, *inputs, *inputs_bias;  // norm; packed queries, keys, values side by side
    const float *output, *output_bias, *second, *gate, *up, *down;
    const float* following;  // the inputs of the next layer, or null
    float first_eps, second_eps;
    float *normed, *heads, *attended, *inner;  // [M, WIDTH | ALL * D | QUERIES * D | INNER]
    Store store;
    Estimate estimate;
    Select select;
    Attention attend;
    int32_t phases, M, threads;
};

// An equal share of n for each thread.
struct Share {
    int low, high;
    Share(int n, int t, int threads)
        : low(int(int64_t(n) * t / threads)), high(int(int64_t(n) * (t + 1) / threads)) {}
};

// A thread takes its own chunks of attention in order, then helps with what others have left.
struct Deal {
    std::atomic<int> next[THREADS];
    int end[THREADS], lists;

    explicit Deal(const Call& c) : lists(c.threads) {
        const int units = c.attend.B * c.attend.H * c.attend.splits;
        for (int t = 0; t < lists; t++) {
            const Share share(units, t, lists);
            next[t] = share.low;
            end[t] = share.high;
        }
    }

    void work(const Attention& c, int t) {
        for (int i = 0; i < lists; i++) {
            const int from = (t + i) % lists;
            for (int u; (u = next[from].fetch_add(1)) < end[from];)
                chunk(c, u / c.splits / c.H, u / c.splits % c.H, u % c.splits);
        }
    }
};

// A packed matrix, and which of its blocks a thread multiplies.
template <int INPUTS>
struct Matrix {
    const float* w;
    int blocks, stride;
    Share units;

    Matrix(const Call& c, const float* w, int outputs, int t)
        : w(w), blocks((outputs + W - 1) / W), stride(unit_blocks(c.M, blocks)),
          units((blocks + stride - 1) / stride, t, c.threads) {}

    int low(int u) const { return u * stride; }
    int high(int u) const { return std::min((u + 1) * stride, blocks); }
    const float* at(int block) const { return w + int64_t(block) * INPUTS * W; }
    const float* begin() const { return w ? at(low(units.low)) : nullptr; }
    const float* end() const { return w ? at(blocks) : nullptr; }
    bool last(int u) const { return u + 1 == units.high; }
};

// This thread's outputs of x W^T; ``then`` is the matrix it reads afterwards.
template <int INPUTS, class Then>
static void product(const Call& c, const Matrix<INPUTS>& m, const float* x, const Out& out,
                    const Then& then) {
    for (int u = m.units.low; u < m.units.high; u++) {
        const float* after = m.last(u) ? then.begin() : m.at(m.high(u));
        const float* end = m.last(u) ? then.end() : m.end();
        unit<INPUTS>({x, c.M}, m.w, out, m.low(u), m.high(u), after, end);
    }
}

// Norm, projection, rotation; keys and values into their pages where attention follows here.
static void before(const Call& c, int t) {
    const Share rows(c.M, t, c.threads);
    for (int n = rows.low; n < rows.high; n++)
        normalise(c.x + n * WIDTH, c.first, c.normed + n * WIDTH, WIDTH, c.first_eps);
#pragma omp barrier
    const Matrix<WIDTH> inputs(c, c.inputs, ALL * D, t), none(c, nullptr, 0, t);
    product(c, inputs, c.normed, {c.heads, c.inputs_bias, nullptr, ALL * D, 0, ALL * D}, none);
#pragma omp barrier
    for (int n = rows.low; n < rows.high; n++) {
        for (int h = 0; h < QUERIES + HEADS; h++)
            turn<D>(c.heads + (n * ALL + h) * D, c.cos + n * D, c.sin + n * D);
        if (!(c.phases & ATTEND)) continue;
        for (int h = 0; h < HEADS; h++) store_run(c.store, h, n, n + 1);
    }
#pragma omp barrier
}

// The pages of every row and head, dealt out one by one, for some rows have more than others.
static void choose(const Call& c, std::atomic<int>& next) {
    std::vector<float> scores;
    Classes classes;
    for (int u; (u = next.fetch_add(1)) < c.M * HEADS;) {
        const int b = u / HEADS, h = u % HEADS;
        if (c.select.coverage[b] < 1.0f) estimate_head(c.estimate, b, h, scores);
        select_head(c.select, b, h, classes);
    }
#pragma omp barrier
}

static void attend(const Call& c, Deal& deal, int t) {
    deal.work(c.attend, t);
    const Matrix<QUERIES * D> output(c, c.output, WIDTH, t);  // read next
    const float* end = output.at(std::min(output.low(output.units.low) + SHORT, output.blocks));
    for (const float* p = output.begin(); p < end; p += W) __builtin_prefetch(p, 0, 2);
#pragma omp barrier
    const Share rows(c.M * HEADS, t, c.threads);
    for (int bh = rows.low; bh < rows.high; bh++) merge(c.attend, bh);
#pragma omp barrier
}

// Output and residual, norm, gated pair, down and residual.
static void after(const Call& c, int t) {
    const Share rows(c.M, t, c.threads);
    const Matrix<QUERIES * D> output(c, c.output, WIDTH, t);
    const Matrix<WIDTH> gate(c, c.gate, INNER, t), following(c, c.following, ALL * D, t);
    const Matrix<INNER> down(c, c.down, WIDTH, t);
    product(c, output, c.attended, {c.y, c.output_bias, c.x, WIDTH, 0, WIDTH}, gate);
#pragma omp barrier
    for (int n = rows.low; n < rows.high; n++)
        normalise(c.y + n * WIDTH, c.second, c.normed + n * WIDTH, WIDTH, c.second_eps);
#pragma omp barrier
    for (int u = gate.units.low; u < gate.units.high; u++) {
        const float* next = gate.last(u) ? down.begin() : gate.at(gate.high(u));
        const float* end = gate.last(u) ? down.end() : gate.end();
        gated_unit<WIDTH>({c.normed, c.M}, c.gate, c.up, gate.blocks, c.inner, gate.low(u),
                          gate.high(u), next, end);
    }
#pragma omp barrier
    product(c, down, c.inner, {c.y, nullptr, c.y, WIDTH, 0, WIDTH}, following);
}

extern "C" int32_t split_pages() { return SPLIT; }
extern "C" int32_t part_floats() { return G * PART; }

extern "C" void layer(const Call* call) {
    Deal deal(*call);
    std::atomic<int> chosen(0);
#pragma omp parallel num_threads(call->threads)
    {
        Call c = *call;
        c.threads = omp_get_num_threads();  // fewer than were asked for, perhaps
        const int t = omp_get_thread_num();
        if (c.phases & BEFORE) before(c, t);
        if (c.phases & CHOOSE) choose(c, chosen);
        if (c.phases & ATTEND) attend(c, deal, t);
        if (c.phases & AFTER) after(c, t);
    }
}
