#include "trpo_fast/conjugate_gradient.h"

#include <cmath>

#include "reporting.h"
#include "vectors.h"

namespace trpo_fast {

const char* to_string(ConjugateGradientStatus status) {
  switch (status) {
    case ConjugateGradientStatus::kConverged: return "converged";
    case ConjugateGradientStatus::kMaxIterations: return "max_iterations";
    case ConjugateGradientStatus::kNonPositiveCurvature: return "non_positive_curvature";
    case ConjugateGradientStatus::kNonFinite: return "non_finite";
    case ConjugateGradientStatus::kZeroRightHandSide: return "zero_rhs";
  }
  return "unknown";
}

void ConjugateGradientWorkspace::reserve(Index n, bool preconditioned) {
  const std::size_t size = static_cast<std::size_t>(n);
  residual.resize(size);
  direction.resize(size);
  product.resize(size);
  if (preconditioned) preconditioned_residual.resize(size);
}

// Hestenes & Stiefel 1952; the symbols are those of Shewchuk 1994, sections 8 and 12 (there s is z).
ConjugateGradientSummary conjugate_gradient(const LinearOperator& product, Index n, const double* b,
                                            const ConjugateGradientOptions& options,
                                            ConjugateGradientWorkspace& workspace, double* x,
                                            const LinearOperator& preconditioner) {
  ConjugateGradientSummary summary;
  const bool preconditioned = static_cast<bool>(preconditioner);
  workspace.reserve(n, preconditioned);
  double* r = workspace.residual.data();                                      // r = b - A x
  double* p = workspace.direction.data();                                     // p, search direction
  double* q = workspace.product.data();                                       // q = A p
  double* z = preconditioned ? workspace.preconditioned_residual.data() : r;  // z = M^{-1} r

  // x = 0,  r = b
  for (Index i = 0; i < n; ++i) {
    x[i] = 0.0;
    r[i] = b[i];
  }
  const double b_norm_squared = dot(n, b, b);
  double r_norm_squared = b_norm_squared;
  if (b_norm_squared == 0.0) {
    summary.status = ConjugateGradientStatus::kZeroRightHandSide;
    summary.relative_residual = 0.0;
    summary.message = "the right-hand side is zero, so the solution is zero";
    return summary;
  }
  if (!std::isfinite(b_norm_squared)) {
    summary.status = ConjugateGradientStatus::kNonFinite;
    summary.message =
        "the right-hand side holds a NaN, an infinity, or numbers too large to square";
    return summary;
  }
  const double target = options.relative_tolerance * options.relative_tolerance * b_norm_squared;

  // p = z = M^{-1} r
  if (preconditioned) preconditioner(r, z);
  for (Index i = 0; i < n; ++i) p[i] = z[i];
  double r_dot_z = preconditioned ? dot(n, r, z) : b_norm_squared;

  while (summary.iterations < options.max_iterations) {
    if (r_norm_squared <= target || r_norm_squared == 0.0) {
      summary.status = ConjugateGradientStatus::kConverged;
      break;
    }
    if (!(r_dot_z > 0.0) || !std::isfinite(r_dot_z)) {
      summary.status = ConjugateGradientStatus::kNonPositiveCurvature;
      summary.message = format(
          "the preconditioner gave r^T z = %.3e after %d products, so it is not positive "
          "definite; x is the last iterate",
          r_dot_z, summary.iterations);
      break;
    }

    // q = A p, curvature p^T A p
    product(p, q);
    ++summary.iterations;
    const double curvature = dot(n, p, q);
    if (!std::isfinite(curvature)) {
      summary.status = ConjugateGradientStatus::kNonFinite;
      summary.message = "a product with the matrix was not finite; x is the last finite iterate";
      break;
    }
    if (!(curvature > 0.0)) {
      summary.status = ConjugateGradientStatus::kNonPositiveCurvature;
      summary.message = format(
          "the curvature along direction %d was %.3e, so the matrix is not positive definite; "
          "x is the last iterate",
          summary.iterations, curvature);
      break;
    }

    // alpha = r^T z / p^T A p,  x += alpha p,  r -= alpha q
    const double alpha = r_dot_z / curvature;
    if (!std::isfinite(alpha * std::sqrt(dot(n, p, p)))) {
      summary.status = ConjugateGradientStatus::kNonFinite;
      summary.message = format(
          "the curvature along direction %d was %.3e, so small that the step is not finite; "
          "x is the last iterate",
          summary.iterations, curvature);
      break;
    }
    for (Index i = 0; i < n; ++i) {
      x[i] += alpha * p[i];
      r[i] -= alpha * q[i];
    }

    // beta = r'^T z' / r^T z,  p = z + beta p
    r_norm_squared = dot(n, r, r);
    if (preconditioned) preconditioner(r, z);
    const double next = preconditioned ? dot(n, r, z) : r_norm_squared;
    const double beta = next / r_dot_z;
    for (Index i = 0; i < n; ++i) p[i] = z[i] + beta * p[i];
    r_dot_z = next;
  }
  if (summary.status == ConjugateGradientStatus::kMaxIterations && r_norm_squared <= target)
    summary.status = ConjugateGradientStatus::kConverged;

  summary.relative_residual = std::sqrt(r_norm_squared / b_norm_squared);
  summary.b_dot_x = dot(n, b, x);
  if (summary.message.empty())
    summary.message = format("relative residual %.3e after %d products", summary.relative_residual,
                             summary.iterations);
  return summary;
}

}  // namespace trpo_fast
