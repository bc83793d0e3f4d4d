// N samples, K actions of each, O observation width, P network outputs, A action width, W flags of a mask
#include "trpo_fast/policy_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "aligned.h"
#include "dispatch.h"
#include "gradient_sum.h"
#include "input_batch.h"
#include "jacobian_pays.h"
#include "tiling.h"

namespace trpo_fast {

namespace {

// The random stream of the cotangents that a preconditioner is estimated with.
constexpr std::uint32_t kSignStream = 0x4FAC7025u;

}  // namespace

// Sums over the samples of one chunk, and the largest KL among them (nats).
struct ChunkSums {
  double gain = 0, kl = 0, kl_max = 0, entropy = 0;
};

template <class Scalar>
struct PolicyBatch<Scalar>::Workspace {
  const Policy<Scalar>* policy = nullptr;
  SampleBatch<Scalar> batch;
  InputBatch<Scalar> inputs;  // its observations
  InputMoments moments;       // of them, for a preconditioner
  Tiling tiling;
  int threads = 1;
  Index stride = 0;           // of a padded output row
  Index activation_size = 0;  // scalars a tile
  Index jacobian_size = 0;    // scalars a tile; 0 where a Jacobian does not pay
  Index cached_tiles = 0;
  bool has_jacobian = false;  // in the cached tiles: the first product works it out
  bool has_metric = false;
  FisherForm form = FisherForm::kGaussNewton;

  Distribution<Scalar> old_distribution{make_distribution_spec("categorical", {1}), nullptr};
  AlignedBuffer<Scalar> cache;           // cached_tiles x (activations, Jacobian)
  AlignedBuffer<Scalar> outputs;         // N x P' at theta_k
  AlignedBuffer<Scalar> metric;          // N x P', unless the metric is constant
  AlignedBuffer<Scalar> scores;          // N K x P', d log pi(a_nk) / d outputs, kEmpirical only
  AlignedBuffer<double> log_std_scores;  // N K x A
  AlignedBuffer<double> log_probs;       // N x K
  AlignedBuffer<double> log_ratios;      // threads x K
  AlignedBuffer<Scalar> per_thread;      // activations, Jacobian, rows x P' twice, scratch
  AlignedBuffer<Scalar> packed_vector;   // a tangent direction
  AlignedBuffer<Scalar> base_row, other_base_row;
  const Scalar* base = nullptr;  // of the first layer at theta_k; null where the inputs are dense
  AlignedBuffer<double> log_std_sums;  // chunks x A
  std::vector<ChunkSums> sums;         // chunks
  AlignedBuffer<Scalar> factors;       // of a preconditioner: one partial a chunk of its own tiling
  AlignedBuffer<Scalar> factor_scratch;  // threads
  GradientSum<Scalar> gradient;
  Index thread_size = 0;

  struct ThreadScratch {
    Scalar* tile;     // activations, Jacobian
    Scalar* rows_a;   // kTileRows x P', for outputs, tangents or cotangents
    Scalar* rows_b;   // the same once more
    Scalar* scratch;  // of the kernels
  };
  ThreadScratch scratch_of(int thread) {
    Scalar* base = per_thread.data() + thread * thread_size;
    Scalar* rows = base + tile_size();
    return {base, rows, rows + kTileRows * stride, rows + 2 * kTileRows * stride};
  }

  Index tile_size() const { return activation_size + jacobian_size; }
  // outputs of a tile at a policy's parameters, whose base is given
  void forward(const Policy<Scalar>& at, const Scalar* base_at, Index tile, Scalar* activations,
               Scalar* out) const {
    inputs.forward(at.shape(), at.packed(), base_at, tiling.tile_begin(tile),
                   tiling.tile_rows(tile), activations, out);
  }
  // Where a tile's activations and Jacobian are or will be.
  Scalar* tile_memory(Index tile, const ThreadScratch& s) {
    return tile < cached_tiles ? cache.data() + tile * tile_size() : s.tile;
  }

  // A tile with its activations at theta_k: cached, or computed again to the same bits.
  Tile<Scalar> tile_at(Index tile, const ThreadScratch& s) {
    Scalar* activations = tile_memory(tile, s);
    if (tile >= cached_tiles) forward(*policy, base, tile, activations, s.rows_b);
    return inputs.tile(tiling.tile_begin(tile), tiling.tile_rows(tile), activations);
  }

  // The same with its Jacobian, where that pays, and with the next tile in the cache to read ahead.
  Tile<Scalar> tile_for_product(Index tile, const ThreadScratch& s, ReadAhead& ahead) {
    Tile<Scalar> result = tile_at(tile, s);
    if (jacobian_size > 0) {
      Scalar* jacobian = tile_memory(tile, s) + activation_size;
      if (tile >= cached_tiles || !has_jacobian)
        kernels<Scalar>().jacobian(policy->shape(), policy->packed(), result, s.scratch, jacobian);
      result.jacobian = jacobian;
    }
    if (tile + 1 < cached_tiles) {
      const Scalar* next = cache.data() + (tile + 1) * tile_size();
      ahead = {reinterpret_cast<const char*>(next),
               reinterpret_cast<const char*>(next + tile_size())};
      result.ahead = &ahead;
    }
    return result;
  }

  // gradient = mean_n J_n^T u_n, where add_cotangent(n, outputs, u, log_std_sum) adds u_n.
  template <class AddCotangent>
  void pull_back(const AddCotangent& add_cotangent, double* gradient);

  // Packs a tangent direction; returns its base.
  const Scalar* pack_vector(const double* v, bool for_jacobian) {
    kernels<Scalar>().pack_double(policy->shape(), v, /*backward=*/for_jacobian,
                                  packed_vector.data());
    return inputs.base(policy->shape(), packed_vector.data(), other_base_row);
  }

  // Forbids, in the outputs of a tile (rows x P'), what the masks of its samples do not allow.
  void forbid(Index tile, Scalar* out) const {
    if (batch.allowed == nullptr) return;
    const Distribution<Scalar>& distribution = policy->distribution();
    const Index begin = tiling.tile_begin(tile), W = policy->spec().mask_width();
    for (Index row = 0; row < tiling.tile_rows(tile); ++row)
      distribution.forbid(batch.allowed + (begin + row) * W, out + row * stride);
  }

  // u <- M u for the rows of a tile.
  void apply_metric(Index tile, Scalar* u) const {
    policy->distribution().apply_metric(
        has_metric ? metric.data() + tiling.tile_begin(tile) * stride : nullptr,
        tiling.tile_rows(tile), stride, u);
  }

  // u_n = sum_k w_nk c score_nk, c = score_nk^T (tangent_n, v_log_std), for the rows of a tile.
  void apply_scores(Index tile, const double* v_log_std, const Scalar* tangent, Scalar* u,
                    double* log_std_sum) const;

  // u <- a cotangent of the sample with E[u u^T] = sum_k w_nk score_nk score_nk^T.
  void draw_score(Index n, std::uint64_t seed, Scalar* u) const;

  // Mean and largest KL, mean entropy, and the mean of gain(n, outputs, thread).
  template <class Gain>
  Evaluation evaluate(const Policy<Scalar>& at, const Gain& gain);

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
                                 Index activation_budget, FisherForm form, int products) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const NetworkShape& shape = policy.shape();
  const Index A = policy.spec().free_parameters(), K = batch.branches;

  // memory: a no-op for a size seen before
  w_->policy = &policy;
  w_->batch = batch;
  w_->inputs.assign(shape, batch.observations, batch.size);
  w_->base = w_->inputs.base(shape, policy.packed(), w_->base_row);
  const Index work = w_->inputs.work(shape, policy.n_parameters());
  w_->tiling = tiling_for(batch.size, work);
  w_->threads = threads_for(batch.size, work);
  w_->stride = k.output_stride(shape);
  w_->activation_size = k.activation_size(shape, kTileRows);
  w_->jacobian_size = jacobian_pays<Scalar>(shape, w_->tiling.tiles, products)
                          ? k.jacobian_size(shape, kTileRows)
                          : 0;
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
template <class AddCotangent>
void PolicyBatch<Scalar>::Workspace::pull_back(const AddCotangent& add_cotangent,
                                               double* gradient_out) {
  const NetworkShape& shape = policy->shape();
  const Index A = policy->spec().free_parameters();
  const double inverse_n = 1.0 / static_cast<double>(batch.size);
  inputs.prepare_gradient();

  parallel_for(tiling.chunks, threads, [&](Index chunk, int thread) {
    const auto s = scratch_of(thread);
    double* log_std_sum = log_std_sums.data() + chunk * std::max<Index>(1, A);
    std::fill_n(log_std_sum, A, 0.0);
    for (Index tile = tiling.chunk_begin(chunk); tile < tiling.chunk_end(chunk); ++tile) {
      const Index begin = tiling.tile_begin(tile), rows = tiling.tile_rows(tile);

      // u_n
      Scalar* u = s.rows_a;
      std::fill_n(u, rows * stride, Scalar(0));
      for (Index i = 0; i < rows; ++i)
        add_cotangent(begin + i, outputs.data() + (begin + i) * stride, u + i * stride,
                      log_std_sum);

      // g += J^T u
      kernels<Scalar>().adjoint(shape, policy->packed(), tile_at(tile, s), u, s.scratch,
                                /*add=*/tile > tiling.chunk_begin(chunk), gradient.partial(chunk));
    }
  });
  gradient.collect(shape, inputs, tiling, threads, inverse_n, gradient_out);
  collect_log_std(A, inverse_n, gradient_out + policy->n_network_parameters());
}

template <class Scalar>
void PolicyBatch<Scalar>::surrogate_gradient(const double* weights, const double* old_log_probs,
                                             double* gradient) {
  const Distribution<Scalar>& distribution = w_->policy->distribution();
  const Index K = w_->batch.branches;
  w_->pull_back(
      [&](Index n, const Scalar* out, Scalar* u, double* log_std_sum) {
        // u_n = sum_k rho_nk w_nk d log pi(a_nk) / d outputs
        for (Index i = n * K; i < (n + 1) * K; ++i) {
          double weight = weights[i];
          if (old_log_probs) weight *= std::exp(w_->log_probs.data()[i] - old_log_probs[i]);
          distribution.add_score(out, w_->batch.actions, i, weight, u, log_std_sum);
        }
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
void PolicyBatch<Scalar>::fisher_vector_product(const double* v, double* y) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Policy<Scalar>& policy = *w_->policy;
  const NetworkShape& shape = policy.shape();
  const Index A = policy.spec().free_parameters();
  const double* v_log_std = v + policy.n_network_parameters();
  const double inverse_n = 1.0 / static_cast<double>(w_->batch.size);
  const Scalar* base_v = w_->pack_vector(v, /*for_jacobian=*/w_->jacobian_size > 0);
  w_->inputs.prepare_gradient();

  parallel_for(w_->tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    double* log_std_sum = w_->log_std_sums.data() + chunk * std::max<Index>(1, A);
    std::fill_n(log_std_sum, A, 0.0);
    for (Index tile = w_->tiling.chunk_begin(chunk); tile < w_->tiling.chunk_end(chunk); ++tile) {
      ReadAhead ahead;
      const Tile<Scalar> samples = w_->tile_for_product(tile, s, ahead);

      // u = J v
      Scalar* u = s.rows_a;
      k.tangent(shape, policy.packed(), w_->packed_vector.data(), base_v, samples, s.scratch, u);
      // u <- M u, or u = score score^T (J v)
      if (w_->form == FisherForm::kEmpirical) {
        w_->apply_scores(tile, v_log_std, s.rows_a, s.rows_b, log_std_sum);
        u = s.rows_b;
      } else {
        w_->apply_metric(tile, u);
      }
      // y += J^T u
      k.adjoint(shape, policy.packed(), samples, u, s.scratch,
                /*add=*/tile > w_->tiling.chunk_begin(chunk), w_->gradient.partial(chunk));
    }
  });
  w_->has_jacobian = true;
  w_->gradient.collect(shape, w_->inputs, w_->tiling, w_->threads, inverse_n, y);

  // a free log_std: J is the identity, and M = 2, in every sample
  double* y_log_std = y + policy.n_network_parameters();
  if (w_->form == FisherForm::kEmpirical) w_->collect_log_std(A, inverse_n, y_log_std);
  else
    for (Index a = 0; a < A; ++a) y_log_std[a] = 2.0 * v_log_std[a];
}

template <class Scalar>
void PolicyBatch<Scalar>::precondition(double damping, std::uint64_t seed,
                                       KroneckerPreconditioner& preconditioner) {
  constexpr Index kMaxPartials = 16;  // few, because each holds the factors of all layers
  constexpr Index kEnoughRows = 1024, kRowsPerWidth = 4;  // more rows would spare no product
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Policy<Scalar>& policy = *w_->policy;
  const NetworkShape& shape = policy.shape();
  const Index P = shape.outputs(), stride = w_->stride;

  // every tile whose number is a multiple of `every`, so that the rows are enough for the widest factor
  Index widest = P;
  for (int l = 0; l < shape.n_layers; ++l)
    if (k.has_factors(shape, l)) widest = std::max<Index>(widest, shape.sizes[l] + 1);
  const Index enough = std::max(kEnoughRows, kRowsPerWidth * widest);
  const Index every = std::max<Index>(1, w_->batch.size / enough);
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
          random_signs(seed, kSignStream, static_cast<std::uint64_t>(n), static_cast<int>(P), u_n);
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
double PolicyBatch<Scalar>::largest_curvature(const double* v) {
  const Policy<Scalar>& policy = *w_->policy;
  const Index P = policy.shape().outputs(), A = policy.spec().free_parameters();
  const Scalar* base_v = w_->pack_vector(v, /*for_jacobian=*/false);

  parallel_for(w_->tiling.chunks, w_->threads, [&](Index chunk, int thread) {
    const auto s = w_->scratch_of(thread);
    double largest = 0.0;
    for (Index tile = w_->tiling.chunk_begin(chunk); tile < w_->tiling.chunk_end(chunk); ++tile) {
      const Index rows = w_->tiling.tile_rows(tile);

      // u = J v, then u^T M u row by row
      const Scalar* u = s.rows_a;
      Scalar* metric_u = s.rows_b;
      kernels<Scalar>().tangent(policy.shape(), policy.packed(), w_->packed_vector.data(), base_v,
                                w_->tile_at(tile, s), s.scratch, s.rows_a);
      std::copy(u, u + rows * w_->stride, metric_u);
      w_->apply_metric(tile, metric_u);
      for (Index i = 0; i < rows; ++i) {
        double sum = 0.0;
        for (Index p = i * w_->stride; p < i * w_->stride + P; ++p)
          sum += static_cast<double>(u[p]) * static_cast<double>(metric_u[p]);
        largest = sum <= largest ? largest : sum;  // a NaN is kept
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
template <class Gain>
Evaluation PolicyBatch<Scalar>::Workspace::evaluate(const Policy<Scalar>& at, const Gain& gain) {
  const Distribution<Scalar>& distribution = at.distribution();
  const Scalar* base_at = inputs.base(at.shape(), at.packed(), other_base_row);
  for (Index c = 0; c < tiling.chunks; ++c) sums[static_cast<std::size_t>(c)] = {};

  tiling.for_each_tile(threads, [&](Index tile, Index chunk, int thread) {
    const auto s = scratch_of(thread);
    const Index begin = tiling.tile_begin(tile), rows = tiling.tile_rows(tile);
    forward(at, base_at, tile, s.tile, s.rows_a);
    forbid(tile, s.rows_a);
    ChunkSums& of_chunk = sums[static_cast<std::size_t>(chunk)];
    for (Index i = 0; i < rows; ++i) {
      const Index n = begin + i;
      const Scalar* out = s.rows_a + i * stride;
      const double kl = distribution.kl(old_distribution, outputs.data() + n * stride, out);
      of_chunk.gain += gain(n, out, thread);
      of_chunk.kl += kl;
      of_chunk.kl_max = kl <= of_chunk.kl_max ? of_chunk.kl_max : kl;  // a NaN is kept
      of_chunk.entropy += distribution.entropy(out);
    }
  });

  Evaluation result;
  const double inverse_n = 1.0 / static_cast<double>(batch.size);
  for (Index c = 0; c < tiling.chunks; ++c) {
    const ChunkSums& of_chunk = sums[static_cast<std::size_t>(c)];
    result.candidate.surrogate_gain += of_chunk.gain;
    result.candidate.kl += of_chunk.kl;
    if (!(of_chunk.kl_max <= result.candidate.kl_max)) result.candidate.kl_max = of_chunk.kl_max;
    result.entropy += of_chunk.entropy;
  }
  result.candidate.surrogate_gain *= inverse_n;
  result.candidate.kl *= inverse_n;
  result.entropy *= inverse_n;
  return result;
}

template <class Scalar>
Evaluation PolicyBatch<Scalar>::evaluate(const Policy<Scalar>& policy, const double* weights) {
  const Distribution<Scalar>& distribution = policy.distribution();
  const Index K = weights ? w_->batch.branches : 0;
  return w_->evaluate(policy, [&](Index n, const Scalar* out, int) {
    // sum_k (rho - 1) w, rho = pi(a) / pi_k(a)
    double gain = 0.0;
    for (Index i = n * K; i < (n + 1) * K; ++i) {
      const double log_ratio =
          distribution.log_prob(out, w_->batch.actions, i) - w_->log_probs.data()[i];
      gain += std::expm1(log_ratio) * weights[i];
    }
    return gain;
  });
}

template <class Scalar>
Evaluation PolicyBatch<Scalar>::evaluate_self_normalized(const Policy<Scalar>& policy,
                                                         const double* advantages) {
  const Distribution<Scalar>& distribution = policy.distribution();
  const Index K = w_->batch.branches;
  return w_->evaluate(policy, [&](Index n, const Scalar* out, int thread) {
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
}

template class PolicyBatch<float>;
template class PolicyBatch<double>;

}  // namespace trpo_fast
