// Running mean and variance of vectors, merged in a fixed order (Chan et al. 1979).
#pragma once

#include <vector>

#include "trpo_fast/network.h"

namespace trpo_fast {

class RunningStats {
 public:
  explicit RunningStats(Index dim);

  // Merges `rows` row-major vectors; fixed tiles of rows, merged first to last.
  template <class Scalar>
  void update(const Scalar* batch, Index rows);

  Index dim() const { return static_cast<Index>(mean_.size()); }
  double count() const { return count_; }
  const std::vector<double>& mean() const { return mean_; }
  const std::vector<double>& sum_of_squares() const { return m2_; }  // of deviations from the mean
  void restore(double count, const double* mean, const double* m2);

 private:
  void merge(double rows, const double* mean, const double* m2);

  double count_ = 0.0;
  std::vector<double> mean_;
  std::vector<double> m2_;
  std::vector<double> tile_mean_;
  std::vector<double> tile_m2_;
};

}  // namespace trpo_fast
