// N rows, O observation width, H' units of the first hidden layer, padded
#include "input_batch.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"
#include "row_gather.h"

namespace trpo_fast {

namespace {

constexpr Index kColumnsAtOnce = 256;  // of a first layer's gradient, the work of one thread

std::atomic<FirstLayer>& choice() {
  static std::atomic<FirstLayer> kept = [] {
    const char* named = std::getenv("TRPO_FAST_FIRST_LAYER");
    const std::string name = named ? named : "";
    if (!name.empty() && name != "auto" && name != "dense")
      throw std::runtime_error("TRPO_FAST_FIRST_LAYER: expected auto or dense, got '" + name +
                               "'; unset it to use the faster.");
    return name == "dense" ? FirstLayer::kDense : FirstLayer::kAuto;
  }();
  return kept;
}

}  // namespace

FirstLayer first_layer() { return choice(); }
void set_first_layer(FirstLayer wanted) { choice() = wanted; }

template <class Scalar>
void InputBatch<Scalar>::start(const NetworkShape& shape, Index rows) {
  Index first = 0, last = 0;
  kernels<Scalar>().first_weights(shape, &first, &last);
  rows_ = rows;
  width_ = shape.inputs();
  first_width_ = (last - first) / width_;
  by_column_ = false;
}

template <class Scalar>
void InputBatch<Scalar>::assign(const NetworkShape& shape, const Scalar* x, Index rows,
                                bool dense) {
  const bool may_be_sparse = !dense && likely_background(shape, x, rows);
  start(shape, rows);
  x_ = x;
  sparse_ = may_be_sparse && find_entries();
}

template <class Scalar>
const Scalar* InputBatch<Scalar>::likely_background(const NetworkShape& shape, const Scalar* x,
                                                    Index rows) {
  start(shape, rows);
  x_ = x;
  const bool likely = first_layer() == FirstLayer::kAuto && width_ >= kFewestColumns &&
                      rows >= kFewestRows && find_background() && may_have_few_entries();
  return likely ? background_.data() : nullptr;
}

// The value of each column that most of some rows have, by a vote of Boyer & Moore (1981). Any finite
// background gives the same products; a common one leaves few entries.
template <class Scalar>
bool InputBatch<Scalar>::find_background() {
  background_.reserve(width_);
  votes_.reserve(width_);
  std::fill_n(votes_.data(), width_, 0);
  for (Index k = 0; k < kFewestRows; ++k) {
    const Scalar* row = x_ + k * rows_ / kFewestRows * width_;
    for (Index i = 0; i < width_; ++i) {
      if (votes_.data()[i] == 0) background_.data()[i] = row[i];
      votes_.data()[i] += row[i] == background_.data()[i] ? 1 : -1;
    }
  }
  const Scalar* b = background_.data();
  has_background_ = std::any_of(b, b + width_, [](Scalar value) { return value != Scalar(0); });
  return std::all_of(b, b + width_, [](Scalar value) { return std::isfinite(value); });
}

// A look at some rows: where they have twice as many entries as are worth it, the batch is dense, and
// takes no memory for entries.
template <class Scalar>
bool InputBatch<Scalar>::may_have_few_entries() {
  columns_.reserve(width_ + kEntrySlack);
  values_.reserve(width_ + kEntrySlack);
  Index count = 0;
  for (Index k = 0; k < kFewestRows; ++k)
    count +=
        kernels<Scalar>().find_entries(width_, x_ + k * rows_ / kFewestRows * width_,
                                       background_.data(), width_, columns_.data(), values_.data());
  return count <= 2 * kFewestRows * most_entries(width_);
}

// False, with nothing to use, where there are more entries than are worth it.
template <class Scalar>
bool InputBatch<Scalar>::find_entries() {
  const Index most = rows_ * most_entries(width_);
  starts_.reserve(rows_ + 1);
  columns_.reserve(most + kEntrySlack);
  values_.reserve(most + kEntrySlack);
  starts_.data()[0] = 0;
  one_entry_ = true;
  for (Index n = 0; n < rows_; ++n) {
    const Index begin = starts_.data()[n];
    const Index count =
        kernels<Scalar>().find_entries(width_, x_ + n * width_, background_.data(), most - begin,
                                       columns_.data() + begin, values_.data() + begin);
    if (begin + count > most) return false;
    one_entry_ = one_entry_ && count <= 1;
    starts_.data()[n + 1] = begin + count;
  }
  return true;
}

template <class Scalar>
void InputBatch<Scalar>::gather(const NetworkShape& shape, const InputBatch& from,
                                const std::int64_t* rows, Index count) {
  start(shape, count);
  sparse_ = from.sparse_;
  if (!sparse_) {
    x_ = gather_rows(from.x_, rows, count, width_, gathered_);
    return;
  }
  x_ = nullptr;
  has_background_ = from.has_background_;
  one_entry_ = from.one_entry_;
  background_.reserve(width_);
  std::copy_n(from.background_.data(), width_, background_.data());

  Index size = 0;
  for (Index i = 0; i < count; ++i)
    size += from.starts_.data()[rows[i] + 1] - from.starts_.data()[rows[i]];
  starts_.reserve(count + 1);
  columns_.reserve(size);
  values_.reserve(size);
  Index at = 0;
  for (Index i = 0; i < count; ++i) {
    const Index begin = from.starts_.data()[rows[i]];
    const Index entries = from.starts_.data()[rows[i] + 1] - begin;
    starts_.data()[i] = at;
    std::copy_n(from.columns_.data() + begin, entries, columns_.data() + at);
    std::copy_n(from.values_.data() + begin, entries, values_.data() + at);
    at += entries;
  }
  starts_.data()[count] = at;
}

template <class Scalar>
Index InputBatch<Scalar>::work(const NetworkShape& shape, Index n_parameters) const {
  if (!sparse_) return n_parameters;
  const Index entries = (starts_.data()[rows_] + rows_ - 1) / rows_;
  return n_parameters + (entries - width_) * shape.sizes[1];
}

template <class Scalar>
Tile<Scalar> InputBatch<Scalar>::tile(Index begin, Index rows, const Scalar* activations) {
  Tile<Scalar> tile{x_ ? x_ + begin * width_ : nullptr, rows, activations};
  if (!sparse_) return tile;
  tile.sparse = rows_from(begin);
  if (by_column_) tile.first_delta = first_delta_.data() + begin * first_width_;
  return tile;
}

template <class Scalar>
const Scalar* InputBatch<Scalar>::base(const NetworkShape& shape, const Scalar* packed,
                                       AlignedBuffer<Scalar>& row) const {
  if (!sparse_) return nullptr;
  if (!has_background_) return packed;  // b, which comes first
  row.reserve(first_width_);
  kernels<Scalar>().first_layer_base(shape, packed, background_.data(), row.data());
  return row.data();
}

template <class Scalar>
void InputBatch<Scalar>::forward(const NetworkShape& shape, const Scalar* packed,
                                 const Scalar* base, Index begin, Index rows, Scalar* activations,
                                 Scalar* outputs) const {
  if (sparse_)
    kernels<Scalar>().forward_sparse(shape, packed, base, rows_from(begin), rows, activations,
                                     outputs);
  else
    kernels<Scalar>().forward(shape, packed, x_ + begin * width_, width_, rows, activations,
                              outputs);
}

// The entries by column, those of a column in the order of their rows: a counting sort.
template <class Scalar>
void InputBatch<Scalar>::prepare_gradient() {
  if (!sparse_ || by_column_) return;
  first_delta_.reserve(rows_ * first_width_);
  const Index size = starts_.data()[rows_];
  column_starts_.reserve(width_ + 2);
  column_rows_.reserve(size);
  column_values_.reserve(size);
  // starts of column i at i + 2, so that after the entries are placed they stand at i
  Index* starts = column_starts_.data();
  std::fill_n(starts, width_ + 2, Index{0});
  for (Index k = 0; k < size; ++k) ++starts[columns_.data()[k] + 2];
  for (Index i = 2; i < width_ + 2; ++i) starts[i] += starts[i - 1];
  for (Index n = 0; n < rows_; ++n) {
    for (Index k = starts_.data()[n]; k < starts_.data()[n + 1]; ++k) {
      const Index to = starts[columns_.data()[k] + 1]++;
      column_rows_.data()[to] = static_cast<std::int32_t>(n);
      column_values_.data()[to] = values_.data()[k];
    }
  }
  by_column_ = true;
}

template <class Scalar>
void InputBatch<Scalar>::moments(const Tiling& tiling, Index every, InputMoments& of) const {
  const auto O = static_cast<std::size_t>(width_);
  for (std::vector<double>* sums : {&of.mean, &of.offset, &of.squares}) sums->assign(O, 0.0);
  double rows = 0.0;
  for (Index tile = 0; tile < tiling.tiles; tile += every) {
    const Index begin = tiling.tile_begin(tile), end = begin + tiling.tile_rows(tile);
    rows += static_cast<double>(end - begin);
    for (Index k = starts_.data()[begin]; k < starts_.data()[end]; ++k) {
      const auto i = static_cast<std::size_t>(columns_.data()[k]);
      const double value = static_cast<double>(values_.data()[k]);
      of.offset[i] += value;
      of.squares[i] += value * value;
    }
  }
  for (std::size_t i = 0; i < O; ++i) {
    of.offset[i] /= rows;
    of.squares[i] /= rows;
    of.mean[i] = static_cast<double>(background_.data()[i]) + of.offset[i];
  }
}

template <class Scalar>
void InputBatch<Scalar>::finish_gradient(const NetworkShape& shape, int threads,
                                         Scalar* gradient) const {
  if (!sparse_) return;
  const SparseRows<Scalar> by_column{column_starts_.data(), column_rows_.data(),
                                     column_values_.data()};
  parallel_for((width_ + kColumnsAtOnce - 1) / kColumnsAtOnce, threads, [&](Index range, int) {
    const Index begin = range * kColumnsAtOnce;
    kernels<Scalar>().first_layer_gradient(shape, by_column, background_.data(),
                                           first_delta_.data(), begin,
                                           std::min(width_, begin + kColumnsAtOnce), gradient);
  });
}

template <class Scalar>
bool sums_columns(const Scalar* x, Index rows, Index width) {
  NetworkShape shape;  // of no layers: only its inputs matter
  shape.sizes[0] = static_cast<int>(width);
  InputBatch<Scalar> batch;
  batch.assign(shape, x, rows);
  return batch.sparse();
}

Index rows_looked_at() { return kFewestRows; }

bool are_few_entries(Index entries, Index rows, Index width) {
  return entries <= rows * most_entries(width);
}

template <class Scalar>
bool likely_background(const Scalar* looked_at, Index width, Scalar* background) {
  NetworkShape shape;  // as above
  shape.sizes[0] = static_cast<int>(width);
  InputBatch<Scalar> batch;
  const Scalar* found = batch.likely_background(shape, looked_at, kFewestRows);
  if (found) std::copy_n(found, width, background);
  return found != nullptr;
}

template <class Scalar>
Index count_entries(const Scalar* x, Index rows, Index width, const Scalar* background) {
  AlignedBuffer<std::int32_t> columns(width + kEntrySlack);
  AlignedBuffer<Scalar> values(width + kEntrySlack);
  Index count = 0;
  for (Index n = 0; n < rows; ++n)
    count += kernels<Scalar>().find_entries(width, x + n * width, background, width, columns.data(),
                                            values.data());
  return count;
}

template bool likely_background(const float*, Index, float*);
template bool likely_background(const double*, Index, double*);
template Index count_entries(const float*, Index, Index, const float*);
template Index count_entries(const double*, Index, Index, const double*);
template class InputBatch<float>;
template class InputBatch<double>;
template bool sums_columns(const float*, Index, Index);
template bool sums_columns(const double*, Index, Index);

}  // namespace trpo_fast
