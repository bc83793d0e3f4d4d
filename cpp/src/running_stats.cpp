#include "trpo_fast/running_stats.h"

#include <algorithm>
#include <stdexcept>

namespace trpo_fast {

RunningStats::RunningStats(Index dim) {
  if (dim < 1)
    throw std::invalid_argument("dim: expected at least 1, got " + std::to_string(dim) + ".");
  const std::size_t n = static_cast<std::size_t>(dim);
  mean_.assign(n, 0.0);
  m2_.assign(n, 0.0);
  tile_mean_.assign(n, 0.0);
  tile_m2_.assign(n, 0.0);
}

template <class Scalar>
void RunningStats::update(const Scalar* batch, Index rows) {
  constexpr Index kRows = 256;
  const Index width = dim();
  for (Index begin = 0; begin < rows; begin += kRows) {
    const Index n = std::min(kRows, rows - begin);
    const Scalar* tile = batch + begin * width;

    // two passes over the tile: mean, then squared deviations
    std::fill(tile_mean_.begin(), tile_mean_.end(), 0.0);
    std::fill(tile_m2_.begin(), tile_m2_.end(), 0.0);
    for (Index r = 0; r < n; ++r)
      for (Index i = 0; i < width; ++i) tile_mean_[i] += static_cast<double>(tile[r * width + i]);
    for (double& m : tile_mean_) m /= static_cast<double>(n);
    for (Index r = 0; r < n; ++r)
      for (Index i = 0; i < width; ++i) {
        const double d = static_cast<double>(tile[r * width + i]) - tile_mean_[i];
        tile_m2_[i] += d * d;
      }
    merge(static_cast<double>(n), tile_mean_.data(), tile_m2_.data());
  }
}

// n = n_a + n_b,  d = mean_b - mean_a
// mean = mean_a + d n_b / n,  M2 = M2_a + M2_b + d^2 n_a n_b / n
void RunningStats::merge(double rows, const double* mean, const double* m2) {
  const double total = count_ + rows;
  for (std::size_t i = 0; i < mean_.size(); ++i) {
    const double d = mean[i] - mean_[i];
    mean_[i] += d * rows / total;
    m2_[i] += m2[i] + d * d * count_ * rows / total;
  }
  count_ = total;
}

void RunningStats::restore(double count, const double* mean, const double* m2) {
  if (!(count >= 0.0)) throw std::invalid_argument("count: expected a non-negative number.");
  count_ = count;
  mean_.assign(mean, mean + mean_.size());
  m2_.assign(m2, m2 + m2_.size());
}

template void RunningStats::update<float>(const float*, Index);
template void RunningStats::update<double>(const double*, Index);

}  // namespace trpo_fast
