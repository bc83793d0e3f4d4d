// x a point, g the gradient there, s = x' - x and y = g' - g of past steps, d a direction
#include "lbfgs.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "vectors.h"

namespace trpo_fast {
namespace {

// The last steps and changes of the gradient, which stand for the inverse Hessian.
class InverseHessian {
 public:
  explicit InverseHessian(int memory) : memory_(static_cast<std::size_t>(memory)) {}

  // d = -H g by the two-loop recursion (algorithm 7.4); without pairs a step of norm at most 1
  void direction(const std::vector<double>& g, std::vector<double>& d) const {
    d = g;
    std::vector<double> alpha(pairs_.size());
    for (std::size_t i = pairs_.size(); i-- > 0;) {
      alpha[i] = pairs_[i].rho * dot(pairs_[i].s, d);
      for (std::size_t j = 0; j < d.size(); ++j) d[j] -= alpha[i] * pairs_[i].y[j];
    }
    const double scale = pairs_.empty()
                             ? 1.0 / std::max(1.0, std::sqrt(dot(g, g)))
                             : 1.0 / (pairs_.back().rho * dot(pairs_.back().y, pairs_.back().y));
    for (double& d_j : d) d_j *= scale;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const double beta = pairs_[i].rho * dot(pairs_[i].y, d);
      for (std::size_t j = 0; j < d.size(); ++j) d[j] += (alpha[i] - beta) * pairs_[i].s[j];
    }
    for (double& d_j : d) d_j = -d_j;
  }

  // Adds the step from x to next_x. A pair without clearly positive curvature s.y is left out, so that H
  // stays positive definite.
  void add(const std::vector<double>& x, const std::vector<double>& g,
           const std::vector<double>& next_x, const std::vector<double>& next_g) {
    Pair pair{std::vector<double>(x.size()), std::vector<double>(x.size()), 0.0};
    for (std::size_t j = 0; j < x.size(); ++j) {
      pair.s[j] = next_x[j] - x[j];
      pair.y[j] = next_g[j] - g[j];
    }
    const double curvature = dot(pair.s, pair.y);
    if (!(curvature > 1e-10 * dot(pair.y, pair.y))) return;
    pair.rho = 1.0 / curvature;
    if (pairs_.size() == memory_) pairs_.pop_front();
    pairs_.push_back(std::move(pair));
  }

  void forget() { pairs_.clear(); }

 private:
  struct Pair {
    std::vector<double> s, y;
    double rho;  // 1 / s.y
  };
  std::deque<Pair> pairs_;  // the oldest first
  std::size_t memory_;
};

// Looks along d for a step t with f(x + t d) <= f + c1 t slope and a slope there of at least c2 slope,
// by doubling and bisection from t = 1. Leaves the last point tried in next_x with its value and
// gradient; returns false where no trial met even the first condition.
bool weak_wolfe_search(const SmoothFunction& f, const std::vector<double>& x, double value,
                       double slope, const std::vector<double>& d, std::vector<double>& next_x,
                       double& next_value, std::vector<double>& next_g) {
  constexpr double kC1 = 1e-4, kC2 = 0.9;
  constexpr int kMaxTrials = 25;
  double low = 0.0, high = 0.0, t = 1.0;
  bool decreased = false;
  for (int trial = 0; trial < kMaxTrials; ++trial) {
    for (std::size_t j = 0; j < x.size(); ++j) next_x[j] = x[j] + t * d[j];
    next_value = f(next_x, next_g);
    if (!(next_value <= value + kC1 * t * slope)) {
      high = t;
    } else if (dot(next_g, d) < kC2 * slope) {
      low = t;
      decreased = true;
    } else {
      return true;
    }
    t = high > 0.0 ? 0.5 * (low + high) : 2.0 * t;
  }
  return decreased;
}

}  // namespace

int minimize_lbfgs(const SmoothFunction& f, const LbfgsOptions& options, std::vector<double>& x) {
  InverseHessian inverse_hessian(options.memory);
  std::vector<double> g(x.size()), next_g(x.size()), d(x.size()), next_x(x.size());
  double value = f(x, g);

  int searches = 0;
  while (searches < options.iterations && dot(g, g) > 0.0) {
    // a direction of descent
    inverse_hessian.direction(g, d);
    double slope = dot(g, d);
    if (!(slope < 0.0)) {  // lost to rounding: start again from steepest descent
      inverse_hessian.forget();
      for (std::size_t j = 0; j < d.size(); ++j) d[j] = -g[j];
      slope = dot(g, d);
    }

    // a step along it
    double next_value = value;
    const bool decreased = weak_wolfe_search(f, x, value, slope, d, next_x, next_value, next_g);
    ++searches;
    if (!decreased || !(next_value < value)) break;

    inverse_hessian.add(x, g, next_x, next_g);
    x.swap(next_x);
    g.swap(next_g);
    value = next_value;
  }
  return searches;
}

}  // namespace trpo_fast
