// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011).
//
// A stream is named by (seed, environment); its position by (step, draw). No state is kept, so the
// numbers do not depend on who draws them, on how many threads, or in which order.
#pragma once

#include <array>
#include <cstdint>

namespace trpo_fast {

// One block of four 32-bit words: key = seed, counter = (draw, environment, step low, step high).
std::array<std::uint32_t, 4> philox_block(std::uint64_t seed, std::uint32_t environment,
                                          std::uint64_t step, std::uint32_t draw);

class CounterStream {
 public:
  CounterStream(std::uint64_t seed, std::uint32_t environment, std::uint64_t step)
      : seed_(seed), step_(step), environment_(environment) {}

  double uniform();  // in [0, 1), 53 bits; two a block
  double normal();   // Box-Muller on the two uniforms of a block; two a block

 private:
  void refill();

  std::uint64_t seed_;
  std::uint64_t step_;
  std::uint32_t environment_;
  std::uint32_t draw_ = 0;
  int uniforms_left_ = 0;
  double uniforms_[2] = {};
  bool has_normal_ = false;
  double next_normal_ = 0.0;
};

// signs (n of them, -1 or 1): Rademacher numbers, the bits a function of (seed, stream, index) alone.
template <class Scalar>
void random_signs(std::uint64_t seed, std::uint32_t stream, std::uint64_t index, int n,
                  Scalar* signs) {
  std::array<std::uint32_t, 4> bits{};
  for (int i = 0; i < n; ++i) {
    if (i % 128 == 0) bits = philox_block(seed, stream, index, static_cast<std::uint32_t>(i / 128));
    const std::uint32_t word = bits[static_cast<std::size_t>(i % 128 / 32)];
    signs[i] = (word >> (i % 32)) & 1u ? Scalar(1) : Scalar(-1);
  }
}

// order = a random permutation of 0 ... n-1 (Fisher-Yates), the bits a function of (seed, epoch) alone.
void shuffle(std::uint64_t seed, std::uint32_t epoch, std::int64_t n, std::int64_t* order);

}  // namespace trpo_fast
