// Attention of B query tokens over listed pages; see naive.py for what it computes.
// D (head size), G (queries per KV head) and P (tokens per page) are macros.
#include "../native/attention.h"

extern "C" int32_t split_pages() { return SPLIT; }
extern "C" int32_t part_floats() { return G * PART; }

extern "C" void decode(const Attention* call) {
    const Attention& c = *call;
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
