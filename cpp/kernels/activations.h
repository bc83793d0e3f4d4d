// Activations and their derivatives on padded rows, on Eigen's vectorised functions.
#pragma once

#include <cmath>

#include "matmul.h"

namespace trpo_fast {
namespace {

template <class Scalar>
using ArrayMap = Eigen::Map<Eigen::Array<Scalar, Eigen::Dynamic, 1>, Eigen::AlignedMax>;

// tanh' = 1 - tanh^2 needs only the output; the other derivatives are stored beside it.
constexpr bool stores_derivative(Activation a) { return a != Activation::kTanh; }

// Eigen's float tanh is a vectorised rational approximation (a few units in the last place); for
// double tanh(x) = sign(x) (1 - e^{-2|x|}) / (1 + e^{-2|x|}) with the vectorised exponential loses
// relative accuracy near 0, so the library's tanh is called there.
template <class Scalar>
inline void tanh_in_place(Index n, Scalar* z) {
  ArrayMap<Scalar> h(z, n);
  h = h.tanh();
}

// z -> h = phi(z) in place; d = phi'(z) where stores_derivative(). n is a multiple of the lanes.
// All activations map 0 to 0, so padding stays zero.
template <class Scalar>
void activate(Activation activation, Index n, Scalar* z, Scalar* d) {
  switch (activation) {
    case Activation::kTanh:
      tanh_in_place(n, z);
      return;
    case Activation::kIdentity: {
      ArrayMap<Scalar>(d, n).setOnes();
      return;
    }
    case Activation::kRelu: {
      ArrayMap<Scalar> h(z, n);
      ArrayMap<Scalar> slope(d, n);
      slope = (h > Scalar(0)).template cast<Scalar>();
      h = (h < Scalar(0)).select(Scalar(0), h);  // a NaN stays a NaN
      return;
    }
    case Activation::kElu: {  // phi = e^z - 1, phi' = e^z for z <= 0
      for (Index i = 0; i < n; ++i) {
        if (z[i] > Scalar(0)) {
          d[i] = Scalar(1);
        } else {
          d[i] = std::exp(z[i]);
          z[i] = std::expm1(z[i]);
        }
      }
      return;
    }
    case Activation::kSilu: {  // phi = z s, phi' = s (1 + z (1 - s)), s = 1 / (1 + e^{-z})
      ArrayMap<Scalar> h(z, n);
      ArrayMap<Scalar> slope(d, n);
      slope = (Scalar(1) + (-h).exp()).inverse();
      for (Index i = 0; i < n; ++i) {
        const Scalar s = d[i];
        const Scalar z_i = z[i];
        d[i] = s * (Scalar(1) + z_i * (Scalar(1) - s));
        z[i] = z_i * s;
      }
      return;
    }
    case Activation::kGelu: {  // phi = z Phi(z), phi' = Phi(z) + z N(z); Phi, N of the unit normal
      const Scalar inverse_sqrt_2 = Scalar(0.70710678118654752440);
      const Scalar inverse_sqrt_2pi = Scalar(0.39894228040143267794);
      for (Index i = 0; i < n; ++i) {
        const Scalar z_i = z[i];
        const Scalar cumulative = Scalar(0.5) * std::erfc(-z_i * inverse_sqrt_2);
        const Scalar density = inverse_sqrt_2pi * std::exp(Scalar(-0.5) * z_i * z_i);
        d[i] = cumulative + z_i * density;
        z[i] = z_i * cumulative;
      }
      return;
    }
  }
}

}  // namespace
}  // namespace trpo_fast
