// Ascent by Adam on L(theta) - beta mean_n KL(pi_k || pi_theta): PPO's penalised form (Schulman et al.
// 2017, equation 8), and with one epoch, the full batch and beta = 0 the vanilla policy gradient.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "trpo_fast/adam_state.h"
#include "trpo_fast/local_model.h"
#include "trpo_fast/policy_update_summary.h"

namespace trpo_fast {

struct AscentOptions {
  double learning_rate = 3e-4;          // >= 0
  int epochs = 1;                       // passes over the batch;  >= 1
  std::optional<Index> minibatch_size;  // >= 1; empty: the full batch
  double kl_coefficient = 0.0;          // beta >= 0, units of standardised advantage per nat
  bool standardize_advantages = true;
  std::uint64_t seed = 0;                                                  // of the shuffling
  Index activation_budget = PolicyBatch<float>::kDefaultActivationBudget;  // bytes;  >= 0
};

// Holds Adam's state, which goes on from ascent to ascent, and the memory of an ascent, so that those
// of a size seen before allocate nothing.
template <class Scalar>
class PolicyAscent {
 public:
  explicit PolicyAscent(Index n_parameters);
  ~PolicyAscent();

  // `policy` has n_parameters. A NaN or an infinity on the way restores its parameters and Adam's state.
  PolicyUpdateSummary ascend(Policy<Scalar>& policy, SurrogateObjective<Scalar>& objective,
                             const AscentOptions& options);

  // One step of Adam on the whole batch of a model, wherever its rows are: other options than that are an
  // std::invalid_argument. What the model throws restores parameters and Adam's state as well.
  PolicyUpdateSummary ascend(Policy<Scalar>& policy, LocalModel<Scalar>& model,
                             const AscentOptions& options);

  AdamState<Scalar>& adam();

 private:
  struct Workspace;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
