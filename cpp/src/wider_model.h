// The local model of a batch whose trust region covers further states, such as those of earlier batches.
//
//   L(theta), g     of the batch alone, N samples
//   F   = (N F_N + k F_k) / (N + k)         F_k = mean_j J_j^T M_j J_j over k further states, exact
//   KL  = (N KL_N + k KL_k) / (N + k)       the largest is that of all
//
// The further states need no actions and no advantages, and are here wherever the batch is.
#pragma once

#include <algorithm>
#include <vector>

#include "trpo_fast/local_model.h"

namespace trpo_fast {

// Borrows the model of the batch, the states, and the memory of theirs.
template <class Scalar>
class WiderModel final : public LocalModel<Scalar> {
 public:
  WiderModel(LocalModel<Scalar>& batch, const SampleBatch<Scalar>& states,
             PolicyBatch<Scalar>& further)
      : batch_(batch), states_(states), further_(further) {}

  Index size() const override { return batch_.size(); }
  Readiness linearize(const Policy<Scalar>& policy, bool standardize,
                      const BatchPlan& plan) override {
    share_ = static_cast<double>(states_.size) / static_cast<double>(batch_.size() + states_.size);
    product_.resize(static_cast<std::size_t>(policy.n_parameters()));
    BatchPlan of_batch = plan;  // both together keep what is allowed
    const auto budget = static_cast<Index>(share_ * static_cast<double>(plan.activation_budget));
    of_batch.activation_budget -= budget;
    further_.assign(policy, states_, budget, FisherForm::kGaussNewton, plan.products);
    return batch_.linearize(policy, standardize, of_batch);
  }
  double mean_entropy() override { return batch_.mean_entropy(); }
  void gradient(double* g) override { batch_.gradient(g); }

  void prepare_solve(const Policy<Scalar>& policy, const TrustRegionOptions& options) override {
    batch_.prepare_solve(policy, options);
  }
  // y = F v
  void fisher_vector_product(const double* v, double* y) override {
    batch_.fisher_vector_product(v, y);
    further_.fisher_vector_product(v, product_.data());
    for (std::size_t i = 0; i < product_.size(); ++i) y[i] = mean(y[i], product_[i]);
  }
  // F_N is close enough to F.
  void precondition(double damping, std::uint64_t seed,
                    KroneckerPreconditioner& preconditioner) override {
    batch_.precondition(damping, seed, preconditioner);
  }
  double largest_curvature(const double* v) override {
    return larger(batch_.largest_curvature(v), further_.largest_curvature(v));
  }

  Evaluation evaluate(const Policy<Scalar>& policy) override {
    Evaluation seen = batch_.evaluate(policy);
    const Candidate further = further_.evaluate(policy, /*weights=*/nullptr).candidate;
    seen.candidate.kl = mean(seen.candidate.kl, further.kl);
    seen.candidate.kl_max = larger(seen.candidate.kl_max, further.kl_max);
    return seen;
  }

 private:
  double mean(double of_batch, double of_further) const {
    return (1.0 - share_) * of_batch + share_ * of_further;
  }
  // A NaN stays.
  static double larger(double a, double b) { return a >= b || !(a == a) ? a : b; }

  LocalModel<Scalar>& batch_;
  SampleBatch<Scalar> states_;
  PolicyBatch<Scalar>& further_;
  double share_ = 0.0;           // k / (N + k)
  std::vector<double> product_;  // F_k v
};

}  // namespace trpo_fast
