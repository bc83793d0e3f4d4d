// What Adam remembers between steps.
#pragma once

#include <cstdint>
#include <vector>

namespace trpo_fast {

template <class Scalar>
struct AdamState {
  std::vector<Scalar> first_moment;   // running mean of the gradients, one entry a parameter
  std::vector<Scalar> second_moment;  // running mean of their squares
  std::int64_t steps = 0;             // taken so far
};

}  // namespace trpo_fast
