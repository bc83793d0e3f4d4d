// Backpropagation through hidden layers, and products with the Jacobians d out / d z that it gives.
//
// P network outputs, H' units of a hidden layer padded to the lanes, n a row (a sample)
#pragma once

#include <algorithm>

#include "layout.h"
#include "matmul.h"
#include "sparse.h"

namespace trpo_fast {
namespace {

// One layer of backpropagation: c = delta_{l-1} = phi'(z) (W^T delta_l). Rows of c lie c_stride apart;
// c must not overlap delta. Returns c.
template <class Scalar>
const Scalar* pull_through(const NetworkShape& shape, const Scalar* packed, int l, Index rows,
                           const Scalar* activations, const Scalar* delta, Index delta_stride,
                           Scalar* c, Index c_stride) {
  const HiddenBlock<Scalar> block = hidden_block<Scalar>(shape, l, rows);
  const Index in_padded = padded<Scalar>(shape.sizes[l]);
  MatmulTask<Scalar> back{};
  back.rows = rows;
  back.columns = in_padded;
  back.products[0] = {delta, delta_stride, packed + packed_offsets<Scalar>(shape, l).backward,
                      in_padded, shape.sizes[l + 1]};
  back.epilogue = derivative_epilogue(shape.activation);
  back.factor = activations + block.derivative;
  back.factor_stride = block.stride;
  back.c = c;
  back.c_stride = c_stride;
  multiply<Scalar, Order::kRows>(back);
  return c;
}

// c_n = w phi'(z_n), entry by entry, for every row n of the last hidden layer
template <class Scalar>
void times_derivative(const NetworkShape& shape, Index rows, const Scalar* activations,
                      const Scalar* w, Scalar* c) {
  using Packet = PacketOf<Scalar>;
  const HiddenBlock<Scalar> block = hidden_block<Scalar>(shape, shape.n_layers - 1, rows);
  const Scalar* factor = activations + block.derivative;
  const Packet one = ei::pset1<Packet>(Scalar(1));
  for (Index j = 0; j < block.stride; j += kLanes<Scalar>) {
    const Packet w_j = ei::pload<Packet>(w + j);
    for (Index n = 0; n < rows; ++n) {
      Packet slope = ei::pload<Packet>(factor + n * block.stride + j);
      if (!stores_derivative(shape.activation)) slope = ei::psub(one, ei::pmul(slope, slope));
      ei::pstore(c + n * block.stride + j, ei::pmul(w_j, slope));
    }
  }
}

// d out_p / d z_l of every hidden layer l but the last, one output p at a time: row p of the last
// layer's W times phi', then backpropagated from layer to layer.
template <class Scalar>
void jacobian(const NetworkShape& shape, const Scalar* packed, const Tile<Scalar>& tile,
              Scalar* scratch, Scalar* jacobian_out) {
  const int last = shape.n_layers - 1;
  const Index P = shape.outputs(), last_padded = padded<Scalar>(shape.sizes[last]);
  const Scalar* w = packed + packed_offsets<Scalar>(shape, last).backward;
  for (Index p = 0; p < P; ++p) {
    times_derivative(shape, tile.rows, tile.activations, w + p * last_padded, scratch);
    const Scalar* delta = scratch;
    Index delta_stride = last_padded;
    for (int l = last - 1; l >= 1; --l) {
      const Index width = padded<Scalar>(shape.sizes[l]);
      Scalar* block = jacobian_out + jacobian_block<Scalar>(shape, l, tile.rows) + p * width;
      delta = pull_through(shape, packed, l, tile.rows, tile.activations, delta, delta_stride,
                           block, P * width);
      delta_stride = P * width;
    }
  }
}

// What output_tangents() needs to make the tangents u of the outputs out of those of the hidden
// layers:
//   u_np = db_p + dW_p . h_n + W_p . (phi' dz)_n + sum_l (d out_p / d z_l)_n . dz_ln
template <class Scalar>
struct OutputTangents {
  Index outputs, output_stride;  // P, P'
  const Scalar* bias;            // db
  const Scalar* weight_v;        // dW (P x H') of the last layer
  const Scalar* weight;          // W (P x H')
  const Scalar* h;               // of the last hidden layer, rows x H'
  const Scalar* dh;              // phi' dz, rows x H'
  Index width;                   // H'
  int n_terms = 0;               // hidden layers below
  struct Term {
    const Scalar* jacobian;  // rows x P x width
    const Scalar* dz;        // rows x width
    Index width;
  } terms[kMaxLayers];
  Scalar* u;  // rows x P'
};

// The sum above for kRows rows from n on and kOutputs outputs from p on.
template <class Scalar, int kRows, int kOutputs>
EIGEN_ALWAYS_INLINE void output_tangent_block(const OutputTangents<Scalar>& task, Index n,
                                              Index p) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>;
  Packet sum[kRows][kOutputs];
  TRPO_FAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    TRPO_FAST_UNROLL
    for (int q = 0; q < kOutputs; ++q) sum[r][q] = ei::pset1<Packet>(Scalar(0));
  }

  // the last layer: weights shared by the rows
  for (Index j = 0; j < task.width; j += lanes) {
    Packet h[kRows], dh[kRows];
    TRPO_FAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      h[r] = ei::pload<Packet>(task.h + (n + r) * task.width + j);
      dh[r] = ei::pload<Packet>(task.dh + (n + r) * task.width + j);
    }
    TRPO_FAST_UNROLL
    for (int q = 0; q < kOutputs; ++q) {
      const Packet dw = ei::pload<Packet>(task.weight_v + (p + q) * task.width + j);
      const Packet w = ei::pload<Packet>(task.weight + (p + q) * task.width + j);
      TRPO_FAST_UNROLL
      for (int r = 0; r < kRows; ++r)
        sum[r][q] = ei::pmadd(dw, h[r], ei::pmadd(w, dh[r], sum[r][q]));
    }
  }

  // the layers below: a Jacobian of each row
  for (int i = 0; i < task.n_terms; ++i) {
    const auto& term = task.terms[i];
    TRPO_FAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Scalar* dz = term.dz + (n + r) * term.width;
      const Scalar* jacobian = term.jacobian + ((n + r) * task.outputs + p) * term.width;
      for (Index j = 0; j < term.width; j += lanes) {
        const Packet dz_j = ei::pload<Packet>(dz + j);
        TRPO_FAST_UNROLL
        for (int q = 0; q < kOutputs; ++q)
          sum[r][q] = ei::pmadd(ei::pload<Packet>(jacobian + q * term.width + j), dz_j, sum[r][q]);
      }
    }
  }
  TRPO_FAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    TRPO_FAST_UNROLL
    for (int q = 0; q < kOutputs; ++q)
      task.u[(n + r) * task.output_stride + p + q] = task.bias[p + q] + ei::predux(sum[r][q]);
  }
}

// All outputs from p on, in blocks of 6, then of 4, 2, 1, two rows at a time.
template <class Scalar, int kOutputs>
void output_tangents(const OutputTangents<Scalar>& task, Index rows, Index p) {
  for (; p + kOutputs <= task.outputs; p += kOutputs) {
    Index n = 0;
    for (; n + 2 <= rows; n += 2) output_tangent_block<Scalar, 2, kOutputs>(task, n, p);
    if (n < rows) output_tangent_block<Scalar, 1, kOutputs>(task, n, p);
  }
  if constexpr (kOutputs > 1) {
    if (p < task.outputs)
      output_tangents<Scalar, (kOutputs == 6 ? 4 : kOutputs / 2)>(task, rows, p);
  }
}

// The tangent pass of a tile that has its Jacobian: u = J v without the products between hidden
// layers. The kernel table states the contract of `tangent`.
template <class Scalar>
void tangent_by_jacobian(const NetworkShape& shape, const Scalar* packed, const Scalar* packed_v,
                         const Scalar* base_v, const Tile<Scalar>& tile, Scalar* scratch,
                         Scalar* tangent_out) {
  const Index rows = tile.rows;
  const int last = shape.n_layers - 1;
  const Index P = shape.outputs(), output_stride = padded<Scalar>(P);
  OutputTangents<Scalar> outputs{};
  const Scalar* input = tile.x;
  Index input_stride = shape.inputs();
  for (int l = 0; l < last; ++l) {
    const LayerOffsets ov = packed_offsets<Scalar>(shape, l);
    const HiddenBlock<Scalar> block = hidden_block<Scalar>(shape, l + 1, rows);
    Scalar* dz = scratch + l * kTileRows * widest_hidden<Scalar>(shape);

    // dz = db + dW h, the tangent that this layer's own parameters cause, without that of its inputs;
    // times phi'(z) in the last hidden layer
    MatmulTask<Scalar> task{};
    task.rows = rows;
    task.columns = task.c_stride = block.stride;
    task.products[0] = {input, input_stride, packed_v + ov.forward, block.stride, shape.sizes[l]};
    task.initial = Initial::kRow;
    task.initial_row = packed_v + ov.bias;
    task.c = dz;
    task.ahead = tile.ahead;
    if (l + 1 == last) {
      task.epilogue = derivative_epilogue(shape.activation);
      task.factor = tile.activations + block.derivative;
      task.factor_stride = block.stride;
      outputs.dh = dz;
    } else {
      outputs.terms[outputs.n_terms++] = {
          tile.jacobian + jacobian_block<Scalar>(shape, l + 1, rows), dz, block.stride};
    }
    if (l == 0 && tile.sparse.starts) multiply_sparse(sparse_form(task, tile.sparse, base_v));
    else multiply<Scalar, Order::kRows>(task);
    input = tile.activations + block.values;
    input_stride = block.stride;
  }

  const LayerOffsets o = packed_offsets<Scalar>(shape, last);
  outputs.outputs = P;
  outputs.output_stride = output_stride;
  outputs.bias = packed_v + o.bias;
  outputs.weight_v = packed_v + o.backward;
  outputs.weight = packed + o.backward;
  outputs.h = input;
  outputs.width = input_stride;
  outputs.u = tangent_out;
  std::fill_n(tangent_out, rows * output_stride, Scalar(0));
  output_tangents<Scalar, 6>(outputs, rows, 0);
}

// delta_n = sum_p u_np (d out_p / d z)_n for every row n, from column j on, in stripes of kVectors
// vector registers, then of half as many, ..., 1.
template <class Scalar, int kVectors>
void combine_stripes(const Scalar* jacobian, Index P, Index width, Index rows, const Scalar* u,
                     Index u_stride, Index j, Scalar* delta) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>;
  for (; j + kVectors * lanes <= width; j += kVectors * lanes) {
    for (Index n = 0; n < rows; ++n) {
      const Scalar* row = jacobian + n * P * width + j;
      Packet sum[kVectors];
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[v] = ei::pset1<Packet>(Scalar(0));
      for (Index p = 0; p < P; ++p) {
        const Packet u_p = ei::pset1<Packet>(u[n * u_stride + p]);
        TRPO_FAST_UNROLL
        for (int v = 0; v < kVectors; ++v)
          sum[v] = ei::pmadd(u_p, ei::pload<Packet>(row + p * width + v * lanes), sum[v]);
      }
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) ei::pstore(delta + n * width + j + v * lanes, sum[v]);
    }
  }
  if constexpr (kVectors > 1) {
    if (j < width)
      combine_stripes<Scalar, kVectors / 2>(jacobian, P, width, rows, u, u_stride, j, delta);
  }
}

}  // namespace
}  // namespace trpo_fast
