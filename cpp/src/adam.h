// One step of Adam (Kingma & Ba 2015, algorithm 1; epsilon stands where PyTorch puts it):
//
//   m <- b1 m + (1 - b1) g,            m^ = m / (1 - b1^t)
//   v <- b2 v + (1 - b2) g^2,          v^ = v / (1 - b2^t)
//   theta <- theta - learning_rate m^ / (sqrt(v^) + epsilon)
#pragma once

#include <cmath>
#include <cstdint>

#include "dispatch.h"

namespace trpo_fast {

inline constexpr double kAdamBeta1 = 0.9, kAdamBeta2 = 0.999, kAdamEpsilon = 1e-8;

// The step number t, t >= 1, of n parameters theta with moments m and v, all in one layout.
// g = scale * gradient; a negative scale ascends. No two arrays overlap.
template <class Scalar>
void adam_step(std::int64_t t, double learning_rate, double scale, Index n, const Scalar* gradient,
               Scalar* m, Scalar* v, Scalar* theta) {
  const double steps = static_cast<double>(t);
  const double step_size = learning_rate / (1.0 - std::pow(kAdamBeta1, steps));
  const double inverse_sqrt_bias2 = 1.0 / std::sqrt(1.0 - std::pow(kAdamBeta2, steps));
  kernels<Scalar>().adam(n, step_size, kAdamBeta1, kAdamBeta2, inverse_sqrt_bias2, kAdamEpsilon,
                         scale, gradient, m, v, theta);
}

}  // namespace trpo_fast
