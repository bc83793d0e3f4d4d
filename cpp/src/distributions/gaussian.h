// A Gaussian with independent components. The network gives the means m; the logarithms of the
// standard deviations s are parameters of their own, the same in every state.
//
// A action width
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "scalar_functions.h"
#include "trpo_fast/distribution.h"
#include "trpo_fast/rng.h"

namespace trpo_fast {

struct Gaussian {
  static constexpr bool kDiscrete = false;
  static constexpr bool kConstantMetric = true;
  int A;

  int n_outputs() const { return A; }
  int action_dim() const { return A; }
  int free_parameters() const { return A; }
  int choices(int) const { return 0; }  // continuous

  // nothing can be forbidden
  template <class Scalar>
  void forbid(const bool*, Scalar*) const {}

  // log N(a; m, s^2) = -(a - m)^2 / (2 s^2) - log s - log(2 pi) / 2
  template <class Scalar>
  double log_prob(const FreeLogStd<Scalar>& free, const Scalar* mean,
                  const Actions<Scalar>& actions, Index row) const {
    const Scalar* a = actions.continuous + row * A;
    double sum = 0.0;
    for (int i = 0; i < A; ++i) {
      const double z = (double(a[i]) - double(mean[i])) * free.inverse_std[i];
      sum -= 0.5 * z * z + free.log_std[i] + 0.5 * kLog2Pi;
    }
    return sum;
  }

  // log s + (log(2 pi) + 1) / 2
  template <class Scalar>
  double entropy(const FreeLogStd<Scalar>& free, const Scalar*) const {
    double sum = 0.0;
    for (int i = 0; i < A; ++i) sum += free.log_std[i] + 0.5 * (kLog2Pi + 1.0);
    return sum;
  }

  template <class Scalar>
  double kl(const FreeLogStd<Scalar>& old_free, const Scalar* old_mean,
            const FreeLogStd<Scalar>& free, const Scalar* mean) const {
    double sum = 0.0;
    for (int i = 0; i < A; ++i)
      sum +=
          gaussian_kl(double(old_mean[i]), old_free.log_std[i], double(mean[i]), free.log_std[i]);
    return sum;
  }

  // d/dm = (a - m) / s^2,  d/d log s = (a - m)^2 / s^2 - 1
  template <class Scalar>
  void add_score(const FreeLogStd<Scalar>& free, const Scalar* mean, const Actions<Scalar>& actions,
                 Index row, double weight, Scalar* cotangent, double* log_std_cotangent) const {
    const Scalar* a = actions.continuous + row * A;
    for (int i = 0; i < A; ++i) {
      const double z = (double(a[i]) - double(mean[i])) * free.inverse_std[i];
      cotangent[i] += static_cast<Scalar>(weight * z * free.inverse_std[i]);
      log_std_cotangent[i] += weight * (z * z - 1.0);
    }
  }

  template <class Scalar>
  void add_kl_gradient(const FreeLogStd<Scalar>& old_free, const Scalar* old_mean,
                       const FreeLogStd<Scalar>& free, const Scalar* mean, double weight,
                       Scalar* cotangent, double* log_std_cotangent) const {
    for (int i = 0; i < A; ++i) {
      const GaussianKlGradient d(double(old_mean[i]), old_free.log_std[i], double(mean[i]),
                                 free.log_std[i]);
      cotangent[i] += static_cast<Scalar>(weight * d.z * d.inverse_std);
      log_std_cotangent[i] += weight * d.log_std;
    }
  }

  // M = 1 / s^2 in the means, the same for every row: nothing to prepare
  template <class Scalar>
  void prepare_metric(const Scalar*, Scalar*) const {}

  template <class Scalar>
  void apply_metric(const FreeLogStd<Scalar>& free, const Scalar*, Index rows, Index stride,
                    Scalar* tangent) const {
    const Index n = A;
    const Scalar* scale = free.inverse_variance.data();
    for (Index row = 0; row < rows; ++row)
      for (Index i = 0; i < n; ++i) tangent[row * stride + i] *= scale[i];
  }

  template <class Scalar>
  void apply_metric_root(const FreeLogStd<Scalar>& free, const Scalar*, Scalar* u) const {
    for (int i = 0; i < A; ++i) u[i] = static_cast<Scalar>(double(u[i]) * free.inverse_std[i]);
  }

  template <class Scalar>
  void sample(const FreeLogStd<Scalar>& free, const Scalar* mean, CounterStream& stream,
              Scalar* continuous, std::int32_t*) const {
    for (int i = 0; i < A; ++i)
      continuous[i] = static_cast<Scalar>(double(mean[i]) + stream.normal() / free.inverse_std[i]);
  }

  template <class Scalar>
  void mode(const Scalar* mean, Scalar* continuous, std::int32_t*) const {
    std::copy(mean, mean + A, continuous);
  }
};

}  // namespace trpo_fast
