// The settings of one trust-region update.
#pragma once

#include <cstdint>
#include <optional>

#include "trpo_fast/policy_batch.h"

namespace trpo_fast {

// Which KL over the samples of a batch is bounded by delta.
enum class KlConstraint {
  kMean,
  kMax,  // the theory's: equation 11 of the paper
};

// How far to go along x.
enum class StepRule {
  kLineSearch,  // to the boundary of the model's trust region, then back until it holds: TRPO
  kBoundary,    // to that boundary, unchecked: normalised natural gradient
  kFixed,       // theta_k + step_size x, unchecked: natural gradient (Kakade 2001)
};

// What stands in for (F + lambda I)^{-1} inside conjugate gradient, so that fewer products are needed.
enum class Preconditioner {
  kNone,
  kKronecker,  // KroneckerPreconditioner, from the same batch
};

struct TrustRegionOptions {
  double max_kl = 0.01;  // delta, nats;  > 0
  KlConstraint constraint = KlConstraint::kMean;

  // (F + lambda I) x = g
  FisherForm fisher = FisherForm::kGaussNewton;
  double fisher_fraction = 1.0;  // share of the batch that F is estimated on, drawn once;  (0, 1]
  double cg_damping = 0.1;       // lambda;  >= 0
  int cg_iterations = 10;        // >= 1
  double cg_tolerance = 1e-10;   // stop at ||g - (F + lambda I) x|| <= cg_tolerance ||g||;  >= 0
  Preconditioner cg_preconditioner = Preconditioner::kNone;

  // theta = theta_k + alpha^j beta x
  StepRule step = StepRule::kLineSearch;
  std::optional<double> step_size;  // beta of StepRule::kFixed, which needs it;  > 0
  double backtrack_ratio = 0.8;     // alpha;  (0, 1)
  int max_backtracks = 10;          // candidates j = 0 ... max_backtracks;  >= 0

  bool standardize_advantages = true;
  std::uint64_t seed = 0;  // of the subsample and the preconditioner
  Index activation_budget = PolicyBatch<float>::kDefaultActivationBudget;  // bytes;  >= 0
};

}  // namespace trpo_fast
