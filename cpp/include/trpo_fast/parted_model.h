// The local model of a surrogate whose samples are cut into parts, wherever each of them is.
//
// A part holds whole chunks of the batch (see tiling.h), and adds up what it holds as far as the tree of
// all chunks allows (see sum_tree.h). Everything here depends on the chunks alone: the bits are those of
// a batch in one piece, for any number of parts.
//
//   letters: N samples, C chunks, D parameters, A width of the free log_std
#pragma once

#include <memory>
#include <vector>

#include "trpo_fast/local_model.h"

namespace trpo_fast {

// Asks all parts the same, and returns what they answer, in the order of their rows. An implementation
// may throw.
template <class Scalar>
class Parts {
 public:
  virtual ~Parts() = default;

  // Each makes its PolicyBatch at theta_k.
  virtual void begin(const Policy<Scalar>& policy, const BatchPlan& plan) = 0;
  // The sums of PolicyBatch's part: C; (parts); (parts); largest of all; C x 4.
  virtual std::vector<double> entropy_sums() = 0;
  virtual std::vector<PartialGradient<Scalar>> surrogate_gradient() = 0;
  virtual std::vector<PartialGradient<Scalar>> fisher_vector_product(const double* v) = 0;
  virtual std::vector<double> largest_curvatures(const double* v) = 0;
  virtual std::vector<double> evaluation_sums(const Policy<Scalar>& policy) = 0;

  // From part to part, in their order.
  virtual void add_advantages(AdvantageSums& sums) = 0;
  virtual void add_advantage_squares(AdvantageSums& sums, double mean) = 0;
  virtual void weigh(const Weighing& weighing) = 0;

  // The rows of every tile whose number is a multiple of `spacing`, side by side; valid until the next call.
  virtual SampleBatch<Scalar> every_tile(Index spacing) = 0;
};

template <class Scalar>
class PartedModel final : public LocalModel<Scalar> {
 public:
  // `first_chunks` are the numbers of the first chunk of each part, ascending from 0. Borrows the parts.
  PartedModel(Parts<Scalar>& parts, Index rows, Index chunks, std::vector<Index> first_chunks);
  ~PartedModel() override;

  Index size() const override { return rows_; }
  Readiness linearize(const Policy<Scalar>& policy, bool standardize,
                      const BatchPlan& plan) override;
  double mean_entropy() override;
  void gradient(double* g) override;
  // F on a share of the samples is not supported.
  void prepare_solve(const Policy<Scalar>& policy, const TrustRegionOptions& options) override;
  void fisher_vector_product(const double* v, double* y) override;
  void precondition(double damping, std::uint64_t seed,
                    KroneckerPreconditioner& preconditioner) override;
  double largest_curvature(const double* v) override;
  Evaluation evaluate(const Policy<Scalar>& policy) override;

 private:
  void add_up(std::vector<PartialGradient<Scalar>>& of_parts, double* sum) const;

  Parts<Scalar>& parts_;
  Index rows_;
  std::vector<Index> bounds_;  // first chunks, and C
  const Policy<Scalar>* policy_ = nullptr;
  BatchPlan plan_;
};

}  // namespace trpo_fast
