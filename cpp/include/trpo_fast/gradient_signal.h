// How much of a policy gradient is signal, and how much the noise of its samples.
//
// The batch is cut into two halves, each with a gradient g_i and a direction x_i = (F_i + lambda I)^{-1} g_i
// of its own. What the direction of one half gains on the other half is signal, since their noise is
// independent; what it gains on its own half is signal and noise:
//
//   validated = 1/2 (x_1^T g_2 + x_2^T g_1)
//   apparent  = 1/4 (x_1 + x_2)^T (g_1 + g_2)      about g^T x of the whole batch
//   rho       = validated / apparent               1: no noise, 0: nothing else
#pragma once

#include <memory>

#include "trpo_fast/trust_region_update.h"

namespace trpo_fast {

struct GradientSignal {
  bool is_measured = false;  // false where a half has no gradient, or a number is not finite
  double validated_gain = 0;
  double apparent_gain = 0;
};

// Holds the memory of a measurement, so that those of a size seen before allocate nothing.
template <class Scalar>
class GradientSignalMeter {
 public:
  GradientSignalMeter();
  ~GradientSignalMeter();

  // The halves are the first `split` samples and the others, both of which need one. Advantages are N
  // numbers, standardised within each half where the options say so. Of the options, those of g and of
  // (F + lambda I) x = g count; F is that of all samples of a half.
  GradientSignal measure(const Policy<Scalar>& policy, const SampleBatch<Scalar>& samples,
                         const Scalar* advantages, Index split, const TrustRegionOptions& options);

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
