// A stochastic policy: network, action distribution, frozen observation normaliser.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "trpo_fast/distribution.h"
#include "trpo_fast/network.h"

namespace trpo_fast {

// Flat parameters: those of the network, then log_std (A) for the Gaussian with a free log_std.
template <class Scalar>
class Policy {
 public:
  Policy(const NetworkShape& shape, const DistributionSpec& spec);
  ~Policy();
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

  const NetworkShape& shape() const { return shape_; }
  const DistributionSpec& spec() const { return distribution_.spec(); }
  const Distribution<Scalar>& distribution() const { return distribution_; }
  Index n_parameters() const { return static_cast<Index>(parameters_.size()); }
  Index n_network_parameters() const { return n_network_; }
  const Scalar* parameters() const { return parameters_.data(); }
  void set_parameters(const Scalar* flat);
  const Scalar* packed() const;  // the network's parameters laid out for the kernels
  // Of wide observations: a normalised row of zeros, and the first layer's W times that, plus b.
  const Scalar* background() const;
  const Scalar* base() const;

  // y = clip((x - mean) * inverse_std, -clip, clip); without a normaliser y = x.
  void set_normalizer(const double* mean, const double* inverse_std, double clip);
  void clear_normalizer();
  bool has_normalizer() const { return !mean_.empty(); }
  void normalize(const Scalar* x, Index rows, Scalar* y) const;

  // Network outputs (rows x P, dense) of normalised observations. Uses the core's threads.
  void outputs(const Scalar* x, Index rows, Scalar* y) const;

 private:
  struct Packed;
  void set_background();
  void set_base();
  NetworkShape shape_;
  Distribution<Scalar> distribution_;
  Index n_network_;
  std::vector<Scalar> parameters_;
  std::unique_ptr<Packed> packed_;
  std::vector<Scalar> mean_, inverse_std_;
  Scalar clip_ = 0;
};

// Samples actions for a fixed group of environments, one call a step, without allocating.
template <class Scalar>
class Actor {
 public:
  Actor(const Policy<Scalar>& policy, Index environments);
  ~Actor();

  // For each environment e: normalise observations[e], sample with the stream
  // (seed, environment_ids[e], counters[e]), write the unclipped action, counters[e] += 1.
  // Exactly one of `continuous` and `discrete` is used (environments x A). `allowed` (environments x W)
  // are the choices that masks allow; null: all.
  void step(const Scalar* observations, const bool* allowed, std::uint64_t seed,
            const std::uint32_t* environment_ids, std::uint64_t* counters, Scalar* continuous,
            std::int32_t* discrete);
  // The most likely actions, no noise.
  void mode(const Scalar* observations, const bool* allowed, Scalar* continuous,
            std::int32_t* discrete);

 private:
  struct Workspace;
  void forward_wide(Index rows);
  const Scalar* evaluate(const Scalar* observations, const bool* allowed, Index begin, Index rows);
  const Policy<Scalar>& policy_;
  Index environments_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace trpo_fast
