// Parameters and gradients moved between layouts: flat (the order of network.h), packed parameters
// and packed gradients (the orders of layout.h). All padding is written as zeros.
#pragma once

#include <algorithm>

#include "layout.h"

namespace trpo_fast {
namespace {

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

    // W^T in blocks of 8 rows, so that the lines read and the lines written both stay in the cache
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

// Writes the transpose wt (rows x columns') of w (columns x rows'): first square blocks, one vector
// register a row, then the columns beyond the last whole block in strips of 8 rows.
template <class Scalar>
void transpose(Index rows, Index columns, const Scalar* w, Index w_stride, Scalar* wt,
               Index wt_stride) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>;
  const Index whole = columns / lanes * lanes;
  for (Index j = 0; j < whole; j += lanes) {
    for (Index i = 0; i < rows; i += lanes) {
      ei::PacketBlock<Packet, lanes> block;
      for (Index k = 0; k < lanes; ++k)
        block.packet[k] = ei::pload<Packet>(w + (j + k) * w_stride + i);
      ei::ptranspose(block);
      for (Index k = 0; k < std::min(lanes, rows - i); ++k)
        ei::pstore(wt + (i + k) * wt_stride + j, block.packet[k]);
    }
  }
  for (Index i0 = 0; i0 < rows; i0 += 8) {
    const Index i1 = std::min(rows, i0 + 8);
    for (Index j = whole; j < columns; ++j)
      for (Index i = i0; i < i1; ++i) wt[i * wt_stride + j] = w[j * w_stride + i];
  }
}

// Parameters in the layout of a packed gradient to packed parameters; the padding of both is zero.
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

}  // namespace
}  // namespace trpo_fast
