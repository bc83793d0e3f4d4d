// A growing block of memory aligned for the kernels. When it grows, its contents become zeros.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernel_table.h"

namespace trpo_fast {

// Blocks of at least this many bytes ask the system for huge pages: with ordinary ones a pass over a
// cached batch would look up a page's address at every other sample.
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(Index size) { reserve(size); }

  // Grows to hold `size` items; does nothing where it already does.
  void reserve(Index size) {
    if (size <= size_) return;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    const auto alignment = std::align_val_t{bytes < kHugePage ? kAlignment : kHugePage};
    data_ = {static_cast<T*>(::operator new[](bytes, alignment)), Free{alignment}};
#if defined(__linux__)
    if (bytes >= kHugePage) madvise(data_.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
    size_ = size;
  }
  void release() {
    data_.reset();
    size_ = 0;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  Index size() const { return size_; }

 private:
  struct Free {
    std::align_val_t alignment{kAlignment};
    void operator()(T* p) const { ::operator delete[](p, alignment); }
  };
  std::unique_ptr<T[], Free> data_;
  Index size_ = 0;
};

}  // namespace trpo_fast
