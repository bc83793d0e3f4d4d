// N samples, K actions of each, O observation width, A action width, W flags of a mask
#include "trpo_fast/trust_region_update.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "linearize.h"
#include "objective_model.h"
#include "reporting.h"
#include "row_gather.h"
#include "trpo_fast/line_search.h"
#include "vectors.h"
#include "wider_model.h"

namespace trpo_fast {

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

// `count` of n rows without replacement, in ascending order: selection sampling (Knuth 3.4.2 S).
void draw_rows(Index n, Index count, std::uint64_t seed, std::vector<std::int64_t>& rows) {
  constexpr std::uint32_t kSubsampleStream = 0xF15CE201u;
  rows.clear();
  rows.reserve(static_cast<std::size_t>(count));
  CounterStream stream(seed, kSubsampleStream, 0);
  for (Index i = 0; i < n && static_cast<Index>(rows.size()) < count; ++i) {
    const double wanted = static_cast<double>(count - static_cast<Index>(rows.size()));
    if (stream.uniform() * static_cast<double>(n - i) < wanted) rows.push_back(i);
  }
}

// A share of the samples, drawn without replacement and copied side by side.
template <class Scalar>
class Subsample {
 public:
  SampleBatch<Scalar> draw(const SampleBatch<Scalar>& from, double fraction, std::uint64_t seed,
                           Index O, Index A, Index W) {
    const Index count = std::max<Index>(
        1, static_cast<Index>(std::ceil(fraction * static_cast<double>(from.size))));
    draw_rows(from.size, count, seed, rows_);

    const Index K = from.branches;
    SampleBatch<Scalar> batch;
    batch.size = count;
    batch.branches = K;
    batch.observations = gather_rows(from.observations, rows_.data(), count, O, observations_);
    if (from.actions.continuous)
      batch.actions.continuous =
          gather_rows(from.actions.continuous, rows_.data(), count, K * A, continuous_);
    if (from.actions.discrete)
      batch.actions.discrete =
          gather_rows(from.actions.discrete, rows_.data(), count, K * A, discrete_);
    if (from.allowed) batch.allowed = gather_rows(from.allowed, rows_.data(), count, W, allowed_);
    if (from.score_weights)
      batch.score_weights = gather_rows(from.score_weights, rows_.data(), count, K, score_weights_);
    return batch;
  }

 private:
  std::vector<std::int64_t> rows_;
  AlignedBuffer<Scalar> observations_, continuous_;
  AlignedBuffer<std::int32_t> discrete_;
  AlignedBuffer<bool> allowed_;
  AlignedBuffer<double> score_weights_;
};

// Where x points, and the quadratic models of L and KL along it.
struct Direction {
  std::vector<double> x;
  double norm = 0;     // ||x||
  double g_dot_x = 0;  // g^T x = x^T (F + lambda I) x
  double x_F_x = 0;    // x^T F x
};

}  // namespace

// The named steps of an update. Those that return false end it, with the reason in the summary.
template <class Scalar>
struct TrustRegionUpdater<Scalar>::Workspace {
  PolicyBatch<Scalar> full, part;  // all samples; a share of them, for F
  PolicyBatch<Scalar> further;     // other states, for F and the KL
  Subsample<Scalar> subsample;
  std::vector<double> gradient, product;  // g, F g
  Direction direction;
  ConjugateGradientWorkspace conjugate_gradient;
  KroneckerPreconditioner kronecker;
  std::vector<Scalar> old_parameters, candidate;
  Evaluation measured;  // of the candidate

  class SubsampledModel;
  bool solve(const Policy<Scalar>& policy, LocalModel<Scalar>& model,
             const TrustRegionOptions& options, PolicyUpdateSummary& summary);
  bool follow_gradient(LocalModel<Scalar>& model, PolicyUpdateSummary& summary);
  double boundary(LocalModel<Scalar>& model, const TrustRegionOptions& options);
  LineSearchSummary move(Policy<Scalar>& policy, LocalModel<Scalar>& model, double beta,
                         const TrustRegionOptions& options);
  void report(const LineSearchSummary& search, double beta, const TrustRegionOptions& options,
              PolicyUpdateSummary& summary) const;
};

template <class Scalar>
TrustRegionUpdater<Scalar>::TrustRegionUpdater() : w_(std::make_unique<Workspace>()) {}
template <class Scalar>
TrustRegionUpdater<Scalar>::~TrustRegionUpdater() = default;

// The model of an objective, with F on all its samples, or on a share of them.
template <class Scalar>
class TrustRegionUpdater<Scalar>::Workspace::SubsampledModel final : public ObjectiveModel<Scalar> {
 public:
  SubsampledModel(Objective<Scalar>& objective, Workspace& workspace)
      : ObjectiveModel<Scalar>(objective, workspace.full), w_(workspace) {}

  void prepare_solve(const Policy<Scalar>& policy, const TrustRegionOptions& options) override {
    if (options.fisher_fraction == 1.0) return;
    SampleBatch<Scalar> source = this->samples();
    if (options.fisher != FisherForm::kEmpirical) {  // F depends on states alone
      source.actions = {};
      source.score_weights = nullptr;
      source.branches = 1;
    }
    const Policy<Scalar>& p = policy;
    w_.part.assign(
        p,
        w_.subsample.draw(source, options.fisher_fraction, options.seed, p.shape().inputs(),
                          p.spec().action_dim(), p.spec().mask_width()),
        options.activation_budget, options.fisher, options.cg_iterations);
    this->estimate_fisher_on(w_.part);
  }

 private:
  Workspace& w_;
};

template <class Scalar>
PolicyUpdateSummary TrustRegionUpdater<Scalar>::update(Policy<Scalar>& policy,
                                                       Objective<Scalar>& objective,
                                                       const TrustRegionOptions& options,
                                                       const SampleBatch<Scalar>& further) {
  typename Workspace::SubsampledModel model(objective, *w_);
  return update(policy, model, options, further);
}

template <class Scalar>
PolicyUpdateSummary TrustRegionUpdater<Scalar>::update(Policy<Scalar>& policy,
                                                       LocalModel<Scalar>& model,
                                                       const TrustRegionOptions& options,
                                                       const SampleBatch<Scalar>& further) {
  if (further.size == 0) return step(policy, model, options);
  WiderModel<Scalar> wider(model, further, w_->further);
  return step(policy, wider, options);
}

template <class Scalar>
PolicyUpdateSummary TrustRegionUpdater<Scalar>::step(Policy<Scalar>& policy,
                                                     LocalModel<Scalar>& model,
                                                     const TrustRegionOptions& options) {
  const Stopwatch total;
  PolicyUpdateSummary summary;
  summary.max_kl =
      options.step == StepRule::kFixed ? std::numeric_limits<double>::infinity() : options.max_kl;
  const auto finished = [&] {
    summary.seconds_total = total.seconds();
    return summary;
  };

  // g = grad L(theta_k); where x = g, the batch still predicts the KL, by a Gauss-Newton product
  const bool solves = options.fisher != FisherForm::kIdentity;
  BatchPlan plan;
  plan.fisher = solves ? options.fisher : FisherForm::kGaussNewton;
  plan.products = solves && options.fisher_fraction == 1.0 ? options.cg_iterations : 1;
  plan.activation_budget = options.activation_budget;
  const bool improvable =
      linearize(policy, model, options.standardize_advantages, plan, w_->gradient, summary);
  summary.seconds_gradient = total.seconds();
  if (!improvable) return finished();

  // x = (F + lambda I)^{-1} g, or x = g
  const Stopwatch solving;
  const bool ascends =
      solves ? w_->solve(policy, model, options, summary) : w_->follow_gradient(model, summary);
  summary.seconds_cg = solving.seconds();
  if (!ascends) return finished();

  // theta = theta_k + alpha^j beta x, or theta_k again
  const Stopwatch stepping;
  const double beta =
      options.step == StepRule::kFixed ? *options.step_size : w_->boundary(model, options);
  const LineSearchSummary search = w_->move(policy, model, beta, options);
  if (!search.accepted) policy.set_parameters(w_->old_parameters.data());
  w_->report(search, beta, options, summary);
  summary.seconds_line_search = stepping.seconds();
  return finished();
}

// x = (F + lambda I)^{-1} g by conjugate gradient.
template <class Scalar>
bool TrustRegionUpdater<Scalar>::Workspace::solve(const Policy<Scalar>& policy,
                                                  LocalModel<Scalar>& model,
                                                  const TrustRegionOptions& options,
                                                  PolicyUpdateSummary& summary) {
  model.prepare_solve(policy, options);
  const Index n_parameters = policy.n_parameters();
  const double damping = options.cg_damping;

  // r -> M^{-1} r
  LinearOperator preconditioner;
  if (options.cg_preconditioner == Preconditioner::kKronecker) {
    model.precondition(damping, options.seed, kronecker);
    preconditioner = [&](const double* r, double* z) { kronecker.apply(r, z); };
  }

  // v -> (F + lambda I) v
  const auto product_with = [&](const double* v, double* y) {
    model.fisher_vector_product(v, y);
    for (Index i = 0; i < n_parameters; ++i) y[i] += damping * v[i];
  };

  ConjugateGradientOptions cg_options;
  cg_options.max_iterations = options.cg_iterations;
  cg_options.relative_tolerance = options.cg_tolerance;
  direction.x.resize(gradient.size());
  summary.conjugate_gradient =
      trpo_fast::conjugate_gradient(product_with, n_parameters, gradient.data(), cg_options,
                                    conjugate_gradient, direction.x.data(), preconditioner);
  const ConjugateGradientSummary& cg = summary.conjugate_gradient;
  direction.g_dot_x = cg.b_dot_x;  // x^T (F + lambda I) x at every iterate
  direction.norm = norm(direction.x);
  direction.x_F_x = direction.g_dot_x - damping * direction.norm * direction.norm;

  if (cg.status == ConjugateGradientStatus::kZeroRightHandSide)
    return stop(summary, PolicyUpdateStatus::kZeroGradient, kZeroGradientMessage);
  if (!(direction.g_dot_x > 0.0) || !std::isfinite(direction.g_dot_x))
    return stop(summary,
                cg.status == ConjugateGradientStatus::kNonPositiveCurvature
                    ? PolicyUpdateStatus::kNonPositiveCurvature
                    : PolicyUpdateStatus::kNonFinite,
                "conjugate gradient found no direction of ascent (" + cg.message +
                    "), so no update was made; a larger cg_damping helps when the Fisher matrix "
                    "is nearly singular");
  return true;
}

// x = g: there is no system to solve; one product predicts the KL.
template <class Scalar>
bool TrustRegionUpdater<Scalar>::Workspace::follow_gradient(LocalModel<Scalar>& model,
                                                            PolicyUpdateSummary& summary) {
  summary.conjugate_gradient.status = ConjugateGradientStatus::kConverged;
  summary.conjugate_gradient.relative_residual = 0.0;
  direction.x = gradient;
  direction.norm = summary.gradient_norm;
  direction.g_dot_x = direction.norm * direction.norm;
  if (!(direction.g_dot_x > 0.0))
    return stop(summary, PolicyUpdateStatus::kZeroGradient, kZeroGradientMessage);
  product.resize(gradient.size());
  model.fisher_vector_product(direction.x.data(), product.data());
  direction.x_F_x = dot(direction.x, product);
  return true;
}

// beta = sqrt(2 delta / x^T (F + lambda I) x), where the model of the KL along x meets delta; for the
// maximum-KL constraint with max_n x^T F_n x, the largest curvature of any sample.
template <class Scalar>
double TrustRegionUpdater<Scalar>::Workspace::boundary(LocalModel<Scalar>& model,
                                                       const TrustRegionOptions& options) {
  double curvature = direction.g_dot_x;
  if (options.constraint == KlConstraint::kMax) {
    const double damping = options.fisher == FisherForm::kIdentity ? 0.0 : options.cg_damping;
    curvature =
        model.largest_curvature(direction.x.data()) + damping * direction.norm * direction.norm;
  }
  return std::sqrt(2.0 * options.max_kl / curvature);
}

// theta = theta_k + alpha^j beta x for the smallest j with KL <= delta and L improved; for rules
// without a line search j = 0, refused only where a number is not finite. The policy is left at the
// last candidate.
template <class Scalar>
LineSearchSummary TrustRegionUpdater<Scalar>::Workspace::move(Policy<Scalar>& policy,
                                                              LocalModel<Scalar>& model,
                                                              double beta,
                                                              const TrustRegionOptions& options) {
  old_parameters.assign(policy.parameters(), policy.parameters() + policy.n_parameters());
  candidate.resize(old_parameters.size());
  const auto try_scale = [&](double scale) {
    for (std::size_t i = 0; i < candidate.size(); ++i)
      candidate[i] = static_cast<Scalar>(static_cast<double>(old_parameters[i]) +
                                         scale * beta * direction.x[i]);
    policy.set_parameters(candidate.data());
    measured = model.evaluate(policy);
    Candidate seen = measured.candidate;
    if (options.constraint == KlConstraint::kMax) seen.kl = seen.kl_max;
    return seen;
  };

  const auto restored_if_thrown = [&](const auto& search) {
    try {
      return search();
    } catch (...) {
      policy.set_parameters(old_parameters.data());
      throw;
    }
  };
  if (options.step == StepRule::kLineSearch) {
    LineSearchOptions limits;
    limits.max_kl = options.max_kl;
    limits.backtrack_ratio = options.backtrack_ratio;
    limits.max_backtracks = options.max_backtracks;
    return restored_if_thrown([&] { return backtracking_line_search(limits, try_scale); });
  }
  LineSearchSummary search;
  search.candidate = restored_if_thrown([&] { return try_scale(1.0); });
  search.scale = 1.0;
  search.accepted = std::isfinite(measured.candidate.surrogate_gain) &&
                    std::isfinite(measured.candidate.kl) && std::isfinite(measured.entropy);
  return search;
}

template <class Scalar>
void TrustRegionUpdater<Scalar>::Workspace::report(const LineSearchSummary& search, double beta,
                                                   const TrustRegionOptions& options,
                                                   PolicyUpdateSummary& summary) const {
  // s = alpha^j beta x:  ||s||, 1/2 s^T F s, g^T s
  summary.backtracks = search.backtracks;
  summary.step_scale = search.scale;
  summary.step_size = search.scale * beta;
  summary.step_norm = search.scale * beta * direction.norm;
  summary.kl_predicted = search.scale * search.scale * (0.5 * beta * beta * direction.x_F_x);
  summary.surrogate_gain_predicted = search.scale * (beta * direction.g_dot_x);

  const bool searched = options.step == StepRule::kLineSearch;
  const char* kl_name = options.constraint == KlConstraint::kMax ? "largest KL" : "KL";
  if (!search.accepted) {
    if (searched)
      stop(summary, PolicyUpdateStatus::kLineSearchFailed,
           format("none of %d candidate steps was accepted: %d left the trust region (%s > %.4g), "
                  "%d did not improve the surrogate; the last had %s %.4g and gain %.4g; the "
                  "parameters are those before",
                  search.backtracks + 1, search.kl_violations, kl_name, options.max_kl,
                  search.no_improvements, kl_name, search.candidate.kl,
                  search.candidate.surrogate_gain));
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
      searched ? format("accepted after %d backtracks: %s %.4g of %.4g, surrogate gain %.4g",
                        search.backtracks, kl_name, search.candidate.kl, options.max_kl,
                        summary.surrogate_gain)
               : format("took a step of size %.4g: KL %.4g, surrogate gain %.4g", summary.step_size,
                        summary.kl, summary.surrogate_gain);
}

template class TrustRegionUpdater<float>;
template class TrustRegionUpdater<double>;

}  // namespace trpo_fast
