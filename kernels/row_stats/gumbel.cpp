// One draw per row of logits by the Gumbel trick, with counter-based noise.
//
// The noise of a token depends on (seed, position, token) alone, so splits of constant size can be
// swept by any number of threads; ties go to the first index.

#include <limits>

#include "../native/vectors.h"

namespace {

constexpr int64_t kSplit = 4096;
constexpr float kInf = std::numeric_limits<float>::infinity();

typedef uint32_t Words __attribute__((vector_size(4 * W)));
typedef uint64_t Longs __attribute__((vector_size(8 * W)));

// ln of normal positive floats, within 1e-7 of the larger of 1 and the result (Cephes).
inline vf logarithm(vf x) {
  vi bits;
  std::memcpy(&bits, &x, sizeof bits);
  vi exponent = ((bits >> 23) & 255) - 126;
  bits = (bits & 0x007fffff) | 0x3f000000;
  vf f;  // in [1/2, 1)
  std::memcpy(&f, &bits, sizeof f);
  const vi low = f < 0.707106781f;  // -1 where true
  exponent += low;
  f = (low ? f + f : f) - 1.0f;
  vf y = f * 7.0376836292e-2f - 1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f - 1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f - 1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f - 2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  const vf e = __builtin_convertvector(exponent, vf);
  const vf square = f * f;
  y = y * f * square - e * 2.12194440e-4f - 0.5f * square;
  return f + y + e * 0.693359375f;
}

inline Words high_half(Words a, uint32_t b, Words* low) {
  const Longs product = __builtin_convertvector(a, Longs) * b;
  *low = __builtin_convertvector(product, Words);
  return __builtin_convertvector(product >> 32, Words);
}

// Triton's tl.rand(seed, position << 32 | token): Philox4x32-10, first word, brought to [0, 1).
inline vf uniform(uint64_t seed, uint32_t position, Words token) {
  Words c0 = token, c1 = Words{} + position, c2 = {}, c3 = {};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    Words low0, low1;
    const Words high0 = high_half(c0, 0xD2511F53u, &low0);
    const Words high1 = high_half(c2, 0xCD9E8D57u, &low1);
    c0 = high1 ^ c1 ^ k0;
    c2 = high0 ^ c3 ^ k1;
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const Words folded = c0 > 0x7fffffffu ? ~c0 : c0;
  vi word;
  std::memcpy(&word, &folded, sizeof word);
  return __builtin_convertvector(word, vf) * 4.6566127342e-10f;
}

inline vf gumbel(vf u) {
  u = u > 2.3283064365386963e-10f ? u : vf{} + 2.3283064365386963e-10f;
  const vf series = u * (1.0f + u * (0.5f + u * (1.0f / 3.0f + u * 0.25f)));
  return -logarithm(u < 0.015625f ? series : -logarithm(1.0f - u));
}

struct Best {
  float score;
  int64_t token;
  bool spoiled;  // a NaN or +inf logit
};

Best best_of(const float* z, int64_t n, int64_t first, float inverse, uint64_t seed,
             uint32_t position) {
  Words lane;
  for (int i = 0; i < W; i++) lane[i] = i;
  Best best = {-kInf, -1, false};
  for (int64_t i = 0; i < n; i += W) {
    const int64_t width = n - i < W ? n - i : W;
    vf v = vf{} - kInf;  // past the end: masked
    std::memcpy(&v, z + i, 4 * width);
    const Words token = lane + static_cast<uint32_t>(first + i);
    const vf score = v * inverse + gumbel(uniform(seed, position, token));
    for (int64_t j = 0; j < width; j++) {
      best.spoiled |= !(v[j] < kInf);
      if (score[j] > best.score) {
        best.score = score[j];
        best.token = first + i + j;
      }
    }
  }
  return best;
}

}  // namespace

extern "C" {

// Bytes of scratch for each row of n logits.
int64_t gumbel_scratch(int64_t n) {
  return (n + kSplit - 1) / kSplit * static_cast<int64_t>(sizeof(Best));
}

// logits [rows, n] at `stride`; inverse = 1/T, seeds, positions [rows] -> tokens [rows].
void gumbel_sample(const float* logits, int64_t stride, int64_t rows, int64_t n,
                   const float* inverse, const int64_t* seeds, const int64_t* positions,
                   int64_t threads, void* scratch, int64_t* tokens) {
  const int64_t splits = (n + kSplit - 1) / kSplit, units = rows * splits;
  Best* best = static_cast<Best*>(scratch);
#pragma omp parallel for schedule(static) num_threads(units > 4 ? threads : 1)
  for (int64_t unit = 0; unit < units; unit++) {
    const int64_t row = unit / splits, first = unit % splits * kSplit;
    const int64_t length = n - first < kSplit ? n - first : kSplit;
    best[unit] = best_of(logits + row * stride + first, length, first, inverse[row],
                         static_cast<uint64_t>(seeds[row]),
                         static_cast<uint32_t>(positions[row]));
  }
  for (int64_t row = 0; row < rows; row++) {
    Best winner = {-kInf, -1, false};
    for (int64_t j = 0; j < splits; j++) {
      const Best& split = best[row * splits + j];
      winner.spoiled |= split.spoiled;
      if (split.score > winner.score) {
        winner.score = split.score;
        winner.token = split.token;
      }
    }
    tokens[row] = winner.spoiled ? -1 : winner.token;
  }
}

}  // extern "C"
