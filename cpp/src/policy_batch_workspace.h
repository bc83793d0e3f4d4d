// What a PolicyBatch holds, and its passes over tiles, for the files that it is made of.
//
// N samples, K actions of each, O observation width, P network outputs, A action width, W flags of a mask
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "aligned.h"
#include "dispatch.h"
#include "gradient_sum.h"
#include "input_batch.h"
#include "jacobian_pays.h"
#include "tiling.h"
#include "trpo_fast/policy_batch.h"

namespace trpo_fast {

// Sums over the samples of one chunk, and the largest KL among them (nats).
struct ChunkSums {
  double gain = 0, kl = 0, kl_max = 0, entropy = 0;
};

// The means over N rows, from the sums over their chunks.
Evaluation combined(const ChunkSums* sums, Index chunks, Index rows);

// A free log_std: J is the identity, and M = 2, in every sample.
template <class Scalar>
void set_log_std_product(const Policy<Scalar>& policy, const double* v, double* y) {
  for (Index i = policy.n_network_parameters(); i < policy.n_parameters(); ++i) y[i] = 2.0 * v[i];
}
template <class Scalar>
double with_log_std_curvature(double largest, const Policy<Scalar>& policy, const double* v) {
  for (Index i = policy.n_network_parameters(); i < policy.n_parameters(); ++i)
    largest += 2.0 * v[i] * v[i];
  return largest;
}

template <class Scalar>
struct PolicyBatch<Scalar>::Workspace {
  const Policy<Scalar>* policy = nullptr;
  SampleBatch<Scalar> batch;
  InputBatch<Scalar> inputs;  // its observations
  InputMoments moments;       // of them, for a preconditioner
  Tiling tiling;
  Index whole_chunks = 0;  // of all of the batch, where this is a part
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

  // 1 / N, of the whole batch where this is a part.
  double inverse_n() const { return 1.0 / static_cast<double>(batch.size_of_whole()); }

  // The partials of sum_n J_n^T u_n, where add_cotangent(n, outputs, u, log_std_sum) adds u_n.
  template <class AddCotangent>
  void pull_back(const AddCotangent& add_cotangent);
  // The partials of the surrogate's gradient, and of N F v but for a free log_std's 2 v.
  void pull_back_surrogate(const double* weights, const double* old_log_probs);
  void accumulate_product(const double* v);
  // gradient = 1/N times the sum of the partials, in the tree.
  void collect(double* gradient_out) {
    gradient.collect(policy->shape(), inputs, tiling, threads, inverse_n(), gradient_out);
    collect_log_std(policy->spec().free_parameters(), inverse_n(),
                    gradient_out + policy->n_network_parameters());
  }
  // What this part, whose first chunk has the number `begin`, adds to that.
  void collect_part(Index begin, PartialGradient<Scalar>& part);
  // The largest v^T J_n^T M_n J_n v of these samples, but for a free log_std's part of it.
  double largest_network_curvature(const double* v);

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

  // The sums over each chunk of KL, entropy and gain(n, outputs, thread) at another policy.
  template <class Gain>
  void measure(const Policy<Scalar>& at, const Gain& gain);
  // The same with gain = sum_k (rho_nk - 1) w_nk; 0 without weights.
  void measure_surrogate(const Policy<Scalar>& at, const double* weights);

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
void PolicyBatch<Scalar>::Workspace::collect_part(Index begin, PartialGradient<Scalar>& part) {
  const Index A = policy->spec().free_parameters();
  gradient.collect_roots(tiling, begin, whole_chunks, part.roots);
  part.log_std.assign(log_std_sums.data(), log_std_sums.data() + tiling.chunks * A);
}

template <class Scalar>
template <class AddCotangent>
void PolicyBatch<Scalar>::Workspace::pull_back(const AddCotangent& add_cotangent) {
  const NetworkShape& shape = policy->shape();
  const Index A = policy->spec().free_parameters();
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
}

template <class Scalar>
template <class Gain>
void PolicyBatch<Scalar>::Workspace::measure(const Policy<Scalar>& at, const Gain& gain) {
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
}

}  // namespace trpo_fast
