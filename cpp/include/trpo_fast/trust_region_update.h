// One TRPO update (Schulman et al. 2015, section 6 and appendix C), and its relatives.
//
//   maximise   L(theta)
//   subject to mean_n KL(pi_k(.|s_n) || pi_theta(.|s_n)) <= delta
//
// L is an Objective: the sampled surrogate, or one of the vine's. The relatives (section 7 of the
// paper) differ in what stands for F in F x = g, in how far they go along x, and in whether the mean
// or the maximum KL is bounded.
#pragma once

#include <memory>

#include "trpo_fast/local_model.h"
#include "trpo_fast/policy_update_summary.h"
#include "trpo_fast/trust_region_options.h"

namespace trpo_fast {

// Holds the memory of an update, so that updates of a size seen before allocate nothing.
template <class Scalar>
class TrustRegionUpdater {
 public:
  TrustRegionUpdater();
  ~TrustRegionUpdater();

  // `further` states, if any, count in F and in the KL beside those of the objective (see wider_model.h);
  // they are borrowed, and need no actions.
  PolicyUpdateSummary update(Policy<Scalar>& policy, Objective<Scalar>& objective,
                             const TrustRegionOptions& options,
                             const SampleBatch<Scalar>& further = {});
  // The same where the samples may be elsewhere. What the model throws is passed on, with the parameters
  // those before.
  PolicyUpdateSummary update(Policy<Scalar>& policy, LocalModel<Scalar>& model,
                             const TrustRegionOptions& options,
                             const SampleBatch<Scalar>& further = {});

 private:
  PolicyUpdateSummary step(Policy<Scalar>& policy, LocalModel<Scalar>& model,
                           const TrustRegionOptions& options);

  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
