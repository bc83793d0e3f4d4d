#include "trpo_fast/gae.h"

namespace trpo_fast {

void generalized_advantage_estimation(Index steps, Index environments, const double* rewards,
                                      const double* values, const double* next_values,
                                      const std::uint8_t* terminated, const std::uint8_t* truncated,
                                      double gamma, double gae_lambda, double* advantages,
                                      double* returns) {
  for (Index t = steps - 1; t >= 0; --t) {
    for (Index e = 0; e < environments; ++e) {
      const Index i = t * environments + e;
      const double bootstrap = terminated[i] ? 0.0 : gamma * next_values[i];
      const double delta = rewards[i] + bootstrap - values[i];
      const bool goes_on = t + 1 < steps && !terminated[i] && !truncated[i];
      advantages[i] = delta + (goes_on ? gamma * gae_lambda * advantages[i + environments] : 0.0);
      returns[i] = advantages[i] + values[i];
    }
  }
}

}  // namespace trpo_fast
