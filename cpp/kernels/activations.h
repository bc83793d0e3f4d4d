// Activations and their derivatives on padded rows, on Eigen's vectorised functions.
#pragma once

#include <cmath>

#include "matmul.h"

namespace trpo_fast {
namespace {

template <class Scalar>
using ArrayMap = Eigen::Map<Eigen::Array<Scalar, Eigen::Dynamic, 1>, Eigen::AlignedMax>;

// tanh'(z) = 1 - tanh(z)^2 is computed from the stored output; other derivatives are stored beside it.
constexpr bool stores_derivative(Activation a) { return a != Activation::kTanh; }

// How a product is multiplied by phi'(z) of the layer it ends in.
constexpr Epilogue derivative_epilogue(Activation a) {
  return stores_derivative(a) ? Epilogue::kTimes : Epilogue::kTimesOneMinusSquare;
}

// Eigen's float tanh is a vectorised rational approximation, good to a few units in the last place.
inline void tanh_in_place(Index n, float* z) {
  ArrayMap<float> h(z, n);
  h = h.tanh();
}

// Eigen has no vectorised tanh for double, so it is made of the vectorised exponential:
//   tanh |z| = 1 - 2 / (1 + e^{2|z|})                        where |z| > 0.55
//   tanh |z| = |z| + |z|^3 p(z^2) / q(z^2)                   elsewhere (Cephes, tanh.c)
// The first would lose digits near 0, the second is a rational approximation for small arguments.
inline void tanh_in_place(Index n, double* z) {
  using Packet = PacketOf<double>;
  const auto constant = [](double c) { return ei::pset1<Packet>(c); };
  for (Index i = 0; i < n; i += kLanes<double>) {
    const Packet x = ei::pload<Packet>(z + i);
    const Packet a = ei::pabs(x);

    const Packet e = ei::pexp(ei::pmin(ei::padd(a, a), constant(60.0)));
    const Packet large =
        ei::psub(constant(1.0), ei::pdiv(constant(2.0), ei::padd(constant(1.0), e)));

    const Packet s = ei::pmul(x, x);
    Packet p =
        ei::pmadd(constant(-9.64399179425052238628e-1), s, constant(-9.92877231001918586564e1));
    p = ei::pmadd(p, s, constant(-1.61468768441708447952e3));
    Packet q = ei::padd(s, constant(1.12811678491632931402e2));
    q = ei::pmadd(q, s, constant(2.23548839060100448583e3));
    q = ei::pmadd(q, s, constant(4.84406305325125486048e3));
    const Packet small = ei::pmadd(ei::pmul(a, s), ei::pdiv(p, q), a);

    const Packet magnitude = ei::pselect(ei::pcmp_lt(a, constant(0.55)), small, large);
    // the sign of x; a NaN in x stays one
    const Packet sign = ei::pand(x, constant(-0.0));
    const Packet result = ei::por(magnitude, sign);
    ei::pstore(z + i, ei::pselect(ei::pcmp_eq(x, x), result, x));
  }
}

// z -> h = phi(z) in place; d = phi'(z) where stores_derivative(). n is a multiple of the lanes.
// All activations map 0 to 0, so padding stays zero.
template <class Scalar>
void activate(Activation activation, Index n, Scalar* z, Scalar* d) {
  switch (activation) {
    case Activation::kTanh: tanh_in_place(n, z); return;
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
