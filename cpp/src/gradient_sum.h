// A packed gradient as the sum of one partial for each chunk of a batch, added up in a fixed tree.
#pragma once

#include <vector>

#include "aligned.h"
#include "dispatch.h"
#include "input_batch.h"
#include "sum_tree.h"
#include "tiling.h"

namespace trpo_fast {

// to += from, packed gradients of `size` scalars: an addition of the tree.
template <class Scalar>
void add_packed(Index size, const Scalar* from, Scalar* to) {
  for (Index i = 0; i < size; ++i) to[i] += from[i];
}

template <class Scalar>
class GradientSum {
 public:
  void reserve(const NetworkShape& shape, const Tiling& tiling) {
    size_ = kernels<Scalar>().gradient_size(shape);
    partials_.reserve(size_ * tiling.chunks);
  }

  // The partial of one chunk. It is not cleared: the first tile of a chunk must overwrite it.
  Scalar* partial(Index chunk) { return partials_.data() + chunk * size_; }

  // The sum of the partials, packed, and where the inputs are sparse the weights of the first layer, which
  // no partial has; valid until the partials are written again.
  const Scalar* sum(const NetworkShape& shape, const InputBatch<Scalar>& inputs,
                    const Tiling& tiling, int threads) {
    Index first = size_, last = size_;  // what is left out
    if (inputs.sparse()) kernels<Scalar>().first_weights(shape, &first, &last);
    add_up(tiling, threads, 0, first);
    add_up(tiling, threads, last, size_);
    inputs.finish_gradient(shape, threads, partials_.data());
    return partials_.data();
  }

  // flat (D) = scale * that sum
  void collect(const NetworkShape& shape, const InputBatch<Scalar>& inputs, const Tiling& tiling,
               int threads, double scale, double* flat) {
    kernels<Scalar>().unpack_gradient(shape, sum(shape, inputs, tiling, threads), scale, flat);
  }

  // What is left of a part whose first chunk has the number `begin` of `count`: packed gradients.
  void collect_roots(const Tiling& tiling, Index begin, Index count, std::vector<Scalar>& roots) {
    const SumTree tree(count);
    const Index end = begin + tiling.chunks;
    tree.for_each_addition_of(begin, end, [&](Index k, Index other) {
      add_packed(size_, partial(other - begin), partial(k - begin));
    });
    roots.clear();
    for (Index k : tree.roots_of(begin, end))
      roots.insert(roots.end(), partial(k - begin), partial(k - begin) + size_);
  }

  Index size() const { return size_; }

 private:
  void add_up(const Tiling& tiling, int threads, Index begin, Index end) {
    constexpr Index kRange = 16384;  // scalars that one thread sums at a time
    if (tiling.chunks == 1) return;
    parallel_for((end - begin + kRange - 1) / kRange, threads, [&](Index range, int) {
      const Index from = begin + range * kRange;
      kernels<Scalar>().tree_sum(partials_.data(), tiling.chunks, size_, from,
                                 std::min(end, from + kRange));
    });
  }

  AlignedBuffer<Scalar> partials_;
  Index size_ = 0;
};

}  // namespace trpo_fast
