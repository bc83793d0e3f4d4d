// Matrices, named as in the paper: A (in + 1 x in + 1) and G (out x out) the factors of a layer's inputs
// and outputs, R (out x in + 1) its gradient
#include "trpo_fast/kronecker.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "aligned.h"
#include "dispatch.h"

namespace trpo_fast {
namespace {

// Doubles in a row of a matrix of n columns, aligned at every instruction-set level.
Index row_stride(Index n) {
  constexpr Index kDoubles = static_cast<Index>(kAlignment / sizeof(double));
  return (n + kDoubles - 1) / kDoubles * kDoubles;
}

struct Matrix {
  Index n = 0, stride = 0;
  AlignedBuffer<double> entries;

  // Makes the matrix n x n. Memory of the same size is kept; padding is zero and stays so.
  void resize(Index size) {
    if (size == n) return;
    n = size;
    stride = row_stride(size);
    entries.release();
    entries.reserve(n * stride);  // zeros
  }
  double mean_diagonal() const {
    double sum = 0.0;
    for (Index i = 0; i < n; ++i) sum += entries.data()[i * stride + i];
    return sum / static_cast<double>(n);
  }
  // this <- (this + damping I)^{-1}
  bool invert(double damping) {
    for (Index i = 0; i < n; ++i) entries.data()[i * stride + i] += damping;
    return kernels<double>().invert(n, entries.data(), stride);
  }
};

// A^{-1} for the A of InputMoments, which is a diagonal and two products of vectors:
//   A = mean [x; 1] [x; 1]^T = diag(q) + u u^T - m m^T,  u = [mean x; 1], m = [mean s; 0], q = [mean s^2; 0]
// With D = diag(q) + damping, U = [u, m] and C = diag(1, -1), by Woodbury's formula,
//   (A + damping I)^{-1} = D^{-1} - D^{-1} U (C + U^T D^{-1} U)^{-1} U^T D^{-1}
struct ThinInverse {
  std::vector<double> d;                // the diagonal of D^{-1}
  std::vector<double> u, m;             // D^{-1} u, D^{-1} m
  double k_uu = 0, k_um = 0, k_mm = 0;  // (C + U^T D^{-1} U)^{-1}

  static double mean_diagonal(const InputMoments& of) {
    double sum = 1.0;
    for (std::size_t i = 0; i < of.mean.size(); ++i)
      sum += of.squares[i] + of.mean[i] * of.mean[i] - of.offset[i] * of.offset[i];
    return sum / static_cast<double>(of.mean.size() + 1);
  }

  bool invert(const InputMoments& of, double damping) {
    const std::size_t in = of.mean.size();
    d.assign(in + 1, 1.0 / damping);
    u.assign(in + 1, 1.0 / damping);
    m.assign(in + 1, 0.0);
    double uu = 1.0 + 1.0 / damping, um = 0.0, mm = -1.0;
    for (std::size_t i = 0; i < in; ++i) {
      d[i] = 1.0 / (of.squares[i] + damping);
      u[i] = d[i] * of.mean[i];
      m[i] = d[i] * of.offset[i];
      uu += u[i] * of.mean[i];
      um += u[i] * of.offset[i];
      mm += m[i] * of.offset[i];
    }
    const double determinant = uu * mm - um * um;
    k_uu = mm / determinant;
    k_um = -um / determinant;
    k_mm = uu / determinant;
    return mm < 0.0 && std::isfinite(k_uu) && std::isfinite(k_um) && std::isfinite(k_mm);
  }

  // y = A^{-1} r
  void apply(const double* r, double* y) const {
    double ur = 0.0, mr = 0.0;
    for (std::size_t i = 0; i < d.size(); ++i) {
      ur += u[i] * r[i];
      mr += m[i] * r[i];
    }
    const double c_u = k_uu * ur + k_um * mr, c_m = k_um * ur + k_mm * mr;
    for (std::size_t i = 0; i < d.size(); ++i) y[i] = d[i] * r[i] - c_u * u[i] - c_m * m[i];
  }
};

struct Layer {
  Index n_inputs = 0, n_outputs = 0;
  bool thin = false;  // whether thin_inputs stands for inputs
  ThinInverse thin_inputs;
  Matrix inputs, outputs;  // A^{-1}, G^{-1}
  bool usable = false;     // whether both inverses exist
};

}  // namespace

struct KroneckerPreconditioner::Workspace {
  NetworkShape shape;
  std::vector<Layer> layers;
  Index free_parameters = 0;
  double damping = 0;
  AlignedBuffer<double> gradient, half, solved;  // R, R A^{-1}, G^{-1} R A^{-1}
};

KroneckerPreconditioner::KroneckerPreconditioner() : w_(std::make_unique<Workspace>()) {}
KroneckerPreconditioner::~KroneckerPreconditioner() = default;

template <class Scalar>
void KroneckerPreconditioner::factorize(const NetworkShape& shape, Index free_parameters,
                                        const Scalar* factors, double count,
                                        const Scalar* background, double damping,
                                        const InputMoments* moments) {
  w_->shape = shape;
  w_->free_parameters = free_parameters;
  w_->damping = damping;
  w_->layers.resize(static_cast<std::size_t>(shape.n_layers));
  Index largest = 0;
  for (int l = 0; l < shape.n_layers; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    Layer& layer = w_->layers[static_cast<std::size_t>(l)];
    layer.n_inputs = in;
    layer.n_outputs = out;
    layer.usable = kernels<Scalar>().has_factors(shape, l);
    if (!layer.usable) continue;
    Matrix &A = layer.inputs, &G = layer.outputs;
    layer.thin = l == 0 && moments;
    if (!layer.thin) A.resize(in + 1);
    G.resize(out);
    largest = std::max(largest, out * row_stride(in + 1));
    kernels<Scalar>().unpack_factors(shape, l, factors, 1.0 / count, count, background,
                                     layer.thin ? nullptr : A.entries.data(), A.stride,
                                     G.entries.data(), G.stride);

    // Split the damping so that it weighs alike in both factors. Without damping a little is added, so
    // that rounding cannot make them indefinite.
    const double a = layer.thin ? ThinInverse::mean_diagonal(*moments) : A.mean_diagonal();
    const double g = G.mean_diagonal();
    const double root = std::sqrt(std::max(damping, 1e-8 * a * g));
    const double pi = std::sqrt(a / g);
    layer.usable =
        std::isfinite(a) && std::isfinite(pi) && pi > 0.0 &&
        (layer.thin ? layer.thin_inputs.invert(*moments, pi * root) : A.invert(pi * root)) &&
        G.invert(root / pi);
  }
  w_->gradient.reserve(largest);
  w_->half.reserve(largest);
  w_->solved.reserve(largest);
}

void KroneckerPreconditioner::apply(const double* r, double* z) {
  const KernelTable<double>& k = kernels<double>();
  for (const Layer& layer : w_->layers) {
    const Matrix &A = layer.inputs, &G = layer.outputs;
    const Index in = layer.n_inputs, out = layer.n_outputs, stride = row_stride(in + 1);
    if (!layer.usable) {
      std::copy_n(r, out * (in + 1), z);
    } else {
      // R = [dW, db]
      double* R = w_->gradient.data();
      for (Index j = 0; j < out; ++j) {
        std::copy_n(r + j * in, in, R + j * stride);
        R[j * stride + in] = r[out * in + j];
        std::fill(R + j * stride + in + 1, R + (j + 1) * stride, 0.0);
      }
      // G^{-1} R A^{-1}
      if (layer.thin) {
        std::fill_n(w_->half.data(), out * stride, 0.0);
        for (Index j = 0; j < out; ++j)
          layer.thin_inputs.apply(R + j * stride, w_->half.data() + j * stride);
      } else {
        k.product(out, in + 1, in + 1, R, stride, A.entries.data(), stride, w_->half.data(),
                  stride);
      }
      k.product(out, in + 1, out, G.entries.data(), G.stride, w_->half.data(), stride,
                w_->solved.data(), stride);
      const double* solved = w_->solved.data();
      for (Index j = 0; j < out; ++j) {
        std::copy_n(solved + j * stride, in, z + j * in);
        z[out * in + j] = solved[j * stride + in];
      }
    }
    r += out * (in + 1);
    z += out * (in + 1);
  }
  // log_std that is a parameter of its own: F = 2
  for (Index i = 0; i < w_->free_parameters; ++i) z[i] = r[i] / (2.0 + w_->damping);
}

template void KroneckerPreconditioner::factorize(const NetworkShape&, Index, const float*, double,
                                                 const float*, double, const InputMoments*);
template void KroneckerPreconditioner::factorize(const NetworkShape&, Index, const double*, double,
                                                 const double*, double, const InputMoments*);

}  // namespace trpo_fast
