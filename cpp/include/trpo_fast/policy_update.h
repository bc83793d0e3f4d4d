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

#include "trpo_fast/conjugate_gradient.h"
#include "trpo_fast/line_search.h"
#include "trpo_fast/policy.h"

namespace trpo_fast {

// Borrowed arrays of N samples. Observations are normalised.
template <class Scalar>
struct SampleBatch {
  const Scalar* observations = nullptr;  // N x O
  Actions<Scalar> actions;               // N x A
  const Scalar* advantages = nullptr;    // N; may be null where no objective is asked for
  Index size = 0;                        // N
};

// What stands for F in F x = g: which direction counts as steepest.
enum class FisherForm {
  kGaussNewton,  // mean_n J_n^T M_n J_n: the Hessian of the mean KL at theta_k
  kEmpirical,    // mean_n s_n s_n^T, s_n = grad log pi(a_n|s_n): the covariance of the scores
  kIdentity,     // I, so that x = g: the vanilla policy gradient
};

// The batch seen from the policy at theta_k: activations, outputs, log-probabilities and the Fisher
// metric are worked out once and reused by every product.
template <class Scalar>
class PolicyBatch {
 public:
  PolicyBatch();
  ~PolicyBatch();

  // Bytes of activations to keep; tiles beyond it are recomputed in every product, to the same bits.
  static constexpr Index kDefaultActivationBudget = Index{512} << 20;

  // Runs the network at the policy's parameters (theta_k) over the batch. `form` is that of later
  // products: kEmpirical needs actions, kIdentity prepares none.
  void assign(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
              Index activation_budget = kDefaultActivationBudget,
              FisherForm form = FisherForm::kGaussNewton);
  Index size() const;

  // log pi_k(a_n|s_n), N doubles; entropy averaged over the batch. Need actions.
  const double* log_probs() const;
  double mean_entropy() const;

  // g = mean_n w_n rho_n grad log pi(a_n|s_n), rho_n = pi_k / exp(old_log_probs) or 1 where null.
  void surrogate_gradient(const double* weights, const double* old_log_probs, double* gradient);

  // g = grad of mean_n rho_n w_m - kl_coefficient mean_n KL(pi_old || pi), where row n of this batch,
  // at theta, is row m = rows[n] (n where null) of `old`, at theta_old;  rho_n = pi / pi_old.
  void penalised_gradient(const PolicyBatch& old, const std::int64_t* rows, const double* weights,
                          double kl_coefficient, double* gradient);

  // y = F v.  F = mean_n J_n^T M_n J_n: one tangent pass, the metric, one adjoint pass.
  // F = mean_n s_n s_n^T, s_n = J_n^T u_n: the same passes with u_n u_n^T in place of M_n.
  void fisher_vector_product(const double* v, double* y);

  // max_n v^T J_n^T M_n J_n v: twice the quadratic model of the largest KL along v. One tangent pass.
  double largest_curvature(const double* v);

  // mean_n (rho_n - 1) w_n and mean and largest KL(pi_k || pi) for `policy` at other parameters;
  // also its mean entropy.
  struct Evaluation {
    Candidate candidate;
    double entropy = 0;
  };
  Evaluation evaluate(const Policy<Scalar>& policy, const double* weights);

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

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

struct PolicyUpdateOptions {
  LineSearchOptions line_search;  // max_kl is delta
  ConjugateGradientOptions conjugate_gradient;
  KlConstraint constraint = KlConstraint::kMean;
  FisherForm fisher = FisherForm::kGaussNewton;
  StepRule step_rule = StepRule::kLineSearch;
  double step_size = 0.1;        // of StepRule::kFixed;  > 0
  double damping = 0.1;          // lambda in (F + lambda I) x = g;  >= 0
  double fisher_fraction = 1.0;  // share of the batch that F is estimated on;  (0, 1]
  bool standardize_advantages = true;
  std::uint64_t seed = 0;                                                  // of the subsample
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

// Adam's moments and step count, kept from update to update.
template <class Scalar>
struct AdamState {
  std::vector<Scalar> first_moment, second_moment;
  std::int64_t steps = 0;
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
