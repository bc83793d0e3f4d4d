// The fixed tree in which the partial sums of a batch's chunks are added, and how it falls into parts.
//
// Level by level partial k += partial k + step, for step = 1, 2, 4, ... and k = 0, 2 step, 4 step, ...
// A part that holds partials begin, ..., end - 1 makes the additions whose operands are sums of its own
// partials alone. What is left of it are at most 2 log2(count) sums, one where its bounds are those of
// a subtree; whoever has those of all parts makes the other additions, in the same order.
#pragma once

#include <algorithm>
#include <vector>

#include "trpo_fast/network.h"

namespace trpo_fast {

class SumTree {
 public:
  explicit SumTree(Index count) : count_(count) {}

  // add(k, other, end) for every addition, in their order: partial k receives the sum of partials
  // other, ..., end - 1.
  template <class Add>
  void for_each_addition(const Add& add) const {
    for (Index step = 1; step < count_; step *= 2)
      for (Index k = 0; k + step < count_; k += 2 * step)
        add(k, k + step, std::min(count_, k + 2 * step));
  }

  // The additions that a part makes.
  template <class Add>
  void for_each_addition_of(Index begin, Index end, const Add& add) const {
    for_each_addition([&](Index k, Index other, Index last) {
      if (k >= begin && last <= end) add(k, other);
    });
  }

  // The partials that hold what is left of a part, ascending.
  std::vector<Index> roots_of(Index begin, Index end) const {
    std::vector<bool> added(static_cast<std::size_t>(end - begin));
    for_each_addition_of(begin, end, [&](Index, Index other) {
      added[static_cast<std::size_t>(other - begin)] = true;
    });
    std::vector<Index> roots;
    for (Index k = begin; k < end; ++k)
      if (!added[static_cast<std::size_t>(k - begin)]) roots.push_back(k);
    return roots;
  }

 private:
  Index count_;
};

}  // namespace trpo_fast
