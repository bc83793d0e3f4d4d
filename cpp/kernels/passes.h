// The forward, tangent and adjoint passes of the network over one tile of samples.
//
// h = phi(z) activations of a hidden layer, delta = d / d z backpropagated cotangents, n a row
#pragma once

#include "activations.h"
#include "jacobian.h"
#include "layout.h"
#include "matmul.h"
#include "sparse.h"

namespace trpo_fast {
namespace {

// The last layer of a network with one output: z_n = b + w . h_n, lanes along the features, whose
// padding is zero.
template <class Scalar>
void single_output(Index rows, Index columns, const Scalar* h, const Scalar* w, Scalar bias,
                   Scalar* z, Index z_stride) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>;
  for (Index n = 0; n < rows; ++n) {
    Packet sum = ei::pset1<Packet>(Scalar(0));
    for (Index i = 0; i < columns; i += lanes)
      sum = ei::pmadd(ei::pload<Packet>(h + n * columns + i), ei::pload<Packet>(w + i), sum);
    ei::pstore(z + n * z_stride, ei::pset1<Packet>(Scalar(0)));
    z[n * z_stride] = bias + ei::predux(sum);
  }
}

// The layers of a forward pass from `first` on: 0 with the dense rows x, or 1 where z of the first layer
// is there already, as the values of the first hidden layer or as the outputs.
template <class Scalar>
void forward_from(int first, const NetworkShape& shape, const Scalar* packed, const Scalar* x,
                  Index x_stride, Index rows, Scalar* activations, Scalar* outputs) {
  const Scalar* input = x;
  Index input_stride = x_stride;
  for (int l = 0; l < shape.n_layers; ++l) {
    const bool last = l + 1 == shape.n_layers;
    const LayerOffsets o = packed_offsets<Scalar>(shape, l);
    const Index out_padded = padded<Scalar>(shape.sizes[l + 1]);
    const HiddenBlock<Scalar> block =
        last ? HiddenBlock<Scalar>{} : hidden_block<Scalar>(shape, l + 1, rows);
    Scalar* z = last ? outputs : activations + block.values;

    // z = b + W h
    if (last && l > 0 && shape.sizes[l + 1] == 1) {
      single_output(rows, padded<Scalar>(shape.sizes[l]), input, packed + o.backward,
                    packed[o.bias], outputs, out_padded);
      return;
    }
    MatmulTask<Scalar> task{};
    task.rows = rows;
    task.columns = out_padded;
    task.products[0] = {input, input_stride, packed + o.forward, out_padded, shape.sizes[l]};
    task.initial = Initial::kRow;
    task.initial_row = packed + o.bias;
    task.c = z;
    task.c_stride = out_padded;
    if (l >= first) multiply<Scalar, Order::kRows>(task);

    // h = phi(z)
    if (!last) activate(shape.activation, rows * out_padded, z, activations + block.derivative);
    input = z;
    input_stride = out_padded;
  }
}

template <class Scalar>
void forward(const NetworkShape& shape, const Scalar* packed, const Scalar* x, Index x_stride,
             Index rows, Scalar* activations, Scalar* outputs) {
  forward_from(0, shape, packed, x, x_stride, rows, activations, outputs);
}

template <class Scalar>
void forward_sparse(const NetworkShape& shape, const Scalar* packed, const Scalar* base,
                    const SparseRows<Scalar>& sparse, Index rows, Scalar* activations,
                    Scalar* outputs) {
  SparseTask<Scalar> task{};
  task.rows = rows;
  task.columns = padded<Scalar>(shape.sizes[1]);
  task.a = sparse;
  task.b = packed + packed_offsets<Scalar>(shape, 0).forward;
  task.initial_row = base;
  task.c =
      shape.n_layers == 1 ? outputs : activations + hidden_block<Scalar>(shape, 1, rows).values;
  multiply_sparse(task);
  forward_from<Scalar>(1, shape, packed, nullptr, 0, rows, activations, outputs);
}

template <class Scalar>
void tangent(const NetworkShape& shape, const Scalar* packed, const Scalar* packed_v,
             const Scalar* base_v, const Tile<Scalar>& tile, Scalar* scratch, Scalar* tangent_out) {
  if (tile.jacobian) {
    tangent_by_jacobian(shape, packed, packed_v, base_v, tile, scratch, tangent_out);
    return;
  }
  const Index rows = tile.rows;
  Scalar* dh[2] = {scratch, scratch + kTileRows * widest_hidden<Scalar>(shape)};
  const Scalar* input = tile.x;
  Index input_stride = shape.inputs();
  for (int l = 0; l < shape.n_layers; ++l) {
    const bool last = l + 1 == shape.n_layers;
    const LayerOffsets o = packed_offsets<Scalar>(shape, l);
    const LayerOffsets ov = packed_offsets<Scalar>(shape, l, /*backward=*/false);
    const Index out_padded = padded<Scalar>(shape.sizes[l + 1]);

    // dz = db + dW h + W dh, then dh' = phi'(z) dz
    MatmulTask<Scalar> task{};
    task.rows = rows;
    task.columns = out_padded;
    task.products[0] = {input, input_stride, packed_v + ov.forward, out_padded, shape.sizes[l]};
    if (l > 0) {
      task.products[1] = {dh[(l - 1) % 2], input_stride, packed + o.forward, out_padded,
                          shape.sizes[l]};
      task.n_products = 2;
    }
    task.initial = Initial::kRow;
    task.initial_row = packed_v + ov.bias;
    task.c = last ? tangent_out : dh[l % 2];
    task.c_stride = out_padded;
    task.ahead = tile.ahead;
    if (!last) {
      const HiddenBlock<Scalar> block = hidden_block<Scalar>(shape, l + 1, rows);
      task.epilogue = derivative_epilogue(shape.activation);
      task.factor = tile.activations + block.derivative;
      task.factor_stride = block.stride;
      input = tile.activations + block.values;
      input_stride = block.stride;
    }
    if (l == 0 && tile.sparse.starts) multiply_sparse(sparse_form(task, tile.sparse, base_v));
    else multiply<Scalar, Order::kRows>(task);
  }
}

// row = sum_n u_n over the rows of u, or row += sum_n u_n where add is true, from column j on, in
// stripes of kVectors vector registers, then of half as many, ..., 1.
template <class Scalar, int kVectors>
void column_sums(Index rows, Index columns, const Scalar* u, bool add, Index j, Scalar* row) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>;
  for (; j + kVectors * lanes <= columns; j += kVectors * lanes) {
    Packet sum[kVectors];
    TRPO_FAST_UNROLL
    for (int v = 0; v < kVectors; ++v)
      sum[v] = add ? ei::pload<Packet>(row + j + v * lanes) : ei::pset1<Packet>(Scalar(0));
    for (Index n = 0; n < rows; ++n) {
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v)
        sum[v] = ei::padd(sum[v], ei::pload<Packet>(u + n * columns + j + v * lanes));
    }
    TRPO_FAST_UNROLL
    for (int v = 0; v < kVectors; ++v) ei::pstore(row + j + v * lanes, sum[v]);
  }
  if constexpr (kVectors > 1) {
    if (j < columns) column_sums<Scalar, kVectors / 2>(rows, columns, u, add, j, row);
  }
}

template <class Scalar>
void adjoint(const NetworkShape& shape, const Scalar* packed, const Tile<Scalar>& tile,
             const Scalar* cotangent, Scalar* scratch, bool add, Scalar* gradient) {
  const Index rows = tile.rows;
  Scalar* delta_buffer[2] = {scratch, scratch + kTileRows * widest_hidden<Scalar>(shape)};
  const Scalar* delta = cotangent;
  for (int l = shape.n_layers - 1; l >= 0; --l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const Index out_padded = padded<Scalar>(out), in_padded = padded<Scalar>(in);
    const LayerOffsets og = gradient_offsets<Scalar>(shape, l);
    const HiddenBlock<Scalar> block =
        l > 0 ? hidden_block<Scalar>(shape, l, rows) : HiddenBlock<Scalar>{};
    const Scalar* h = l > 0 ? tile.activations + block.values : tile.x;
    const Index h_stride = l > 0 ? block.stride : shape.inputs();

    // db += sum_n delta_n,  dW += sum_n delta_n h_n^T
    column_sums<Scalar, 4>(rows, out_padded, delta, add, 0, gradient + og.bias);
    MatmulTask<Scalar> outer{};
    outer.initial = add ? Initial::kAccumulate : Initial::kZero;
    outer.c = gradient + og.forward;
    outer.ahead = tile.ahead;
    if (l == 0 && tile.sparse.starts) {
      if (shape.n_layers == 1) std::copy_n(delta, rows * out_padded, tile.first_delta);
      break;
    }
    if (transposed<Scalar>(shape, l)) {
      outer.rows = in;
      outer.columns = outer.c_stride = out_padded;
      outer.products[0] = {h, h_stride, delta, out_padded, rows};
    } else {
      outer.rows = out;
      outer.columns = outer.c_stride = in_padded;
      outer.products[0] = {delta, out_padded, h, h_stride, rows};
    }
    multiply<Scalar, Order::kColumns>(outer);

    // delta of the hidden layer below
    if (l == 0) break;
    Scalar* below = l == 1 && tile.sparse.starts ? tile.first_delta : delta_buffer[l % 2];
    if (tile.jacobian && l + 1 < shape.n_layers)
      combine_stripes<Scalar, 4>(tile.jacobian + jacobian_block<Scalar>(shape, l, rows),
                                 shape.outputs(), in_padded, rows, cotangent,
                                 padded<Scalar>(shape.outputs()), 0, below);
    else
      pull_through(shape, packed, l, rows, tile.activations, delta, out_padded, below, in_padded);
    delta = below;
  }
}

}  // namespace
}  // namespace trpo_fast
