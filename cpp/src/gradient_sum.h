// A packed gradient as the sum of one partial for each chunk of a batch, added up in a fixed tree.
#pragma once

#include "aligned.h"
#include "dispatch.h"
#include "tiling.h"

namespace trpo_fast {

template <class Scalar>
class GradientSum {
 public:
  void reserve(const NetworkShape& shape, const Tiling& tiling) {
    size_ = kernels<Scalar>().gradient_size(shape);
    partials_.reserve(size_ * tiling.chunks);
  }

  // The partial of one chunk. It is not cleared: the first tile of a chunk must overwrite it.
  Scalar* partial(Index chunk) { return partials_.data() + chunk * size_; }

  // The sum of the partials, packed; valid until the partials are written again.
  const Scalar* sum(const Tiling& tiling, int threads) {
    constexpr Index kRange = 16384;  // scalars that one thread sums at a time
    if (tiling.chunks > 1)
      parallel_for((size_ + kRange - 1) / kRange, threads, [&](Index range, int) {
        kernels<Scalar>().tree_sum(partials_.data(), tiling.chunks, size_, range * kRange,
                                   std::min(size_, (range + 1) * kRange));
      });
    return partials_.data();
  }

  // flat (D) = scale * sum of the partials
  void collect(const NetworkShape& shape, const Tiling& tiling, int threads, double scale,
               double* flat) {
    kernels<Scalar>().unpack_gradient(shape, sum(tiling, threads), scale, flat);
  }

  Index size() const { return size_; }

 private:
  AlignedBuffer<Scalar> partials_;
  Index size_ = 0;
};

}  // namespace trpo_fast
