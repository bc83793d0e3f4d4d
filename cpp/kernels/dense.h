// Dense linear algebra for the solvers outside: inner products, matrix products, inverses.
#pragma once

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include "matmul.h"

namespace trpo_fast {
namespace {

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
  // a is symmetric, so it does not matter that Eigen reads columns where rows are stored
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;
  using View = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
  View view(a, n, n, Eigen::OuterStride<>(stride));
  const Eigen::LLT<Matrix> factorized(view);
  if (factorized.info() != Eigen::Success) return false;
  view.setIdentity();
  factorized.solveInPlace(view);
  return true;
}

}  // namespace
}  // namespace trpo_fast
