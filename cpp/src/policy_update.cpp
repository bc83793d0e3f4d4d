// N samples, O observation width, P network outputs, A action width, Theta parameters
#include "trpo_fast/policy_update.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

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

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
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
  Index stride = 0;            // of a padded output row
  Index tile_activations = 0;  // scalars of cached activations a tile
  Index cached_tiles = 0;
  bool has_metric = false;
  FisherForm form = FisherForm::kGaussNewton;

  Distribution<Scalar> old_distribution{make_distribution_spec("categorical", {1}), nullptr};
  AlignedBuffer<Scalar> activations;     // cached_tiles x tile_activations
  AlignedBuffer<Scalar> outputs;         // N x P' at theta_k
  AlignedBuffer<Scalar> metric;          // N x P', unless the metric is constant
  AlignedBuffer<Scalar> scores;          // N x P', d log pi(a_n) / d outputs, kEmpirical only
  AlignedBuffer<double> log_std_scores;  // N x A
  AlignedBuffer<double> log_probs;       // N
  AlignedBuffer<Scalar> per_thread;      // activations, rows x P' twice, scratch
  AlignedBuffer<Scalar> packed_vector;   // a tangent direction
  AlignedBuffer<double> log_std_sums;    // chunks x A
  std::vector<ChunkSums> sums;           // chunks
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

  // gradient = mean_n J_n^T u_n, where add_cotangent(n, outputs, u, log_std_sum) adds u_n.
  template <class AddCotangent>
  void pull_back(const AddCotangent& add_cotangent, double* gradient);

  // J v for the rows of a tile, with v packed before.
  void tangent(Index tile, const Scalar* hidden, const ThreadScratch& s, Scalar* u) {
    kernels<Scalar>().tangent(policy->shape(), policy->packed(), packed_vector.data(), tile_x(tile),
                              policy->shape().inputs(), tiling.tile_rows(tile), hidden, s.scratch,
                              u);
  }

  // u <- M u for the rows of a tile.
  void apply_metric(Index tile, Scalar* u) const {
    policy->distribution().apply_metric(
        has_metric ? metric.data() + tiling.tile_begin(tile) * stride : nullptr,
        tiling.tile_rows(tile), stride, u);
  }

  // u <- c score, c = score^T (u, v_log_std), for the rows of a tile.
  void apply_scores(Index tile, const double* v_log_std, Scalar* u, double* log_std_sum) const;

  // out = inverse_n * sum over the chunks of log_std_sums.
  void collect_log_std(Index A, double inverse_n, double* out) const {
    for (Index a = 0; a < A; ++a) {
      double sum = 0.0;
      for (Index c = 0; c < tiling.chunks; ++c) sum += log_std_sums.data()[c * A + a];
      out[a] = sum * inverse_n;
    }
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
                                 Index activation_budget, FisherForm form) {
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
  w_->form = form;
  w_->has_metric =
      form != FisherForm::kIdentity && policy.spec().kind != DistributionKind::kGaussian;
  const bool has_scores = form == FisherForm::kEmpirical;
  w_->thread_size = w_->tile_activations + 2 * kTileRows * w_->stride + k.scratch_size(shape);
  w_->activations.reserve(w_->cached_tiles * w_->tile_activations);
  w_->outputs.reserve(batch.size * w_->stride);
  if (w_->has_metric) w_->metric.reserve(batch.size * w_->stride);
  if (has_scores) {
    w_->scores.reserve(batch.size * w_->stride);
    w_->log_std_scores.reserve(batch.size * A);
    std::fill_n(w_->scores.data(), batch.size * w_->stride, Scalar(0));
    std::fill_n(w_->log_std_scores.data(), batch.size * A, 0.0);
  }
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
      if (has_scores)
        distribution.add_score(out, batch.actions, n, 1.0, w_->scores.data() + n * w_->stride,
                               w_->log_std_scores.data() + n * A);
      sums.entropy += distribution.entropy(out);
    }
  });
}

template <class Scalar>
double PolicyBatch<Scalar>::mean_entropy() const {
  double sum = 0.0;
  for (Index c = 0; c < w_->tiling.chunks; ++c)
    sum += w_->sums[static_cast<std::size_t>(c)].entropy;
  return sum / static_cast<double>(w_->batch.size);
}

template <class Scalar>
template <class AddCotangent>
void PolicyBatch<Scalar>::Workspace::pull_back(const AddCotangent& add_cotangent,
                                               double* gradient_out) {
  const NetworkShape& shape = policy->shape();
  const Index A = policy->spec().free_parameters();
  const double inverse_n = 1.0 / static_cast<double>(batch.size);

  parallel_for(tiling.chunks, threads, [&](Index chunk, int thread) {
    const auto s = scratch_of(thread);
    double* log_std_sum = log_std_sums.data() + chunk * std::max<Index>(1, A);
    std::fill_n(log_std_sum, A, 0.0);
    gradient.clear(chunk);
    for (Index tile = tiling.chunk_begin(chunk); tile < tiling.chunk_end(chunk); ++tile) {
      const Index begin = tiling.tile_begin(tile), rows = tiling.tile_rows(tile);
      const Scalar* hidden = tile_activations_of(tile, s);

      // u_n
      Scalar* u = s.rows_a;
      std::fill_n(u, rows * stride, Scalar(0));
      for (Index i = 0; i < rows; ++i)
        add_cotangent(begin + i, outputs.data() + (begin + i) * stride, u + i * stride,
                      log_std_sum);

      // g += J^T u
      kernels<Scalar>().adjoint(shape, policy->packed(), tile_x(tile), shape.inputs(), rows, hidden,
                                u, s.scratch, gradient.partial(chunk));
    }
  });
  gradient.collect(shape, tiling, threads, inverse_n, gradient_out);
  collect_log_std(A, inverse_n, gradient_out + policy->n_network_parameters());
}

template <class Scalar>
void PolicyBatch<Scalar>::surrogate_gradient(const double* weights, const double* old_log_probs,
                                             double* gradient) {
  const Distribution<Scalar>& distribution = w_->policy->distribution();
  w_->pull_back(
      [&](Index n, const Scalar* out, Scalar* u, double* log_std_sum) {
        // u_n = rho_n w_n d log pi(a_n) / d outputs
        double weight = weights[n];
        if (old_log_probs) weight *= std::exp(w_->log_probs.data()[n] - old_log_probs[n]);
        distribution.add_score(out, w_->batch.actions, n, weight, u, log_std_sum);
      },
      gradient);
}

template <class Scalar>
void PolicyBatch<Scalar>::penalised_gradient(const PolicyBatch& old, const std::int64_t* rows,
                                             const double* weights, double kl_coefficient,
                                             double* gradient) {
  const Distribution<Scalar>& distribution = w_->policy->distribution();
  const Workspace& old_w = *old.w_;
  w_->pull_back(
      [&](Index n, const Scalar* out, Scalar* u, double* log_std_sum) {
        // u_n = rho_n w_n d log pi(a_n) / d outputs - beta d KL_n / d outputs
        const Index m = rows ? static_cast<Index>(rows[n]) : n;
        const double ratio = std::exp(w_->log_probs.data()[n] - old_w.log_probs.data()[m]);
        distribution.add_score(out, w_->batch.actions, n, ratio * weights[m], u, log_std_sum);
        if (kl_coefficient != 0.0)
          distribution.add_kl_gradient(old_w.old_distribution,
                                       old_w.outputs.data() + m * old_w.stride, out,
                                       -kl_coefficient, u, log_std_sum);
      },
      gradient);
}

template <class Scalar>
void PolicyBatch<Scalar>::Workspace::apply_scores(Index tile, const double* v_log_std, Scalar* u,
                                                  double* log_std_sum) const {
  const Index P = policy->shape().outputs(), A = policy->spec().free_parameters();
  const Index begin = tiling.tile_begin(tile);
  for (Index i = 0; i < tiling.tile_rows(tile); ++i, u += stride) {
    const Scalar* score = scores.data() + (begin + i) * stride;
    const double* log_std_score = log_std_scores.data() + (begin + i) * A;
    double c = 0.0;
    for (Index p = 0; p < P; ++p) c += static_cast<double>(score[p]) * static_cast<double>(u[p]);
    for (Index a = 0; a < A; ++a) c += log_std_score[a] * v_log_std[a];
    for (Index p = 0; p < stride; ++p)
      u[p] = static_cast<Scalar>(c * static_cast<double>(score[p]));
    for (Index a = 0; a < A; ++a) log_std_sum[a] += c * log_std_score[a];
  }
}

template <class Scalar>
void PolicyBatch<Scalar>::fisher_vector_product(const double* v, double* y) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Policy<Scalar>& policy = *w_->policy;
  const NetworkShape& shape = policy.shape();
  const Index A = policy.spec().free_parameters();
  const double* v_log_std = v + policy.n_network_parameters();
  const double inverse_n = 1.0 / static_cast<double>(w_->batch.size);
  k.pack_double(shape, v, /*backward=*/false, w_->packed_vector.data());

  parallel_for(w_->tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    double* log_std_sum = w_->log_std_sums.data() + chunk * std::max<Index>(1, A);
    std::fill_n(log_std_sum, A, 0.0);
    w_->gradient.clear(chunk);
    for (Index tile = w_->tiling.chunk_begin(chunk); tile < w_->tiling.chunk_end(chunk); ++tile) {
      const Scalar* activations = w_->tile_activations_of(tile, s);

      // u = J v
      Scalar* u = s.rows_a;
      w_->tangent(tile, activations, s, u);
      // u <- M u, or score score^T u
      if (w_->form == FisherForm::kEmpirical) w_->apply_scores(tile, v_log_std, u, log_std_sum);
      else w_->apply_metric(tile, u);
      // y += J^T u
      k.adjoint(shape, policy.packed(), w_->tile_x(tile), shape.inputs(),
                w_->tiling.tile_rows(tile), activations, u, s.scratch, w_->gradient.partial(chunk));
    }
  });
  w_->gradient.collect(shape, w_->tiling, w_->threads, inverse_n, y);

  // a free log_std: J is the identity, and M = 2, in every sample
  double* y_log_std = y + policy.n_network_parameters();
  if (w_->form == FisherForm::kEmpirical) w_->collect_log_std(A, inverse_n, y_log_std);
  else
    for (Index a = 0; a < A; ++a) y_log_std[a] = 2.0 * v_log_std[a];
}

template <class Scalar>
double PolicyBatch<Scalar>::largest_curvature(const double* v) {
  const Policy<Scalar>& policy = *w_->policy;
  const Index P = policy.shape().outputs(), A = policy.spec().free_parameters();
  kernels<Scalar>().pack_double(policy.shape(), v, /*backward=*/false, w_->packed_vector.data());

  parallel_for(w_->tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    double largest = 0.0;
    for (Index tile = w_->tiling.chunk_begin(chunk); tile < w_->tiling.chunk_end(chunk); ++tile) {
      const Index rows = w_->tiling.tile_rows(tile);
      const Scalar* activations = w_->tile_activations_of(tile, s);

      // u = J v, then u^T M u row by row
      const Scalar* u = s.rows_a;
      Scalar* metric_u = s.rows_b;
      w_->tangent(tile, activations, s, s.rows_a);
      std::copy(u, u + rows * w_->stride, metric_u);
      w_->apply_metric(tile, metric_u);
      for (Index i = 0; i < rows; ++i) {
        double sum = 0.0;
        for (Index p = i * w_->stride; p < i * w_->stride + P; ++p)
          sum += static_cast<double>(u[p]) * static_cast<double>(metric_u[p]);
        largest = sum <= largest ? largest : sum;  // a NaN stays
      }
    }
    w_->sums[static_cast<std::size_t>(chunk)].kl_max = largest;
  });

  double largest = 0.0;
  for (Index c = 0; c < w_->tiling.chunks; ++c) {
    const double of_chunk = w_->sums[static_cast<std::size_t>(c)].kl_max;
    if (!(of_chunk <= largest)) largest = of_chunk;
  }
  // a free log_std: the same 2 v^2 in every sample
  const double* v_log_std = v + policy.n_network_parameters();
  for (Index a = 0; a < A; ++a) largest += 2.0 * v_log_std[a] * v_log_std[a];
  return largest;
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
  std::vector<std::int64_t> rows;  // of a subsample, or an order of all
  AdamState<Scalar> adam, old_adam;
  double g_dot_x = 0, x_norm = 0, x_F_x = 0;

  bool begin(const Policy<Scalar>& policy, const SampleBatch<Scalar>& batch, bool standardize,
             FisherForm form, Index activation_budget, PolicyUpdateSummary& summary);
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
                                             Index activation_budget,
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
  full.assign(policy, batch, activation_budget, form);
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
                options.activation_budget, options.fisher);
    fisher = &part;
  }

  const Index n_parameters = policy.n_parameters();
  const double damping = options.damping;
  summary.conjugate_gradient = trpo_fast::conjugate_gradient(
      [&](const double* v, double* y) {
        fisher->fisher_vector_product(v, y);
        for (Index i = 0; i < n_parameters; ++i) y[i] += damping * v[i];
      },
      n_parameters, gradient.data(), options.conjugate_gradient, conjugate_gradient,
      direction.data());
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
  const FisherForm form =
      options.fisher == FisherForm::kIdentity ? FisherForm::kGaussNewton : options.fisher;

  bool goes_on = w_->begin(policy, batch, options.standardize_advantages, form,
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

  const bool goes_on = w_->begin(policy, batch, options.standardize_advantages,
                                 FisherForm::kGaussNewton, options.activation_budget, summary);
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

template class PolicyBatch<float>;
template class PolicyBatch<double>;
template class PolicyUpdater<float>;
template class PolicyUpdater<double>;

}  // namespace trpo_fast
