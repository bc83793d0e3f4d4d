// What an update did to a policy. KL and entropy are in nats, gains in the unit of L.
#pragma once

#include <string>

#include "trpo_fast/conjugate_gradient.h"

namespace trpo_fast {

enum class PolicyUpdateStatus {
  kAccepted,
  kLineSearchFailed,      // no candidate was both inside the trust region and better
  kZeroGradient,          // nothing to improve: constant advantages, say
  kNonPositiveCurvature,  // conjugate gradient found no usable direction
  kNonFinite,             // a NaN or infinity in the batch or on the way
};
const char* to_string(PolicyUpdateStatus status);

// Unless status is kAccepted the parameters are, bit for bit, those before the update.
struct PolicyUpdateSummary {
  PolicyUpdateStatus status = PolicyUpdateStatus::kNonFinite;
  std::string message;
  double max_kl = 0;                       // delta; infinite where the step rule has no bound
  double kl = 0;                           // mean KL(pi_k || pi) after the step; 0 when refused
  double kl_max = 0;                       // largest KL of any sample; 0 when refused
  double kl_predicted = 0;                 // 1/2 s^T F s of the accepted (or last tried) step s
  double surrogate_gain = 0;               // L(theta) - L(theta_k); 0 when refused
  double surrogate_gain_predicted = 0;     // g^T s
  double gradient_norm = 0;                // ||g||
  double step_norm = 0;                    // ||s||
  double step_scale = 0;                   // alpha^j
  double step_size = 0;                    // alpha^j beta, along x; of an ascent its learning rate
  double entropy = 0, entropy_before = 0;  // means over the batch, after the step and before it
  int backtracks = 0;                      // j
  ConjugateGradientSummary conjugate_gradient;
  double seconds_gradient = 0, seconds_cg = 0, seconds_line_search = 0, seconds_total = 0;
};

}  // namespace trpo_fast
