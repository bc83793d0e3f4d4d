// Inner products of parameter vectors, in doubles.
#pragma once

#include <cmath>
#include <vector>

#include "dispatch.h"

namespace trpo_fast {

inline double dot(Index n, const double* a, const double* b) {
  return kernels<double>().dot(n, a, b);
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return dot(static_cast<Index>(a.size()), a.data(), b.data());
}

inline double norm(const std::vector<double>& a) { return std::sqrt(dot(a, a)); }

}  // namespace trpo_fast
