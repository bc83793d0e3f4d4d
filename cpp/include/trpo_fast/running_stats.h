// Running mean and variance of vectors, merged in a fixed order (Chan et al. 1979).
#pragma once

#include <vector>

#include "trpo_fast/network.h"

namespace trpo_fast {

class RunningStats {
 public:
  explicit RunningStats(Index dim);

  // Adds `rows` vectors (rows x dim). They are summed in tiles of a fixed size, first to last, so that the
  // result depends on their order alone.
  template <class Scalar>
  void update(const Scalar* batch, Index rows);

  Index dim() const { return static_cast<Index>(mean_.size()); }
  double count() const { return count_; }
  const std::vector<double>& mean() const { return mean_; }
  const std::vector<double>& sum_of_squares() const { return m2_; }  // of deviations from the mean
  // Replaces everything, with vectors of dim() numbers; throws std::invalid_argument unless count >= 0.
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
