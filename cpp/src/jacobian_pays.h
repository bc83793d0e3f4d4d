// Whether a batch keeps the Jacobians of its outputs in the hidden layers.
#pragma once

#include "dispatch.h"

namespace trpo_fast {

// Whether the Jacobians d outputs / d z of the hidden layers pay for themselves over `products` products.
// For a sample and a pair of hidden layers each product saves 2 H_{l+1} H_l multiply-adds and spends
// 2 P H_l memory-bound ones (counted double); building the Jacobians costs 1.25 P H_{l+1} H_l. They may
// take kLargest bytes. The answer depends on sizes alone, not on the activation budget, so that the
// budget does not change the bits.
template <class Scalar>
bool jacobian_pays(const NetworkShape& shape, Index tiles, int products) {
  constexpr Index kLargest = Index{256} << 20;
  const Index tile = kernels<Scalar>().jacobian_size(shape, kTileRows);
  if (tile == 0 || tiles > kLargest / (tile * Index{sizeof(Scalar)})) return false;
  double between = 0, below = 0;
  for (int l = 1; l + 1 < shape.n_layers; ++l) {
    between += static_cast<double>(shape.sizes[l]) * shape.sizes[l + 1];
    below += static_cast<double>(shape.sizes[l]) * shape.outputs();
  }
  return products * (2.0 * between - 4.0 * below) > 1.25 * shape.outputs() * between;
}

}  // namespace trpo_fast
