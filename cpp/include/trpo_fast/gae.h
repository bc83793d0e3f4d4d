// Generalised advantage estimation (Schulman et al. 2016, equations 16 and 18).
#pragma once

#include <cstdint>

#include "trpo_fast/network.h"

namespace trpo_fast {

// For t = T-1 ... 0 and each environment e (arrays are T x E, row-major):
//   delta_t = r_t + gamma V(s_{t+1}) - V(s_t)           V(s_{t+1}) = 0 where terminated
//   A_t     = delta_t + gamma lambda A_{t+1}            A_{t+1} = 0 where terminated or truncated
//   R_t     = A_t + V(s_t)
// next_values[t, e] = V(s_{t+1}) of the true successor, also where an episode was truncated.
void generalized_advantage_estimation(Index steps, Index environments, const double* rewards,
                                      const double* values, const double* next_values,
                                      const std::uint8_t* terminated, const std::uint8_t* truncated,
                                      double gamma, double gae_lambda, double* advantages,
                                      double* returns);

}  // namespace trpo_fast
