// The sum of what all parts of a batch have added up by themselves: see sum_tree.h.
#pragma once

#include <stdexcept>
#include <vector>

#include "gradient_sum.h"
#include "trpo_fast/partial_gradient.h"

namespace trpo_fast {

// Makes the additions that are left, in place. `bounds` are the numbers of the first chunk of each part, and
// C. Returns the sum, packed, of `size` scalars; it lies in the first part.
template <class Scalar>
const Scalar* sum_of_parts(Index size, const std::vector<Index>& bounds,
                           std::vector<PartialGradient<Scalar>>& of_parts) {
  const Index count = bounds.back();
  if (of_parts.size() + 1 != bounds.size())
    throw std::runtime_error("another number of parts has answered than was asked");
  const SumTree tree(count);
  std::vector<Scalar*> partials(static_cast<std::size_t>(count), nullptr);
  std::vector<std::size_t> part_of(partials.size());
  for (std::size_t p = 0; p < of_parts.size(); ++p) {
    const std::vector<Index> roots = tree.roots_of(bounds[p], bounds[p + 1]);
    if (static_cast<Index>(of_parts[p].roots.size()) != static_cast<Index>(roots.size()) * size)
      throw std::runtime_error("a part of the batch has returned a sum of another size");
    for (std::size_t i = 0; i < roots.size(); ++i)
      partials[static_cast<std::size_t>(roots[i])] =
          of_parts[p].roots.data() + static_cast<Index>(i) * size;
    for (Index c = bounds[p]; c < bounds[p + 1]; ++c) part_of[static_cast<std::size_t>(c)] = p;
  }
  tree.for_each_addition([&](Index k, Index other, Index end) {
    const std::size_t part = part_of[static_cast<std::size_t>(k)];
    if (part_of[static_cast<std::size_t>(end - 1)] != part)
      add_packed(size, partials[static_cast<std::size_t>(other)],
                 partials[static_cast<std::size_t>(k)]);
  });
  return partials[0];
}

}  // namespace trpo_fast
