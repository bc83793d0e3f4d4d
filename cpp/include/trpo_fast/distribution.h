// Action distributions: what the policy network's outputs mean.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trpo_fast/network.h"
#include "trpo_fast/rng.h"

namespace trpo_fast {

enum class DistributionKind : int {
  kGaussian,                // outputs: mean (A); log_std (A) is a free parameter
  kStateDependentGaussian,  // outputs: mean (A), log_std (A) clamped to [-20, 2]
  kCategorical,             // outputs: logits (n)
  kMultiCategorical,        // outputs: logits (n_1 + n_2 + ...)
  kBernoulli,               // outputs: logits (n)
};

struct DistributionSpec {
  DistributionKind kind;
  std::vector<int>
      sizes;  // Gaussians {A}; categorical {n}; multi-categorical {n_1, ...}; Bernoulli {n}

  bool discrete() const;
  int n_outputs() const;        // P
  int action_dim() const;       // A: columns of an action array
  int free_parameters() const;  // A for the Gaussian (log_std), else 0
};

// Throws std::invalid_argument for an unknown kind or a size out of range.
DistributionSpec make_distribution_spec(const std::string& kind, const std::vector<int>& sizes);

// Actions of a batch: Scalars for Gaussians, int32 for discrete kinds, rows of action_dim().
template <class Scalar>
struct Actions {
  const Scalar* continuous = nullptr;
  const std::int32_t* discrete = nullptr;
};

// The distribution at one set of free parameters. Rows are P network outputs; all arithmetic in double.
// Every sum is over the components of an action: log-probabilities and KL are of the joint.
template <class Scalar>
class Distribution {
 public:
  Distribution(const DistributionSpec& spec, const Scalar* log_std);
  void set_log_std(const Scalar* log_std);

  const DistributionSpec& spec() const { return spec_; }
  const std::vector<double>& log_std() const { return log_std_; }

  double log_prob(const Scalar* outputs, const Actions<Scalar>& actions, Index row) const;
  double entropy(const Scalar* outputs) const;
  // KL(old || this); exactly 0 when both are the same bits.
  double kl(const Distribution& old, const Scalar* old_outputs, const Scalar* outputs) const;

  // cotangent += weight * d log pi(a) / d outputs;  log_std_cotangent (A doubles) likewise.
  void add_score(const Scalar* outputs, const Actions<Scalar>& actions, Index row, double weight,
                 Scalar* cotangent, double* log_std_cotangent) const;

  // cotangent += weight * d KL(old || this) / d outputs;  log_std_cotangent (A doubles) likewise.
  // Exactly 0 where both are the same bits.
  void add_kl_gradient(const Distribution& old, const Scalar* old_outputs, const Scalar* outputs,
                       double weight, Scalar* cotangent, double* log_std_cotangent) const;

  // The Fisher information M in the outputs, in two steps: what it needs of each row is worked out
  // once (`metric`, P Scalars; unused for kGaussian), then applied to tangents: tangent <- M tangent,
  // for `rows` rows of both, `stride` apart.
  void prepare_metric(const Scalar* outputs, Scalar* metric) const;
  void apply_metric(const Scalar* metric, Index rows, Index stride, Scalar* tangent) const;

  // u <- M^{1/2} u for one row, M^{1/2} a root with M^{1/2} M^{1/2}^T = M: of signs that are random, it
  // makes cotangents whose second moment is M.
  void apply_metric_root(const Scalar* metric, Scalar* u) const;

  void sample(const Scalar* outputs, CounterStream& stream, Scalar* continuous,
              std::int32_t* discrete) const;
  void mode(const Scalar* outputs, Scalar* continuous, std::int32_t* discrete) const;

 private:
  DistributionSpec spec_;
  std::vector<double> log_std_;  // kGaussian only
  std::vector<double> inverse_std_;
  std::vector<Scalar> inverse_variance_;
};

}  // namespace trpo_fast
