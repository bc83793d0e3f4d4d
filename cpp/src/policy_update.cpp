// N samples, O observation width, P network outputs, A action width, Theta parameters
#include "trpo_fast/policy_update.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "aligned.h"
#include "dispatch.h"
#include "gradient_sum.h"
#include "tiling.h"

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

double norm(const std::vector<double>& x) {
  double sum = 0.0;
  for (double v : x) sum += v * v;
  return std::sqrt(sum);
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

// ---------------------------------------------------------------------------------------------------

// Sums over the samples of one chunk.
struct ChunkSums {
  double gain = 0, kl = 0, kl_max = 0, entropy = 0;
};

template <class Scalar>
struct PolicyBatch<Scalar>::Workspace {
  const Policy<Scalar>* policy = nullptr;
  SampleBatch<Scalar> batch;
  Tiling tiling;
  int threads = 1;
  Index stride = 0;           // of a padded output row
  Index tile_activations = 0;  // scalars of cached activations a tile
  Index cached_tiles = 0;
  bool has_metric = false;

  Distribution<Scalar> old_distribution{make_distribution_spec("categorical", {1}), nullptr};
  AlignedBuffer<Scalar> activations;    // cached_tiles x tile_activations
  AlignedBuffer<Scalar> outputs;        // N x P' at theta_k
  AlignedBuffer<Scalar> metric;         // N x P', unless the metric is constant
  AlignedBuffer<double> log_probs;      // N
  AlignedBuffer<Scalar> per_thread;     // activations, rows x P' twice, scratch
  AlignedBuffer<Scalar> packed_vector;  // a tangent direction
  AlignedBuffer<double> log_std_sums;   // chunks x A
  std::vector<ChunkSums> sums;          // chunks
  GradientSum<Scalar> gradient;
  Index thread_size = 0;

  struct ThreadScratch {
    Scalar* activations;
    Scalar* rows_a;
    Scalar* rows_b;
    Scalar* scratch;
  };
  ThreadScratch scratch_of(int thread) {
    Scalar* base = per_thread.data() + thread * thread_size;
    Scalar* rows = base + tile_activations;
    return {base, rows, rows + kTileRows * stride, rows + 2 * kTileRows * stride};
  }

  const Scalar* tile_x(Index tile) const {
    return batch.observations + tiling.tile_begin(tile) * policy->shape().inputs();
  }

  // The activations of a tile at theta_k: cached, or computed again to the same bits.
  const Scalar* tile_activations_of(Index tile, const ThreadScratch& s) {
    if (tile < cached_tiles) return activations.data() + tile * tile_activations;
    kernels<Scalar>().forward(policy->shape(), policy->packed(), tile_x(tile),
                              policy->shape().inputs(), tiling.tile_rows(tile), s.activations,
                              s.rows_b);
    return s.activations;
  }
};

template <class Scalar>
PolicyBatch<Scalar>::PolicyBatch() : w_(std::make_unique<Workspace>()) {}
template <class Scalar>
PolicyBatch<Scalar>::~PolicyBatch() = default;
template <class Scalar>
Index PolicyBatch<Scalar>::size() const {
  return w_->batch.size;
}
template <class Scalar>
const double* PolicyBatch<Scalar>::log_probs() const {
  return w_->log_probs.data();
}

template <class Scalar>
void PolicyBatch<Scalar>::assign(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch,
                                 Index activation_budget) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const NetworkShape& shape = policy.shape();
  const Index A = policy.spec().free_parameters();

  // memory: a no-op for a size seen before
  w_->policy = &policy;
  w_->batch = batch;
  w_->tiling = Tiling(batch.size);
  w_->threads = threads_for(batch.size, policy.n_parameters());
  w_->stride = k.output_stride(shape);
  w_->tile_activations = k.activation_size(shape, kTileRows);
  const Index tile_bytes = std::max<Index>(1, w_->tile_activations * Index{sizeof(Scalar)});
  w_->cached_tiles = std::min(w_->tiling.tiles, std::max<Index>(0, activation_budget) / tile_bytes);
  w_->has_metric = policy.spec().kind != DistributionKind::kGaussian;
  w_->thread_size = w_->tile_activations + 2 * kTileRows * w_->stride + k.scratch_size(shape);
  w_->activations.reserve(w_->cached_tiles * w_->tile_activations);
  w_->outputs.reserve(batch.size * w_->stride);
  if (w_->has_metric) w_->metric.reserve(batch.size * w_->stride);
  w_->log_probs.reserve(batch.size);
  w_->per_thread.reserve(w_->thread_size * w_->threads);
  w_->packed_vector.reserve(k.packed_size(shape));
  w_->log_std_sums.reserve(w_->tiling.chunks * std::max<Index>(1, A));
  if (static_cast<Index>(w_->sums.size()) < w_->tiling.chunks)
    w_->sums.resize(static_cast<std::size_t>(w_->tiling.chunks));
  w_->gradient.reserve(shape, w_->tiling);

  // forward over the batch at theta_k; log-probabilities, entropy and the metric row by row
  w_->old_distribution = policy.distribution();
  const Distribution<Scalar>& distribution = policy.distribution();
  const bool has_actions = batch.actions.continuous || batch.actions.discrete;
  for (Index c = 0; c < w_->tiling.chunks; ++c) w_->sums[static_cast<std::size_t>(c)] = {};
  w_->tiling.for_each_tile(w_->threads, [&](Index tile, Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    const Index begin = w_->tiling.tile_begin(tile), rows = w_->tiling.tile_rows(tile);
    Scalar* activations = tile < w_->cached_tiles
                              ? w_->activations.data() + tile * w_->tile_activations
                              : s.activations;
    k.forward(shape, policy.packed(), w_->tile_x(tile), shape.inputs(), rows, activations,
              w_->outputs.data() + begin * w_->stride);
    ChunkSums& sums = w_->sums[static_cast<std::size_t>(chunk)];
    for (Index n = begin; n < begin + rows; ++n) {
      const Scalar* out = w_->outputs.data() + n * w_->stride;
      if (has_actions) w_->log_probs.data()[n] = distribution.log_prob(out, batch.actions, n);
      if (w_->has_metric) distribution.prepare_metric(out, w_->metric.data() + n * w_->stride);
      sums.entropy += distribution.entropy(out);
    }
  });
}

template <class Scalar>
double PolicyBatch<Scalar>::mean_entropy() const {
  double sum = 0.0;
  for (Index c = 0; c < w_->tiling.chunks; ++c) sum += w_->sums[static_cast<std::size_t>(c)].entropy;
  return sum / static_cast<double>(w_->batch.size);
}

template <class Scalar>
void PolicyBatch<Scalar>::surrogate_gradient(const double* weights, const double* old_log_probs,
                                             double* gradient) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Policy<Scalar>& policy = *w_->policy;
  const NetworkShape& shape = policy.shape();
  const Index A = policy.spec().free_parameters();
  const double inverse_n = 1.0 / static_cast<double>(w_->batch.size);

  parallel_for(w_->tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    double* log_std_sum = w_->log_std_sums.data() + chunk * std::max<Index>(1, A);
    std::fill_n(log_std_sum, A, 0.0);
    w_->gradient.clear(chunk);
    for (Index tile = w_->tiling.chunk_begin(chunk); tile < w_->tiling.chunk_end(chunk); ++tile) {
      const Index begin = w_->tiling.tile_begin(tile), rows = w_->tiling.tile_rows(tile);
      const Scalar* activations = w_->tile_activations_of(tile, s);

      // u_n = rho_n w_n d log pi(a_n) / d outputs
      Scalar* u = s.rows_a;
      std::fill_n(u, rows * w_->stride, Scalar(0));
      for (Index i = 0; i < rows; ++i) {
        const Index n = begin + i;
        double weight = weights[n];
        if (old_log_probs) weight *= std::exp(w_->log_probs.data()[n] - old_log_probs[n]);
        policy.distribution().add_score(w_->outputs.data() + n * w_->stride, w_->batch.actions, n,
                                        weight, u + i * w_->stride, log_std_sum);
      }

      // g += J^T u
      k.adjoint(shape, policy.packed(), w_->tile_x(tile), shape.inputs(), rows, activations, u,
                s.scratch, w_->gradient.partial(chunk));
    }
  });
  w_->gradient.collect(shape, w_->tiling, w_->threads, inverse_n, gradient);
  double* log_std_gradient = gradient + policy.n_network_parameters();
  for (Index a = 0; a < A; ++a) {
    double sum = 0.0;
    for (Index c = 0; c < w_->tiling.chunks; ++c) sum += w_->log_std_sums.data()[c * A + a];
    log_std_gradient[a] = sum * inverse_n;
  }
}

template <class Scalar>
void PolicyBatch<Scalar>::fisher_vector_product(const double* v, double* y) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Policy<Scalar>& policy = *w_->policy;
  const NetworkShape& shape = policy.shape();
  k.pack_double(shape, v, /*backward=*/false, w_->packed_vector.data());

  parallel_for(w_->tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    w_->gradient.clear(chunk);
    for (Index tile = w_->tiling.chunk_begin(chunk); tile < w_->tiling.chunk_end(chunk); ++tile) {
      const Index begin = w_->tiling.tile_begin(tile), rows = w_->tiling.tile_rows(tile);
      const Scalar* activations = w_->tile_activations_of(tile, s);

      // u = J v
      Scalar* u = s.rows_a;
      k.tangent(shape, policy.packed(), w_->packed_vector.data(), w_->tile_x(tile), shape.inputs(),
                rows, activations, s.scratch, u);
      // u <- M u
      policy.distribution().apply_metric(
          w_->has_metric ? w_->metric.data() + begin * w_->stride : nullptr, rows, w_->stride, u);
      // y += J^T u
      k.adjoint(shape, policy.packed(), w_->tile_x(tile), shape.inputs(), rows, activations, u,
                s.scratch, w_->gradient.partial(chunk));
    }
  });
  w_->gradient.collect(shape, w_->tiling, w_->threads, 1.0 / static_cast<double>(w_->batch.size), y);

  // a free log_std: J is the identity and M = 2, in every sample
  const Index first = policy.n_network_parameters();
  for (Index a = 0; a < policy.spec().free_parameters(); ++a) y[first + a] = 2.0 * v[first + a];
}

template <class Scalar>
typename PolicyBatch<Scalar>::Evaluation PolicyBatch<Scalar>::evaluate(const Policy<Scalar>& policy,
                                                                       const double* weights) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const NetworkShape& shape = policy.shape();
  const Distribution<Scalar>& distribution = policy.distribution();
  for (Index c = 0; c < w_->tiling.chunks; ++c) w_->sums[static_cast<std::size_t>(c)] = {};

  w_->tiling.for_each_tile(w_->threads, [&](Index tile, Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    const Index begin = w_->tiling.tile_begin(tile), rows = w_->tiling.tile_rows(tile);
    k.forward(shape, policy.packed(), w_->tile_x(tile), shape.inputs(), rows, s.activations,
              s.rows_a);
    ChunkSums& sums = w_->sums[static_cast<std::size_t>(chunk)];
    for (Index i = 0; i < rows; ++i) {
      const Index n = begin + i;
      const Scalar* out = s.rows_a + i * w_->stride;
      const double kl =
          distribution.kl(w_->old_distribution, w_->outputs.data() + n * w_->stride, out);
      // (rho - 1) w, rho = pi(a) / pi_k(a)
      const double log_ratio =
          distribution.log_prob(out, w_->batch.actions, n) - w_->log_probs.data()[n];
      sums.gain += std::expm1(log_ratio) * weights[n];
      sums.kl += kl;
      sums.kl_max = kl <= sums.kl_max ? sums.kl_max : kl;  // a NaN stays
      sums.entropy += distribution.entropy(out);
    }
  });

  Evaluation result;
  const double inverse_n = 1.0 / static_cast<double>(w_->batch.size);
  for (Index c = 0; c < w_->tiling.chunks; ++c) {
    const ChunkSums& sums = w_->sums[static_cast<std::size_t>(c)];
    result.candidate.surrogate_gain += sums.gain;
    result.candidate.kl += sums.kl;
    if (!(sums.kl_max <= result.candidate.kl_max)) result.candidate.kl_max = sums.kl_max;
    result.entropy += sums.entropy;
  }
  result.candidate.surrogate_gain *= inverse_n;
  result.candidate.kl *= inverse_n;
  result.entropy *= inverse_n;
  return result;
}

// ---------------------------------------------------------------------------------------------------

template <class Scalar>
struct PolicyUpdater<Scalar>::Workspace {
  PolicyBatch<Scalar> full, subsample;
  std::vector<double> weights;                // standardised advantages
  std::vector<double> gradient, direction;    // g, x
  std::vector<Scalar> old_parameters, candidate;
  ConjugateGradientWorkspace conjugate_gradient;
  std::vector<Index> rows;                    // of the subsample
  AlignedBuffer<Scalar> sub_observations;
};

template <class Scalar>
PolicyUpdater<Scalar>::PolicyUpdater() : w_(std::make_unique<Workspace>()) {}
template <class Scalar>
PolicyUpdater<Scalar>::~PolicyUpdater() = default;

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
void draw_rows(Index n, Index count, std::uint64_t seed, std::vector<Index>& rows) {
  rows.clear();
  rows.reserve(static_cast<std::size_t>(count));
  CounterStream stream(seed, 0xF15CE201u, 0);
  for (Index i = 0; i < n && static_cast<Index>(rows.size()) < count; ++i) {
    const double wanted = static_cast<double>(count - static_cast<Index>(rows.size()));
    if (stream.uniform() * static_cast<double>(n - i) < wanted) rows.push_back(i);
  }
}

}  // namespace

template <class Scalar>
PolicyUpdateSummary PolicyUpdater<Scalar>::update(Policy<Scalar>& policy,
                                                  const SampleBatch<Scalar>& batch,
                                                  const PolicyUpdateOptions& options) {
  const Clock::time_point start = Clock::now();
  const Index n_parameters = policy.n_parameters();
  const double delta = options.line_search.max_kl;
  PolicyUpdateSummary summary;
  summary.max_kl = delta;
  const auto finish = [&](PolicyUpdateStatus status, std::string message) {
    summary.status = status;
    summary.message = std::move(message);
    summary.seconds_total = seconds_since(start);
    return summary;
  };

  // advantages -> weights
  w_->weights.resize(static_cast<std::size_t>(batch.size));
  const AdvantageKind kind = standardize(batch.advantages, batch.size,
                                         options.standardize_advantages, w_->weights.data());
  if (kind == AdvantageKind::kNonFinite)
    return finish(PolicyUpdateStatus::kNonFinite,
                  "the advantages hold a NaN or an infinity, so no update was made; look at the "
                  "rewards and values that they were computed from");

  // the batch at theta_k
  w_->full.assign(policy, batch, options.activation_budget);
  summary.entropy_before = summary.entropy = w_->full.mean_entropy();
  if (!std::isfinite(summary.entropy_before))
    return finish(PolicyUpdateStatus::kNonFinite,
                  "the policy's outputs hold a NaN or an infinity, so no update was made; look at "
                  "the observations and the parameters");
  if (kind == AdvantageKind::kConstant)
    return finish(PolicyUpdateStatus::kZeroGradient,
                  "all advantages are equal, so there is nothing to improve and no update was made");

  // g = grad L(theta_k)
  w_->gradient.resize(static_cast<std::size_t>(n_parameters));
  w_->full.surrogate_gradient(w_->weights.data(), nullptr, w_->gradient.data());
  summary.gradient_norm = norm(w_->gradient);
  summary.seconds_gradient = seconds_since(start);
  if (!std::isfinite(summary.gradient_norm))
    return finish(PolicyUpdateStatus::kNonFinite,
                  "the gradient of the surrogate is not finite, so no update was made; look at the "
                  "observations, actions and advantages for extreme values");

  // F on the whole batch, or on a subsample drawn once
  const Clock::time_point cg_start = Clock::now();
  PolicyBatch<Scalar>* fisher = &w_->full;
  if (options.fisher_fraction < 1.0) {
    const Index count = std::max<Index>(
        1, static_cast<Index>(std::ceil(options.fisher_fraction * static_cast<double>(batch.size))));
    draw_rows(batch.size, count, options.seed, w_->rows);
    const Index O = policy.shape().inputs();
    w_->sub_observations.reserve(count * O);
    for (Index i = 0; i < count; ++i) {
      const Scalar* row = batch.observations + w_->rows[static_cast<std::size_t>(i)] * O;
      std::copy(row, row + O, w_->sub_observations.data() + i * O);
    }
    SampleBatch<Scalar> sub;
    sub.observations = w_->sub_observations.data();
    sub.size = count;
    w_->subsample.assign(policy, sub, options.activation_budget);
    fisher = &w_->subsample;
  }

  // x = (F + lambda I)^{-1} g
  const double damping = options.damping;
  w_->direction.resize(static_cast<std::size_t>(n_parameters));
  summary.conjugate_gradient = conjugate_gradient(
      [&](const double* v, double* y) {
        fisher->fisher_vector_product(v, y);
        for (Index i = 0; i < n_parameters; ++i) y[i] += damping * v[i];
      },
      n_parameters, w_->gradient.data(), options.conjugate_gradient, w_->conjugate_gradient,
      w_->direction.data());
  summary.seconds_cg = seconds_since(cg_start);
  const ConjugateGradientSummary& cg = summary.conjugate_gradient;
  if (cg.status == ConjugateGradientStatus::kZeroRightHandSide)
    return finish(PolicyUpdateStatus::kZeroGradient,
                  "the gradient of the surrogate is zero, so no update was made");
  if (!(cg.b_dot_x > 0.0) || !std::isfinite(cg.b_dot_x))
    return finish(cg.status == ConjugateGradientStatus::kNonPositiveCurvature
                      ? PolicyUpdateStatus::kNonPositiveCurvature
                      : PolicyUpdateStatus::kNonFinite,
                  "conjugate gradient found no direction of ascent (" + cg.message +
                      "), so no update was made; a larger cg_damping helps when the Fisher matrix "
                      "is nearly singular");

  // beta = sqrt(2 delta / x^T (F + lambda I) x), and x^T (F + lambda I) x = g^T x at every iterate
  const double x_norm = norm(w_->direction);
  const double beta = std::sqrt(2.0 * delta / cg.b_dot_x);
  const double full_kl = 0.5 * beta * beta * (cg.b_dot_x - damping * x_norm * x_norm);
  const double full_gain = beta * cg.b_dot_x;

  // theta = theta_k + alpha^j beta x
  const Clock::time_point search_start = Clock::now();
  w_->old_parameters.assign(policy.parameters(), policy.parameters() + n_parameters);
  w_->candidate.resize(static_cast<std::size_t>(n_parameters));
  double candidate_entropy = summary.entropy_before;
  const LineSearchSummary search =
      backtracking_line_search(options.line_search, [&](double scale) {
        for (std::size_t i = 0; i < w_->candidate.size(); ++i)
          w_->candidate[i] = static_cast<Scalar>(static_cast<double>(w_->old_parameters[i]) +
                                                 scale * beta * w_->direction[i]);
        policy.set_parameters(w_->candidate.data());
        const auto evaluation = w_->full.evaluate(policy, w_->weights.data());
        candidate_entropy = evaluation.entropy;
        return evaluation.candidate;
      });
  summary.seconds_line_search = seconds_since(search_start);
  summary.backtracks = search.backtracks;
  summary.step_scale = search.scale;
  summary.step_norm = search.scale * beta * x_norm;
  summary.kl_predicted = search.scale * search.scale * full_kl;
  summary.surrogate_gain_predicted = search.scale * full_gain;

  if (!search.accepted) {
    policy.set_parameters(w_->old_parameters.data());
    return finish(
        PolicyUpdateStatus::kLineSearchFailed,
        format("none of %d candidate steps was accepted: %d left the trust region (KL > %.4g), %d "
               "did not improve the surrogate; the last had KL %.4g and gain %.4g; the parameters "
               "are those before",
               search.backtracks + 1, search.kl_violations, delta, search.no_improvements,
               search.candidate.kl, search.candidate.surrogate_gain));
  }
  summary.kl = search.candidate.kl;
  summary.kl_max = search.candidate.kl_max;
  summary.surrogate_gain = search.candidate.surrogate_gain;
  summary.entropy = candidate_entropy;
  return finish(PolicyUpdateStatus::kAccepted,
                format("accepted after %d backtracks: KL %.4g of %.4g, surrogate gain %.4g",
                       search.backtracks, summary.kl, delta, summary.surrogate_gain));
}

template class PolicyBatch<float>;
template class PolicyBatch<double>;
template class PolicyUpdater<float>;
template class PolicyUpdater<double>;

}  // namespace trpo_fast
