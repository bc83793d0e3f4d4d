// A growing block of memory aligned for the kernels. Contents are not kept when it grows.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#include "kernel_table.h"

namespace trpo_fast {

template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(Index size) { reserve(size); }

  // Grows to hold `size` items; a no-op when it already does.
  void reserve(Index size) {
    if (size <= size_) return;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    data_.reset(static_cast<T*>(::operator new[](bytes, std::align_val_t{kAlignment})));
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
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<T[], Free> data_;
  Index size_ = 0;
};

}  // namespace trpo_fast
