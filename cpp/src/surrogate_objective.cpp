// N samples
#include <algorithm>
#include <cmath>
#include <limits>

#include "trpo_fast/objective.h"

namespace trpo_fast {

template <class Scalar>
void SurrogateObjective<Scalar>::assign(const SampleBatch<Scalar>& samples,
                                        const Scalar* advantages) {
  samples_ = samples;
  advantages_ = advantages;
  weights_.resize(static_cast<std::size_t>(samples.size));
}

// w = (A - mean) / deviation. Advantages that differ by rounding alone count as equal, so that noise
// is never scaled up to a full step.
template <class Scalar>
Readiness SurrogateObjective<Scalar>::prepare(const PolicyBatch<Scalar>&, bool standardize) {
  const Index N = samples_.size;
  double sum = 0.0;
  double smallest = static_cast<double>(advantages_[0]), largest = smallest;
  for (Index n = 0; n < N; ++n) {
    const double a = static_cast<double>(advantages_[n]);
    sum += a;
    smallest = std::min(smallest, a);
    largest = std::max(largest, a);
  }
  if (!std::isfinite(sum))
    return {Readiness::kNonFinite,
            "the advantages hold a NaN or an infinity, so no update was made; look at the "
            "rewards and values that they were computed from"};

  if (!standardize) {
    for (Index n = 0; n < N; ++n)
      weights_[static_cast<std::size_t>(n)] = static_cast<double>(advantages_[n]);
    return {};
  }
  const double mean = sum / static_cast<double>(N);
  double squares = 0.0;
  for (Index n = 0; n < N; ++n) {
    const double d = static_cast<double>(advantages_[n]) - mean;
    squares += d * d;
  }
  const double deviation = std::sqrt(squares / static_cast<double>(N));
  const double rounding = 8.0 * static_cast<double>(std::numeric_limits<Scalar>::epsilon());
  const bool alike =
      !(largest - smallest > rounding * std::max(std::abs(smallest), std::abs(largest)));
  if (alike)
    return {Readiness::kNothingToImprove,
            "all advantages are equal, so there is nothing to improve and no update was made"};
  const double scale = 1.0 / deviation;
  for (Index n = 0; n < N; ++n)
    weights_[static_cast<std::size_t>(n)] = (static_cast<double>(advantages_[n]) - mean) * scale;
  return {};
}

template <class Scalar>
void SurrogateObjective<Scalar>::gradient(PolicyBatch<Scalar>& batch, double* g) {
  batch.surrogate_gradient(weights_.data(), nullptr, g);
}

template <class Scalar>
Evaluation SurrogateObjective<Scalar>::evaluate(PolicyBatch<Scalar>& batch,
                                                const Policy<Scalar>& policy) {
  return batch.evaluate(policy, weights_.data());
}

template class SurrogateObjective<float>;
template class SurrogateObjective<double>;

}  // namespace trpo_fast
