// Packed gradients, one partial a chunk, summed in a fixed tree.
#pragma once

#include <cstring>
#include <type_traits>

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

  Scalar* partial(Index chunk) { return partials_.data() + chunk * size_; }
  void clear(Index chunk) {
    std::memset(partial(chunk), 0, static_cast<std::size_t>(size_) * sizeof(Scalar));
  }

  // flat = scale * sum of the partials; flat is Scalar or double
  template <class Target>
  void collect(const NetworkShape& shape, const Tiling& tiling, int threads, double scale,
               Target* flat) {
    constexpr Index kRange = 16384;  // scalars that one thread sums at a time
    const KernelTable<Scalar>& k = kernels<Scalar>();
    parallel_for((size_ + kRange - 1) / kRange, threads, [&](Index range, int) {
      k.tree_sum(partials_.data(), tiling.chunks, size_, range * kRange,
                 std::min(size_, (range + 1) * kRange));
    });
    if constexpr (std::is_same_v<Target, Scalar>)
      k.unpack_gradient(shape, partials_.data(), scale, flat);
    else
      k.unpack_gradient_double(shape, partials_.data(), scale, flat);
  }

 private:
  AlignedBuffer<Scalar> partials_;
  Index size_ = 0;
};

}  // namespace trpo_fast
