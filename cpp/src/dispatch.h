// The kernel table of the level in use.
#pragma once

#include "kernel_table.h"

namespace trpo_fast {

template <class Scalar>
const KernelTable<Scalar>& kernels();

}  // namespace trpo_fast
