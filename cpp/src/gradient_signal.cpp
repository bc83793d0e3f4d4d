// N samples, O observation width, A action width, W flags of a mask
#include "trpo_fast/gradient_signal.h"

#include <cmath>
#include <vector>

#include "linearize.h"
#include "vectors.h"

namespace trpo_fast {

template <class Scalar>
struct GradientSignalMeter<Scalar>::Workspace {
  // of each half: g_i and x_i
  struct Half {
    std::vector<double> gradient, direction;
  } halves[2];
  PolicyBatch<Scalar> batch;
  SurrogateObjective<Scalar> objective;
  ConjugateGradientWorkspace conjugate_gradient;
  KroneckerPreconditioner kronecker;

  bool solve(const Policy<Scalar>& policy, const SampleBatch<Scalar>& samples,
             const Scalar* advantages, const TrustRegionOptions& options, Half& half);
};

template <class Scalar>
GradientSignalMeter<Scalar>::GradientSignalMeter() : w_(std::make_unique<Workspace>()) {}
template <class Scalar>
GradientSignalMeter<Scalar>::~GradientSignalMeter() = default;

template <class Scalar>
GradientSignal GradientSignalMeter<Scalar>::measure(const Policy<Scalar>& policy,
                                                    const SampleBatch<Scalar>& samples,
                                                    const Scalar* advantages, Index split,
                                                    const TrustRegionOptions& options) {
  const Index O = policy.shape().inputs(), A = policy.spec().action_dim();
  const Index W = policy.spec().mask_width();
  const Index bounds[3] = {0, split, samples.size};
  if (split < 1 || split >= samples.size) return {};
  for (int i = 0; i < 2; ++i) {
    const Index begin = bounds[i];
    SampleBatch<Scalar> part = samples;
    part.size = bounds[i + 1] - begin;
    part.observations += begin * O;
    if (part.actions.continuous) part.actions.continuous += begin * A;
    if (part.actions.discrete) part.actions.discrete += begin * A;
    if (part.allowed) part.allowed += begin * W;
    if (!w_->solve(policy, part, advantages + begin, options, w_->halves[i])) return {};
  }

  const auto& [first, second] = w_->halves;
  const double across =
      dot(first.direction, second.gradient) + dot(second.direction, first.gradient);
  const double within =
      dot(first.direction, first.gradient) + dot(second.direction, second.gradient);
  GradientSignal signal;
  signal.validated_gain = 0.5 * across;
  signal.apparent_gain = 0.25 * (across + within);
  signal.is_measured = std::isfinite(signal.validated_gain) && std::isfinite(signal.apparent_gain);
  return signal.is_measured ? signal : GradientSignal{};
}

// g of some of the samples, and x = (F + lambda I)^{-1} g by conjugate gradient, or x = g.
template <class Scalar>
bool GradientSignalMeter<Scalar>::Workspace::solve(const Policy<Scalar>& policy,
                                                   const SampleBatch<Scalar>& samples,
                                                   const Scalar* advantages,
                                                   const TrustRegionOptions& options, Half& half) {
  // g = grad L(theta_k) of these samples alone
  objective.assign(samples, advantages);
  const bool solves = options.fisher != FisherForm::kIdentity;
  BatchPlan plan;
  plan.fisher = solves ? options.fisher : FisherForm::kGaussNewton;
  plan.products = solves ? options.cg_iterations : 0;
  plan.activation_budget = options.activation_budget;
  PolicyUpdateSummary unused;
  if (!linearize(policy, objective, options.standardize_advantages, plan, batch, half.gradient,
                 unused))
    return false;
  if (!solves) {
    half.direction = half.gradient;
    return true;
  }

  // x = (F + lambda I)^{-1} g
  LinearOperator preconditioner;
  if (options.cg_preconditioner == Preconditioner::kKronecker) {
    batch.precondition(options.cg_damping, options.seed, kronecker);
    preconditioner = [&](const double* r, double* z) { kronecker.apply(r, z); };
  }
  const Index n_parameters = policy.n_parameters();
  const auto product_with = [&](const double* v, double* y) {
    batch.fisher_vector_product(v, y);
    for (Index i = 0; i < n_parameters; ++i) y[i] += options.cg_damping * v[i];
  };
  ConjugateGradientOptions cg_options;
  cg_options.max_iterations = options.cg_iterations;
  cg_options.relative_tolerance = options.cg_tolerance;
  half.direction.resize(half.gradient.size());
  const ConjugateGradientSummary cg =
      trpo_fast::conjugate_gradient(product_with, n_parameters, half.gradient.data(), cg_options,
                                    conjugate_gradient, half.direction.data(), preconditioner);
  return cg.b_dot_x > 0.0;
}

template class GradientSignalMeter<float>;
template class GradientSignalMeter<double>;

}  // namespace trpo_fast
