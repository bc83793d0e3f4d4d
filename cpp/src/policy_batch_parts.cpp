// What a part of a batch adds to sums over all of it: see sum_tree.h for the order.
#include "policy_batch_workspace.h"

namespace trpo_fast {

template <class Scalar>
Index PolicyBatch<Scalar>::chunks() const {
  return w_->tiling.chunks;
}

template <class Scalar>
void PolicyBatch<Scalar>::entropy_sums(double* sums) const {
  for (Index c = 0; c < w_->tiling.chunks; ++c)
    sums[c] = w_->sums[static_cast<std::size_t>(c)].entropy;
}

template <class Scalar>
void PolicyBatch<Scalar>::surrogate_part(const double* weights, Index begin,
                                         PartialGradient<Scalar>& part) {
  w_->pull_back_surrogate(weights, nullptr);
  w_->collect_part(begin, part);
}

template <class Scalar>
void PolicyBatch<Scalar>::product_part(const double* v, Index begin,
                                       PartialGradient<Scalar>& part) {
  w_->accumulate_product(v);
  w_->collect_part(begin, part);
}

template <class Scalar>
double PolicyBatch<Scalar>::curvature_part(const double* v) {
  return w_->largest_network_curvature(v);
}

template <class Scalar>
void PolicyBatch<Scalar>::evaluation_sums(const Policy<Scalar>& policy, const double* weights,
                                          double* sums) {
  w_->measure_surrogate(policy, weights);
  for (Index c = 0; c < w_->tiling.chunks; ++c) {
    const ChunkSums& of_chunk = w_->sums[static_cast<std::size_t>(c)];
    *sums++ = of_chunk.gain;
    *sums++ = of_chunk.kl;
    *sums++ = of_chunk.kl_max;
    *sums++ = of_chunk.entropy;
  }
}

template Index PolicyBatch<float>::chunks() const;
template void PolicyBatch<float>::entropy_sums(double*) const;
template void PolicyBatch<float>::surrogate_part(const double*, Index, PartialGradient<float>&);
template void PolicyBatch<float>::product_part(const double*, Index, PartialGradient<float>&);
template double PolicyBatch<float>::curvature_part(const double*);
template void PolicyBatch<float>::evaluation_sums(const Policy<float>&, const double*, double*);
template Index PolicyBatch<double>::chunks() const;
template void PolicyBatch<double>::entropy_sums(double*) const;
template void PolicyBatch<double>::surrogate_part(const double*, Index, PartialGradient<double>&);
template void PolicyBatch<double>::product_part(const double*, Index, PartialGradient<double>&);
template double PolicyBatch<double>::curvature_part(const double*);
template void PolicyBatch<double>::evaluation_sums(const Policy<double>&, const double*, double*);

}  // namespace trpo_fast
