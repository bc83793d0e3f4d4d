// N states, K actions tried in each
#include <algorithm>
#include <cmath>
#include <limits>

#include "trpo_fast/objective.h"

namespace trpo_fast {

template <class Scalar>
void VineObjective<Scalar>::assign(const SampleBatch<Scalar>& samples, const double* q_values,
                                   VineEstimator estimator) {
  const auto size = static_cast<std::size_t>(samples.size * samples.branches);
  q_values_ = q_values;
  estimator_ = estimator;
  old_weights_.resize(size);
  advantages_.resize(size);
  weights_.resize(size);
  samples_ = samples;
  samples_.score_weights = old_weights_.data();  // filled by prepare()
}

// w_nk = pi_k(a_nk|s_n) / sum_j pi_k(a_nj|s_n) of all actions, 1/K of sampled ones
template <class Scalar>
void VineObjective<Scalar>::weigh_actions(const double* log_probs) {
  const Index N = samples_.size, K = samples_.branches;
  if (estimator_ == VineEstimator::kSelfNormalized) {
    std::fill(old_weights_.begin(), old_weights_.end(), 1.0 / static_cast<double>(K));
    return;
  }
  for (Index n = 0; n < N; ++n) {
    double* w = old_weights_.data() + n * K;
    double total = 0.0;
    for (Index k = 0; k < K; ++k) total += w[k] = std::exp(log_probs[n * K + k]);
    for (Index k = 0; k < K; ++k) w[k] /= total;
  }
}

template <class Scalar>
Readiness VineObjective<Scalar>::prepare(const PolicyBatch<Scalar>& batch, bool standardize) {
  const Index N = samples_.size, K = samples_.branches;
  weigh_actions(batch.log_probs());

  // A_nk = Q_nk - sum_k w_nk Q_nk; the mean of A under the old policy is 0 in every state. What a mask
  // forbids has no weight, and its Q means nothing.
  double spread = 0.0, largest = 0.0, squares = 0.0;  // max |A|, max |Q|, sum w A^2
  const bool masked = samples_.allowed != nullptr;
  bool finite = true;
  old_value_ = 0.0;
  for (Index n = 0; n < N; ++n) {
    const double* Q = q_values_ + n * K;
    const double* w = old_weights_.data() + n * K;
    double* A = advantages_.data() + n * K;
    double baseline = 0.0;
    for (Index k = 0; k < K; ++k)
      if (!masked || w[k] != 0.0) baseline += w[k] * Q[k];
    old_value_ += baseline / static_cast<double>(N);
    for (Index k = 0; k < K; ++k) {
      A[k] = 0.0;
      if (masked && w[k] == 0.0) continue;
      A[k] = Q[k] - baseline;
      finite = finite && std::isfinite(A[k]);
      spread = std::max(spread, std::abs(A[k]));
      largest = std::max(largest, std::abs(Q[k]));
      squares += w[k] * A[k] * A[k];
    }
  }
  const double deviation = std::sqrt(squares / static_cast<double>(N));
  if (!finite || (standardize && !std::isfinite(deviation)))
    return {Readiness::kNonFinite,
            "Q or the policy's outputs hold a NaN or an infinity, so no update was made; look at "
            "rewards, values and observations"};

  // advantages that differ by rounding alone count as equal
  const bool alike = !(spread > 64.0 * std::numeric_limits<double>::epsilon() * largest) ||
                     (standardize && deviation == 0.0);
  const double unit = standardize && !alike ? deviation : 1.0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    advantages_[i] /= unit;
    weights_[i] = old_weights_[i] * advantages_[i];
  }
  if (alike)
    return {Readiness::kNothingToImprove,
            "in every state all branches are equally good, so there is nothing to improve and no "
            "update was made"};
  return {};
}

template <class Scalar>
void VineObjective<Scalar>::gradient(PolicyBatch<Scalar>& batch, double* g) {
  batch.surrogate_gradient(weights_.data(), nullptr, g);
}

template <class Scalar>
Evaluation VineObjective<Scalar>::evaluate(PolicyBatch<Scalar>& batch,
                                           const Policy<Scalar>& policy) {
  return estimator_ == VineEstimator::kExactSum
             ? batch.evaluate(policy, weights_.data())
             : batch.evaluate_self_normalized(policy, advantages_.data());
}

template class VineObjective<float>;
template class VineObjective<double>;

}  // namespace trpo_fast
