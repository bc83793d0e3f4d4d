// How a first layer takes the rows of a batch: by a dense product, or as sums of columns of its weights.
#pragma once

#include "trpo_fast/network.h"

namespace trpo_fast {

enum class FirstLayer {
  kAuto,   // sums of columns where that is faster
  kDense,  // always the dense product
};

// For the whole process. At first what the environment variable TRPO_FAST_FIRST_LAYER says, "auto" or
// "dense", and kAuto without it.
FirstLayer first_layer();
void set_first_layer(FirstLayer choice);

// Whether kAuto takes sums of columns for these rows (rows x width), which depends on them alone.
template <class Scalar>
bool sums_columns(const Scalar* x, Index rows, Index width);

// The same of N rows in parts, N at least R = rows_looked_at(). Rows k N / R, k = 0 ... R - 1, are looked at
// first: false, and the rows are dense, or the value that is taken off each column (width). Then kAuto takes
// sums of columns where the entries that differ from it, those of all parts added up, are few.
Index rows_looked_at();
template <class Scalar>
bool likely_background(const Scalar* looked_at, Index width, Scalar* background);
template <class Scalar>
Index count_entries(const Scalar* x, Index rows, Index width, const Scalar* background);
bool are_few_entries(Index entries, Index rows, Index width);

}  // namespace trpo_fast
