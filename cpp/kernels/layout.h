// Where everything lies in the memory that callers own. With H' = H padded to the lanes:
//
//   packed parameters   per layer: b (out'), W^T (in x out'), and, for the adjoint, W (out x in')
//   packed gradient     per layer: db (out'), then dW^T (in x out') or dW (out x in'): see transposed()
//   activations         per hidden layer: h (rows x H'), and phi'(z) (rows x H') unless tanh
//   Jacobian            per hidden layer but the last: d out / d z (rows x P x H')
//
// P network outputs, H units of a hidden layer, in and out the widths of a linear layer
#pragma once

#include <algorithm>

#include "activations.h"
#include "kernel_table.h"

namespace trpo_fast {
namespace {

// Where one layer lies in the packed parameters or in the packed gradient, in scalars from its start.
struct LayerOffsets {
  Index bias;
  Index forward;   // W^T (in x out')
  Index backward;  // W (out x in'), unused in layer 0
  Index end;
};

template <class Scalar>
LayerOffsets packed_offsets(const NetworkShape& shape, int layer, bool backward = true) {
  LayerOffsets o{};
  Index at = 0;
  for (int l = 0; l <= layer; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    o.bias = at;
    o.forward = o.bias + padded<Scalar>(out);
    o.backward = o.forward + in * padded<Scalar>(out);
    o.end = o.backward + (backward && l > 0 ? out * padded<Scalar>(in) : 0);
    at = o.end;
  }
  return o;
}

// Whether a layer's gradient is kept as dW^T (in x out'), lanes along the outputs, rather than as
// dW (out x in'), lanes along the inputs: whichever pads less. Layer 0 always is, because the rows of
// observations are not padded.
template <class Scalar>
bool transposed(const NetworkShape& shape, int layer) {
  const Index in = shape.sizes[layer], out = shape.sizes[layer + 1];
  return layer == 0 || in * padded<Scalar>(out) <= out * padded<Scalar>(in);
}

template <class Scalar>
LayerOffsets gradient_offsets(const NetworkShape& shape, int layer) {
  LayerOffsets o{};
  Index at = 0;
  for (int l = 0; l <= layer; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    o.bias = at;
    o.forward = o.backward = o.bias + padded<Scalar>(out);
    o.end = o.forward +
            (transposed<Scalar>(shape, l) ? in * padded<Scalar>(out) : out * padded<Scalar>(in));
    at = o.end;
  }
  return o;
}

template <class Scalar>
Index packed_size(const NetworkShape& shape) {
  return packed_offsets<Scalar>(shape, shape.n_layers - 1).end;
}

template <class Scalar>
Index gradient_size(const NetworkShape& shape) {
  return gradient_offsets<Scalar>(shape, shape.n_layers - 1).end;
}

template <class Scalar>
Index output_stride(const NetworkShape& shape) {
  return padded<Scalar>(shape.sizes[shape.n_layers]);
}

// Cached activations of hidden layer l (1-based, as the output of linear layer l - 1).
template <class Scalar>
struct HiddenBlock {
  Index values;
  Index derivative;  // of phi'(z); equals `values` for tanh, whose derivative is computed from h
  Index stride;
};

template <class Scalar>
HiddenBlock<Scalar> hidden_block(const NetworkShape& shape, int hidden, Index rows) {
  const Index copies = stores_derivative(shape.activation) ? 2 : 1;
  Index at = 0;
  for (int l = 1; l < hidden; ++l) at += copies * rows * padded<Scalar>(shape.sizes[l]);
  const Index stride = padded<Scalar>(shape.sizes[hidden]);
  return {at, at + (copies - 1) * rows * stride, stride};
}

template <class Scalar>
Index activation_size(const NetworkShape& shape, Index rows) {
  const Index copies = stores_derivative(shape.activation) ? 2 : 1;
  Index size = 0;
  for (int l = 1; l < shape.n_layers; ++l) size += copies * rows * padded<Scalar>(shape.sizes[l]);
  return size;
}

template <class Scalar>
Index widest_hidden(const NetworkShape& shape) {
  Index widest = kLanes<Scalar>;
  for (int l = 1; l < shape.n_layers; ++l)
    widest = std::max(widest, padded<Scalar>(shape.sizes[l]));
  return widest;
}

template <class Scalar>
Index scratch_size(const NetworkShape& shape) {
  return std::max(2, shape.n_layers - 1) * kTileRows * widest_hidden<Scalar>(shape);
}

// Where d out / d z of hidden layer l lies, 1 <= l <= n_layers - 2.
template <class Scalar>
Index jacobian_block(const NetworkShape& shape, int hidden, Index rows) {
  Index at = 0;
  for (int l = 1; l < hidden; ++l) at += rows * shape.outputs() * padded<Scalar>(shape.sizes[l]);
  return at;
}

template <class Scalar>
Index jacobian_size(const NetworkShape& shape, Index rows) {
  return jacobian_block<Scalar>(shape, std::max(1, shape.n_layers - 1), rows);
}

}  // namespace
}  // namespace trpo_fast
