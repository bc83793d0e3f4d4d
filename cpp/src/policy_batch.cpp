// N samples, K actions of each, O observation width, P network outputs, A action width, W flags of a mask
#include <algorithm>
#include <cmath>
#include <limits>

#include "policy_batch_workspace.h"

namespace trpo_fast {

namespace {

// The random stream of the cotangents that a preconditioner is estimated with.
constexpr std::uint32_t kSignStream = 0x4FAC7025u;

}  // namespace

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
                                 Index activation_budget, FisherForm form, int products) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const NetworkShape& shape = policy.shape();
  const Index A = policy.spec().free_parameters(), K = batch.branches;

  // memory: a no-op for a size seen before
  w_->policy = &policy;
  w_->batch = batch;
  w_->inputs.assign(shape, batch.observations, batch.size, batch.dense);
  w_->base = w_->inputs.base(shape, policy.packed(), w_->base_row);
  const Index work = w_->inputs.work(shape, policy.n_parameters());
  const Tiling whole = tiling_for(batch.size_of_whole(), work);
  w_->tiling = whole.part(batch.size);
  w_->whole_chunks = whole.chunks;
  w_->threads = threads_for(batch.size, work);
  w_->stride = k.output_stride(shape);
  w_->activation_size = k.activation_size(shape, kTileRows);
  w_->jacobian_size =
      jacobian_pays<Scalar>(shape, whole.tiles, products) ? k.jacobian_size(shape, kTileRows) : 0;
  w_->has_jacobian = false;
  const Index tile_bytes = std::max<Index>(1, w_->tile_size() * Index{sizeof(Scalar)});
  w_->cached_tiles = std::min(w_->tiling.tiles, std::max<Index>(0, activation_budget) / tile_bytes);
  w_->form = form;
  w_->has_metric = form != FisherForm::kIdentity && !policy.spec().constant_metric();
  const bool has_scores = form == FisherForm::kEmpirical;
  w_->thread_size = w_->tile_size() + 2 * kTileRows * w_->stride + k.scratch_size(shape);
  w_->cache.reserve(w_->cached_tiles * w_->tile_size());
  w_->outputs.reserve(batch.size * w_->stride);
  if (w_->has_metric) w_->metric.reserve(batch.size * w_->stride);
  if (has_scores) {
    w_->scores.reserve(batch.size * K * w_->stride);
    w_->log_std_scores.reserve(batch.size * K * A);
    std::fill_n(w_->scores.data(), batch.size * K * w_->stride, Scalar(0));
    std::fill_n(w_->log_std_scores.data(), batch.size * K * A, 0.0);
  }
  w_->log_probs.reserve(batch.size * K);
  w_->log_ratios.reserve(w_->threads * K);
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
    w_->forward(policy, w_->base, tile, w_->tile_memory(tile, s),
                w_->outputs.data() + begin * w_->stride);
    w_->forbid(tile, w_->outputs.data() + begin * w_->stride);
    ChunkSums& sums = w_->sums[static_cast<std::size_t>(chunk)];
    for (Index n = begin; n < begin + rows; ++n) {
      const Scalar* out = w_->outputs.data() + n * w_->stride;
      for (Index i = n * K; i < (n + 1) * K; ++i) {
        if (has_actions) w_->log_probs.data()[i] = distribution.log_prob(out, batch.actions, i);
        if (has_scores)
          distribution.add_score(out, batch.actions, i, 1.0, w_->scores.data() + i * w_->stride,
                                 w_->log_std_scores.data() + i * A);
      }
      if (w_->has_metric) distribution.prepare_metric(out, w_->metric.data() + n * w_->stride);
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
void PolicyBatch<Scalar>::Workspace::pull_back_surrogate(const double* weights,
                                                         const double* old_log_probs) {
  const Distribution<Scalar>& distribution = policy->distribution();
  const Index K = batch.branches;
  pull_back([&](Index n, const Scalar* out, Scalar* u, double* log_std_sum) {
    // u_n = sum_k rho_nk w_nk d log pi(a_nk) / d outputs
    for (Index i = n * K; i < (n + 1) * K; ++i) {
      double weight = weights[i];
      if (old_log_probs) weight *= std::exp(log_probs.data()[i] - old_log_probs[i]);
      distribution.add_score(out, batch.actions, i, weight, u, log_std_sum);
    }
  });
}

template <class Scalar>
void PolicyBatch<Scalar>::surrogate_gradient(const double* weights, const double* old_log_probs,
                                             double* gradient) {
  w_->pull_back_surrogate(weights, old_log_probs);
  w_->collect(gradient);
}

template <class Scalar>
void PolicyBatch<Scalar>::penalised_gradient(const PolicyBatch& old, const std::int64_t* rows,
                                             const double* weights, double kl_coefficient,
                                             double* gradient) {
  const Distribution<Scalar>& distribution = w_->policy->distribution();
  const Workspace& old_w = *old.w_;
  w_->pull_back([&](Index n, const Scalar* out, Scalar* u, double* log_std_sum) {
    // u_n = rho_n w_n d log pi(a_n) / d outputs - beta d KL_n / d outputs
    const Index m = rows ? static_cast<Index>(rows[n]) : n;
    const double ratio = std::exp(w_->log_probs.data()[n] - old_w.log_probs.data()[m]);
    distribution.add_score(out, w_->batch.actions, n, ratio * weights[m], u, log_std_sum);
    if (kl_coefficient != 0.0)
      distribution.add_kl_gradient(old_w.old_distribution, old_w.outputs.data() + m * old_w.stride,
                                   out, -kl_coefficient, u, log_std_sum);
  });
  w_->collect(gradient);
}

template <class Scalar>
void PolicyBatch<Scalar>::Workspace::apply_scores(Index tile, const double* v_log_std,
                                                  const Scalar* tangent, Scalar* u,
                                                  double* log_std_sum) const {
  const Index P = policy->shape().outputs(), A = policy->spec().free_parameters();
  const Index begin = tiling.tile_begin(tile), K = batch.branches;
  for (Index row = 0; row < tiling.tile_rows(tile); ++row, tangent += stride, u += stride) {
    for (Index k = 0; k < K; ++k) {
      const Index i = (begin + row) * K + k;
      const Scalar* score = scores.data() + i * stride;
      const double* log_std_score = log_std_scores.data() + i * A;
      double c = 0.0;
      for (Index p = 0; p < P; ++p)
        c += static_cast<double>(score[p]) * static_cast<double>(tangent[p]);
      for (Index a = 0; a < A; ++a) c += log_std_score[a] * v_log_std[a];
      if (batch.score_weights) c *= batch.score_weights[i];
      for (Index p = 0; p < stride; ++p) {
        const Scalar product = static_cast<Scalar>(c * static_cast<double>(score[p]));
        u[p] = k == 0 ? product : u[p] + product;
      }
      for (Index a = 0; a < A; ++a) log_std_sum[a] += c * log_std_score[a];
    }
  }
}

template <class Scalar>
void PolicyBatch<Scalar>::Workspace::draw_score(Index n, std::uint64_t seed, Scalar* u) const {
  const Index K = batch.branches;
  const Scalar* score = scores.data() + n * K * stride;
  if (!batch.score_weights && K == 1) {  // u u^T does not depend on the sign of u
    std::copy_n(score, stride, u);
    return;
  }
  std::fill_n(u, stride, Scalar(0));
  for (Index k = 0; k < K; ++k, score += stride) {
    double sign = 0.0;
    const Index i = n * K + k;
    random_signs(seed, kSignStream, static_cast<std::uint64_t>(i), 1, &sign);
    const double weight = batch.score_weights ? std::sqrt(batch.score_weights[i]) : 1.0;
    for (Index p = 0; p < stride; ++p)
      u[p] += static_cast<Scalar>(sign * weight * static_cast<double>(score[p]));
  }
}

template <class Scalar>
void PolicyBatch<Scalar>::Workspace::accumulate_product(const double* v) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const NetworkShape& shape = policy->shape();
  const Index A = policy->spec().free_parameters();
  const double* v_log_std = v + policy->n_network_parameters();
  const Scalar* base_v = pack_vector(v, /*for_jacobian=*/jacobian_size > 0);
  inputs.prepare_gradient();

  parallel_for(tiling.chunks, threads, [&](Index chunk, int thread) {
    const auto s = scratch_of(thread);
    double* log_std_sum = log_std_sums.data() + chunk * std::max<Index>(1, A);
    std::fill_n(log_std_sum, A, 0.0);
    for (Index tile = tiling.chunk_begin(chunk); tile < tiling.chunk_end(chunk); ++tile) {
      ReadAhead ahead;
      const Tile<Scalar> samples = tile_for_product(tile, s, ahead);

      // u = J v
      Scalar* u = s.rows_a;
      k.tangent(shape, policy->packed(), packed_vector.data(), base_v, samples, s.scratch, u);
      // u <- M u, or u = score score^T (J v)
      if (form == FisherForm::kEmpirical) {
        apply_scores(tile, v_log_std, s.rows_a, s.rows_b, log_std_sum);
        u = s.rows_b;
      } else {
        apply_metric(tile, u);
      }
      // y += J^T u
      k.adjoint(shape, policy->packed(), samples, u, s.scratch,
                /*add=*/tile > tiling.chunk_begin(chunk), gradient.partial(chunk));
    }
  });
  has_jacobian = true;
}

template <class Scalar>
void PolicyBatch<Scalar>::fisher_vector_product(const double* v, double* y) {
  const Policy<Scalar>& policy = *w_->policy;
  w_->accumulate_product(v);
  w_->collect(y);
  if (w_->form != FisherForm::kEmpirical) set_log_std_product(policy, v, y);
}

template <class Scalar>
Index PolicyBatch<Scalar>::preconditioner_spacing(const NetworkShape& shape, Index rows) {
  constexpr Index kEnoughRows = 1024, kRowsPerWidth = 4;  // more rows would spare no product
  Index widest = shape.outputs();
  for (int l = 0; l < shape.n_layers; ++l)
    if (kernels<Scalar>().has_factors(shape, l))
      widest = std::max<Index>(widest, shape.sizes[l] + 1);
  return std::max<Index>(1, rows / std::max(kEnoughRows, kRowsPerWidth * widest));
}

template <class Scalar>
void PolicyBatch<Scalar>::precondition(double damping, std::uint64_t seed,
                                       KroneckerPreconditioner& preconditioner, Index spacing) {
  constexpr Index kMaxPartials = 16;  // few, because each holds the factors of all layers
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Policy<Scalar>& policy = *w_->policy;
  const NetworkShape& shape = policy.shape();
  const Index P = shape.outputs(), stride = w_->stride;

  // every tile whose number is a multiple of `every`, so that the rows are enough for the widest factor;
  // or all tiles of this batch, where they are such tiles of a larger one
  const Index every = spacing > 0 ? 1 : preconditioner_spacing(shape, w_->batch.size);
  const Index skipped = spacing > 0 ? (spacing - 1) * kTileRows : 0;  // rows between two of them
  const Index used_tiles = (w_->tiling.tiles + every - 1) / every;
  const Tiling tiling(used_tiles * kTileRows, kMaxPartials);
  const bool thin = w_->inputs.one_entry() && k.has_factors(shape, 0);
  const Index unused = thin ? k.first_factor_size(shape) : 0;  // the moments below stand for these
  const Index size = k.factors_size(shape), scratch_size = k.factor_scratch_size(shape);
  w_->factors.reserve(size * tiling.chunks);
  w_->factor_scratch.reserve(scratch_size * w_->threads);

  parallel_for(tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    Scalar* partial = w_->factors.data() + chunk * size;
    std::fill(partial + unused, partial + size, Scalar(0));
    for (Index used = tiling.chunk_begin(chunk); used < tiling.chunk_end(chunk); ++used) {
      const Index tile = used * every;
      const Index begin = w_->tiling.tile_begin(tile), rows = w_->tiling.tile_rows(tile);

      // u_n, with E[u_n u_n^T] = M_n
      Scalar* u = s.rows_a;
      if (w_->form == FisherForm::kEmpirical) {
        for (Index i = 0; i < rows; ++i) w_->draw_score(begin + i, seed, u + i * stride);
      } else {
        std::fill_n(u, rows * stride, Scalar(0));
        for (Index n = begin; n < begin + rows; ++n) {
          Scalar* u_n = u + (n - begin) * stride;
          random_signs(seed, kSignStream, static_cast<std::uint64_t>(n + tile * skipped),
                       static_cast<int>(P), u_n);
          policy.distribution().apply_metric_root(
              w_->has_metric ? w_->metric.data() + n * stride : nullptr, u_n);
        }
      }
      k.add_factors(shape, policy.packed(), w_->tile_at(tile, s), u,
                    w_->factor_scratch.data() + thread * scratch_size, partial);
    }
  });
  k.tree_sum(w_->factors.data(), tiling.chunks, size, unused, size);
  const Index last = (used_tiles - 1) * every;
  const Index rows = (used_tiles - 1) * kTileRows + w_->tiling.tile_rows(last);
  if (thin) w_->inputs.moments(w_->tiling, every, w_->moments);
  preconditioner.factorize(shape, policy.spec().free_parameters(), w_->factors.data(),
                           static_cast<double>(rows), w_->inputs.background(), damping,
                           thin ? &w_->moments : nullptr);
}

template <class Scalar>
double PolicyBatch<Scalar>::Workspace::largest_network_curvature(const double* v) {
  const Index P = policy->shape().outputs();
  const Scalar* base_v = pack_vector(v, /*for_jacobian=*/false);

  parallel_for(tiling.chunks, threads, [&](Index chunk, int thread) {
    const auto s = scratch_of(thread);
    double largest = 0.0;
    for (Index tile = tiling.chunk_begin(chunk); tile < tiling.chunk_end(chunk); ++tile) {
      const Index rows = tiling.tile_rows(tile);

      // u = J v, then u^T M u row by row
      const Scalar* u = s.rows_a;
      Scalar* metric_u = s.rows_b;
      kernels<Scalar>().tangent(policy->shape(), policy->packed(), packed_vector.data(), base_v,
                                tile_at(tile, s), s.scratch, s.rows_a);
      std::copy(u, u + rows * stride, metric_u);
      apply_metric(tile, metric_u);
      for (Index i = 0; i < rows; ++i) {
        double sum = 0.0;
        for (Index p = i * stride; p < i * stride + P; ++p)
          sum += static_cast<double>(u[p]) * static_cast<double>(metric_u[p]);
        largest = sum <= largest ? largest : sum;  // a NaN is kept
      }
    }
    sums[static_cast<std::size_t>(chunk)].kl_max = largest;
  });

  double largest = 0.0;
  for (Index c = 0; c < tiling.chunks; ++c) {
    const double of_chunk = sums[static_cast<std::size_t>(c)].kl_max;
    if (!(of_chunk <= largest)) largest = of_chunk;
  }
  return largest;
}

template <class Scalar>
double PolicyBatch<Scalar>::largest_curvature(const double* v) {
  const Policy<Scalar>& policy = *w_->policy;
  return with_log_std_curvature(w_->largest_network_curvature(v), policy, v);
}

Evaluation combined(const ChunkSums* sums, Index chunks, Index rows) {
  Evaluation result;
  for (Index c = 0; c < chunks; ++c) {
    const ChunkSums& of_chunk = sums[c];
    result.candidate.surrogate_gain += of_chunk.gain;
    result.candidate.kl += of_chunk.kl;
    if (!(of_chunk.kl_max <= result.candidate.kl_max)) result.candidate.kl_max = of_chunk.kl_max;
    result.entropy += of_chunk.entropy;
  }
  const double inverse_n = 1.0 / static_cast<double>(rows);
  result.candidate.surrogate_gain *= inverse_n;
  result.candidate.kl *= inverse_n;
  result.entropy *= inverse_n;
  return result;
}

template <class Scalar>
void PolicyBatch<Scalar>::Workspace::measure_surrogate(const Policy<Scalar>& at,
                                                       const double* weights) {
  const Distribution<Scalar>& distribution = at.distribution();
  const Index K = weights ? batch.branches : 0;
  measure(at, [&](Index n, const Scalar* out, int) {
    // sum_k (rho - 1) w, rho = pi(a) / pi_k(a)
    double gain = 0.0;
    for (Index i = n * K; i < (n + 1) * K; ++i) {
      const double log_ratio = distribution.log_prob(out, batch.actions, i) - log_probs.data()[i];
      gain += std::expm1(log_ratio) * weights[i];
    }
    return gain;
  });
}

template <class Scalar>
Evaluation PolicyBatch<Scalar>::evaluate(const Policy<Scalar>& policy, const double* weights) {
  w_->measure_surrogate(policy, weights);
  return combined(w_->sums.data(), w_->tiling.chunks, w_->batch.size);
}

template <class Scalar>
Evaluation PolicyBatch<Scalar>::evaluate_self_normalized(const Policy<Scalar>& policy,
                                                         const double* advantages) {
  const Distribution<Scalar>& distribution = policy.distribution();
  const Index K = w_->batch.branches;
  w_->measure(policy, [&](Index n, const Scalar* out, int thread) {
    // sum_k rho A / sum_k rho, with every rho divided by the largest
    double* log_ratios = w_->log_ratios.data() + thread * K;
    double largest = -std::numeric_limits<double>::infinity();
    for (Index k = 0; k < K; ++k) {
      const Index i = n * K + k;
      log_ratios[k] = distribution.log_prob(out, w_->batch.actions, i) - w_->log_probs.data()[i];
      largest = std::max(largest, log_ratios[k]);
    }
    double weighted = 0.0, total = 0.0;
    for (Index k = 0; k < K; ++k) {
      const double ratio = std::exp(log_ratios[k] - largest);
      weighted += ratio * advantages[n * K + k];
      total += ratio;
    }
    return weighted / total;
  });
  return combined(w_->sums.data(), w_->tiling.chunks, w_->batch.size);
}

template class PolicyBatch<float>;
template class PolicyBatch<double>;

}  // namespace trpo_fast
