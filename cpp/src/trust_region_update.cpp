// N samples, O observation width, A action width
#include "trpo_fast/trust_region_update.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "aligned.h"
#include "dispatch.h"
#include "vectors.h"

namespace trpo_fast {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <class... Numbers>
std::string format(const char* text, Numbers... numbers) {
  char line[320];
  std::snprintf(line, sizeof(line), text, numbers...);
  return line;
}

}  // namespace

const char* to_string(PolicyUpdateStatus status) {
  switch (status) {
    case PolicyUpdateStatus::kAccepted: return "accepted";
    case PolicyUpdateStatus::kLineSearchFailed: return "line_search_failed";
    case PolicyUpdateStatus::kZeroGradient: return "zero_gradient";
    case PolicyUpdateStatus::kNonPositiveCurvature: return "non_positive_curvature";
    case PolicyUpdateStatus::kNonFinite: return "non_finite";
  }
  return "unknown";
}

namespace {

enum class AdvantageKind { kUsable, kConstant, kNonFinite };

// w = (A - mean) / std. Advantages that differ by rounding alone count as constant, so that noise is
// never scaled up to a full step.
template <class Scalar>
AdvantageKind standardize(const Scalar* advantages, Index n, bool standardize, double* w) {
  double sum = 0.0;
  double smallest = static_cast<double>(advantages[0]), largest = smallest;
  for (Index i = 0; i < n; ++i) {
    const double a = static_cast<double>(advantages[i]);
    sum += a;
    smallest = std::min(smallest, a);
    largest = std::max(largest, a);
  }
  if (!std::isfinite(sum)) return AdvantageKind::kNonFinite;
  const double mean = sum / static_cast<double>(n);
  double squares = 0.0;
  for (Index i = 0; i < n; ++i) {
    const double d = static_cast<double>(advantages[i]) - mean;
    squares += d * d;
  }
  const double deviation = std::sqrt(squares / static_cast<double>(n));
  const double rounding = 8.0 * static_cast<double>(std::numeric_limits<Scalar>::epsilon());
  const bool constant =
      !(largest - smallest > rounding * std::max(std::abs(smallest), std::abs(largest)));
  if (standardize) {
    const double scale = constant ? 0.0 : 1.0 / deviation;
    for (Index i = 0; i < n; ++i) w[i] = (static_cast<double>(advantages[i]) - mean) * scale;
    return constant ? AdvantageKind::kConstant : AdvantageKind::kUsable;
  }
  for (Index i = 0; i < n; ++i) w[i] = static_cast<double>(advantages[i]);
  return AdvantageKind::kUsable;
}

// `count` of n rows without replacement, in ascending order: selection sampling (Knuth 3.4.2 S).
void draw_rows(Index n, Index count, std::uint64_t seed, std::vector<std::int64_t>& rows) {
  rows.clear();
  rows.reserve(static_cast<std::size_t>(count));
  CounterStream stream(seed, 0xF15CE201u, 0);
  for (Index i = 0; i < n && static_cast<Index>(rows.size()) < count; ++i) {
    const double wanted = static_cast<double>(count - static_cast<Index>(rows.size()));
    if (stream.uniform() * static_cast<double>(n - i) < wanted) rows.push_back(i);
  }
}

// Ends an update without a step; returns false, so that `return stop(...)` reads well.
bool stop(PolicyUpdateSummary& summary, PolicyUpdateStatus status, const std::string& message) {
  summary.status = status;
  summary.message = message;
  return false;
}

// Chosen rows of a batch, copied side by side.
template <class Scalar>
class RowGather {
 public:
  SampleBatch<Scalar> gather(const SampleBatch<Scalar>& from, const std::int64_t* rows, Index count,
                             Index O, Index A) {
    SampleBatch<Scalar> batch;
    batch.size = count;
    batch.observations = copy(from.observations, rows, count, O, observations_);
    if (from.actions.continuous)
      batch.actions.continuous = copy(from.actions.continuous, rows, count, A, continuous_);
    if (from.actions.discrete)
      batch.actions.discrete = copy(from.actions.discrete, rows, count, A, discrete_);
    return batch;
  }

 private:
  template <class T>
  static const T* copy(const T* from, const std::int64_t* rows, Index count, Index width,
                       AlignedBuffer<T>& to) {
    to.reserve(count * width);
    for (Index i = 0; i < count; ++i)
      std::copy_n(from + static_cast<Index>(rows[i]) * width, width, to.data() + i * width);
    return to.data();
  }

  AlignedBuffer<Scalar> observations_, continuous_;
  AlignedBuffer<std::int32_t> discrete_;
};

}  // namespace

// The named steps of an update; each returns false where it ends the update, with the reason in the
// summary.
template <class Scalar>
struct PolicyUpdater<Scalar>::Workspace {
  PolicyBatch<Scalar> full, part;  // all samples; a subsample or minibatch
  RowGather<Scalar> gather;
  std::vector<double> weights;              // standardised advantages
  std::vector<double> gradient, direction;  // g, x
  std::vector<double> product;              // F s, or the gradient of a minibatch
  std::vector<Scalar> old_parameters, candidate, scalar_gradient;
  ConjugateGradientWorkspace conjugate_gradient;
  KroneckerPreconditioner kronecker;
  std::vector<std::int64_t> rows;  // of a subsample, or an order of all
  AdamState<Scalar> adam, old_adam;
  double g_dot_x = 0, x_norm = 0, x_F_x = 0;

  bool begin(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch, bool standardize,
             FisherForm form, int products, Index activation_budget, PolicyUpdateSummary& summary);
  bool find_direction(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
                      const PolicyUpdateOptions& options, PolicyUpdateSummary& summary);
  bool solve(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
             const PolicyUpdateOptions& options, PolicyUpdateSummary& summary);
  void step(Policy<Scalar>& policy, const PolicyUpdateOptions& options,
            PolicyUpdateSummary& summary);
  void climb(Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
             const PolicyAscentOptions& options);
};

template <class Scalar>
PolicyUpdater<Scalar>::PolicyUpdater() : w_(std::make_unique<Workspace>()) {}
template <class Scalar>
PolicyUpdater<Scalar>::~PolicyUpdater() = default;
template <class Scalar>
AdamState<Scalar>& PolicyUpdater<Scalar>::adam() {
  return w_->adam;
}

// Weights, the batch at theta_k, and g = grad L(theta_k).
template <class Scalar>
bool PolicyUpdater<Scalar>::Workspace::begin(const Policy<Scalar>& policy,
                                             const SampleBatch<Scalar>& batch,
                                             bool standardize_advantages, FisherForm form,
                                             int products, Index activation_budget,
                                             PolicyUpdateSummary& summary) {
  // advantages -> weights
  weights.resize(static_cast<std::size_t>(batch.size));
  const AdvantageKind kind =
      standardize(batch.advantages, batch.size, standardize_advantages, weights.data());
  if (kind == AdvantageKind::kNonFinite)
    return stop(summary, PolicyUpdateStatus::kNonFinite,
                "the advantages hold a NaN or an infinity, so no update was made; look at the "
                "rewards and values that they were computed from");

  // the batch at theta_k
  full.assign(policy, batch, activation_budget, form, products);
  summary.entropy_before = summary.entropy = full.mean_entropy();
  if (!std::isfinite(summary.entropy_before))
    return stop(summary, PolicyUpdateStatus::kNonFinite,
                "the policy's outputs hold a NaN or an infinity, so no update was made; look at "
                "the observations and the parameters");
  if (kind == AdvantageKind::kConstant)
    return stop(summary, PolicyUpdateStatus::kZeroGradient,
                "all advantages are equal, so there is nothing to improve and no update was made");

  // g = grad L(theta_k)
  gradient.resize(static_cast<std::size_t>(policy.n_parameters()));
  full.surrogate_gradient(weights.data(), nullptr, gradient.data());
  summary.gradient_norm = norm(gradient);
  if (!std::isfinite(summary.gradient_norm))
    return stop(summary, PolicyUpdateStatus::kNonFinite,
                "the gradient of the surrogate is not finite, so no update was made; look at the "
                "observations, actions and advantages for extreme values");
  return true;
}

// x, with g^T x, ||x|| and x^T F x.
template <class Scalar>
bool PolicyUpdater<Scalar>::Workspace::find_direction(const Policy<Scalar>& policy,
                                                      const SampleBatch<Scalar>& batch,
                                                      const PolicyUpdateOptions& options,
                                                      PolicyUpdateSummary& summary) {
  direction.resize(gradient.size());
  if (options.fisher != FisherForm::kIdentity) {
    if (!solve(policy, batch, options, summary)) return false;
    x_norm = norm(direction);
    x_F_x = g_dot_x - options.damping * x_norm * x_norm;
    return true;
  }

  // x = g: no system to solve; one product for the model of the KL
  summary.conjugate_gradient.status = ConjugateGradientStatus::kConverged;
  summary.conjugate_gradient.relative_residual = 0.0;
  direction = gradient;
  x_norm = summary.gradient_norm;
  g_dot_x = x_norm * x_norm;
  if (!(g_dot_x > 0.0))
    return stop(summary, PolicyUpdateStatus::kZeroGradient,
                "the gradient of the surrogate is zero, so no update was made");
  product.resize(direction.size());
  full.fisher_vector_product(direction.data(), product.data());
  x_F_x = dot(direction, product);
  return true;
}

// x = (F + lambda I)^{-1} g by conjugate gradient.
template <class Scalar>
bool PolicyUpdater<Scalar>::Workspace::solve(const Policy<Scalar>& policy,
                                             const SampleBatch<Scalar>& batch,
                                             const PolicyUpdateOptions& options,
                                             PolicyUpdateSummary& summary) {
  // F on the whole batch, or on a subsample drawn once
  PolicyBatch<Scalar>* fisher = &full;
  if (options.fisher_fraction < 1.0) {
    const Index count = std::max<Index>(
        1,
        static_cast<Index>(std::ceil(options.fisher_fraction * static_cast<double>(batch.size))));
    draw_rows(batch.size, count, options.seed, rows);
    SampleBatch<Scalar> source = batch;
    if (options.fisher != FisherForm::kEmpirical) source.actions = {};
    part.assign(policy,
                gather.gather(source, rows.data(), count, policy.shape().inputs(),
                              policy.spec().action_dim()),
                options.activation_budget, options.fisher,
                options.conjugate_gradient.max_iterations);
    fisher = &part;
  }

  const Index n_parameters = policy.n_parameters();
  const double damping = options.damping;
  LinearOperator preconditioner;
  if (options.preconditioner == Preconditioner::kKronecker) {
    fisher->precondition(damping, options.seed, kronecker);
    preconditioner = [&](const double* r, double* z) { kronecker.apply(r, z); };
  }
  summary.conjugate_gradient = trpo_fast::conjugate_gradient(
      [&](const double* v, double* y) {
        fisher->fisher_vector_product(v, y);
        for (Index i = 0; i < n_parameters; ++i) y[i] += damping * v[i];
      },
      n_parameters, gradient.data(), options.conjugate_gradient, conjugate_gradient,
      direction.data(), preconditioner);
  const ConjugateGradientSummary& cg = summary.conjugate_gradient;
  g_dot_x = cg.b_dot_x;  // x^T (F + lambda I) x at every iterate
  if (cg.status == ConjugateGradientStatus::kZeroRightHandSide)
    return stop(summary, PolicyUpdateStatus::kZeroGradient,
                "the gradient of the surrogate is zero, so no update was made");
  if (!(g_dot_x > 0.0) || !std::isfinite(g_dot_x))
    return stop(summary,
                cg.status == ConjugateGradientStatus::kNonPositiveCurvature
                    ? PolicyUpdateStatus::kNonPositiveCurvature
                    : PolicyUpdateStatus::kNonFinite,
                "conjugate gradient found no direction of ascent (" + cg.message +
                    "), so no update was made; a larger cg_damping helps when the Fisher matrix "
                    "is nearly singular");
  return true;
}

// theta = theta_k + alpha^j beta x, or theta_k again.
template <class Scalar>
void PolicyUpdater<Scalar>::Workspace::step(Policy<Scalar>& policy,
                                            const PolicyUpdateOptions& options,
                                            PolicyUpdateSummary& summary) {
  const double delta = options.line_search.max_kl;
  const bool bounds_max = options.constraint == KlConstraint::kMax;

  // beta: given, or sqrt(2 delta / x^T (F + lambda I) x), with the F of the worst sample for max KL
  double beta = options.step_size;
  if (options.step_rule != StepRule::kFixed) {
    const double damping = options.fisher == FisherForm::kIdentity ? 0.0 : options.damping;
    double curvature = g_dot_x;
    if (bounds_max)
      curvature = full.largest_curvature(direction.data()) + damping * x_norm * x_norm;
    beta = std::sqrt(2.0 * delta / curvature);
  }

  old_parameters.assign(policy.parameters(), policy.parameters() + policy.n_parameters());
  candidate.resize(old_parameters.size());
  typename PolicyBatch<Scalar>::Evaluation measured;
  const auto move = [&](double scale) {
    for (std::size_t i = 0; i < candidate.size(); ++i)
      candidate[i] =
          static_cast<Scalar>(static_cast<double>(old_parameters[i]) + scale * beta * direction[i]);
    policy.set_parameters(candidate.data());
    measured = full.evaluate(policy, weights.data());
    Candidate seen = measured.candidate;
    if (bounds_max) seen.kl = seen.kl_max;  // the KL that the line search holds against delta
    return seen;
  };

  LineSearchSummary search;
  if (options.step_rule == StepRule::kLineSearch) {
    search = backtracking_line_search(options.line_search, move);
  } else {
    search.candidate = move(1.0);
    search.scale = 1.0;
    search.accepted = std::isfinite(measured.candidate.surrogate_gain) &&
                      std::isfinite(measured.candidate.kl) && std::isfinite(measured.entropy);
  }
  summary.backtracks = search.backtracks;
  summary.step_scale = search.scale;
  summary.step_size = search.scale * beta;
  summary.step_norm = search.scale * beta * x_norm;
  summary.kl_predicted = search.scale * search.scale * (0.5 * beta * beta * x_F_x);
  summary.surrogate_gain_predicted = search.scale * (beta * g_dot_x);

  if (!search.accepted) {
    policy.set_parameters(old_parameters.data());
    if (options.step_rule == StepRule::kLineSearch)
      stop(summary, PolicyUpdateStatus::kLineSearchFailed,
           format("none of %d candidate steps was accepted: %d left the trust region (%s > %.4g), "
                  "%d did not improve the surrogate; the last had %s %.4g and gain %.4g; the "
                  "parameters are those before",
                  search.backtracks + 1, search.kl_violations, bounds_max ? "largest KL" : "KL",
                  delta, search.no_improvements, bounds_max ? "largest KL" : "KL",
                  search.candidate.kl, search.candidate.surrogate_gain));
    else
      stop(summary, PolicyUpdateStatus::kNonFinite,
           format("a step of size %.4g (norm %.4g) led to a NaN or an infinity, so the parameters "
                  "are those before; a smaller step helps",
                  summary.step_size, summary.step_norm));
    return;
  }
  summary.status = PolicyUpdateStatus::kAccepted;
  summary.kl = measured.candidate.kl;
  summary.kl_max = measured.candidate.kl_max;
  summary.surrogate_gain = measured.candidate.surrogate_gain;
  summary.entropy = measured.entropy;
  summary.message =
      options.step_rule == StepRule::kLineSearch
          ? format("accepted after %d backtracks: %s %.4g of %.4g, surrogate gain %.4g",
                   search.backtracks, bounds_max ? "largest KL" : "KL", search.candidate.kl, delta,
                   summary.surrogate_gain)
          : format("took a step of size %.4g: KL %.4g, surrogate gain %.4g", summary.step_size,
                   summary.kl, summary.surrogate_gain);
}

template <class Scalar>
PolicyUpdateSummary PolicyUpdater<Scalar>::update(Policy<Scalar>& policy,
                                                  const SampleBatch<Scalar>& batch,
                                                  const PolicyUpdateOptions& options) {
  const Clock::time_point start = Clock::now();
  PolicyUpdateSummary summary;
  summary.max_kl = options.step_rule == StepRule::kFixed ? std::numeric_limits<double>::infinity()
                                                         : options.line_search.max_kl;
  // the model of the KL is that of Gauss and Newton where x = g
  const bool solves = options.fisher != FisherForm::kIdentity;
  const FisherForm form = solves ? options.fisher : FisherForm::kGaussNewton;
  const int products =
      solves && options.fisher_fraction == 1.0 ? options.conjugate_gradient.max_iterations : 1;

  bool goes_on = w_->begin(policy, batch, options.standardize_advantages, form, products,
                           options.activation_budget, summary);
  summary.seconds_gradient = seconds_since(start);
  if (goes_on) {
    const Clock::time_point cg_start = Clock::now();
    goes_on = w_->find_direction(policy, batch, options, summary);
    summary.seconds_cg = seconds_since(cg_start);
  }
  if (goes_on) {
    const Clock::time_point step_start = Clock::now();
    w_->step(policy, options, summary);
    summary.seconds_line_search = seconds_since(step_start);
  }
  summary.seconds_total = seconds_since(start);
  return summary;
}

// Adam on -(L - beta KL), epoch by epoch, minibatch by minibatch.
template <class Scalar>
void PolicyUpdater<Scalar>::Workspace::climb(Policy<Scalar>& policy,
                                             const SampleBatch<Scalar>& batch,
                                             const PolicyAscentOptions& options) {
  const Index n_parameters = policy.n_parameters();
  const Index O = policy.shape().inputs(), A = policy.spec().action_dim();
  const bool full_batch = options.minibatch_size <= 0 || options.minibatch_size >= batch.size;
  const Index size = full_batch ? batch.size : options.minibatch_size;
  product = gradient;  // of the first step on the full batch: at theta_k the KL is flat
  candidate = old_parameters;
  scalar_gradient.resize(candidate.size());
  rows.resize(static_cast<std::size_t>(batch.size));

  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    if (!full_batch)
      shuffle(options.seed, static_cast<std::uint32_t>(epoch), batch.size, rows.data());
    for (Index begin = 0; begin < batch.size; begin += size) {
      const Index n = std::min(size, batch.size - begin);

      // grad of L - beta KL at theta
      if (!full_batch) {
        const std::int64_t* chosen = rows.data() + begin;
        part.assign(policy, gather.gather(batch, chosen, n, O, A), options.activation_budget,
                    FisherForm::kIdentity);
        part.penalised_gradient(full, chosen, weights.data(), options.kl_coefficient,
                                product.data());
      } else if (epoch > 0) {
        part.assign(policy, batch, options.activation_budget, FisherForm::kIdentity);
        part.penalised_gradient(full, nullptr, weights.data(), options.kl_coefficient,
                                product.data());
      }
      for (std::size_t i = 0; i < product.size(); ++i)
        scalar_gradient[i] = static_cast<Scalar>(product[i]);

      // theta += lr m^ / (sqrt(v^) + eps)
      ++adam.steps;
      const double t = static_cast<double>(adam.steps);
      const double step = options.learning_rate / (1.0 - std::pow(options.beta1, t));
      const double root = 1.0 / std::sqrt(1.0 - std::pow(options.beta2, t));
      kernels<Scalar>().adam(n_parameters, step, options.beta1, options.beta2, root,
                             options.epsilon, /*scale=*/-1.0, scalar_gradient.data(),
                             adam.first_moment.data(), adam.second_moment.data(), candidate.data());
      policy.set_parameters(candidate.data());
    }
  }
}

template <class Scalar>
PolicyUpdateSummary PolicyUpdater<Scalar>::ascend(Policy<Scalar>& policy,
                                                  const SampleBatch<Scalar>& batch,
                                                  const PolicyAscentOptions& options) {
  const Clock::time_point start = Clock::now();
  PolicyUpdateSummary summary;
  summary.max_kl = std::numeric_limits<double>::infinity();
  summary.conjugate_gradient.status = ConjugateGradientStatus::kConverged;  // nothing to solve
  summary.conjugate_gradient.relative_residual = 0.0;
  const auto finished = [&] {
    summary.seconds_total = seconds_since(start);
    return summary;
  };

  const bool goes_on =
      w_->begin(policy, batch, options.standardize_advantages, FisherForm::kGaussNewton,
                /*products=*/1, options.activation_budget, summary);
  summary.seconds_gradient = seconds_since(start);
  if (!goes_on) return finished();
  if (summary.gradient_norm == 0.0) {
    stop(summary, PolicyUpdateStatus::kZeroGradient,
         "the gradient of the surrogate is zero, so no update was made");
    return finished();
  }

  const std::size_t n_parameters = w_->gradient.size();
  w_->adam.first_moment.resize(n_parameters);
  w_->adam.second_moment.resize(n_parameters);
  w_->old_adam = w_->adam;
  w_->old_parameters.assign(policy.parameters(), policy.parameters() + n_parameters);
  w_->climb(policy, batch, options);

  // s = theta - theta_k, and what the quadratic models say of it at theta_k
  w_->direction.resize(n_parameters);
  for (std::size_t i = 0; i < n_parameters; ++i)
    w_->direction[i] =
        static_cast<double>(w_->candidate[i]) - static_cast<double>(w_->old_parameters[i]);
  const auto measured = w_->full.evaluate(policy, w_->weights.data());
  policy.set_parameters(w_->old_parameters.data());
  w_->full.fisher_vector_product(w_->direction.data(), w_->product.data());
  summary.step_norm = norm(w_->direction);
  summary.step_size = options.learning_rate;
  summary.step_scale = 1.0;
  summary.kl_predicted = 0.5 * dot(w_->direction, w_->product);
  summary.surrogate_gain_predicted = dot(w_->gradient, w_->direction);

  if (!std::isfinite(measured.candidate.surrogate_gain) || !std::isfinite(measured.candidate.kl) ||
      !std::isfinite(summary.step_norm)) {
    std::swap(w_->adam, w_->old_adam);
    stop(summary, PolicyUpdateStatus::kNonFinite,
         "the steps led to a NaN or an infinity, so the parameters are those before; a smaller "
         "learning rate helps");
    return finished();
  }
  policy.set_parameters(w_->candidate.data());
  summary.status = PolicyUpdateStatus::kAccepted;
  summary.kl = measured.candidate.kl;
  summary.kl_max = measured.candidate.kl_max;
  summary.surrogate_gain = measured.candidate.surrogate_gain;
  summary.entropy = measured.entropy;
  summary.message = format("ascended with KL coefficient %.4g: KL %.4g, surrogate gain %.4g",
                           options.kl_coefficient, summary.kl, summary.surrogate_gain);
  return finished();
}

template class PolicyUpdater<float>;
template class PolicyUpdater<double>;

}  // namespace trpo_fast
