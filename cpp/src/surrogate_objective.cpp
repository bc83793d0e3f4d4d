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

template <class Scalar>
void AdvantageSums::add(const Scalar* advantages, Index n) {
  for (Index i = 0; i < n; ++i) {
    const double a = static_cast<double>(advantages[i]);
    sum += a;
    smallest = std::min(smallest, a);
    largest = std::max(largest, a);
  }
}

template <class Scalar>
void AdvantageSums::add_squares(const Scalar* advantages, Index n, double mean) {
  for (Index i = 0; i < n; ++i) {
    const double d = static_cast<double>(advantages[i]) - mean;
    squares += d * d;
  }
}

template <class Scalar>
void Weighing::weigh(const Scalar* advantages, Index n, double* weights) const {
  for (Index i = 0; i < n; ++i) weights[i] = (static_cast<double>(advantages[i]) - mean) * scale;
}

Readiness readiness_of(const AdvantageSums& sums) {
  if (std::isfinite(sums.sum)) return {};
  return {Readiness::kNonFinite,
          "the advantages hold a NaN or an infinity, so no update was made; look at the "
          "rewards and values that they were computed from"};
}

template <class Scalar>
Readiness standardize(const AdvantageSums& sums, Index rows, Weighing& weighing) {
  const double N = static_cast<double>(rows);
  const double deviation = std::sqrt(sums.squares / N);
  const double rounding = 8.0 * static_cast<double>(std::numeric_limits<Scalar>::epsilon());
  const bool alike = !(sums.largest - sums.smallest >
                       rounding * std::max(std::abs(sums.smallest), std::abs(sums.largest)));
  if (alike)
    return {Readiness::kNothingToImprove,
            "all advantages are equal, so there is nothing to improve and no update was made"};
  weighing = {sums.sum / N, 1.0 / deviation};
  return {};
}

template <class Scalar>
Readiness SurrogateObjective<Scalar>::prepare(const PolicyBatch<Scalar>&, bool standardizes) {
  const Index N = samples_.size;
  AdvantageSums sums;
  sums.add(advantages_, N);
  Readiness readiness = readiness_of(sums);
  Weighing weighing;
  if (readiness.kind == Readiness::kReady && standardizes) {
    sums.add_squares(advantages_, N, sums.sum / static_cast<double>(N));
    readiness = standardize<Scalar>(sums, N, weighing);
  }
  if (readiness.kind == Readiness::kReady) weighing.weigh(advantages_, N, weights_.data());
  return readiness;
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
template void AdvantageSums::add(const float*, Index);
template void AdvantageSums::add(const double*, Index);
template void AdvantageSums::add_squares(const float*, Index, double);
template void AdvantageSums::add_squares(const double*, Index, double);
template void Weighing::weigh(const float*, Index, double*) const;
template void Weighing::weigh(const double*, Index, double*) const;
template Readiness standardize<float>(const AdvantageSums&, Index, Weighing&);
template Readiness standardize<double>(const AdvantageSums&, Index, Weighing&);

}  // namespace trpo_fast
