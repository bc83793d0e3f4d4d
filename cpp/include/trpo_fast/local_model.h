// L, KL and F of a batch near theta_k, as an update sees them, wherever the rows of the batch are.
#pragma once

#include "trpo_fast/objective.h"
#include "trpo_fast/trust_region_options.h"

namespace trpo_fast {

// What the batch at theta_k is prepared for, see PolicyBatch::assign.
struct BatchPlan {
  FisherForm fisher = FisherForm::kGaussNewton;
  int products = 0;
  Index activation_budget = 0;
};

// An update calls, in this order: linearize(), once; mean_entropy(); gradient(), once;
// prepare_solve(), at most once; then products, and evaluate() for each candidate theta.
template <class Scalar>
class LocalModel {
 public:
  virtual ~LocalModel() = default;

  // N
  virtual Index size() const = 0;

  // Runs `policy`, at theta_k, over the batch, and weighs the actions. The policy keeps its parameters
  // until evaluate().
  virtual Readiness linearize(const Policy<Scalar>& policy, bool standardize,
                              const BatchPlan& plan) = 0;
  // of pi_k, nats
  virtual double mean_entropy() = 0;
  // g = grad L(theta_k), all parameters
  virtual void gradient(double* g) = 0;

  // Conjugate gradient follows: chooses the samples that F is estimated on from here on.
  virtual void prepare_solve(const Policy<Scalar>& policy, const TrustRegionOptions& options) = 0;
  // As those of PolicyBatch.
  virtual void fisher_vector_product(const double* v, double* y) = 0;
  virtual void precondition(double damping, std::uint64_t seed,
                            KroneckerPreconditioner& preconditioner) = 0;
  // max_n v^T J_n^T M_n J_n v over all samples
  virtual double largest_curvature(const double* v) = 0;

  // L(theta) - L(theta_k), mean and largest KL(pi_k || pi_theta), entropy of pi_theta
  virtual Evaluation evaluate(const Policy<Scalar>& policy) = 0;
};

}  // namespace trpo_fast
