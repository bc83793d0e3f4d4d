// A batch of samples seen from a policy: surrogate, its gradient, KL and Fisher-vector products.
#pragma once

#include <memory>

#include "trpo_fast/kronecker.h"
#include "trpo_fast/line_search.h"
#include "trpo_fast/partial_gradient.h"
#include "trpo_fast/policy.h"

namespace trpo_fast {

// Borrowed arrays of N samples: a state, and K actions tried in it. K is 1 where a sample is a step of
// a trajectory. Observations are normalised.
template <class Scalar>
struct SampleBatch {
  const Scalar* observations = nullptr;  // N x O
  Actions<Scalar> actions;               // N K x A, those of a state one after another
  Index size = 0;                        // N
  Index branches = 1;                    // K
  const bool* allowed = nullptr;         // N x W, the choices that masks allow; null: all
  // w of FisherForm::kEmpirical, N x K; null: all 1. Read by products and preconditioners alone.
  const double* score_weights = nullptr;

  // Where these rows are a part of a larger batch, whole chunks of it (see tiling.h): the rows of all of it.
  Index whole_size = 0;  // 0: nothing is elsewhere
  Index size_of_whole() const { return whole_size > 0 ? whole_size : size; }
  // Takes the rows as dense, without a look at them: nobody sees the rows of all parts.
  bool dense = false;
};

// What a policy at theta does on a batch whose old policy is at theta_k.
struct Evaluation {
  Candidate candidate;
  double entropy = 0;  // mean over the samples, nats
};

// What stands for F in F x = g: which direction counts as steepest.
enum class FisherForm {
  kGaussNewton,  // mean_n J_n^T M_n J_n: the Hessian of the mean KL at theta_k
  kEmpirical,  // mean_n sum_k w_nk s_nk s_nk^T, s_nk = grad log pi(a_nk|s_n): covariance of scores
  kIdentity,   // I, so that x = g: the vanilla policy gradient
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
  // products: kEmpirical needs actions, kIdentity prepares none. `products` is about how many there
  // will be: where it pays, the first works out d outputs / d z of the hidden layers for the others.
  void assign(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
              Index activation_budget = kDefaultActivationBudget,
              FisherForm form = FisherForm::kGaussNewton, int products = 0);
  Index size() const;

  // log pi_k(a_nk|s_n), N x K doubles: needs actions. Below: entropy of pi_k, mean over the batch, nats.
  const double* log_probs() const;
  double mean_entropy() const;

  // g = mean_n sum_k w_nk rho_nk grad log pi(a_nk|s_n), rho_nk = pi_k / exp(old_log_probs), or 1 where
  // null.
  void surrogate_gradient(const double* weights, const double* old_log_probs, double* gradient);

  // g = grad of mean_n rho_n w_m - kl_coefficient mean_n KL(pi_old || pi), where row n of this batch,
  // at theta, is row m = rows[n] (n where null) of `old`, at theta_old;  rho_n = pi / pi_old. K = 1.
  void penalised_gradient(const PolicyBatch& old, const std::int64_t* rows, const double* weights,
                          double kl_coefficient, double* gradient);

  // y = F v.  F = mean_n J_n^T M_n J_n: one tangent pass, the metric, one adjoint pass.
  // F = mean_n sum_k w_nk s_nk s_nk^T, s_nk = J_n^T u_nk: the same passes with sum_k w_nk u_nk u_nk^T in
  // place of M_n.
  void fisher_vector_product(const double* v, double* y);

  // A preconditioner for F + damping I from one backward pass: M_n is estimated with one cotangent a
  // sample, M_n^{1/2} times random signs drawn from `seed`; for kEmpirical it is the sample's score,
  // or with score weights sum_k +-sqrt(w_nk) u_nk.
  // Of a large batch some thousand samples are enough: the tiles whose number is a multiple of
  // preconditioner_spacing(). With `spacing` this batch holds those tiles of a larger one, side by side.
  void precondition(double damping, std::uint64_t seed, KroneckerPreconditioner& preconditioner,
                    Index spacing = 0);
  static Index preconditioner_spacing(const NetworkShape& shape, Index rows);

  // max_n v^T J_n^T M_n J_n v: twice the quadratic model of the largest KL along v. One tangent pass.
  double largest_curvature(const double* v);

  // Measures `policy`, at theta: mean and largest KL(pi_k || pi), mean entropy, and as the gain
  //   mean_n sum_k (rho_nk - 1) w_nk,  rho_nk = pi(a_nk|s_n) / pi_k(a_nk|s_n);  0 without weights
  Evaluation evaluate(const Policy<Scalar>& policy, const double* weights);
  // Measures the same, but as the gain
  //   mean_n sum_k rho_nk A_nk / sum_k rho_nk
  Evaluation evaluate_self_normalized(const Policy<Scalar>& policy, const double* advantages);

  // --- of a part, chunk by chunk: what it adds to the sums above, which have no 1 / N yet

  Index chunks() const;
  // entropies of pi_k (chunks)
  void entropy_sums(double* sums) const;
  // `begin` is the number of its first chunk.
  void surrogate_part(const double* weights, Index begin, PartialGradient<Scalar>& part);
  void product_part(const double* v, Index begin, PartialGradient<Scalar>& part);
  // without what a free log_std adds
  double curvature_part(const double* v);
  // gain, KL, largest KL and entropy (chunks x 4), as of evaluate()
  void evaluation_sums(const Policy<Scalar>& policy, const double* weights, double* sums);

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
