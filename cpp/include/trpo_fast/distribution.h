// Action distributions: what the policy network's outputs mean.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trpo_fast/network.h"
#include "trpo_fast/rng.h"

namespace trpo_fast {

enum class DistributionKind : int {
  kGaussian,                // outputs: means (A); log_std (A) are free parameters
  kStateDependentGaussian,  // outputs: means (A), log_std (A), which are clamped to [-20, 2]
  kCategorical,             // outputs: logits (n); A = 1
  kMultiCategorical,        // outputs: logits (n_1 + n_2 + ...); A sizes
  kBernoulli,               // outputs: logits (A)
};

struct DistributionSpec {
  DistributionKind kind;
  std::vector<int>
      sizes;  // Gaussians and Bernoulli {A}; categorical {n}; multi-categorical {n_1, ...}

  bool discrete() const;
  int n_outputs() const;        // P
  int action_dim() const;       // A: columns of an action array
  int free_parameters() const;  // A for the Gaussian (log_std), else 0
  int choices(
      int column) const;         // of a discrete kind: actions in this column are 0 ... choices - 1
  bool constant_metric() const;  // whether the Fisher information is the same in every state
  int mask_width() const;        // W: choices of all columns, one column after the other
};

// Throws std::invalid_argument for an unknown kind or a size out of range.
DistributionSpec make_distribution_spec(const std::string& kind, const std::vector<int>& sizes);

// Actions of a batch (N x A), borrowed: Scalars for Gaussians, int32 for discrete kinds. The other of
// the two is null.
template <class Scalar>
struct Actions {
  const Scalar* continuous = nullptr;
  const std::int32_t* discrete = nullptr;
};

// Logarithms of standard deviations (A, or none) that are parameters of their own, with what is
// computed from them.
template <class Scalar>
struct FreeLogStd {
  std::vector<double> log_std;
  std::vector<double> inverse_std;
  std::vector<Scalar> inverse_variance;

  void set(const Scalar* values, int n);
};

// The distribution at one set of free parameters. `outputs` is one row of P network outputs; arithmetic
// is in double. Log-probability, entropy and KL are those of the whole action, that is, sums over its
// components.
template <class Scalar>
class Distribution {
 public:
  Distribution(const DistributionSpec& spec, const Scalar* log_std);
  void set_log_std(const Scalar* log_std);

  const DistributionSpec& spec() const { return spec_; }

  // Overwrites one row of outputs so that the choices that a mask (W flags) does not allow have
  // probability exactly 0 in all that follows, and no gradient and no curvature. In every column at
  // least one choice must be allowed.
  void forbid(const bool* allowed, Scalar* outputs) const;

  // log pi(a) of the action in row `row`
  double log_prob(const Scalar* outputs, const Actions<Scalar>& actions, Index row) const;
  double entropy(const Scalar* outputs) const;  // in nats, as log_prob and kl are

  // KL(old || this) in nats; exactly 0 when both are the same bits.
  double kl(const Distribution& old, const Scalar* old_outputs, const Scalar* outputs) const;

  // cotangent += weight * d log pi(a) / d outputs;  log_std_cotangent (A doubles) likewise.
  void add_score(const Scalar* outputs, const Actions<Scalar>& actions, Index row, double weight,
                 Scalar* cotangent, double* log_std_cotangent) const;

  // cotangent += weight * d KL(old || this) / d outputs;  log_std_cotangent (A doubles) likewise.
  // Exactly 0 where both are the same bits.
  void add_kl_gradient(const Distribution& old, const Scalar* old_outputs, const Scalar* outputs,
                       double weight, Scalar* cotangent, double* log_std_cotangent) const;

  // The Fisher information M in the outputs, in two steps. prepare_metric works out once what M needs
  // of one row of outputs (`metric`, P Scalars; untouched where the spec says constant_metric).
  // apply_metric replaces tangents by M tangent, for `rows` rows of both, `stride` Scalars apart.
  void prepare_metric(const Scalar* outputs, Scalar* metric) const;
  void apply_metric(const Scalar* metric, Index rows, Index stride, Scalar* tangent) const;

  // u <- M^{1/2} u for one row, with a root M^{1/2} such that M^{1/2} M^{1/2}^T = M. Independent random
  // signs u become cotangents with E[u u^T] = M.
  void apply_metric_root(const Scalar* metric, Scalar* u) const;

  // An action drawn from the stream, and the most likely one. Gaussians write `continuous` (A), discrete
  // kinds `discrete` (A); the other pointer may be null.
  void sample(const Scalar* outputs, CounterStream& stream, Scalar* continuous,
              std::int32_t* discrete) const;
  void mode(const Scalar* outputs, Scalar* continuous, std::int32_t* discrete) const;

 private:
  DistributionSpec spec_;
  FreeLogStd<Scalar> free_;
};

}  // namespace trpo_fast
