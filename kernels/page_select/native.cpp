// Page mass and page selection of every row and head; see naive.py.
// D (head size) and G (queries per KV head) are macros.
#include "../native/choice.h"

constexpr int64_t ALONE = 1 << 8;  // pages in all below which threads cost more than they give

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
        Classes classes;
#pragma omp for schedule(dynamic, 1)
        for (int u = 0; u < c.B * c.H; u++) select_head(c, u / c.H, u % c.H, classes);
    }
}
