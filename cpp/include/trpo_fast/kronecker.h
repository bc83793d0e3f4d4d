// Kronecker-factored curvature as a preconditioner (Martens & Grosse 2015).
//
// The block of F = mean_n J_n^T M_n J_n that belongs to one layer, with inputs h and outputs z, is
//   F_l = mean_n sum_c (delta_nc delta_nc^T) (x) (h_n h_n^T),  delta_nc = (dy_n/dz)^T column c of M_n^{1/2}
// and is near G_l (x) A_l, with A_l = mean_n [h; 1] [h; 1]^T and G_l = mean_n sum_c delta_nc delta_nc^T.
// A Kronecker product is inverted factor by factor: M^{-1} R = G^{-1} R A^{-1}, R a layer's gradient.
#pragma once

#include <memory>

#include "trpo_fast/network.h"

namespace trpo_fast {

class KroneckerPreconditioner {
 public:
  KroneckerPreconditioner();
  ~KroneckerPreconditioner();

  // Inverts the damped factors (G + sqrt(lambda) / pi I) (x) (A + pi sqrt(lambda) I), where pi^2 is the
  // ratio of their mean diagonals. `factors` are sums over `count` samples as kernels lay them out;
  // `free_parameters`, the log_stds, follow the network's parameters, with F = 2 I. A layer whose
  // factors cannot be inverted, or are far larger than itself, is left as it is.
  template <class Scalar>
  void factorize(const NetworkShape& shape, Index free_parameters, const Scalar* factors,
                 double count, double damping);

  // z = M^{-1} r, vectors of all parameters; z must not overlap r.
  void apply(const double* r, double* z);

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
