#include "trpo_fast/parted_model.h"

#include <stdexcept>
#include <utility>

#include "part_sum.h"
#include "policy_batch_workspace.h"

namespace trpo_fast {

Chunks chunks_of(Index rows, Index n_parameters) {
  const Tiling tiling = tiling_for(rows, n_parameters);
  return {tiling.chunks, tiling.rows_per_chunk()};
}

Index rows_of_a_tile() { return kTileRows; }

template <class Scalar>
PartedModel<Scalar>::PartedModel(Parts<Scalar>& parts, Index rows, Index chunks,
                                 std::vector<Index> first_chunks)
    : parts_(parts), rows_(rows), bounds_(std::move(first_chunks)) {
  bounds_.push_back(chunks);
}

template <class Scalar>
PartedModel<Scalar>::~PartedModel() = default;

template <class Scalar>
Readiness PartedModel<Scalar>::linearize(const Policy<Scalar>& policy, bool standardizes,
                                         const BatchPlan& plan) {
  policy_ = &policy;
  plan_ = plan;
  parts_.begin(policy, plan);
  AdvantageSums sums;
  parts_.add_advantages(sums);
  Readiness readiness = readiness_of(sums);
  Weighing weighing;
  if (readiness.kind == Readiness::kReady && standardizes) {
    parts_.add_advantage_squares(sums, sums.sum / static_cast<double>(rows_));
    readiness = standardize<Scalar>(sums, rows_, weighing);
  }
  if (readiness.kind == Readiness::kReady) parts_.weigh(weighing);
  return readiness;
}

template <class Scalar>
double PartedModel<Scalar>::mean_entropy() {
  double sum = 0.0;
  for (double of_chunk : parts_.entropy_sums()) sum += of_chunk;
  return sum / static_cast<double>(rows_);
}

// sum = 1/N times the sum of the chunks of all parts: what is left of the tree.
template <class Scalar>
void PartedModel<Scalar>::add_up(std::vector<PartialGradient<Scalar>>& of_parts,
                                 double* sum) const {
  const Index size = kernels<Scalar>().gradient_size(policy_->shape());
  const Scalar* packed = sum_of_parts(size, bounds_, of_parts);
  const double inverse_n = 1.0 / static_cast<double>(rows_);
  kernels<Scalar>().unpack_gradient(policy_->shape(), packed, inverse_n, sum);

  // log_std, chunk by chunk
  const Index A = policy_->spec().free_parameters();
  double* log_std = sum + policy_->n_network_parameters();
  for (Index a = 0; a < A; ++a) {
    double of_all = 0.0;
    for (const PartialGradient<Scalar>& part : of_parts)
      for (std::size_t i = static_cast<std::size_t>(a); i < part.log_std.size();
           i += static_cast<std::size_t>(A))
        of_all += part.log_std[i];
    log_std[a] = of_all * inverse_n;
  }
}

template <class Scalar>
void PartedModel<Scalar>::gradient(double* g) {
  std::vector<PartialGradient<Scalar>> of_parts = parts_.surrogate_gradient();
  add_up(of_parts, g);
}

template <class Scalar>
void PartedModel<Scalar>::prepare_solve(const Policy<Scalar>&, const TrustRegionOptions& options) {
  if (options.fisher_fraction != 1.0)
    throw std::invalid_argument(
        "fisher_fraction: expected 1 for a batch in parts, where nobody sees all rows that a share "
        "would be drawn from, got less.");
}

template <class Scalar>
void PartedModel<Scalar>::fisher_vector_product(const double* v, double* y) {
  std::vector<PartialGradient<Scalar>> of_parts = parts_.fisher_vector_product(v);
  add_up(of_parts, y);
  if (plan_.fisher != FisherForm::kEmpirical) set_log_std_product(*policy_, v, y);
}

template <class Scalar>
void PartedModel<Scalar>::precondition(double damping, std::uint64_t seed,
                                       KroneckerPreconditioner& preconditioner) {
  const Index spacing = PolicyBatch<Scalar>::preconditioner_spacing(policy_->shape(), rows_);
  PolicyBatch<Scalar> tiles;
  tiles.assign(*policy_, parts_.every_tile(spacing), plan_.activation_budget, plan_.fisher);
  tiles.precondition(damping, seed, preconditioner, spacing);
}

template <class Scalar>
double PartedModel<Scalar>::largest_curvature(const double* v) {
  double largest = 0.0;
  for (double of_part : parts_.largest_curvatures(v))
    if (!(of_part <= largest)) largest = of_part;
  return with_log_std_curvature(largest, *policy_, v);
}

template <class Scalar>
Evaluation PartedModel<Scalar>::evaluate(const Policy<Scalar>& policy) {
  const std::vector<double> sums = parts_.evaluation_sums(policy);
  std::vector<ChunkSums> of_chunks(sums.size() / 4);
  for (std::size_t c = 0; c < of_chunks.size(); ++c)
    of_chunks[c] = {sums[4 * c], sums[4 * c + 1], sums[4 * c + 2], sums[4 * c + 3]};
  return combined(of_chunks.data(), static_cast<Index>(of_chunks.size()), rows_);
}

template class PartedModel<float>;
template class PartedModel<double>;

}  // namespace trpo_fast
