// Keys and values into their pages, and the statistics of each page touched; see naive.py.
// D (head size) and P (tokens per page) are macros.
#include "../native/pages.h"

constexpr int64_t ALONE = 1 << 15;  // floats per head below which threads cost more than they give

static void head(const Store& c, int h, int i, int end) {
    while (i < end) {
        int j = i + 1;
        while (j < end && c.slots[j] / P == c.slots[i] / P) j++;
        store_run(c, h, i, j);
        i = j;
    }
}

extern "C" void store(const Store* call) {
    const Store& c = *call;
    const bool together = int64_t(c.N) * D >= ALONE;
#pragma omp parallel for schedule(static) num_threads(c.threads) if (together)
    for (int h = 0; h < c.H; h++) head(c, h, 0, c.N);
}
