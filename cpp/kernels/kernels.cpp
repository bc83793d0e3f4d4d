// Forward, tangent and adjoint passes of the network over one tile of samples.
//
// Compiled once per instruction-set level (TRPO_FAST_LEVEL names it). Everything but the two table
// functions at the end has internal linkage, so that the linker can never mix levels.
//
// Layouts, with H' = H padded to the lanes:
//   packed parameters   per layer: b (out'), W^T (in x out'), and, for the adjoint, W (out x in')
//   packed gradient     per layer: db (out'), then dW^T (in x out') or dW (out x in'): see transposed()
//   activations         per hidden layer: h (rows x H'), and phi'(z) (rows x H') unless tanh
//   jacobian            per hidden layer but the last: d out / d z (rows x P x H')
//   factors             per layer: sum [h; 1] h^T (in + 1 x in'), sum delta delta^T (out x out')
#include "activations.h"
#include "kernel_table.h"
#include "matmul.h"

#include <Eigen/Cholesky>

#include <algorithm>
#include <cmath>

#define TRPO_FAST_STRING_(x) #x
#define TRPO_FAST_STRING(x) TRPO_FAST_STRING_(x)
#define TRPO_FAST_CONCAT_(a, b, c) a##b##c
#define TRPO_FAST_CONCAT(a, b, c) TRPO_FAST_CONCAT_(a, b, c)

namespace trpo_fast {
namespace {

// Where one layer lies in the packed parameters and in the packed gradient.
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

// A narrow layer's gradient is kept as dW (out x in'): its lanes run along the inputs.
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
  Index derivative;  // equals values for tanh, whose derivative is computed from them
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

template <class Scalar>
Epilogue derivative_epilogue(const NetworkShape& shape) {
  return stores_derivative(shape.activation) ? Epilogue::kTimes : Epilogue::kTimesOneMinusSquare;
}

template <class Scalar, class Source>
void pack_from(const NetworkShape& shape, const Source* flat, bool backward, Scalar* packed) {
  for (int l = 0; l < shape.n_layers; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const Index in_padded = padded<Scalar>(in), out_padded = padded<Scalar>(out);
    const LayerOffsets o = packed_offsets<Scalar>(shape, l, backward);
    const Source* weight = flat;
    const Source* bias = flat + out * in;

    Scalar* b = packed + o.bias;
    for (Index j = 0; j < out_padded; ++j) b[j] = j < out ? Scalar(bias[j]) : Scalar(0);

    // W^T in blocks of 8 rows, so that reads and writes both stay in the cache
    Scalar* wt = packed + o.forward;
    for (Index i0 = 0; i0 < in; i0 += 8) {
      const Index i1 = std::min(in, i0 + 8);
      for (Index j = 0; j < out; ++j)
        for (Index i = i0; i < i1; ++i) wt[i * out_padded + j] = Scalar(weight[j * in + i]);
      for (Index i = i0; i < i1; ++i)
        for (Index j = out; j < out_padded; ++j) wt[i * out_padded + j] = Scalar(0);
    }

    if (backward && l > 0) {
      Scalar* w = packed + o.backward;
      for (Index j = 0; j < out; ++j) {
        for (Index i = 0; i < in; ++i) w[j * in_padded + i] = Scalar(weight[j * in + i]);
        for (Index i = in; i < in_padded; ++i) w[j * in_padded + i] = Scalar(0);
      }
    }
    flat = bias + out;
  }
}

template <class Scalar>
void pack(const NetworkShape& shape, const Scalar* flat, bool backward, Scalar* packed) {
  pack_from<Scalar, Scalar>(shape, flat, backward, packed);
}

template <class Scalar>
void pack_double(const NetworkShape& shape, const double* flat, bool backward, Scalar* packed) {
  pack_from<Scalar, double>(shape, flat, backward, packed);
}

// A network with one output: z_n = b + w . h_n, lanes along the features; padding is zero.
template <class Scalar>
void single_output(Index rows, Index columns, const Scalar* h, const Scalar* w, Scalar bias,
                   Scalar* z, Index z_stride) {
  using Packet = PacketOf<Scalar>;
  constexpr Index W = kLanes<Scalar>;
  for (Index n = 0; n < rows; ++n) {
    Packet sum = ei::pset1<Packet>(Scalar(0));
    for (Index i = 0; i < columns; i += W)
      sum = ei::pmadd(ei::pload<Packet>(h + n * columns + i), ei::pload<Packet>(w + i), sum);
    ei::pstore(z + n * z_stride, ei::pset1<Packet>(Scalar(0)));
    z[n * z_stride] = bias + ei::predux(sum);
  }
}

template <class Scalar>
void forward(const NetworkShape& shape, const Scalar* packed, const Scalar* x, Index x_stride,
             Index rows, Scalar* activations, Scalar* outputs) {
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
    multiply<Scalar, Order::kRows>(task);

    // h = phi(z)
    if (!last) activate(shape.activation, rows * out_padded, z, activations + block.derivative);
    input = z;
    input_stride = out_padded;
  }
}

// delta_{l-1} = phi'(z) (W^T delta_l), into c, whose rows lie c_stride apart
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
  back.epilogue = derivative_epilogue<Scalar>(shape);
  back.factor = activations + block.derivative;
  back.factor_stride = block.stride;
  back.c = c;
  back.c_stride = c_stride;
  multiply<Scalar, Order::kRows>(back);
  return c;
}

// c = w phi'(z) row by row, for the last hidden layer
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

// d out_p / d z_l: row p of the last W times phi', then down through the layers, output by output
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

// The outputs' tangents from those of the hidden layers, kRows rows and kOutputs outputs at a time:
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

template <class Scalar, int kRows, int kOutputs>
EIGEN_ALWAYS_INLINE void output_tangent_block(const OutputTangents<Scalar>& task, Index n,
                                              Index p) {
  using Packet = PacketOf<Scalar>;
  constexpr Index W = kLanes<Scalar>;
  Packet sum[kRows][kOutputs];
  TRPO_FAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    TRPO_FAST_UNROLL
    for (int q = 0; q < kOutputs; ++q) sum[r][q] = ei::pset1<Packet>(Scalar(0));
  }

  // the last layer: weights shared by the rows
  for (Index j = 0; j < task.width; j += W) {
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
      for (Index j = 0; j < term.width; j += W) {
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

// Outputs in blocks of 6, then of 4, 2, 1, for two rows at a time.
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

template <class Scalar>
void tangent_by_jacobian(const NetworkShape& shape, const Scalar* packed, const Scalar* packed_v,
                         const Tile<Scalar>& tile, Scalar* scratch, Scalar* tangent_out) {
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

    // dz = db + dW h, without what comes from below; times phi'(z) in the last hidden layer
    MatmulTask<Scalar> task{};
    task.rows = rows;
    task.columns = task.c_stride = block.stride;
    task.products[0] = {input, input_stride, packed_v + ov.forward, block.stride, shape.sizes[l]};
    task.initial = Initial::kRow;
    task.initial_row = packed_v + ov.bias;
    task.c = dz;
    task.ahead = tile.ahead;
    if (l + 1 == last) {
      task.epilogue = derivative_epilogue<Scalar>(shape);
      task.factor = tile.activations + block.derivative;
      task.factor_stride = block.stride;
      outputs.dh = dz;
    } else {
      outputs.terms[outputs.n_terms++] = {
          tile.jacobian + jacobian_block<Scalar>(shape, l + 1, rows), dz, block.stride};
    }
    multiply<Scalar, Order::kRows>(task);
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

template <class Scalar>
void tangent(const NetworkShape& shape, const Scalar* packed, const Scalar* packed_v,
             const Tile<Scalar>& tile, Scalar* scratch, Scalar* tangent_out) {
  if (tile.jacobian) {
    tangent_by_jacobian(shape, packed, packed_v, tile, scratch, tangent_out);
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
      task.epilogue = derivative_epilogue<Scalar>(shape);
      task.factor = tile.activations + block.derivative;
      task.factor_stride = block.stride;
      input = tile.activations + block.values;
      input_stride = block.stride;
    }
    multiply<Scalar, Order::kRows>(task);
  }
}

// row = sum over rows of u, or row += it, kVectors vectors at a time from column j on
template <class Scalar, int kVectors>
void column_sums(Index rows, Index columns, const Scalar* u, bool add, Index j, Scalar* row) {
  using Packet = PacketOf<Scalar>;
  constexpr Index W = kLanes<Scalar>;
  for (; j + kVectors * W <= columns; j += kVectors * W) {
    Packet sum[kVectors];
    TRPO_FAST_UNROLL
    for (int v = 0; v < kVectors; ++v)
      sum[v] = add ? ei::pload<Packet>(row + j + v * W) : ei::pset1<Packet>(Scalar(0));
    for (Index n = 0; n < rows; ++n) {
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v)
        sum[v] = ei::padd(sum[v], ei::pload<Packet>(u + n * columns + j + v * W));
    }
    TRPO_FAST_UNROLL
    for (int v = 0; v < kVectors; ++v) ei::pstore(row + j + v * W, sum[v]);
  }
  if constexpr (kVectors > 1) {
    if (j < columns) column_sums<Scalar, kVectors / 2>(rows, columns, u, add, j, row);
  }
}

// delta_n = sum_p u_np (d out_p / d z)_n, kVectors vectors at a time from column j on
template <class Scalar, int kVectors>
void combine_stripes(const Scalar* jacobian, Index P, Index width, Index rows, const Scalar* u,
                     Index u_stride, Index j, Scalar* delta) {
  using Packet = PacketOf<Scalar>;
  constexpr Index W = kLanes<Scalar>;
  for (; j + kVectors * W <= width; j += kVectors * W) {
    for (Index n = 0; n < rows; ++n) {
      const Scalar* row = jacobian + n * P * width + j;
      Packet sum[kVectors];
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[v] = ei::pset1<Packet>(Scalar(0));
      for (Index p = 0; p < P; ++p) {
        const Packet u_p = ei::pset1<Packet>(u[n * u_stride + p]);
        TRPO_FAST_UNROLL
        for (int v = 0; v < kVectors; ++v)
          sum[v] = ei::pmadd(u_p, ei::pload<Packet>(row + p * width + v * W), sum[v]);
      }
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) ei::pstore(delta + n * width + j + v * W, sum[v]);
    }
  }
  if constexpr (kVectors > 1) {
    if (j < width)
      combine_stripes<Scalar, kVectors / 2>(jacobian, P, width, rows, u, u_stride, j, delta);
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
    Scalar* below = delta_buffer[l % 2];
    if (tile.jacobian && l + 1 < shape.n_layers)
      combine_stripes<Scalar, 4>(tile.jacobian + jacobian_block<Scalar>(shape, l, rows),
                                 shape.outputs(), in_padded, rows, cotangent,
                                 padded<Scalar>(shape.outputs()), 0, below);
    else
      pull_through(shape, packed, l, rows, tile.activations, delta, out_padded, below, in_padded);
    delta = below;
  }
}

// A layer of many inputs and few units, or the other way round, has factors far larger than itself:
// they would cost more than the products they save.
template <class Scalar>
bool has_factors(const NetworkShape& shape, int layer) {
  constexpr Index kLargest = 2048, kWorthwhile = 8, kFew = 96;
  const Index in = shape.sizes[layer], out = shape.sizes[layer + 1];
  Index parameters = 0;
  for (int l = 0; l < shape.n_layers; ++l) parameters += shape.sizes[l] * shape.sizes[l + 1];
  return in <= kLargest && out <= kLargest &&
         in * in + out * out <= kWorthwhile * std::max(parameters, kFew);
}

// Where the two factors of one layer lie.
struct FactorOffsets {
  Index inputs;   // [h; 1] h^T (in + 1 x in')
  Index outputs;  // delta delta^T (out x out')
  Index end;
};

template <class Scalar>
FactorOffsets factor_offsets(const NetworkShape& shape, int layer) {
  FactorOffsets o{};
  for (int l = 0; l <= layer; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    o.inputs = o.end;
    const bool any = has_factors<Scalar>(shape, l);
    o.outputs = o.inputs + (any ? (in + 1) * padded<Scalar>(in) : 0);
    o.end = o.outputs + (any ? out * padded<Scalar>(out) : 0);
  }
  return o;
}

template <class Scalar>
Index factors_size(const NetworkShape& shape) {
  return factor_offsets<Scalar>(shape, shape.n_layers - 1).end;
}

template <class Scalar>
Index factor_scratch_size(const NetworkShape& shape) {
  return scratch_size<Scalar>(shape) + kTileRows * padded<Scalar>(shape.sizes[0]);
}

// c += a^T b, a rows x m, b rows x n', both with a stride
template <class Scalar>
void add_outer_products(Index rows, Index m, const Scalar* a, Index a_stride, Index columns,
                        const Scalar* b, Index b_stride, Scalar* c) {
  MatmulTask<Scalar> task{};
  task.rows = m;
  task.columns = task.c_stride = columns;
  task.products[0] = {a, a_stride, b, b_stride, rows};
  task.initial = Initial::kAccumulate;
  task.c = c;
  multiply<Scalar, Order::kColumns>(task);
}

template <class Scalar>
void add_factors(const NetworkShape& shape, const Scalar* packed, const Tile<Scalar>& tile,
                 const Scalar* cotangent, Scalar* scratch, Scalar* factors) {
  const Index rows = tile.rows;
  const Index widest = kTileRows * widest_hidden<Scalar>(shape);
  Scalar* delta_buffer[2] = {scratch, scratch + widest};

  // x with its rows padded
  const Index x_padded = padded<Scalar>(shape.sizes[0]);
  Scalar* padded_x = scratch + 2 * widest;
  for (Index n = 0; n < rows; ++n) {
    std::copy_n(tile.x + n * shape.inputs(), shape.inputs(), padded_x + n * x_padded);
    std::fill(padded_x + n * x_padded + shape.sizes[0], padded_x + (n + 1) * x_padded, Scalar(0));
  }

  const Scalar* delta = cotangent;
  for (int l = shape.n_layers - 1; l >= 0; --l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const Index in_padded = padded<Scalar>(in), out_padded = padded<Scalar>(out);
    const FactorOffsets o = factor_offsets<Scalar>(shape, l);
    const Scalar* h =
        l > 0 ? tile.activations + hidden_block<Scalar>(shape, l, rows).values : padded_x;

    // sum_n h_n h_n^T,  sum_n h_n^T,  sum_n delta_n delta_n^T
    if (has_factors<Scalar>(shape, l)) {
      add_outer_products(rows, in, h, in_padded, in_padded, h, in_padded, factors + o.inputs);
      column_sums<Scalar, 4>(rows, in_padded, h, /*add=*/true, 0,
                             factors + o.inputs + in * in_padded);
      add_outer_products(rows, out, delta, out_padded, out_padded, delta, out_padded,
                         factors + o.outputs);
    }
    if (l == 0) break;
    delta = pull_through(shape, packed, l, rows, tile.activations, delta, out_padded,
                         delta_buffer[l % 2], in_padded);
  }
}

template <class Scalar>
void unpack_factors(const NetworkShape& shape, int layer, const Scalar* factors, double scale,
                    double count, double* a, Index a_stride, double* g, Index g_stride) {
  const Index in = shape.sizes[layer], out = shape.sizes[layer + 1];
  const FactorOffsets o = factor_offsets<Scalar>(shape, layer);
  const Scalar* sums = factors + o.inputs;
  for (Index i = 0; i <= in; ++i) {
    for (Index j = 0; j < in; ++j)
      a[i * a_stride + j] = scale * static_cast<double>(sums[i * padded<Scalar>(in) + j]);
    a[i * a_stride + in] =
        i < in ? scale * static_cast<double>(sums[in * padded<Scalar>(in) + i]) : scale * count;
  }
  sums = factors + o.outputs;
  for (Index i = 0; i < out; ++i)
    for (Index j = 0; j < out; ++j)
      g[i * g_stride + j] = scale * static_cast<double>(sums[i * padded<Scalar>(out) + j]);
}

template <class Scalar>
Scalar dot(Index n, const Scalar* a, const Scalar* b) {
  using Vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;
  return Eigen::Map<const Vector>(a, n).dot(Eigen::Map<const Vector>(b, n));
}

template <class Scalar>
void product(Index m, Index n, Index k, const Scalar* a, Index a_stride, const Scalar* b,
             Index b_stride, Scalar* c, Index c_stride) {
  MatmulTask<Scalar> task{};
  task.rows = m;
  task.columns = padded<Scalar>(n);
  task.products[0] = {a, a_stride, b, b_stride, k};
  task.c = c;
  task.c_stride = c_stride;
  multiply<Scalar, Order::kRows>(task);
}

template <class Scalar>
bool invert(Index n, Scalar* a, Index stride) {
  // symmetric, so that the order of rows and columns is all the same
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;
  using View = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
  View view(a, n, n, Eigen::OuterStride<>(stride));
  const Eigen::LLT<Matrix> factorized(view);
  if (factorized.info() != Eigen::Success) return false;
  view.setIdentity();
  factorized.solveInPlace(view);
  return true;
}

template <class Scalar>
void tree_sum(Scalar* partials, Index count, Index stride, Index begin, Index end) {
  // level by level: 0 += 1, 2 += 3, ...; 0 += 2, 4 += 6, ...
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

template <class Scalar, class Target>
void unpack_to(const NetworkShape& shape, const Scalar* gradient, double scale_by, Target* flat) {
  const Target scale = Target(scale_by);
  for (int l = 0; l < shape.n_layers; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const LayerOffsets o = gradient_offsets<Scalar>(shape, l);
    const Scalar* g = gradient + o.forward;
    if (transposed<Scalar>(shape, l)) {
      const Index out_padded = padded<Scalar>(out);
      for (Index i0 = 0; i0 < in; i0 += 8) {
        const Index i1 = std::min(in, i0 + 8);
        for (Index j = 0; j < out; ++j)
          for (Index i = i0; i < i1; ++i) flat[j * in + i] = scale * Target(g[i * out_padded + j]);
      }
    } else {
      const Index in_padded = padded<Scalar>(in);
      for (Index j = 0; j < out; ++j)
        for (Index i = 0; i < in; ++i) flat[j * in + i] = scale * Target(g[j * in_padded + i]);
    }
    flat += out * in;
    for (Index j = 0; j < out; ++j) flat[j] = scale * Target(gradient[o.bias + j]);
    flat += out;
  }
}

template <class Scalar>
void unpack_gradient(const NetworkShape& shape, const Scalar* gradient, double scale,
                     double* flat) {
  unpack_to<Scalar, double>(shape, gradient, scale, flat);
}

template <class Scalar>
void unpack(const NetworkShape& shape, const Scalar* theta, Scalar* flat) {
  unpack_to<Scalar, Scalar>(shape, theta, 1.0, flat);
}

// The inverse of unpack: flat parameters in the layout of a packed gradient.
template <class Scalar>
void pack_gradient(const NetworkShape& shape, const Scalar* flat, Scalar* gradient) {
  std::fill_n(gradient, gradient_size<Scalar>(shape), Scalar(0));
  for (int l = 0; l < shape.n_layers; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const LayerOffsets o = gradient_offsets<Scalar>(shape, l);
    const bool columns = transposed<Scalar>(shape, l);
    const Index stride = columns ? padded<Scalar>(out) : padded<Scalar>(in);
    for (Index j = 0; j < out; ++j)
      for (Index i = 0; i < in; ++i)
        gradient[o.forward + (columns ? i * stride + j : j * stride + i)] = flat[j * in + i];
    flat += out * in;
    std::copy(flat, flat + out, gradient + o.bias);
    flat += out;
  }
}

// W^T (rows x columns') of W (columns x rows'): square blocks of vectors, then what is left in strips
template <class Scalar>
void transpose(Index rows, Index columns, const Scalar* w, Index w_stride, Scalar* wt,
               Index wt_stride) {
  using Packet = PacketOf<Scalar>;
  constexpr Index W = kLanes<Scalar>;
  const Index whole = columns / W * W;
  for (Index j = 0; j < whole; j += W) {
    for (Index i = 0; i < rows; i += W) {
      ei::PacketBlock<Packet, W> block;
      for (Index k = 0; k < W; ++k) block.packet[k] = ei::pload<Packet>(w + (j + k) * w_stride + i);
      ei::ptranspose(block);
      for (Index k = 0; k < std::min(W, rows - i); ++k)
        ei::pstore(wt + (i + k) * wt_stride + j, block.packet[k]);
    }
  }
  for (Index i0 = 0; i0 < rows; i0 += 8) {
    const Index i1 = std::min(rows, i0 + 8);
    for (Index j = whole; j < columns; ++j)
      for (Index i = i0; i < i1; ++i) wt[i * wt_stride + j] = w[j * w_stride + i];
  }
}

// Parameters in the layout of a packed gradient -> packed parameters. Both pad with zeros.
template <class Scalar>
void repack(const NetworkShape& shape, const Scalar* theta, Scalar* packed) {
  for (int l = 0; l < shape.n_layers; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const Index in_padded = padded<Scalar>(in), out_padded = padded<Scalar>(out);
    const LayerOffsets from = gradient_offsets<Scalar>(shape, l);
    const LayerOffsets to = packed_offsets<Scalar>(shape, l);
    std::copy(theta + from.bias, theta + from.forward, packed + to.bias);
    if (transposed<Scalar>(shape, l)) {
      std::copy(theta + from.forward, theta + from.end, packed + to.forward);
      if (l > 0)
        transpose(out, in, theta + from.forward, out_padded, packed + to.backward, in_padded);
    } else {
      std::copy(theta + from.forward, theta + from.end, packed + to.backward);
      transpose(in, out, theta + from.forward, in_padded, packed + to.forward, out_padded);
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

template <class Scalar>
KernelTable<Scalar> make_table() {
  KernelTable<Scalar> table{};
  table.level = TRPO_FAST_STRING(TRPO_FAST_LEVEL);
  table.lanes = static_cast<int>(kLanes<Scalar>);
  table.packed_size = packed_size<Scalar>;
  table.gradient_size = gradient_size<Scalar>;
  table.activation_size = activation_size<Scalar>;
  table.scratch_size = scratch_size<Scalar>;
  table.output_stride = output_stride<Scalar>;
  table.pack = pack<Scalar>;
  table.pack_double = pack_double<Scalar>;
  table.forward = forward<Scalar>;
  table.jacobian_size = jacobian_size<Scalar>;
  table.jacobian = jacobian<Scalar>;
  table.tangent = tangent<Scalar>;
  table.adjoint = adjoint<Scalar>;
  table.has_factors = has_factors<Scalar>;
  table.factors_size = factors_size<Scalar>;
  table.factor_scratch_size = factor_scratch_size<Scalar>;
  table.add_factors = add_factors<Scalar>;
  table.unpack_factors = unpack_factors<Scalar>;
  if constexpr (sizeof(Scalar) == sizeof(double)) {
    table.dot = dot<Scalar>;
    table.product = product<Scalar>;
    table.invert = invert<Scalar>;
  }
  table.tree_sum = tree_sum<Scalar>;
  table.unpack_gradient = unpack_gradient<Scalar>;
  table.unpack = unpack<Scalar>;
  table.pack_gradient = pack_gradient<Scalar>;
  table.repack = repack<Scalar>;
  table.adam = adam<Scalar>;
  table.normalize = normalize<Scalar>;
  return table;
}

}  // namespace

const KernelTable<float>& TRPO_FAST_CONCAT(kernels_, TRPO_FAST_LEVEL, _f32)() {
  static const KernelTable<float> table = make_table<float>();
  return table;
}

const KernelTable<double>& TRPO_FAST_CONCAT(kernels_, TRPO_FAST_LEVEL, _f64)() {
  static const KernelTable<double> table = make_table<double>();
  return table;
}

}  // namespace trpo_fast
