// Scalar functions that several distributions share, all in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "trpo_fast/network.h"

namespace trpo_fast {

inline constexpr double kLog2Pi = 1.8378770664093454835606594728112;

// The logit of a choice that a mask forbids: its probability is exactly 0 beside any other logit, and it
// is finite, so that 0 times it is 0 and the sum over a million components does not overflow.
template <class Scalar>
inline constexpr Scalar kForbiddenLogit = std::numeric_limits<Scalar>::lowest() / Scalar(1 << 20);

// log sum_i e^{z_i} for n logits; the largest is taken out first, so that nothing overflows.
template <class Scalar>
double log_sum_exp(const Scalar* z, int n) {
  double largest = static_cast<double>(z[0]);
  for (int i = 1; i < n; ++i) largest = std::max(largest, static_cast<double>(z[i]));
  double sum = 0.0;
  for (int i = 0; i < n; ++i) sum += std::exp(static_cast<double>(z[i]) - largest);
  return largest + std::log(sum);
}

// log(1 + e^z)
inline double softplus(double z) { return std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z))); }

// 1 / (1 + e^{-z})
inline double sigmoid(double z) {
  if (z >= 0.0) return 1.0 / (1.0 + std::exp(-z));
  const double e = std::exp(z);
  return e / (1.0 + e);
}

// KL(N(m1, s1^2) || N(m2, s2^2)) = log s2/s1 + (s1^2/s2^2 - 1 + (m1 - m2)^2 / s2^2) / 2,
// with expm1, so that it is 0 for equal arguments and accurate for near ones.
inline double gaussian_kl(double mean1, double log_std1, double mean2, double log_std2) {
  const double d = log_std1 - log_std2;
  const double z = (mean1 - mean2) * std::exp(-log_std2);
  return -d + 0.5 * (std::expm1(2.0 * d) + z * z);
}

// The gradient of KL(N(m_old, s_old^2) || N(m, s^2)), with z = (m - m_old) / s:
//   d/dm = z / s,  d/d log s = 1 - s_old^2 / s^2 - z^2
struct GaussianKlGradient {
  GaussianKlGradient(double old_mean, double old_log_std, double mean, double log_std)
      : inverse_std(std::exp(-log_std)),
        z((mean - old_mean) * inverse_std),
        log_std(-(std::expm1(2.0 * (old_log_std - log_std)) + z * z)) {}

  double inverse_std;  // 1 / s
  double z;            // d/dm is z * inverse_std
  double log_std;      // d/d log s
};

// u <- M u for the diagonal metrics M of `rows` rows of n entries, `stride` apart
template <class Scalar>
void apply_diagonal_metric(const Scalar* metric, Index n, Index rows, Index stride, Scalar* u) {
  for (Index row = 0; row < rows; ++row)
    for (Index i = 0; i < n; ++i) u[row * stride + i] *= metric[row * stride + i];
}

// u <- M^{1/2} u for one row of n entries and its diagonal metric M
template <class Scalar>
void apply_diagonal_metric_root(const Scalar* metric, Index n, Scalar* u) {
  for (Index i = 0; i < n; ++i)
    u[i] = static_cast<Scalar>(std::sqrt(double(metric[i])) * double(u[i]));
}

}  // namespace trpo_fast
