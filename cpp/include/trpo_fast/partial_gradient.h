// What a part of a batch adds to a sum of packed gradients over all of it.
#pragma once

#include <vector>

#include "trpo_fast/network.h"

namespace trpo_fast {

template <class Scalar>
struct PartialGradient {
  std::vector<Scalar> roots;    // packed, one after the other: sums of its chunks, see sum_tree.h
  std::vector<double> log_std;  // chunks x A, of a policy
};

// How N samples fall into chunks.
struct Chunks {
  Index count = 0;  // C
  Index rows = 0;   // of each but the last
};
// As a batch of dense rows is cut for a network of so many parameters.
Chunks chunks_of(Index rows, Index n_parameters);
Index rows_of_a_tile();

}  // namespace trpo_fast
