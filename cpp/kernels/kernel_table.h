// The one boundary between instruction-set levels: a table of function pointers on raw memory.
//
// A "tile" is at most kTileRows samples, one a row. Rows that the kernels write are padded with zeros
// to a multiple of `lanes`; observations are never padded. A pass is one run through the network:
// forward, tangent (J v), adjoint (J^T u), with J the Jacobian of the outputs in the parameters.
//
// All `packed`, `gradient`, `activations`, `factors` and `scratch` memory is owned by the caller, sized
// by the functions here and aligned to kAlignment bytes. layout.h describes what lies in it. Outputs
// never overlap inputs unless it is said.
//
// P network outputs, A action width, D parameters; layer l maps sizes[l] inputs to sizes[l + 1] units
#pragma once

#include "trpo_fast/network.h"

namespace trpo_fast {

inline constexpr Index kTileRows = 96;
inline constexpr std::size_t kAlignment = 64;
inline constexpr Index kEntrySlack = 16;

// Memory that will be read soon: while a pass computes, it asks for these bytes, cache line by cache
// line, and moves `at` along.
struct ReadAhead {
  const char* at = nullptr;
  const char* end = nullptr;
};

// Rows that differ in few entries from a background that all of them share:
//
//   x_n = background + sum_k values[k] e_columns[k],  starts[n] <= k < starts[n + 1]
//
// A first layer is then a sum of columns of its weights:
//
//   W x_n + b = base + sum_k values[k] W e_columns[k],  base = W background + b
template <class Scalar>
struct SparseRows {
  const Index* starts = nullptr;  // rows + 1; null: the rows are dense
  const std::int32_t* columns = nullptr;
  const Scalar* values = nullptr;
  bool one_entry = false;  // a row has at most one
};

// The samples of a tile, and what is known of them at the parameters of the pass.
template <class Scalar>
struct Tile {
  const Scalar* x;  // rows x inputs; not read where the rows are sparse
  Index rows;
  const Scalar* activations;
  const Scalar* jacobian = nullptr;  // may be null: see below
  ReadAhead* ahead = nullptr;        // may be null
  SparseRows<Scalar> sparse = {};
  Scalar* first_delta = nullptr;  // rows x H', written by the adjoint where the rows are sparse
};

template <class Scalar>
struct KernelTable {
  const char* level;
  int lanes;  // scalars in one vector register

  // Scalars needed for: the packed parameters, a packed gradient, the activations that one tile of
  // `rows` rows caches, and the scratch of one thread. output_stride: padded row length of outputs.
  Index (*packed_size)(const NetworkShape&);
  Index (*gradient_size)(const NetworkShape&);
  Index (*activation_size)(const NetworkShape&, Index rows);
  Index (*scratch_size)(const NetworkShape&);
  Index (*output_stride)(const NetworkShape&);

  // Lays flat parameters (doubles or Scalars) out for the kernels. backward = false leaves out what
  // only the adjoint needs (tangent directions).
  void (*pack)(const NetworkShape&, const Scalar* flat, bool backward, Scalar* packed);
  void (*pack_double)(const NetworkShape&, const double* flat, bool backward, Scalar* packed);

  // outputs (rows x output_stride) = f(x), where the rows of x lie `x_stride` apart. `activations`
  // (activation_size scalars) receives what the other passes need.
  void (*forward)(const NetworkShape&, const Scalar* packed, const Scalar* x, Index x_stride,
                  Index rows, Scalar* activations, Scalar* outputs);

  // The same with sparse rows, and with base (H' of the first layer) as below.
  void (*forward_sparse)(const NetworkShape&, const Scalar* packed, const Scalar* base,
                         const SparseRows<Scalar>&, Index rows, Scalar* activations,
                         Scalar* outputs);

  // base = W background + b of the first layer, with its padding. background: inputs.
  void (*first_layer_base)(const NetworkShape&, const Scalar* packed, const Scalar* background,
                           Scalar* base);

  // Writes where x differs from the background, in order, and by how much. Returns how many entries
  // there are, or most + 1 as soon as there are more than `most`; columns and values hold kEntrySlack
  // more.
  Index (*find_entries)(Index width, const Scalar* x, const Scalar* background, Index most,
                        std::int32_t* columns, Scalar* values);

  // The Jacobian d out_p / d z for every row, output p and hidden layer but the last. With it tangent
  // and adjoint skip the products between hidden layers, which saves time where a network has few
  // outputs and one batch is used for many passes. jacobian_size: scalars needed for one tile, 0 where
  // there is at most one hidden layer.
  Index (*jacobian_size)(const NetworkShape&, Index rows);
  void (*jacobian)(const NetworkShape&, const Scalar* packed, const Tile<Scalar>&, Scalar* scratch,
                   Scalar* jacobian);

  // tangent (rows x output_stride) = J v, with v packed by pack(backward = false), or by
  // pack(backward = true) where the tile has a Jacobian. base_v: the base of packed_v where the rows are
  // sparse, otherwise not read.
  void (*tangent)(const NetworkShape&, const Scalar* packed, const Scalar* packed_v,
                  const Scalar* base_v, const Tile<Scalar>&, Scalar* scratch, Scalar* tangent);

  // gradient = J^T u, or gradient += J^T u where add is true, with cotangents u (rows x output_stride,
  // pad lanes zero). Where the rows are sparse, the weights of the first layer are left out:
  // first_delta receives delta of that layer, which first_layer_gradient needs.
  void (*adjoint)(const NetworkShape&, const Scalar* packed, const Tile<Scalar>&,
                  const Scalar* cotangent, Scalar* scratch, bool add, Scalar* gradient);

  // The gradient of the first layer's weights, in the layout of a packed gradient, whose bias is there
  // already:  dW = sum_n delta_n x_n^T = db background^T + sum over the entries. `by_column` are the
  // entries of input i, starts[i] <= k < starts[i + 1], with the numbers of their rows for columns; those of
  // inputs begin <= i < end are written, each summed in order, so that threads can share the work without
  // changing a bit. first_weights: where in a packed gradient they lie.
  void (*first_layer_gradient)(const NetworkShape&, const SparseRows<Scalar>& by_column,
                               const Scalar* background, const Scalar* first_delta, Index begin,
                               Index end, Scalar* gradient);
  void (*first_weights)(const NetworkShape&, Index* begin, Index* end);

  // factors += sums of outer products over the rows, layer by layer, with h the layer's inputs and
  // delta its backpropagated cotangents: [h; 1] h^T and delta delta^T (Martens & Grosse 2015).
  // factors_size scalars in all; scratch of factor_scratch_size. A layer for which has_factors is false
  // is left out. Of sparse rows the sums are those of x - background; where they have at most one entry,
  // the first layer's sums over inputs are left out: the first first_factor_size scalars stay untouched.
  bool (*has_factors)(const NetworkShape&, int layer);
  Index (*factors_size)(const NetworkShape&);
  Index (*first_factor_size)(const NetworkShape&);
  Index (*factor_scratch_size)(const NetworkShape&);
  void (*add_factors)(const NetworkShape&, const Scalar* packed, const Tile<Scalar>&,
                      const Scalar* cotangent, Scalar* scratch, Scalar* factors);
  // One layer's factors times scale: a = sum [h; 1] [h; 1]^T, whose last entry is scale * count, and
  // g = sum delta delta^T. Rows of a lie a_stride apart, those of g g_stride. background (inputs): what
  // was taken off the inputs of layer 0; null: nothing. a may be null: not wanted.
  void (*unpack_factors)(const NetworkShape&, int layer, const Scalar* factors, double scale,
                         double count, const Scalar* background, double* a, Index a_stride,
                         double* g, Index g_stride);

  // The three that follow exist for doubles only; they are null in the table of floats.
  // a . b, of any alignment.
  Scalar (*dot)(Index n, const Scalar* a, const Scalar* b);
  // c = a b, with a (m x k) and b (k x n). Rows lie strides apart that are multiples of the lanes;
  // padding is zero and stays so.
  void (*product)(Index m, Index n, Index k, const Scalar* a, Index a_stride, const Scalar* b,
                  Index b_stride, Scalar* c, Index c_stride);
  // a <- a^{-1} for a symmetric, positive definite n x n matrix, by Cholesky factorisation. Returns
  // false, with a unchanged, where a is not positive definite.
  bool (*invert)(Index n, Scalar* a, Index stride);

  // partials[0] = sum of `count` packed gradients, `stride` scalars apart, in a fixed binary tree. Only
  // the scalars begin <= i < end of each are summed, so that threads can share the work without
  // changing a bit; the other partials are overwritten.
  void (*tree_sum)(Scalar* partials, Index count, Index stride, Index begin, Index end);
  // flat = scale * gradient.
  void (*unpack_gradient)(const NetworkShape&, const Scalar* gradient, double scale, double* flat);

  // Flat parameters to the layout of a packed gradient and back, and from there to packed parameters, so
  // that an optimiser can work on packed gradients as they are.
  void (*pack_gradient)(const NetworkShape&, const Scalar* flat, Scalar* theta);
  void (*unpack)(const NetworkShape&, const Scalar* theta, Scalar* flat);
  void (*repack)(const NetworkShape&, const Scalar* theta, Scalar* packed);

  // One Adam step on n scalars, with g = scale * gradient:
  //   m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
  //   theta -= step_size * m / (sqrt(v) * inverse_sqrt_bias2 + epsilon)
  void (*adam)(Index n, double step_size, double beta1, double beta2, double inverse_sqrt_bias2,
               double epsilon, double scale, const Scalar* gradient, Scalar* m, Scalar* v,
               Scalar* theta);

  // y = clip((x - mean) * inverse_std, -clip, clip), rows of `width` scalars.
  void (*normalize)(Index rows, Index width, const Scalar* x, const Scalar* mean,
                    const Scalar* inverse_std, Scalar clip, Scalar* y);
};

// One per level, defined in kernels.cpp compiled once for each.
#define TRPO_FAST_DECLARE_LEVEL(name)               \
  const KernelTable<float>& kernels_##name##_f32(); \
  const KernelTable<double>& kernels_##name##_f64();

TRPO_FAST_DECLARE_LEVEL(v2)
TRPO_FAST_DECLARE_LEVEL(v3)
TRPO_FAST_DECLARE_LEVEL(v4)
TRPO_FAST_DECLARE_LEVEL(neon)
#undef TRPO_FAST_DECLARE_LEVEL

}  // namespace trpo_fast
