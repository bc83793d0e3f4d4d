// The first layer on sparse rows: sums of columns instead of a dense product.
//
// kernel_table.h says what sparse rows are.
#pragma once

#include <algorithm>

#include "layout.h"
#include "matmul.h"

namespace trpo_fast {
namespace {

// C = epilogue( scale_m initial_row + A B ), with sparse rows A: each row of C is a sum of rows of B.
template <class Scalar>
struct SparseTask {
  Index rows;
  Index columns;  // of B and C, a multiple of the lanes
  SparseRows<Scalar> a;
  const Scalar* b;  // rows `columns` apart
  const Scalar* initial_row;
  const Scalar* initial_scale = nullptr;  // one a row; null: 1
  Epilogue epilogue = Epilogue::kStore;
  const Scalar* factor = nullptr;  // D, rows `columns` apart
  Scalar* c;                       // rows `columns` apart
};

// All rows from column j on, in stripes of kVectors vector registers, then of half as many, ..., 1. A
// sum runs over the entries in order, in blocks of kBlock, so that long ones lose few digits.
template <class Scalar, int kVectors>
void multiply_sparse_stripes(const SparseTask<Scalar>& task, Index j) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>, kBlock = 128;
  for (; j + kVectors * lanes <= task.columns; j += kVectors * lanes) {
    for (Index m = 0; m < task.rows; ++m) {
      const Packet scale =
          ei::pset1<Packet>(task.initial_scale ? task.initial_scale[m] : Scalar(1));
      Packet sum[kVectors];
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v)
        sum[v] = ei::pmul(scale, ei::pload<Packet>(task.initial_row + j + v * lanes));
      for (Index k0 = task.a.starts[m]; k0 < task.a.starts[m + 1]; k0 += kBlock) {
        Packet block[kVectors];
        TRPO_FAST_UNROLL
        for (int v = 0; v < kVectors; ++v) block[v] = ei::pset1<Packet>(Scalar(0));
        for (Index k = k0; k < std::min(task.a.starts[m + 1], k0 + kBlock); ++k) {
          const Scalar* row = task.b + task.a.columns[k] * task.columns + j;
          const Packet value = ei::pset1<Packet>(task.a.values[k]);
          TRPO_FAST_UNROLL
          for (int v = 0; v < kVectors; ++v)
            block[v] = ei::pmadd(value, ei::pload<Packet>(row + v * lanes), block[v]);
        }
        TRPO_FAST_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[v] = ei::padd(sum[v], block[v]);
      }
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        if (task.epilogue != Epilogue::kStore) {
          const Packet d = ei::pload<Packet>(task.factor + m * task.columns + j + v * lanes);
          const Packet one = ei::pset1<Packet>(Scalar(1));
          sum[v] = ei::pmul(sum[v],
                            task.epilogue == Epilogue::kTimes ? d : ei::psub(one, ei::pmul(d, d)));
        }
        ei::pstore(task.c + m * task.columns + j + v * lanes, sum[v]);
      }
    }
  }
  if constexpr (kVectors > 1) {
    if (j < task.columns) multiply_sparse_stripes<Scalar, kVectors / 2>(task, j);
  }
}

template <class Scalar>
void multiply_sparse(const SparseTask<Scalar>& task) {
  multiply_sparse_stripes<Scalar, kWideVectors>(task, 0);
}

// The product of a first layer in the form for sparse rows. Its factor, if any, has the width of C.
template <class Scalar>
SparseTask<Scalar> sparse_form(const MatmulTask<Scalar>& dense, const SparseRows<Scalar>& a,
                               const Scalar* base) {
  SparseTask<Scalar> task{};
  task.rows = dense.rows;
  task.columns = dense.columns;
  task.a = a;
  task.b = dense.products[0].b;
  task.initial_row = base;
  task.epilogue = dense.epilogue;
  task.factor = dense.factor;
  task.c = dense.c;
  return task;
}

template <class Scalar>
void first_layer_base(const NetworkShape& shape, const Scalar* packed, const Scalar* background,
                      Scalar* base) {
  const LayerOffsets o = packed_offsets<Scalar>(shape, 0);
  MatmulTask<Scalar> task{};
  task.rows = 1;
  task.columns = task.c_stride = padded<Scalar>(shape.sizes[1]);
  task.products[0] = {background, shape.inputs(), packed + o.forward, task.columns, shape.inputs()};
  task.initial = Initial::kRow;
  task.initial_row = packed + o.bias;
  task.c = base;
  multiply<Scalar, Order::kRows>(task);
}

template <class Scalar>
Index find_entries(Index width, const Scalar* x, const Scalar* background, Index most,
                   std::int32_t* columns, Scalar* values) {
  // blocks as wide as one comparison; in a block that differs somewhere every entry is written, and the
  // next one over it where it was none
  Index count = 0;
  for (Index i0 = 0; i0 < width; i0 += kEntrySlack) {
    const Index i1 = std::min(width, i0 + kEntrySlack);
    int differs = 0;
    for (Index i = i0; i < i1; ++i) differs |= static_cast<int>(x[i] != background[i]);
    if (differs == 0) continue;
    for (Index i = i0; i < i1; ++i) {
      columns[count] = static_cast<std::int32_t>(i);
      values[count] = x[i] - background[i];
      count += static_cast<Index>(x[i] != background[i]);
    }
    if (count > most) return most + 1;
  }
  return count;
}

template <class Scalar>
void first_weights(const NetworkShape& shape, Index* begin, Index* end) {
  const LayerOffsets o = gradient_offsets<Scalar>(shape, 0);
  *begin = o.forward;
  *end = o.end;
}

template <class Scalar>
void first_layer_gradient(const NetworkShape& shape, const SparseRows<Scalar>& by_column,
                          const Scalar* background, const Scalar* first_delta, Index begin,
                          Index end, Scalar* gradient) {
  const LayerOffsets o = gradient_offsets<Scalar>(shape, 0);
  const Index columns = padded<Scalar>(shape.sizes[1]);
  SparseTask<Scalar> task{};
  task.rows = end - begin;
  task.columns = columns;
  task.a = by_column;
  task.a.starts += begin;
  task.b = first_delta;
  task.initial_row = gradient + o.bias;
  task.initial_scale = background + begin;
  task.c = gradient + o.forward + begin * columns;
  multiply_sparse(task);
}

}  // namespace
}  // namespace trpo_fast
