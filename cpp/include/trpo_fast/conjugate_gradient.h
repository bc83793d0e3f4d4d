// Conjugate gradient for A x = b with A symmetric and positive definite, given as a product only.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trpo_fast/network.h"

namespace trpo_fast {

struct ConjugateGradientOptions {
  int max_iterations = 10;        // >= 0
  double relative_tolerance = 0;  // stop at ||b - A x|| <= relative_tolerance ||b||;  >= 0
};

enum class ConjugateGradientStatus {
  kConverged,
  kMaxIterations,
  kNonPositiveCurvature,  // p^T A p <= 0, or r^T M^{-1} r <= 0; x is the last iterate
  kNonFinite,             // a NaN or infinity appeared; x is the last finite iterate
  kZeroRightHandSide,     // b = 0, so x = 0
};
const char* to_string(ConjugateGradientStatus status);

struct ConjugateGradientSummary {
  ConjugateGradientStatus status = ConjugateGradientStatus::kMaxIterations;
  int iterations = 0;            // products with A
  double relative_residual = 1;  // ||b - A x|| / ||b||, by the recursion
  double b_dot_x = 0;            // b^T x = x^T A x when started from zero
  std::string message;
};

// y = A p; y must not overlap p.
using LinearOperator = std::function<void(const double* p, double* y)>;

struct ConjugateGradientWorkspace {
  void reserve(Index n, bool preconditioned);
  std::vector<double> residual, direction, product, preconditioned_residual;
};

// Starts from x = 0. Everything in double. `preconditioner` is z = M^{-1} r with M symmetric, positive
// definite and near A; an empty one is M = I.
ConjugateGradientSummary conjugate_gradient(const LinearOperator& product, Index n, const double* b,
                                            const ConjugateGradientOptions& options,
                                            ConjugateGradientWorkspace& workspace, double* x,
                                            const LinearOperator& preconditioner = {});

}  // namespace trpo_fast
