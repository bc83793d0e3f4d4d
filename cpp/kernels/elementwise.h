// Loops over plain arrays: sums of partials, the Adam step, the observation normaliser.
#pragma once

#include <algorithm>
#include <cmath>

#include "matmul.h"

namespace trpo_fast {
namespace {

template <class Scalar>
void tree_sum(Scalar* partials, Index count, Index stride, Index begin, Index end) {
  // level by level of the tree: 0 += 1, 2 += 3, ...; then 0 += 2, 4 += 6, ...; in blocks that stay in
  // the cache
  constexpr Index kBlock = 1024;
  for (Index i0 = begin; i0 < end; i0 += kBlock) {
    const Index n = std::min(kBlock, end - i0);
    for (Index step = 1; step < count; step *= 2) {
      for (Index k = 0; k + step < count; k += 2 * step) {
        Scalar* to = partials + k * stride + i0;
        const Scalar* from = to + step * stride;
        for (Index i = 0; i < n; ++i) to[i] += from[i];
      }
    }
  }
}

template <class Scalar>
void adam(Index n, double step_size, double beta1, double beta2, double inverse_sqrt_bias2,
          double epsilon, double scale, const Scalar* gradient, Scalar* m, Scalar* v,
          Scalar* theta) {
  using Packet = PacketOf<Scalar>;
  const Scalar b1 = Scalar(beta1), c1 = Scalar(1 - beta1);
  const Scalar b2 = Scalar(beta2), c2 = Scalar(1 - beta2);
  const Scalar rate = Scalar(step_size), root = Scalar(inverse_sqrt_bias2), eps = Scalar(epsilon);
  Index i = 0;
  for (; i + kLanes<Scalar> <= n; i += kLanes<Scalar>) {
    const Packet g = ei::pmul(ei::pset1<Packet>(Scalar(scale)), ei::ploadu<Packet>(gradient + i));
    const Packet m_i = ei::pmadd(ei::pset1<Packet>(b1), ei::ploadu<Packet>(m + i),
                                 ei::pmul(ei::pset1<Packet>(c1), g));
    const Packet v_i = ei::pmadd(ei::pset1<Packet>(b2), ei::ploadu<Packet>(v + i),
                                 ei::pmul(ei::pset1<Packet>(c2), ei::pmul(g, g)));
    const Packet divisor =
        ei::pmadd(ei::psqrt(v_i), ei::pset1<Packet>(root), ei::pset1<Packet>(eps));
    const Packet step = ei::pdiv(ei::pmul(ei::pset1<Packet>(rate), m_i), divisor);
    ei::pstoreu(m + i, m_i);
    ei::pstoreu(v + i, v_i);
    ei::pstoreu(theta + i, ei::psub(ei::ploadu<Packet>(theta + i), step));
  }
  for (; i < n; ++i) {
    const Scalar g = Scalar(scale) * gradient[i];
    m[i] = b1 * m[i] + c1 * g;
    v[i] = b2 * v[i] + c2 * (g * g);
    theta[i] -= rate * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

template <class Scalar>
void normalize(Index rows, Index width, const Scalar* x, const Scalar* mean,
               const Scalar* inverse_std, Scalar clip, Scalar* y) {
  for (Index n = 0; n < rows; ++n) {
    for (Index i = 0; i < width; ++i) {
      const Scalar z = (x[n * width + i] - mean[i]) * inverse_std[i];
      // written so that a NaN stays a NaN
      y[n * width + i] = z > clip ? clip : (z < -clip ? -clip : z);
    }
  }
}

}  // namespace
}  // namespace trpo_fast
