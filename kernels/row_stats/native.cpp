// Row statistics of logits on a CPU: one sweep over the vocabulary in splits of constant size.
//
// A split is read from memory once, for its largest logit, and again from the first-level cache at
// each temperature. Splits are merged in order, in double precision, so no result depends on the
// number of threads or on the other rows.

#include <limits>

#include "../native/vectors.h"

namespace {

constexpr int64_t kSplit = 4096;  // logits, 16 KiB; a multiple of W
constexpr float kFar = -87.0f;    // exp of this is the last normal float: no mass
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Sums {
  double s, w, q;
};

// One row's splits: their peaks [splits] and, at one of m temperatures, their sums.
struct Row {
  const float* z;
  int64_t n, splits;
  const float* peaks;
  const Sums* parts;
  int64_t step;  // from one split's sums to the next one's
};

inline vf larger(vf a, vf b) { return a > b ? a : b; }

// The logits from z on; what lies past the end of the row is masked.
inline vf load_masked(const float* z, int64_t left) {
  vf out = vf{} - kInf;
  std::memcpy(&out, z, left >= W ? sizeof out : 4 * left);
  return out;
}

// exp on [kFar, 0], 1 at 0: 2^n (1 + f p(f)), |f| <= 1/2, p fitted to a relative error of 9e-8.
// Adding 1.5 * 2^23 rounds to a whole number, left in the low bits. Half the work of vexp.
inline vf falling(vf d) {
  const vf t = d * 1.44269504f;
  const vf shifted = t + 12582912.0f;
  const vf f = t - (shifted - 12582912.0f);
  vf y = f * 1.3264727313e-3f + 9.6715129912e-3f;
  y = y * f + 5.5507335812e-2f;
  y = y * f + 2.4022242427e-1f;
  y = y * f + 6.9314700365e-1f;
  y = y * f + 1.0f;
  vi n, bits;
  std::memcpy(&n, &shifted, sizeof n);
  std::memcpy(&bits, &y, sizeof bits);
  bits += n << 23;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

inline double total(vf x) {
  double all = 0.0;
  for (int i = 0; i < W; i++) all += x[i];
  return all;
}

int64_t splits_of(int64_t n) { return (n + kSplit - 1) / kSplit; }

int64_t length_of(int64_t n, int64_t split) {
  const int64_t left = n - split * kSplit;
  return left < kSplit ? left : kSplit;
}

// Largest logit of a split; NaN if any is.
float peak_of(const float* z, int64_t n) {
  vf peak = vf{} - kInf;
  vi bad = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf v = load_masked(z + i, n - i);
    peak = larger(v, peak);
    bad |= v != v;
  }
  float best = -kInf;
  for (int i = 0; i < W; i++) {
    if (bad[i]) return kNan;
    best = peak[i] > best ? peak[i] : best;
  }
  return best;
}

// Sums of e^d, d e^d and d^2 e^d over a split, d = (z - peak) / T.
Sums sums_of(const float* z, int64_t n, float peak, float inverse) {
  vf s = {}, w = {}, q = {};
  for (int64_t i = 0; i < n; i += W) {
    const vf d = larger((load_masked(z + i, n - i) - peak) * inverse, vf{} + kFar);
    const vf e = falling(d), de = d * e;
    s += e;
    w += de;
    q += d * de;
  }
  return {total(s), total(w), total(q)};
}

// Peaks [rows, splits] and sums [rows, splits, m] of every split of every row.
void sweep(const float* logits, int64_t stride, int64_t rows, int64_t n, const float* inverse,
           int64_t m, int64_t threads, float* peaks, Sums* parts) {
  const int64_t splits = splits_of(n), units = rows * splits;
#pragma omp parallel for schedule(static) num_threads(units > 4 ? threads : 1)
  for (int64_t unit = 0; unit < units; unit++) {
    const int64_t row = unit / splits, split = unit % splits, length = length_of(n, split);
    const float* z = logits + row * stride + split * kSplit;
    const float peak = peaks[unit] = peak_of(z, length);
    for (int64_t i = 0; i < m; i++) {
      parts[unit * m + i] = std::isfinite(peak) ? sums_of(z, length, peak, inverse[row * m + i])
                                                : Sums{0.0, 0.0, 0.0};
    }
  }
}

float peak_of_row(const Row& row) {
  float best = -kInf;
  for (int64_t j = 0; j < row.splits; j++) {
    if (std::isnan(row.peaks[j])) return kNan;
    best = row.peaks[j] > best ? row.peaks[j] : best;
  }
  return best;
}

int64_t first_index_of(const Row& row, float peak) {
  int64_t split = 0;
  while (row.peaks[split] != peak) split++;
  int64_t i = split * kSplit;
  while (row.z[i] != peak) i++;
  return i;
}

double shift_of(const Row& row, int64_t split, float peak, float inverse) {
  return (static_cast<double>(row.peaks[split]) - peak) * inverse;  // -inf where all is masked
}

// Sums over the row relative to its peak (controllers.entropy.RowStats.merge, all at once).
Sums merged(const Row& row, float peak, float inverse) {
  Sums out = {0.0, 0.0, 0.0};
  for (int64_t j = 0; j < row.splits; j++) {
    const double shift = shift_of(row, j, peak, inverse);
    if (!(shift > kFar)) continue;
    const Sums& part = row.parts[j * row.step];
    const double scale = std::exp(shift);
    out.s += scale * part.s;
    out.w += scale * (part.w + shift * part.s);
    out.q += scale * (part.q + 2.0 * shift * part.w + shift * shift * part.s);
  }
  return out;
}

double entropy_of(const Sums& a) { return std::log(a.s) - a.w / a.s; }

double varentropy_of(const Sums& a) {
  const double mean = a.w / a.s, v = a.q / a.s - mean * mean;
  return v > 0.0 ? v : 0.0;
}

// First token of a split whose cumulative weight, relative to the row's peak, exceeds the target.
int64_t scan(const float* z, int64_t n, float peak, float inverse, double target) {
  double cumulative = 0.0;
  int64_t last = 0;  // where rounding leaves nothing above the target: the last possible token
  for (int64_t i = 0; i < n; i += W) {
    const vf d = (load_masked(z + i, n - i) - peak) * inverse;
    const vf e = falling(larger(d, vf{} + kFar));
    for (int64_t lane = 0; lane < W && i + lane < n; lane++) {
      if (!(d[lane] > kFar)) continue;
      cumulative += e[lane];
      last = i + lane;
      if (cumulative > target) return last;
    }
  }
  return last;
}

int64_t invert(const Row& row, float peak, float inverse, double target) {
  int64_t chosen = 0;
  double before = 0.0, cumulative = 0.0;
  for (int64_t j = 0; j < row.splits; j++) {
    const double shift = shift_of(row, j, peak, inverse);
    if (!(shift > kFar)) continue;
    chosen = j;
    before = cumulative;
    cumulative += std::exp(shift) * row.parts[j * row.step].s;
    if (cumulative > target) break;
  }
  const int64_t first = chosen * kSplit;
  return first + scan(row.z + first, length_of(row.n, chosen), peak, inverse, target - before);
}

}  // namespace

extern "C" {

// Bytes of scratch for each row of n logits at m temperatures.
int64_t row_scratch(int64_t n, int64_t m) {
  return splits_of(n) * static_cast<int64_t>(sizeof(double) + m * sizeof(Sums));
}

// logits [rows, n] at `stride`, inverse = 1/T [rows, m] -> argmax [rows]; lse, h, v [rows, m].
void row_stats(const float* logits, int64_t stride, int64_t rows, int64_t n, const float* inverse,
               int64_t m, int64_t threads, void* scratch, int64_t* argmax, float* lse, float* h,
               float* v) {
  const int64_t splits = splits_of(n);
  Sums* parts = static_cast<Sums*>(scratch);
  float* peaks = reinterpret_cast<float*>(parts + rows * splits * m);
  sweep(logits, stride, rows, n, inverse, m, threads, peaks, parts);
  for (int64_t r = 0; r < rows; r++) {
    Row row = {logits + r * stride, n, splits, peaks + r * splits, nullptr, m};
    const float peak = peak_of_row(row);
    const bool fine = std::isfinite(peak);
    argmax[r] = fine ? first_index_of(row, peak) : -1;
    for (int64_t out = r * m; out < (r + 1) * m; out++) {
      lse[out] = h[out] = v[out] = kNan;
      if (!fine) continue;
      row.parts = parts + r * splits * m + out - r * m;
      const Sums sums = merged(row, peak, inverse[out]);
      lse[out] = static_cast<double>(peak) * inverse[out] + std::log(sums.s);
      h[out] = entropy_of(sums);
      v[out] = varentropy_of(sums);
    }
  }
}

// The same sweep at one temperature, then the token where the CDF passes noise [rows].
void draw(const float* logits, int64_t stride, int64_t rows, int64_t n, const float* inverse,
          const double* noise, int64_t threads, void* scratch, int64_t* tokens, float* h) {
  const int64_t splits = splits_of(n);
  Sums* parts = static_cast<Sums*>(scratch);
  float* peaks = reinterpret_cast<float*>(parts + rows * splits);
  sweep(logits, stride, rows, n, inverse, 1, threads, peaks, parts);
  for (int64_t r = 0; r < rows; r++) {
    const Row row = {logits + r * stride, n, splits, peaks + r * splits, parts + r * splits, 1};
    const float peak = peak_of_row(row);
    tokens[r] = -1;
    h[r] = kNan;
    if (!std::isfinite(peak)) continue;
    const Sums sums = merged(row, peak, inverse[r]);
    h[r] = entropy_of(sums);
    tokens[r] = invert(row, peak, inverse[r], noise[r] * sums.s);
  }
}

}  // extern "C"
