// The register-tiled product under every pass.
//
//   C (m x n) = epilogue( init + sum_i A_i (m x k_i) B_i (k_i x n) )
//
// Rows of C are samples (or features, for gradients) whose entries of A are broadcast; columns of C
// lie in the lanes of vector registers. B is read row by row: nothing is packed here, because
// packing.h lays the weights out for it once. The sum over k runs in order for each entry, so the bits
// of a row never depend on the row's place in a tile.
//
// Every name here has internal linkage, because this header is compiled once per instruction-set level
// and the linker must never merge two of them.
#pragma once

#include <Eigen/Core>

#include "kernel_table.h"

#if defined(__GNUC__) && !defined(__clang__)
#define TRPO_FAST_UNROLL _Pragma("GCC unroll 16")
#elif defined(__clang__)
#define TRPO_FAST_UNROLL _Pragma("unroll")
#else
#define TRPO_FAST_UNROLL
#endif

namespace trpo_fast {
namespace {

namespace ei = Eigen::internal;

template <class Scalar>
using PacketOf = typename ei::packet_traits<Scalar>::type;

template <class Scalar>
inline constexpr Index kLanes = ei::packet_traits<Scalar>::size;

// The blocks below keep 24 sums in the 32 vector registers of AVX-512 and NEON, 12 where there are 16.
#if defined(EIGEN_VECTORIZE_AVX512) || defined(EIGEN_VECTORIZE_NEON)
inline constexpr int kWideVectors = 4;
inline constexpr int kRowsAtTwoVectors = 12;
#else
inline constexpr int kWideVectors = 2;
inline constexpr int kRowsAtTwoVectors = 6;
#endif

template <class Scalar>
constexpr Index padded(Index n) {
  return (n + kLanes<Scalar> - 1) / kLanes<Scalar> * kLanes<Scalar>;
}

inline constexpr Index kCacheLine = 64;

// Asks for a cache line in the second-level cache. An address that cannot be read does no harm.
EIGEN_ALWAYS_INLINE void read_ahead([[maybe_unused]] const char* line) {
#if defined(__GNUC__)
  __builtin_prefetch(line, /*write=*/0, /*locality=*/2);
#endif
}

// How A is stored: row by row (a + m * stride + k), or column by column (a + k * stride + m).
enum class Order { kRows, kColumns };

template <class Scalar>
struct Product {
  const Scalar* a;
  Index a_stride;
  const Scalar* b;
  Index b_stride;
  Index k;
};

enum class Initial { kZero, kRow, kAccumulate };  // 0, a row added to all rows (bias), C itself
enum class Epilogue { kStore, kTimes, kTimesOneMinusSquare };  // C, C * D, C * (1 - D^2)

template <class Scalar>
struct MatmulTask {
  Index rows;
  Index columns;  // a multiple of the lanes
  Product<Scalar> products[2];
  int n_products = 1;
  Initial initial = Initial::kZero;
  const Scalar* initial_row = nullptr;
  Epilogue epilogue = Epilogue::kStore;
  const Scalar* factor = nullptr;  // D
  Index factor_stride = 0;
  Scalar* c;
  Index c_stride;
  ReadAhead* ahead = nullptr;  // memory that the caller will read next; may be null
};

// The entries of C in kRows rows from `row` on and kVectors vector registers from `column` on.
template <class Scalar, Order kOrder, int kRows, int kVectors>
EIGEN_ALWAYS_INLINE void multiply_block(const MatmulTask<Scalar>& task, Index row, Index column) {
  using Packet = PacketOf<Scalar>;
  constexpr Index lanes = kLanes<Scalar>;
  Packet sum[kRows][kVectors];
  Scalar* c = task.c + row * task.c_stride + column;

  // start from zero, from the bias, or from what C holds
  if (task.initial == Initial::kAccumulate) {
    TRPO_FAST_UNROLL
    for (int m = 0; m < kRows; ++m) {
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v)
        sum[m][v] = ei::pload<Packet>(c + m * task.c_stride + v * lanes);
    }
  } else if (task.initial == Initial::kRow) {
    TRPO_FAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Packet start = ei::pload<Packet>(task.initial_row + column + v * lanes);
      TRPO_FAST_UNROLL
      for (int m = 0; m < kRows; ++m) sum[m][v] = start;
    }
  } else {
    TRPO_FAST_UNROLL
    for (int m = 0; m < kRows; ++m) {
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[m][v] = ei::pset1<Packet>(Scalar(0));
    }
  }

  // With each row of B ask for kAheadStep bytes that the caller will read next, in proportion to the
  // multiplications. Where there is nothing to ask for, the same line of C is named over and over,
  // which costs less than a branch.
  constexpr Index kAheadStep = kRows * kVectors * Index{sizeof(Packet)} / 12;
  const bool reads_ahead = task.ahead && task.ahead->at < task.ahead->end;
  const char* ahead = reads_ahead ? task.ahead->at : reinterpret_cast<const char*>(c);
  const Index ahead_step = reads_ahead ? kAheadStep : 0;

  // sum += A B, one row of B at a time
  for (int i = 0; i < task.n_products; ++i) {
    const Product<Scalar>& p = task.products[i];
    const Scalar* a = kOrder == Order::kRows ? p.a + row * p.a_stride : p.a + row;
    const Scalar* b = p.b + column;
    const Index a_stride = p.a_stride;
    const Index b_stride = p.b_stride;
    for (Index k = p.k; k > 0; --k) {
      read_ahead(ahead);
      if constexpr (kAheadStep > kCacheLine) read_ahead(ahead + kCacheLine);
      ahead += ahead_step;
      Packet b_row[kVectors];
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) b_row[v] = ei::pload<Packet>(b + v * lanes);
      TRPO_FAST_UNROLL
      for (int m = 0; m < kRows; ++m) {
        const Packet a_entry = ei::pset1<Packet>(kOrder == Order::kRows ? a[m * a_stride] : a[m]);
        TRPO_FAST_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[m][v] = ei::pmadd(a_entry, b_row[v], sum[m][v]);
      }
      a += kOrder == Order::kRows ? 1 : a_stride;
      b += b_stride;
    }
  }

  if (reads_ahead) task.ahead->at = ahead;

  // multiply by the activation's derivative while the sums are in registers
  if (task.epilogue != Epilogue::kStore) {
    const Scalar* d = task.factor + row * task.factor_stride + column;
    TRPO_FAST_UNROLL
    for (int m = 0; m < kRows; ++m) {
      TRPO_FAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const Packet factor = ei::pload<Packet>(d + m * task.factor_stride + v * lanes);
        if (task.epilogue == Epilogue::kTimes) {
          sum[m][v] = ei::pmul(sum[m][v], factor);
        } else {  // tanh'(z) = 1 - tanh(z)^2
          const Packet one = ei::pset1<Packet>(Scalar(1));
          sum[m][v] = ei::pmul(sum[m][v], ei::psub(one, ei::pmul(factor, factor)));
        }
      }
    }
  }
  TRPO_FAST_UNROLL
  for (int m = 0; m < kRows; ++m) {
    TRPO_FAST_UNROLL
    for (int v = 0; v < kVectors; ++v) ei::pstore(c + m * task.c_stride + v * lanes, sum[m][v]);
  }
}

// All rows from `row` on of one stripe of kVectors vector registers: blocks of kRows rows, then of half
// as many, ..., 1.
template <class Scalar, Order kOrder, int kRows, int kVectors>
EIGEN_DONT_INLINE void multiply_stripe(const MatmulTask<Scalar>& task, Index row, Index column) {
  for (; row + kRows <= task.rows; row += kRows)
    multiply_block<Scalar, kOrder, kRows, kVectors>(task, row, column);
  if constexpr (kRows > 1) {
    if (row < task.rows)
      multiply_stripe<Scalar, kOrder, (kRows == 3 ? 1 : kRows / 2), kVectors>(task, row, column);
  }
}

template <class Scalar, Order kOrder>
void multiply(const MatmulTask<Scalar>& task) {
  constexpr Index lanes = kLanes<Scalar>;
  Index column = 0;
  if constexpr (kWideVectors == 4) {
    for (; column + 4 * lanes <= task.columns; column += 4 * lanes)
      multiply_stripe<Scalar, kOrder, 6, 4>(task, 0, column);
  }
  for (; column + 2 * lanes <= task.columns; column += 2 * lanes)
    multiply_stripe<Scalar, kOrder, kRowsAtTwoVectors, 2>(task, 0, column);
  if (column < task.columns) multiply_stripe<Scalar, kOrder, 12, 1>(task, 0, column);
}

}  // namespace
}  // namespace trpo_fast
