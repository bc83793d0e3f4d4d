// Categorical and multi-categorical distributions: each component of an action is one of n choices
// and has n logits z among the network's outputs, with probabilities p_i = e^{z_i} / sum_j e^{z_j}.
// A categorical distribution is a multi-categorical one with a single component.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "scalar_functions.h"
#include "trpo_fast/distribution.h"
#include "trpo_fast/rng.h"

namespace trpo_fast {

struct MultiCategorical {
  static constexpr bool kDiscrete = true;
  static constexpr bool kConstantMetric = false;
  const std::vector<int>& sizes;  // choices of each component

  int n_outputs() const {
    int sum = 0;
    for (int n : sizes) sum += n;
    return sum;
  }
  int action_dim() const { return static_cast<int>(sizes.size()); }
  int free_parameters() const { return 0; }
  int choices(int column) const { return sizes[static_cast<std::size_t>(column)]; }

  // z_i of the forbidden choices: p_i = 0, whose score, metric and root of the metric are 0 below
  template <class Scalar>
  void forbid(const bool* allowed, Scalar* logits) const {
    const int n = n_outputs();
    for (int i = 0; i < n; ++i)
      if (!allowed[i]) logits[i] = kForbiddenLogit<Scalar>;
  }

  // log p_a = z_a - log sum_j e^{z_j}
  template <class Scalar>
  double log_prob(const FreeLogStd<Scalar>&, const Scalar* logits, const Actions<Scalar>& actions,
                  Index row) const {
    const std::int32_t* a = actions.discrete + row * action_dim();
    double sum = 0.0;
    for (int n : sizes) {
      sum += double(logits[*a++]) - log_sum_exp(logits, n);
      logits += n;
    }
    return sum;
  }

  // -sum_i p_i log p_i
  template <class Scalar>
  double entropy(const FreeLogStd<Scalar>&, const Scalar* logits) const {
    double sum = 0.0;
    for (int n : sizes) {
      const double log_z = log_sum_exp(logits, n);
      for (int i = 0; i < n; ++i) {
        const double log_p = double(logits[i]) - log_z;
        const double p = std::exp(log_p);
        if (p != 0.0) sum -= p * log_p;  // 0 log 0 = 0; a NaN is not 0, so it stays visible
      }
      logits += n;
    }
    return sum;
  }

  // sum_i p_i (log p_i - log q_i), p old, q new
  template <class Scalar>
  double kl(const FreeLogStd<Scalar>&, const Scalar* old_logits, const FreeLogStd<Scalar>&,
            const Scalar* logits) const {
    double sum = 0.0;
    for (int n : sizes) {
      const double old_log_z = log_sum_exp(old_logits, n);
      const double log_z = log_sum_exp(logits, n);
      for (int i = 0; i < n; ++i) {
        const double log_p = double(old_logits[i]) - old_log_z;
        const double p = std::exp(log_p);
        if (p != 0.0) sum += p * (log_p - (double(logits[i]) - log_z));  // as in entropy()
      }
      old_logits += n;
      logits += n;
    }
    return sum;
  }

  // d/dz_i = [i = a] - p_i
  template <class Scalar>
  void add_score(const FreeLogStd<Scalar>&, const Scalar* logits, const Actions<Scalar>& actions,
                 Index row, double weight, Scalar* cotangent, double*) const {
    const std::int32_t* a = actions.discrete + row * action_dim();
    for (int n : sizes) {
      const double log_z = log_sum_exp(logits, n);
      for (int i = 0; i < n; ++i) {
        const double p = std::exp(double(logits[i]) - log_z);
        cotangent[i] += static_cast<Scalar>(weight * ((i == *a ? 1.0 : 0.0) - p));
      }
      ++a;
      logits += n;
      cotangent += n;
    }
  }

  // d/dz_i = q_i - p_i, p old, q new
  template <class Scalar>
  void add_kl_gradient(const FreeLogStd<Scalar>&, const Scalar* old_logits,
                       const FreeLogStd<Scalar>&, const Scalar* logits, double weight,
                       Scalar* cotangent, double*) const {
    for (int n : sizes) {
      const double old_log_z = log_sum_exp(old_logits, n);
      const double log_z = log_sum_exp(logits, n);
      for (int i = 0; i < n; ++i) {
        const double p = std::exp(double(old_logits[i]) - old_log_z);
        const double q = std::exp(double(logits[i]) - log_z);
        cotangent[i] += static_cast<Scalar>(weight * (q - p));
      }
      old_logits += n;
      logits += n;
      cotangent += n;
    }
  }

  // M = diag(p) - p p^T for each component; p is what it is made of
  template <class Scalar>
  void prepare_metric(const Scalar* logits, Scalar* metric) const {
    for (int n : sizes) {
      const double log_z = log_sum_exp(logits, n);
      for (int i = 0; i < n; ++i)
        metric[i] = static_cast<Scalar>(std::exp(double(logits[i]) - log_z));
      logits += n;
      metric += n;
    }
  }

  // (diag(p) - p p^T) u = p (u - p^T u)
  template <class Scalar>
  void apply_metric(const FreeLogStd<Scalar>&, const Scalar* metric, Index rows, Index stride,
                    Scalar* tangent) const {
    for (Index row = 0; row < rows; ++row) {
      const Scalar* p = metric + row * stride;
      Scalar* u = tangent + row * stride;
      for (int n : sizes) {
        // p^T u / sum p: rounded probabilities may sum to a little more than 1, which must not make
        // the product indefinite
        double mean = 0.0, total = 0.0;
        for (int i = 0; i < n; ++i) {
          mean += static_cast<double>(p[i]) * static_cast<double>(u[i]);
          total += static_cast<double>(p[i]);
        }
        mean /= total;
        for (int i = 0; i < n; ++i)
          u[i] =
              static_cast<Scalar>(static_cast<double>(p[i]) * (static_cast<double>(u[i]) - mean));
        p += n;
        u += n;
      }
    }
  }

  // (diag(q) - p q^T) u, q = sqrt(p), because (diag(q) - p q^T) (diag(q) - q p^T) = diag(p) - p p^T
  template <class Scalar>
  void apply_metric_root(const FreeLogStd<Scalar>&, const Scalar* metric, Scalar* u) const {
    for (int n : sizes) {
      double q_dot_u = 0.0;
      for (int i = 0; i < n; ++i) q_dot_u += std::sqrt(double(metric[i])) * double(u[i]);
      for (int i = 0; i < n; ++i) {
        const double p = double(metric[i]);
        u[i] = static_cast<Scalar>(std::sqrt(p) * double(u[i]) - p * q_dot_u);
      }
      metric += n;
      u += n;
    }
  }

  // The inverse of the cumulative distribution. Where rounding leaves the sum of all probabilities
  // below the uniform number, the last choice is taken that is not forbidden.
  template <class Scalar>
  void sample(const FreeLogStd<Scalar>&, const Scalar* logits, CounterStream& stream, Scalar*,
              std::int32_t* discrete) const {
    for (int n : sizes) {
      const double log_z = log_sum_exp(logits, n);
      const double u = stream.uniform();
      double cumulative = 0.0;
      int a = 0;
      for (; a + 1 < n; ++a) {
        cumulative += std::exp(double(logits[a]) - log_z);
        if (u < cumulative) break;
      }
      while (a > 0 && logits[a] == kForbiddenLogit<Scalar>) --a;
      *discrete++ = a;
      logits += n;
    }
  }

  template <class Scalar>
  void mode(const Scalar* logits, Scalar*, std::int32_t* discrete) const {
    for (int n : sizes) {
      *discrete++ = static_cast<std::int32_t>(std::max_element(logits, logits + n) - logits);
      logits += n;
    }
  }
};

}  // namespace trpo_fast
