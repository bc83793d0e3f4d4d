// Chosen rows of an array, copied side by side.
#pragma once

#include <algorithm>
#include <cstdint>

#include "aligned.h"

namespace trpo_fast {

// Copies rows[0], ..., rows[count - 1] of `from` (dense, `width` items a row) to `to`, which grows as
// needed. Returns to.data(); `from` must not lie in `to`.
template <class T>
const T* gather_rows(const T* from, const std::int64_t* rows, Index count, Index width,
                     AlignedBuffer<T>& to) {
  to.reserve(count * width);
  for (Index i = 0; i < count; ++i)
    std::copy_n(from + static_cast<Index>(rows[i]) * width, width, to.data() + i * width);
  return to.data();
}

}  // namespace trpo_fast
