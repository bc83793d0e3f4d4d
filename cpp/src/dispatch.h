// The kernels of the instruction-set level in use (simd_level() in runtime.h), chosen at the first call.
#pragma once

#include "kernel_table.h"

namespace trpo_fast {

template <class Scalar>
const KernelTable<Scalar>& kernels();

}  // namespace trpo_fast
