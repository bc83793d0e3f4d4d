// Kronecker-factored curvature as a preconditioner (Martens & Grosse 2015).
//
// The block of F = mean_n J_n^T M_n J_n that belongs to layer l, with inputs h and outputs z, is
//   F_l = mean_n sum_c (delta_nc delta_nc^T) (x) (h_n h_n^T),  delta_nc = (dy_n/dz)^T column c of M_n^{1/2}
// where (x) is the Kronecker product. It is close to G_l (x) A_l, with the matrices
//   A_l = mean_n [h; 1] [h; 1]^T,  G_l = mean_n sum_c delta_nc delta_nc^T
// named as in the paper. A Kronecker product is inverted factor by factor: solving with it turns a
// layer's gradient R (out x (in + 1)) into G^{-1} R A^{-1}.
#pragma once

#include <memory>
#include <vector>

#include "trpo_fast/network.h"

namespace trpo_fast {

// Means over samples of a first layer's inputs x = background + s, where s has at most one entry other
// than 0, so that mean s s^T is diagonal. O entries each.
struct InputMoments {
  std::vector<double> mean;     // of x
  std::vector<double> offset;   // mean of s
  std::vector<double> squares;  // mean of s^2
};

class KroneckerPreconditioner {
 public:
  KroneckerPreconditioner();
  ~KroneckerPreconditioner();

  // Inverts the damped factors (G + sqrt(lambda) / pi I) (x) (A + pi sqrt(lambda) I), where pi^2 is the
  // ratio of their mean diagonals and lambda the damping. `factors` are sums over `count` samples, laid
  // out as add_factors of the kernel table leaves them, and `background` what it had taken off the inputs
  // (may be null). `moments` (may be null) stand for the inputs' factor of the first layer. The last
  // `free_parameters` parameters are the log_stds, for which F = 2 I is inverted exactly. A layer without
  // factors, or whose factors cannot be inverted, is not preconditioned: apply() copies its part.
  template <class Scalar>
  void factorize(const NetworkShape& shape, Index free_parameters, const Scalar* factors,
                 double count, const Scalar* background, double damping,
                 const InputMoments* moments = nullptr);

  // z = M^{-1} r for vectors of all D parameters, with M the preconditioner; z must not overlap r.
  void apply(const double* r, double* z);

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
