// The table of one instruction-set level.
//
// Compiled once per level (TRPO_FAST_LEVEL names it). Everything but the two table functions at the
// end, the headers included, has internal linkage, so that the linker can never mix levels.
#include "kernel_table.h"

#include "dense.h"
#include "elementwise.h"
#include "factors.h"
#include "jacobian.h"
#include "layout.h"
#include "packing.h"
#include "passes.h"
#include "sparse.h"

#define TRPO_FAST_STRING_(x) #x
#define TRPO_FAST_STRING(x) TRPO_FAST_STRING_(x)
#define TRPO_FAST_CONCAT_(a, b, c) a##b##c
#define TRPO_FAST_CONCAT(a, b, c) TRPO_FAST_CONCAT_(a, b, c)

namespace trpo_fast {
namespace {

template <class Scalar>
KernelTable<Scalar> make_table() {
  KernelTable<Scalar> table{};
  table.level = TRPO_FAST_STRING(TRPO_FAST_LEVEL);
  table.lanes = static_cast<int>(kLanes<Scalar>);
  table.packed_size = packed_size<Scalar>;
  table.gradient_size = gradient_size<Scalar>;
  table.activation_size = activation_size<Scalar>;
  table.scratch_size = scratch_size<Scalar>;
  table.output_stride = output_stride<Scalar>;
  table.pack = pack<Scalar>;
  table.pack_double = pack_double<Scalar>;
  table.forward = forward<Scalar>;
  table.forward_sparse = forward_sparse<Scalar>;
  table.first_layer_base = first_layer_base<Scalar>;
  table.find_entries = find_entries<Scalar>;
  table.first_layer_gradient = first_layer_gradient<Scalar>;
  table.first_weights = first_weights<Scalar>;
  table.jacobian_size = jacobian_size<Scalar>;
  table.jacobian = jacobian<Scalar>;
  table.tangent = tangent<Scalar>;
  table.adjoint = adjoint<Scalar>;
  table.has_factors = has_factors<Scalar>;
  table.factors_size = factors_size<Scalar>;
  table.first_factor_size = first_factor_size<Scalar>;
  table.factor_scratch_size = factor_scratch_size<Scalar>;
  table.add_factors = add_factors<Scalar>;
  table.unpack_factors = unpack_factors<Scalar>;
  if constexpr (sizeof(Scalar) == sizeof(double)) {
    table.dot = dot<Scalar>;
    table.product = product<Scalar>;
    table.invert = invert<Scalar>;
  }
  table.tree_sum = tree_sum<Scalar>;
  table.unpack_gradient = unpack_gradient<Scalar>;
  table.unpack = unpack<Scalar>;
  table.pack_gradient = pack_gradient<Scalar>;
  table.repack = repack<Scalar>;
  table.adam = adam<Scalar>;
  table.normalize = normalize<Scalar>;
  return table;
}

}  // namespace

const KernelTable<float>& TRPO_FAST_CONCAT(kernels_, TRPO_FAST_LEVEL, _f32)() {
  static const KernelTable<float> table = make_table<float>();
  return table;
}

const KernelTable<double>& TRPO_FAST_CONCAT(kernels_, TRPO_FAST_LEVEL, _f64)() {
  static const KernelTable<double> table = make_table<double>();
  return table;
}

}  // namespace trpo_fast
