// One TRPO update (Schulman et al. 2015, section 6 and appendix C), and its pieces.
//
//   maximise   L(theta) = mean_n pi_theta(a_n|s_n) / pi_k(a_n|s_n) A_n
//   subject to mean_n KL(pi_k(.|s_n) || pi_theta(.|s_n)) <= delta
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

// The batch seen from the policy at theta_k: activations, outputs, log-probabilities and the Fisher
// metric are worked out once and reused by every product.
template <class Scalar>
class PolicyBatch {
 public:
  PolicyBatch();
  ~PolicyBatch();

  // Bytes of activations to keep; tiles beyond it are recomputed in every product, to the same bits.
  static constexpr Index kDefaultActivationBudget = Index{512} << 20;

  // Runs the network at the policy's parameters (theta_k) over the batch.
  void assign(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
              Index activation_budget = kDefaultActivationBudget);
  Index size() const;

  // log pi_k(a_n|s_n), N doubles; entropy averaged over the batch. Need actions.
  const double* log_probs() const;
  double mean_entropy() const;

  // g = mean_n w_n rho_n grad log pi(a_n|s_n), rho_n = pi_k / exp(old_log_probs) or 1 where null.
  void surrogate_gradient(const double* weights, const double* old_log_probs, double* gradient);

  // y = F v,  F = mean_n J_n^T M_n J_n: one tangent pass, the metric, one adjoint pass.
  void fisher_vector_product(const double* v, double* y);

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

struct PolicyUpdateOptions {
  LineSearchOptions line_search;         // max_kl is delta
  ConjugateGradientOptions conjugate_gradient;
  double damping = 0.1;                  // lambda in (F + lambda I) x = g;  >= 0
  double fisher_fraction = 1.0;          // share of the batch that F is estimated on;  (0, 1]
  bool standardize_advantages = true;
  std::uint64_t seed = 0;                // of the subsample
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
  double max_kl = 0;
  double kl = 0;                        // mean over the batch after the step; 0 when refused
  double kl_max = 0;                    // largest over the samples
  double kl_predicted = 0;              // 1/2 s^T F s of the accepted (or last tried) step s
  double surrogate_gain = 0;            // L(theta) - L(theta_k); 0 when refused
  double surrogate_gain_predicted = 0;  // g^T s
  double gradient_norm = 0;
  double step_norm = 0;
  double step_scale = 0;                // alpha^j
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

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
