// The rows of a batch as the first layer takes them: dense, or, where that is faster, as sums of columns.
//
// N rows, O observation width, H' units of the first hidden layer, padded
#pragma once

#include <cstdint>

#include "aligned.h"
#include "dispatch.h"
#include "tiling.h"
#include "trpo_fast/first_layer.h"
#include "trpo_fast/kronecker.h"

namespace trpo_fast {

// Narrower rows are dense whatever they hold: their first layer takes too little of the time.
inline constexpr Index kFewestColumns = 64;

// Fewer rows have no background worth looking for; so many are looked at for one.
inline constexpr Index kFewestRows = 32;

// Entries of a row of this width that are worth a sum of columns: each costs some eight dense ones.
inline Index most_entries(Index width) { return width / 8; }

template <class Scalar>
class InputBatch {
 public:
  // Takes rows x (N x O, borrowed) and decides. What is decided, and every number that follows, depends
  // on the rows alone, never on the machine or its threads; `dense` decides beforehand.
  void assign(const NetworkShape& shape, const Scalar* x, Index rows, bool dense = false);
  // The first steps of that decision: what is taken off every row, by a look at some of them; null where
  // the rows are dense.
  const Scalar* likely_background(const NetworkShape& shape, const Scalar* x, Index rows);
  // Takes rows[0], ..., rows[count - 1] of another batch, in its form.
  void gather(const NetworkShape& shape, const InputBatch& from, const std::int64_t* rows,
              Index count);

  bool sparse() const { return sparse_; }
  // Whether no row has more than one entry, as those of a Discrete space.
  bool one_entry() const { return sparse_ && one_entry_; }
  // Multiply-adds of a row, of the n_parameters that a dense pass would take: what tiling.h cuts by.
  Index work(const NetworkShape& shape, Index n_parameters) const;

  // Rows begin, ..., begin + rows - 1, for passes that may write to this batch's part of them.
  Tile<Scalar> tile(Index begin, Index rows, const Scalar* activations);
  // W background + b at packed parameters or directions, in `row`; null for dense rows.
  const Scalar* base(const NetworkShape& shape, const Scalar* packed,
                     AlignedBuffer<Scalar>& row) const;
  // As the kernel's `forward`, of those rows; base as above.
  void forward(const NetworkShape& shape, const Scalar* packed, const Scalar* base, Index begin,
               Index rows, Scalar* activations, Scalar* outputs) const;

  // What the adjoints of sparse rows need: called before them, and after those of all rows, when the
  // packed gradient holds everything but the weights of the first layer.
  void prepare_gradient();
  void finish_gradient(const NetworkShape& shape, int threads, Scalar* gradient) const;

  // Means over every tile whose number is a multiple of `every`, of rows with one entry.
  void moments(const Tiling& tiling, Index every, InputMoments& of) const;

  // What was taken off every row (O); null for dense rows.
  const Scalar* background() const { return sparse_ ? background_.data() : nullptr; }

 private:
  void start(const NetworkShape& shape, Index rows);
  bool find_background();
  bool may_have_few_entries();
  bool find_entries();
  SparseRows<Scalar> rows_from(Index begin) const {
    return {starts_.data() + begin, columns_.data(), values_.data(), one_entry_};
  }

  bool sparse_ = false, one_entry_ = false, by_column_ = false;
  const Scalar* x_ = nullptr;
  Index rows_ = 0, width_ = 0, first_width_ = 0;  // N, O, H'
  AlignedBuffer<Scalar> gathered_;                // dense rows of a gather
  AlignedBuffer<Scalar> background_;              // O
  AlignedBuffer<int> votes_;                      // O
  bool has_background_ = false;                   // it is not all zeros
  // the entries by row, and by column with the numbers of their rows
  AlignedBuffer<Index> starts_, column_starts_;
  AlignedBuffer<std::int32_t> columns_, column_rows_;
  AlignedBuffer<Scalar> values_, column_values_;
  AlignedBuffer<Scalar> first_delta_;  // N x H'
};

}  // namespace trpo_fast
