// One TRPO update (Schulman et al. 2015, section 6 and appendix C), its pieces, and its relatives.
//
//   maximise   L(theta) = mean_n pi_theta(a_n|s_n) / pi_k(a_n|s_n) A_n
//   subject to mean_n KL(pi_k(.|s_n) || pi_theta(.|s_n)) <= delta
//
// The relatives (section 7 of the paper) differ in what stands for F in F x = g, in how far they go
// along x, in whether the mean or the maximum KL is bounded, or in charging for KL instead of
// bounding it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trpo_fast/adam_state.h"
#include "trpo_fast/conjugate_gradient.h"
#include "trpo_fast/line_search.h"
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

struct PolicyUpdateOptions {
  LineSearchOptions line_search;  // max_kl is delta
  ConjugateGradientOptions conjugate_gradient;
  KlConstraint constraint = KlConstraint::kMean;
  FisherForm fisher = FisherForm::kGaussNewton;
  Preconditioner preconditioner = Preconditioner::kNone;
  StepRule step_rule = StepRule::kLineSearch;
  double step_size = 0.1;        // of StepRule::kFixed;  > 0
  double damping = 0.1;          // lambda in (F + lambda I) x = g;  >= 0
  double fisher_fraction = 1.0;  // share of the batch that F is estimated on;  (0, 1]
  bool standardize_advantages = true;
  std::uint64_t seed = 0;  // of the subsample and the preconditioner
  Index activation_budget = PolicyBatch<float>::kDefaultActivationBudget;  // bytes
};

// Ascent on L(theta) - beta mean_n KL(pi_k || pi_theta) by Adam: PPO's penalised form (Schulman et al.
// 2017, equation 8), and with one epoch, the full batch and beta = 0 the vanilla policy gradient.
struct PolicyAscentOptions {
  int epochs = 10;             // >= 1
  Index minibatch_size = 128;  // <= 0: the full batch
  double learning_rate = 3e-4;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double kl_coefficient = 0.0;  // beta >= 0, units of standardised advantage per nat
  bool standardize_advantages = true;
  std::uint64_t seed = 0;                                                  // of the shuffling
  Index activation_budget = PolicyBatch<float>::kDefaultActivationBudget;  // bytes
};

enum class PolicyUpdateStatus {
  kAccepted,
  kLineSearchFailed,      // no candidate was both inside the trust region and better
  kZeroGradient,          // nothing to improve: constant advantages, say
  kNonPositiveCurvature,  // conjugate gradient found no usable direction
  kNonFinite,             // a NaN or infinity in the batch or on the way
};
const char* to_string(PolicyUpdateStatus status);

// Unless status is kAccepted the parameters are, bit for bit, those before the update.
struct PolicyUpdateSummary {
  PolicyUpdateStatus status = PolicyUpdateStatus::kNonFinite;
  std::string message;
  double max_kl = 0;                    // delta; infinite where the step rule has no bound
  double kl = 0;                        // mean over the batch after the step; 0 when refused
  double kl_max = 0;                    // largest over the samples
  double kl_predicted = 0;              // 1/2 s^T F s of the accepted (or last tried) step s
  double surrogate_gain = 0;            // L(theta) - L(theta_k); 0 when refused
  double surrogate_gain_predicted = 0;  // g^T s
  double gradient_norm = 0;
  double step_norm = 0;
  double step_scale = 0;  // alpha^j
  double step_size = 0;   // alpha^j beta, along x; of an ascent its learning rate
  double entropy = 0, entropy_before = 0;
  int backtracks = 0;
  ConjugateGradientSummary conjugate_gradient;
  double seconds_gradient = 0, seconds_cg = 0, seconds_line_search = 0, seconds_total = 0;
};

// Holds the memory of an update, so that updates of a size seen before allocate nothing.
template <class Scalar>
class PolicyUpdater {
 public:
  PolicyUpdater();
  ~PolicyUpdater();
  PolicyUpdateSummary update(Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
                             const PolicyUpdateOptions& options);
  PolicyUpdateSummary ascend(Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
                             const PolicyAscentOptions& options);
  AdamState<Scalar>& adam();

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
