// N samples, O observation width, A action width, W flags of a mask
#include "trpo_fast/policy_ascent.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

#include "adam.h"
#include "linearize.h"
#include "objective_model.h"
#include "reporting.h"
#include "row_gather.h"
#include "vectors.h"

namespace trpo_fast {

template <class Scalar>
struct PolicyAscent<Scalar>::Workspace {
  AdamState<Scalar> adam, old_adam;
  PolicyBatch<Scalar> full, part;                  // all samples at theta_k; a minibatch at theta
  AlignedBuffer<Scalar> observations, continuous;  // of a minibatch
  AlignedBuffer<std::int32_t> discrete;
  AlignedBuffer<bool> allowed;
  std::vector<std::int64_t> order;
  std::vector<double> gradient, minibatch_gradient;  // at theta_k, at theta
  std::vector<Scalar> scalar_gradient;
  std::vector<Scalar> old_parameters, parameters;  // theta_k, theta
  std::vector<double> step, product;               // s = theta - theta_k, F s

  SampleBatch<Scalar> gather(const SampleBatch<Scalar>& from, const std::int64_t* rows, Index count,
                             Index O, Index A, Index W);
  template <class Steps>
  PolicyUpdateSummary ascend(Policy<Scalar>& policy, LocalModel<Scalar>& model,
                             const AscentOptions& options, const Steps& take_steps);
  void take_step(Policy<Scalar>& policy, const AscentOptions& options);
  void take_steps(Policy<Scalar>& policy, const SurrogateObjective<Scalar>& objective,
                  const AscentOptions& options);
  void predict(LocalModel<Scalar>& model, PolicyUpdateSummary& summary);
};

template <class Scalar>
PolicyAscent<Scalar>::PolicyAscent(Index n_parameters) : w_(std::make_unique<Workspace>()) {
  w_->adam.first_moment.resize(static_cast<std::size_t>(n_parameters));
  w_->adam.second_moment.resize(static_cast<std::size_t>(n_parameters));
}
template <class Scalar>
PolicyAscent<Scalar>::~PolicyAscent() = default;
template <class Scalar>
AdamState<Scalar>& PolicyAscent<Scalar>::adam() {
  return w_->adam;
}

template <class Scalar>
PolicyUpdateSummary PolicyAscent<Scalar>::ascend(Policy<Scalar>& policy,
                                                 SurrogateObjective<Scalar>& objective,
                                                 const AscentOptions& options) {
  ObjectiveModel<Scalar> model(objective, w_->full);
  return w_->ascend(policy, model, options, [&] { w_->take_steps(policy, objective, options); });
}

template <class Scalar>
PolicyUpdateSummary PolicyAscent<Scalar>::ascend(Policy<Scalar>& policy, LocalModel<Scalar>& model,
                                                 const AscentOptions& options) {
  if (options.epochs != 1 || options.minibatch_size)
    throw std::invalid_argument(
        "epochs, minibatch_size: expected 1 and none, as rows in parts take one step on the full "
        "batch, got more; set epochs=1 and minibatch_size=None");
  const AdamState<Scalar> adam = w_->adam;
  const std::vector<Scalar> parameters(policy.parameters(),
                                       policy.parameters() + policy.n_parameters());
  try {
    return w_->ascend(policy, model, options, [&] {
      w_->parameters = w_->old_parameters;
      w_->minibatch_gradient = w_->gradient;
      w_->take_step(policy, options);
    });
  } catch (...) {
    policy.set_parameters(parameters.data());
    w_->adam = adam;
    throw;
  }
}

template <class Scalar>
template <class Steps>
PolicyUpdateSummary PolicyAscent<Scalar>::Workspace::ascend(Policy<Scalar>& policy,
                                                            LocalModel<Scalar>& model,
                                                            const AscentOptions& options,
                                                            const Steps& steps) {
  const Stopwatch total;
  PolicyUpdateSummary summary;
  summary.max_kl = std::numeric_limits<double>::infinity();
  summary.conjugate_gradient.status = ConjugateGradientStatus::kConverged;  // nothing to solve
  summary.conjugate_gradient.relative_residual = 0.0;
  const auto finished = [&] {
    summary.seconds_total = total.seconds();
    return summary;
  };

  // g = grad L(theta_k); the batch serves one product later, which predicts the KL
  BatchPlan plan;
  plan.products = 1;
  plan.activation_budget = options.activation_budget;
  const bool improvable =
      linearize(policy, model, options.standardize_advantages, plan, gradient, summary);
  summary.seconds_gradient = total.seconds();
  if (!improvable) return finished();
  if (summary.gradient_norm == 0.0) {
    stop(summary, PolicyUpdateStatus::kZeroGradient, kZeroGradientMessage);
    return finished();
  }

  // theta_k -> theta
  old_adam = adam;
  old_parameters.assign(policy.parameters(), policy.parameters() + policy.n_parameters());
  steps();
  const Evaluation measured = model.evaluate(policy);
  policy.set_parameters(old_parameters.data());
  predict(model, summary);
  summary.step_size = options.learning_rate;

  // theta, or theta_k again
  if (!std::isfinite(measured.candidate.surrogate_gain) || !std::isfinite(measured.candidate.kl) ||
      !std::isfinite(summary.step_norm)) {
    std::swap(adam, old_adam);
    stop(summary, PolicyUpdateStatus::kNonFinite,
         "the steps led to a NaN or an infinity, so the parameters are those before; a smaller "
         "learning rate helps");
    return finished();
  }
  policy.set_parameters(parameters.data());
  summary.status = PolicyUpdateStatus::kAccepted;
  summary.kl = measured.candidate.kl;
  summary.kl_max = measured.candidate.kl_max;
  summary.surrogate_gain = measured.candidate.surrogate_gain;
  summary.entropy = measured.entropy;
  summary.message = format("ascended with KL coefficient %.4g: KL %.4g, surrogate gain %.4g",
                           options.kl_coefficient, summary.kl, summary.surrogate_gain);
  return finished();
}

// Chosen rows, copied side by side.
template <class Scalar>
SampleBatch<Scalar> PolicyAscent<Scalar>::Workspace::gather(const SampleBatch<Scalar>& from,
                                                            const std::int64_t* rows, Index count,
                                                            Index O, Index A, Index W) {
  SampleBatch<Scalar> batch;
  batch.size = count;
  batch.observations = gather_rows(from.observations, rows, count, O, observations);
  if (from.actions.continuous)
    batch.actions.continuous = gather_rows(from.actions.continuous, rows, count, A, continuous);
  if (from.actions.discrete)
    batch.actions.discrete = gather_rows(from.actions.discrete, rows, count, A, discrete);
  if (from.allowed) batch.allowed = gather_rows(from.allowed, rows, count, W, allowed);
  return batch;
}

// theta += lr m^ / (sqrt(v^) + eps), with the gradient of a minibatch
template <class Scalar>
void PolicyAscent<Scalar>::Workspace::take_step(Policy<Scalar>& policy,
                                                const AscentOptions& options) {
  scalar_gradient.resize(parameters.size());
  for (std::size_t i = 0; i < scalar_gradient.size(); ++i)
    scalar_gradient[i] = static_cast<Scalar>(minibatch_gradient[i]);
  adam_step(++adam.steps, options.learning_rate, /*scale=*/-1.0, policy.n_parameters(),
            scalar_gradient.data(), adam.first_moment.data(), adam.second_moment.data(),
            parameters.data());
  policy.set_parameters(parameters.data());
}

// Adam on -(L - beta KL), epoch by epoch, minibatch by minibatch.
template <class Scalar>
void PolicyAscent<Scalar>::Workspace::take_steps(Policy<Scalar>& policy,
                                                 const SurrogateObjective<Scalar>& objective,
                                                 const AscentOptions& options) {
  const SampleBatch<Scalar>& batch = objective.samples();
  const Index O = policy.shape().inputs(), A = policy.spec().action_dim();
  const Index W = policy.spec().mask_width();
  const Index size = std::min(batch.size, options.minibatch_size.value_or(batch.size));
  const bool full_batch = size == batch.size;
  minibatch_gradient = gradient;  // for a first step on the full batch: at theta_k, grad KL = 0
  parameters = old_parameters;
  order.resize(static_cast<std::size_t>(batch.size));

  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    if (!full_batch)
      shuffle(options.seed, static_cast<std::uint32_t>(epoch), batch.size, order.data());
    for (Index begin = 0; begin < batch.size; begin += size) {
      const Index n = std::min(size, batch.size - begin);

      // grad of L - beta KL at theta
      if (!full_batch || epoch > 0) {
        const std::int64_t* rows = full_batch ? nullptr : order.data() + begin;
        part.assign(policy, rows ? gather(batch, rows, n, O, A, W) : batch,
                    options.activation_budget, FisherForm::kIdentity);
        part.penalised_gradient(full, rows, objective.weights(), options.kl_coefficient,
                                minibatch_gradient.data());
      }
      take_step(policy, options);
    }
  }
}

// s = theta - theta_k, and what the quadratic models at theta_k say of it: 1/2 s^T F s and g^T s.
template <class Scalar>
void PolicyAscent<Scalar>::Workspace::predict(LocalModel<Scalar>& model,
                                              PolicyUpdateSummary& summary) {
  step.resize(parameters.size());
  product.resize(parameters.size());
  for (std::size_t i = 0; i < step.size(); ++i)
    step[i] = static_cast<double>(parameters[i]) - static_cast<double>(old_parameters[i]);
  model.fisher_vector_product(step.data(), product.data());
  summary.step_norm = norm(step);
  summary.step_scale = 1.0;
  summary.kl_predicted = 0.5 * dot(step, product);
  summary.surrogate_gain_predicted = dot(gradient, step);
}

template class PolicyAscent<float>;
template class PolicyAscent<double>;

}  // namespace trpo_fast
