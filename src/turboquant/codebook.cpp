#include "turboquant/codebook.h"

#include <cassert>
#include <cmath>
#include <map>
#include <utility>

#include "base/mutex.h"

namespace hearth::turboquant {
namespace {

// Nodes and weights of Gauss–Legendre quadrature on [−1, 1], by Newton's method on the Legendre polynomial.
template <int n>
struct GaussLegendre {
  std::array<double, n> nodes{}, weights{};
  GaussLegendre() {
    for (int i = 0; i < n; ++i) {
      double x = std::cos(3.14159265358979323846 * (i + 0.75) / (n + 0.5)), slope = 0;
      for (int round = 0; round < 12; ++round) {
        double before = 1, here = x;
        for (int k = 2; k <= n; ++k) before = std::exchange(here, ((2 * k - 1) * x * here - (k - 1) * before) / k);
        slope = n * (x * here - before) / (x * x - 1);
        x -= here / slope;
      }
      nodes[static_cast<std::size_t>(i)] = x;
      weights[static_cast<std::size_t>(i)] = 2 / ((1 - x * x) * slope * slope);
    }
  }
};

// The density of one coordinate and its integrals, in units of the standard deviation. Up to a constant factor: only quotients are used.
class Marginal {
 public:
  explicit Marginal(int dim) : dim_(dim), end_(std::sqrt(static_cast<double>(dim))) {}

  double density(double x) const {
    const double rest = 1 - x * x / dim_;
    return rest <= 0 ? 0 : std::exp((dim_ - 3) / 2.0 * std::log(rest));
  }
  // ∫ x^power·f over [from, to], cut off where f is below 1e-40 of its peak.
  double integral(double from, double to, int power) const {
    static const GaussLegendre<16> rule;
    to = std::min(to, std::min(end_, from + 12));
    const int panels = std::max(1, static_cast<int>(std::ceil((to - from) / 0.75)));
    double sum = 0;
    for (int panel = 0; panel < panels; ++panel) {
      const double half = (to - from) / panels / 2, middle = from + (2 * panel + 1) * half;
      for (std::size_t i = 0; i < rule.nodes.size(); ++i) {
        const double x = middle + half * rule.nodes[i];
        sum += rule.weights[i] * half * density(x) * (power == 0 ? 1 : power == 1 ? x : x * x);
      }
    }
    return sum;
  }
  double end() const { return end_; }

 private:
  double dim_, end_;
};

}  // namespace

Codebook lloyd_max(int bits, int dim) {
  assert(bits >= 1 && bits <= 8 && dim >= 8);
  const Marginal f(dim);
  // By symmetry the positive half is enough: cells [t0 = 0, t1), [t1, t2) … [t(n−1), end).
  const std::size_t n = std::size_t{1} << (bits - 1);
  // Start at the quantiles of the best density of centroids, which is ∝ f^(1/3).
  std::vector<double> c(n);
  constexpr int grid = 2048;
  std::array<double, grid + 1> cumulated{};
  const double width = std::min(f.end(), 12.0) / grid;
  for (int i = 0; i < grid; ++i)
    cumulated[static_cast<std::size_t>(i) + 1] = cumulated[static_cast<std::size_t>(i)] + std::cbrt(f.density((i + 0.5) * width));
  for (std::size_t i = 0, at = 0; i < n; ++i) {
    const double wanted = (static_cast<double>(i) + 0.5) / static_cast<double>(n) * cumulated[grid];
    while (cumulated[at + 1] < wanted) ++at;
    c[i] = (static_cast<double>(at) + (wanted - cumulated[at]) / (cumulated[at + 1] - cumulated[at])) * width;
  }
  const auto lower_edge = [&](std::size_t i) { return i == 0 ? 0.0 : (c[i - 1] + c[i]) / 2; };
  const auto upper_edge = [&](std::size_t i) { return i + 1 == n ? f.end() : (c[i] + c[i + 1]) / 2; };
  // Zero of g_i(c) = c_i − mean of cell i. Each cell depends on its two neighbours alone, so a Newton step solves a tridiagonal system. Lloyd's own
  // iteration (c_i := mean) goes first, until Newton's steps keep the order of centroids.
  std::vector<double> mean(n), below(n), diagonal(n), above(n), step(n);
  double change = 1;
  for (int round = 0; round < 200 && change > 1e-13; ++round) {
    for (std::size_t i = 0; i < n; ++i) {
      const double a = lower_edge(i), b = upper_edge(i), mass = f.integral(a, b, 0);
      mean[i] = f.integral(a, b, 1) / mass;
      const double at_a = i == 0 ? 0 : f.density(a) * (mean[i] - a) / mass / 2;      // ∂mean/∂c_(i−1), and its share of ∂mean/∂c_i
      const double at_b = i + 1 == n ? 0 : f.density(b) * (b - mean[i]) / mass / 2;  // likewise towards c_(i+1)
      below[i] = -at_a;
      diagonal[i] = 1 - at_a - at_b;
      above[i] = -at_b;
      step[i] = mean[i] - c[i];
    }
    for (std::size_t i = 1; i < n; ++i) {
      const double factor = below[i] / diagonal[i - 1];
      diagonal[i] -= factor * above[i - 1];
      step[i] -= factor * step[i - 1];
    }
    for (std::size_t i = n; i-- > 0;) step[i] = (step[i] - (i + 1 == n ? 0 : above[i] * step[i + 1])) / diagonal[i];
    bool ordered = true;
    for (std::size_t i = 0; i < n; ++i) {
      const double next = c[i] + step[i];
      ordered = ordered && next > (i == 0 ? 0 : c[i - 1] + step[i - 1]) && next < f.end();
    }
    change = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double next = ordered ? c[i] + step[i] : mean[i];
      change = std::max(change, std::abs(next - c[i]));
      c[i] = next;
    }
  }

  Codebook book;
  book.dim = dim;
  book.bits = bits;
  double error = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double a = lower_edge(i), b = upper_edge(i);
    error += f.integral(a, b, 2) - 2 * c[i] * f.integral(a, b, 1) + c[i] * c[i] * f.integral(a, b, 0);
  }
  book.distortion = error / f.integral(0, f.end(), 0);
  for (std::size_t i = n; i-- > 0;) book.centroids.push_back(-c[i]);
  book.centroids.insert(book.centroids.end(), c.begin(), c.end());
  for (std::size_t i = 0; i + 1 < 2 * n; ++i) book.thresholds.push_back((book.centroids[i] + book.centroids[i + 1]) / 2);

  const double largest = bits <= 4 ? 127 : 16256;
  book.step = static_cast<float>(c[n - 1] / largest);
  for (std::size_t i = 0; i < n; ++i) {
    const auto level = static_cast<std::int16_t>(std::lround(c[i] / c[n - 1] * largest));
    book.levels[n + i] = level;
    book.levels[n - 1 - i] = static_cast<std::int16_t>(-level);
  }
  return book;
}

const Codebook& codebook(int bits, int dim) {
  struct Known {
    Mutex mutex;
    std::map<std::pair<int, int>, Codebook> books GUARDED_BY(mutex);
  };
  static Known known;
  const MutexLock lock(known.mutex);
  const auto found = known.books.find({bits, dim});
  return found != known.books.end() ? found->second : known.books.emplace(std::pair{bits, dim}, lloyd_max(bits, dim)).first->second;
}

}  // namespace hearth::turboquant
