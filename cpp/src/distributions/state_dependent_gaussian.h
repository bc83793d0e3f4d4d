// A Gaussian with independent components whose means m and whose logarithms of the standard deviations
// s both come from the network: outputs 0 ... A-1 are m, outputs A ... 2A-1 are log s before clamping.
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

struct StateDependentGaussian {
  static constexpr bool kDiscrete = false;
  static constexpr bool kConstantMetric = false;
  static constexpr double kMinLogStd = -20.0, kMaxLogStd = 2.0;
  int A;

  int n_outputs() const { return 2 * A; }
  int action_dim() const { return A; }
  int free_parameters() const { return 0; }
  int choices(int) const { return 0; }  // continuous

  // nothing can be forbidden
  template <class Scalar>
  void forbid(const bool*, Scalar*) const {}

  template <class Scalar>
  double log_prob(const FreeLogStd<Scalar>&, const Scalar* outputs, const Actions<Scalar>& actions,
                  Index row) const {
    const Scalar* a = actions.continuous + row * A;
    double sum = 0.0;
    for (int i = 0; i < A; ++i) {
      const double log_std = clamped_log_std(outputs, i);
      const double z = (double(a[i]) - double(outputs[i])) * std::exp(-log_std);
      sum -= 0.5 * z * z + log_std + 0.5 * kLog2Pi;
    }
    return sum;
  }

  template <class Scalar>
  double entropy(const FreeLogStd<Scalar>&, const Scalar* outputs) const {
    double sum = 0.0;
    for (int i = 0; i < A; ++i) sum += clamped_log_std(outputs, i) + 0.5 * (kLog2Pi + 1.0);
    return sum;
  }

  template <class Scalar>
  double kl(const FreeLogStd<Scalar>&, const Scalar* old_outputs, const FreeLogStd<Scalar>&,
            const Scalar* outputs) const {
    double sum = 0.0;
    for (int i = 0; i < A; ++i)
      sum += gaussian_kl(double(old_outputs[i]), clamped_log_std(old_outputs, i),
                         double(outputs[i]), clamped_log_std(outputs, i));
    return sum;
  }

  // as for the Gaussian; a clamped log s has no gradient
  template <class Scalar>
  void add_score(const FreeLogStd<Scalar>&, const Scalar* outputs, const Actions<Scalar>& actions,
                 Index row, double weight, Scalar* cotangent, double*) const {
    const Scalar* a = actions.continuous + row * A;
    for (int i = 0; i < A; ++i) {
      const double inverse_std = std::exp(-clamped_log_std(outputs, i));
      const double z = (double(a[i]) - double(outputs[i])) * inverse_std;
      cotangent[i] += static_cast<Scalar>(weight * z * inverse_std);
      if (log_std_is_free(outputs, i))
        cotangent[A + i] += static_cast<Scalar>(weight * (z * z - 1.0));
    }
  }

  template <class Scalar>
  void add_kl_gradient(const FreeLogStd<Scalar>&, const Scalar* old_outputs,
                       const FreeLogStd<Scalar>&, const Scalar* outputs, double weight,
                       Scalar* cotangent, double*) const {
    for (int i = 0; i < A; ++i) {
      const GaussianKlGradient d(double(old_outputs[i]), clamped_log_std(old_outputs, i),
                                 double(outputs[i]), clamped_log_std(outputs, i));
      cotangent[i] += static_cast<Scalar>(weight * d.z * d.inverse_std);
      if (log_std_is_free(outputs, i)) cotangent[A + i] += static_cast<Scalar>(weight * d.log_std);
    }
  }

  // M is diagonal: 1 / s^2 for m, and 2 for log s, or 0 where it is clamped
  template <class Scalar>
  void prepare_metric(const Scalar* outputs, Scalar* metric) const {
    for (int i = 0; i < A; ++i) {
      metric[i] = static_cast<Scalar>(std::exp(-2.0 * clamped_log_std(outputs, i)));
      metric[A + i] = Scalar(log_std_is_free(outputs, i) ? 2 : 0);
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
  void sample(const FreeLogStd<Scalar>&, const Scalar* outputs, CounterStream& stream,
              Scalar* continuous, std::int32_t*) const {
    for (int i = 0; i < A; ++i)
      continuous[i] = static_cast<Scalar>(double(outputs[i]) +
                                          stream.normal() * std::exp(clamped_log_std(outputs, i)));
  }

  template <class Scalar>
  void mode(const Scalar* outputs, Scalar* continuous, std::int32_t*) const {
    std::copy(outputs, outputs + A, continuous);
  }

 private:
  template <class Scalar>
  double clamped_log_std(const Scalar* outputs, int i) const {
    return std::min(std::max(double(outputs[A + i]), kMinLogStd), kMaxLogStd);
  }
  template <class Scalar>
  bool log_std_is_free(const Scalar* outputs, int i) const {
    const double raw = double(outputs[A + i]);
    return raw >= kMinLogStd && raw <= kMaxLogStd;
  }
};

}  // namespace trpo_fast
