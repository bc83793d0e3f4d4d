// The local model of an objective whose samples are all here.
#pragma once

#include "trpo_fast/local_model.h"

namespace trpo_fast {

// Borrows the objective, and the memory of its batch.
template <class Scalar>
class ObjectiveModel : public LocalModel<Scalar> {
 public:
  ObjectiveModel(Objective<Scalar>& objective, PolicyBatch<Scalar>& batch)
      : objective_(objective), batch_(batch), fisher_(&batch) {}

  Index size() const override { return objective_.samples().size; }
  Readiness linearize(const Policy<Scalar>& policy, bool standardize,
                      const BatchPlan& plan) override {
    batch_.assign(policy, objective_.samples(), plan.activation_budget, plan.fisher, plan.products);
    return objective_.prepare(batch_, standardize);
  }
  double mean_entropy() override { return batch_.mean_entropy(); }
  void gradient(double* g) override { objective_.gradient(batch_, g); }
  void prepare_solve(const Policy<Scalar>&, const TrustRegionOptions&) override {}
  void fisher_vector_product(const double* v, double* y) override {
    fisher_->fisher_vector_product(v, y);
  }
  void precondition(double damping, std::uint64_t seed,
                    KroneckerPreconditioner& preconditioner) override {
    fisher_->precondition(damping, seed, preconditioner);
  }
  double largest_curvature(const double* v) override { return batch_.largest_curvature(v); }
  Evaluation evaluate(const Policy<Scalar>& policy) override {
    return objective_.evaluate(batch_, policy);
  }

 protected:
  const SampleBatch<Scalar>& samples() const { return objective_.samples(); }
  // From here on F is that of another batch.
  void estimate_fisher_on(PolicyBatch<Scalar>& batch) { fisher_ = &batch; }

 private:
  Objective<Scalar>& objective_;
  PolicyBatch<Scalar>& batch_;
  PolicyBatch<Scalar>* fisher_;
};

}  // namespace trpo_fast
