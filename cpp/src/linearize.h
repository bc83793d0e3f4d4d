// The first step of every policy update: an objective at theta_k, and its gradient there.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "objective_model.h"
#include "trpo_fast/policy_update_summary.h"
#include "vectors.h"

namespace trpo_fast {

// Ends an update without a step; returns false, so that `return stop(...)` reads well.
inline bool stop(PolicyUpdateSummary& summary, PolicyUpdateStatus status,
                 const std::string& message) {
  summary.status = status;
  summary.message = message;
  return false;
}

// Runs `policy`, at theta_k, over the model's batch and sets g = grad L(theta_k). Returns false, with the
// reason in the summary, where nothing can be improved or a number is not finite.
template <class Scalar>
bool linearize(const Policy<Scalar>& policy, LocalModel<Scalar>& model, bool standardize,
               const BatchPlan& plan, std::vector<double>& gradient, PolicyUpdateSummary& summary) {
  // the batch at theta_k, and the weights of its actions
  const Readiness readiness = model.linearize(policy, standardize, plan);
  if (readiness.kind == Readiness::kNonFinite)
    return stop(summary, PolicyUpdateStatus::kNonFinite, readiness.message);
  summary.entropy_before = summary.entropy = model.mean_entropy();
  if (!std::isfinite(summary.entropy_before))
    return stop(summary, PolicyUpdateStatus::kNonFinite,
                "the policy's outputs hold a NaN or an infinity, so no update was made; look at "
                "the observations and the parameters");
  if (readiness.kind == Readiness::kNothingToImprove)
    return stop(summary, PolicyUpdateStatus::kZeroGradient, readiness.message);

  // g = grad L(theta_k)
  gradient.resize(static_cast<std::size_t>(policy.n_parameters()));
  model.gradient(gradient.data());
  summary.gradient_norm = norm(gradient);
  if (!std::isfinite(summary.gradient_norm))
    return stop(summary, PolicyUpdateStatus::kNonFinite,
                "the gradient of the surrogate is not finite, so no update was made; look at the "
                "observations, actions and advantages for extreme values");
  return true;
}

// The same of an objective, with `batch` at theta_k.
template <class Scalar>
bool linearize(const Policy<Scalar>& policy, Objective<Scalar>& objective, bool standardize,
               const BatchPlan& plan, PolicyBatch<Scalar>& batch, std::vector<double>& gradient,
               PolicyUpdateSummary& summary) {
  ObjectiveModel<Scalar> model(objective, batch);
  return linearize(policy, model, standardize, plan, gradient, summary);
}

inline constexpr const char* kZeroGradientMessage =
    "the gradient of the surrogate is zero, so no update was made";

}  // namespace trpo_fast
