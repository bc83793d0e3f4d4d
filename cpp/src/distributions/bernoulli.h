// Independent Bernoulli components: action i is 1 with probability p_i = sigmoid(z_i), else 0, with z
// the network's outputs.
#pragma once

#include <cstdint>

#include "scalar_functions.h"
#include "trpo_fast/distribution.h"
#include "trpo_fast/rng.h"

namespace trpo_fast {

struct Bernoulli {
  static constexpr bool kDiscrete = true;
  static constexpr bool kConstantMetric = false;
  int A;  // action width, one logit each

  int n_outputs() const { return A; }
  int action_dim() const { return A; }
  int free_parameters() const { return 0; }
  int choices(int) const { return 2; }

  // allowed (A x 2): whether component i may be 0, and 1. One value left: z = -+infinity, but finite, so
  // that p (1 - p), the score and the KL are exactly 0.
  template <class Scalar>
  void forbid(const bool* allowed, Scalar* logits) const {
    for (int i = 0; i < A; ++i) {
      if (!allowed[2 * i + 1]) logits[i] = kForbiddenLogit<Scalar>;
      else if (!allowed[2 * i]) logits[i] = -kForbiddenLogit<Scalar>;
    }
  }

  // log p = -softplus(-z),  log(1 - p) = -softplus(z)
  template <class Scalar>
  double log_prob(const FreeLogStd<Scalar>&, const Scalar* logits, const Actions<Scalar>& actions,
                  Index row) const {
    const std::int32_t* a = actions.discrete + row * A;
    double sum = 0.0;
    for (int i = 0; i < A; ++i) sum -= softplus(a[i] ? -double(logits[i]) : double(logits[i]));
    return sum;
  }

  // log(1 + e^z) - z p
  template <class Scalar>
  double entropy(const FreeLogStd<Scalar>&, const Scalar* logits) const {
    double sum = 0.0;
    for (int i = 0; i < A; ++i) {
      const double z = double(logits[i]);
      sum += softplus(z) - z * sigmoid(z);
    }
    return sum;
  }

  // p log(p / q) + (1 - p) log((1 - p) / (1 - q)), p old, q new, by softplus: no term that grows with a
  // logit is left to cancel
  template <class Scalar>
  double kl(const FreeLogStd<Scalar>&, const Scalar* old_logits, const FreeLogStd<Scalar>&,
            const Scalar* logits) const {
    double sum = 0.0;
    for (int i = 0; i < A; ++i) {
      const double z = double(old_logits[i]), w = double(logits[i]);
      sum += sigmoid(z) * (softplus(-w) - softplus(-z)) + sigmoid(-z) * (softplus(w) - softplus(z));
    }
    return sum;
  }

  // d/dz = a - p
  template <class Scalar>
  void add_score(const FreeLogStd<Scalar>&, const Scalar* logits, const Actions<Scalar>& actions,
                 Index row, double weight, Scalar* cotangent, double*) const {
    const std::int32_t* a = actions.discrete + row * A;
    for (int i = 0; i < A; ++i)
      cotangent[i] +=
          static_cast<Scalar>(weight * ((a[i] ? 1.0 : 0.0) - sigmoid(double(logits[i]))));
  }

  // d/dz = q - p, p old, q new
  template <class Scalar>
  void add_kl_gradient(const FreeLogStd<Scalar>&, const Scalar* old_logits,
                       const FreeLogStd<Scalar>&, const Scalar* logits, double weight,
                       Scalar* cotangent, double*) const {
    for (int i = 0; i < A; ++i)
      cotangent[i] += static_cast<Scalar>(
          weight * (sigmoid(double(logits[i])) - sigmoid(double(old_logits[i]))));
  }

  // M is diagonal: p (1 - p)
  template <class Scalar>
  void prepare_metric(const Scalar* logits, Scalar* metric) const {
    for (int i = 0; i < A; ++i) {
      const double z = double(logits[i]);
      metric[i] = static_cast<Scalar>(sigmoid(z) * sigmoid(-z));
    }
  }

  template <class Scalar>
  void apply_metric(const FreeLogStd<Scalar>&, const Scalar* metric, Index rows, Index stride,
                    Scalar* tangent) const {
    apply_diagonal_metric(metric, n_outputs(), rows, stride, tangent);
  }

  template <class Scalar>
  void apply_metric_root(const FreeLogStd<Scalar>&, const Scalar* metric, Scalar* u) const {
    apply_diagonal_metric_root(metric, n_outputs(), u);
  }

  template <class Scalar>
  void sample(const FreeLogStd<Scalar>&, const Scalar* logits, CounterStream& stream, Scalar*,
              std::int32_t* discrete) const {
    for (int i = 0; i < A; ++i) discrete[i] = stream.uniform() < sigmoid(double(logits[i])) ? 1 : 0;
  }

  template <class Scalar>
  void mode(const Scalar* logits, Scalar*, std::int32_t* discrete) const {
    for (int i = 0; i < A; ++i) discrete[i] = logits[i] > Scalar(0) ? 1 : 0;
  }
};

}  // namespace trpo_fast
