// The two factors of each layer's Fisher matrix, summed over samples (Martens & Grosse 2015):
//
//   per layer: sum_n [h; 1] h^T (in + 1 x in'), sum_n delta delta^T (out x out')
//
// h inputs of a layer, delta its backpropagated cotangents, in' = in padded to the lanes
#pragma once

#include <algorithm>

#include "layout.h"
#include "matmul.h"
#include "passes.h"

namespace trpo_fast {
namespace {

// Whether a layer is preconditioned by factors. A layer of many inputs and few units, or the other way
// round, has factors far larger than its weights: none where they would have more than kWorthwhile
// times the entries of all weights (counted as kFew at least), or a side longer than kLargest.
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
Index first_factor_size(const NetworkShape& shape) {
  return factor_offsets<Scalar>(shape, 0).outputs;
}

template <class Scalar>
Index factor_scratch_size(const NetworkShape& shape) {
  return scratch_size<Scalar>(shape) + kTileRows * padded<Scalar>(shape.sizes[0]);
}

// c += a^T b, with a (rows x m) and b (rows x columns) whose rows lie a_stride and b_stride apart
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

// factor (in + 1 x in') += sum_n [s_n; 1] s_n^T, with s_n = x_n - background
template <class Scalar>
void add_sparse_factor(Index rows, Index in, Index in_padded, const SparseRows<Scalar>& s,
                       Scalar* factor) {
  for (Index n = 0; n < rows; ++n) {
    for (Index k = s.starts[n]; k < s.starts[n + 1]; ++k) {
      Scalar* row = factor + s.columns[k] * in_padded;
      for (Index m = s.starts[n]; m < s.starts[n + 1]; ++m)
        row[s.columns[m]] += s.values[k] * s.values[m];
      factor[in * in_padded + s.columns[k]] += s.values[k];
    }
  }
}

template <class Scalar>
void add_factors(const NetworkShape& shape, const Scalar* packed, const Tile<Scalar>& tile,
                 const Scalar* cotangent, Scalar* scratch, Scalar* factors) {
  const Index rows = tile.rows;
  const Index widest = kTileRows * widest_hidden<Scalar>(shape);
  Scalar* delta_buffer[2] = {scratch, scratch + widest};

  // the observations with their rows padded, as the layers above have them
  const Index x_padded = padded<Scalar>(shape.sizes[0]);
  Scalar* padded_x = scratch + 2 * widest;
  for (Index n = 0; n < rows && !tile.sparse.starts; ++n) {
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
      if (l == 0 && tile.sparse.starts) {
        if (!tile.sparse.one_entry)
          add_sparse_factor(rows, in, in_padded, tile.sparse, factors + o.inputs);
      } else {
        add_outer_products(rows, in, h, in_padded, in_padded, h, in_padded, factors + o.inputs);
        column_sums<Scalar, 4>(rows, in_padded, h, /*add=*/true, 0,
                               factors + o.inputs + in * in_padded);
      }
      add_outer_products(rows, out, delta, out_padded, out_padded, delta, out_padded,
                         factors + o.outputs);
    }
    if (l == 0) break;
    delta = pull_through(shape, packed, l, rows, tile.activations, delta, out_padded,
                         delta_buffer[l % 2], in_padded);
  }
}

// Makes a = mean [s; 1] [s; 1]^T times count, the means of s = x - b, those of x:
//   mean x x^T = mean s s^T + b (mean s)^T + (mean s) b^T + b b^T,  mean x = mean s + b
template <class Scalar>
void add_background(Index in, const Scalar* background, double count, double* a, Index a_stride) {
  const double* sums = a + in * a_stride;  // of s, until the last row is written
  for (Index i = 0; i < in; ++i) {
    const double b_i = static_cast<double>(background[i]);
    for (Index j = 0; j < in; ++j) {
      const double b_j = static_cast<double>(background[j]);
      a[i * a_stride + j] += b_i * sums[j] + b_j * sums[i] + count * b_i * b_j;
    }
  }
  for (Index i = 0; i < in; ++i) {
    a[in * a_stride + i] += count * static_cast<double>(background[i]);
    a[i * a_stride + in] = a[in * a_stride + i];
  }
}

template <class Scalar>
void unpack_factors(const NetworkShape& shape, int layer, const Scalar* factors, double scale,
                    double count, const Scalar* background, double* a, Index a_stride, double* g,
                    Index g_stride) {
  const Index in = shape.sizes[layer], out = shape.sizes[layer + 1];
  const FactorOffsets o = factor_offsets<Scalar>(shape, layer);
  const Scalar* sums = factors + o.inputs;
  for (Index i = 0; i <= in && a; ++i) {
    for (Index j = 0; j < in; ++j)
      a[i * a_stride + j] = scale * static_cast<double>(sums[i * padded<Scalar>(in) + j]);
    a[i * a_stride + in] =
        i < in ? scale * static_cast<double>(sums[in * padded<Scalar>(in) + i]) : scale * count;
  }
  if (layer == 0 && background && a) add_background(in, background, scale * count, a, a_stride);
  sums = factors + o.outputs;
  for (Index i = 0; i < out; ++i)
    for (Index j = 0; j < out; ++j)
      g[i * g_stride + j] = scale * static_cast<double>(sums[i * padded<Scalar>(out) + j]);
}

}  // namespace
}  // namespace trpo_fast
