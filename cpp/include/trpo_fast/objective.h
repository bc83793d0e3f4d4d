// What a policy update maximises near theta_k, the parameters before it.
//
//   letters: N states, K actions tried in each, w the weights of the actions at theta_k
#pragma once

#include <limits>
#include <vector>

#include "trpo_fast/policy_batch.h"

namespace trpo_fast {

// Whether there is anything to maximise, and if not, the sentence that says why.
struct Readiness {
  enum Kind {
    kReady,
    kNothingToImprove,  // all advantages are alike
    kNonFinite,         // a NaN or an infinity
  } kind = kReady;
  const char* message = "";
};

// How advantages become weights, from sums over them that are made in the order of the rows: those of
// a batch in parts go from part to part.
struct AdvantageSums {
  double sum = 0;
  double smallest = std::numeric_limits<double>::infinity();
  double largest = -std::numeric_limits<double>::infinity();
  double squares = 0;  // of the differences from the mean

  // Adds n advantages to all but the squares; then, with the mean of all, to those.
  template <class Scalar>
  void add(const Scalar* advantages, Index n);
  template <class Scalar>
  void add_squares(const Scalar* advantages, Index n, double mean);
};

// w = (A - mean) scale
struct Weighing {
  double mean = 0, scale = 1;

  template <class Scalar>
  void weigh(const Scalar* advantages, Index n, double* weights) const;
};

// What the first sums say; with kReady and without standardising, A is w.
Readiness readiness_of(const AdvantageSums& sums);
// The same of all sums over N advantages of type Scalar; sets the mean and scale that standardise. Advantages
// that differ by rounding alone count as equal, so that noise is never scaled up to a full step.
template <class Scalar>
Readiness standardize(const AdvantageSums& sums, Index rows, Weighing& weighing);

// L(theta) of a batch of states, on which KL and Fisher matrix are means too.
//
// An update calls, in this order: samples(), to run the policy at theta_k over them and so make the
// PolicyBatch that all later calls are given; prepare(), once; gradient(), once, if it is ready;
// evaluate(), for each candidate theta.
template <class Scalar>
class Objective {
 public:
  virtual ~Objective() = default;

  virtual const SampleBatch<Scalar>& samples() const = 0;

  // Weighs the actions. L is in standard deviations of the advantages under pi_k where these are
  // standardized, so that it does not depend on the unit of rewards, and in their unit otherwise.
  virtual Readiness prepare(const PolicyBatch<Scalar>& batch, bool standardize) = 0;

  // g = grad L(theta_k), all parameters
  virtual void gradient(PolicyBatch<Scalar>& batch, double* g) = 0;

  // L(theta) - L(theta_k), mean and largest KL(pi_k || pi_theta), entropy of pi_theta
  virtual Evaluation evaluate(PolicyBatch<Scalar>& batch, const Policy<Scalar>& policy) = 0;
};

// The sampled surrogate (Schulman et al. 2015, equation 14):
//   L(theta) = mean_n pi_theta(a_n|s_n) / pi_k(a_n|s_n) A_n
template <class Scalar>
class SurrogateObjective final : public Objective<Scalar> {
 public:
  // Borrows N states with one action each, and N advantages.
  void assign(const SampleBatch<Scalar>& samples, const Scalar* advantages);

  const SampleBatch<Scalar>& samples() const override { return samples_; }
  Readiness prepare(const PolicyBatch<Scalar>& batch, bool standardize) override;
  void gradient(PolicyBatch<Scalar>& batch, double* g) override;
  Evaluation evaluate(PolicyBatch<Scalar>& batch, const Policy<Scalar>& policy) override;

  // A_n, standardized or not: N doubles, after prepare().
  const double* weights() const { return weights_.data(); }

 private:
  SampleBatch<Scalar> samples_;
  const Scalar* advantages_ = nullptr;  // N
  std::vector<double> weights_;         // N
};

// How the vine estimates the value of a state from Q of K actions (Schulman et al. 2015, section 5.2).
enum class VineEstimator {
  kExactSum,        // equation 15: L_n(theta) = sum_k pi_theta(a_nk|s_n) Q_nk over all actions
  kSelfNormalized,  // equation 16: L_n(theta) = sum_k r_k Q_nk / sum_k r_k,  r_k = pi_theta / pi_k
};

// The vine's objective, L(theta) = mean_n L_n(theta). With A_nk = Q_nk - sum_k w_nk Q_nk, where w is
// pi_k of all actions, or 1/K of sampled ones:
//   g = mean_n sum_k w_nk A_nk grad log pi(a_nk|s_n)
// The empirical Fisher matrix is the covariance of the scores under the old policy, as the branches
// estimate it:
//   F = mean_n sum_k w_nk s_nk s_nk^T,  s_nk = grad log pi(a_nk|s_n)
// which over all actions is exact, the same as F of FisherForm::kGaussNewton.
template <class Scalar>
class VineObjective final : public Objective<Scalar> {
 public:
  // Borrows N states with K actions each, and Q (N x K).
  void assign(const SampleBatch<Scalar>& samples, const double* q_values, VineEstimator estimator);

  const SampleBatch<Scalar>& samples() const override { return samples_; }
  Readiness prepare(const PolicyBatch<Scalar>& batch, bool standardize) override;
  void gradient(PolicyBatch<Scalar>& batch, double* g) override;
  Evaluation evaluate(PolicyBatch<Scalar>& batch, const Policy<Scalar>& policy) override;

  // L(theta_k) = mean_n sum_k w_nk Q_nk, in the unit of Q, after prepare().
  double old_value() const { return old_value_; }

 private:
  void weigh_actions(const double* log_probs);

  SampleBatch<Scalar> samples_;
  const double* q_values_ = nullptr;  // N x K
  VineEstimator estimator_ = VineEstimator::kExactSum;
  double old_value_ = 0.0;
  std::vector<double> old_weights_;  // w, N x K
  std::vector<double> advantages_;   // A, N x K
  std::vector<double> weights_;      // w A, N x K
};

}  // namespace trpo_fast
