#include "trpo_fast/rng.h"

#include <cmath>

namespace trpo_fast {

std::array<std::uint32_t, 4> philox_block(std::uint64_t seed, std::uint32_t environment,
                                          std::uint64_t step, std::uint32_t draw) {
  std::array<std::uint32_t, 4> c = {draw, environment, static_cast<std::uint32_t>(step),
                                    static_cast<std::uint32_t>(step >> 32)};
  std::uint32_t k0 = static_cast<std::uint32_t>(seed);
  std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

void CounterStream::refill() {
  const auto w = philox_block(seed_, environment_, step_, draw_++);
  const auto to_unit = [](std::uint32_t high, std::uint32_t low) {
    return (static_cast<double>(high >> 5) * 67108864.0 + static_cast<double>(low >> 6)) /
           9007199254740992.0;
  };
  uniforms_[0] = to_unit(w[0], w[1]);
  uniforms_[1] = to_unit(w[2], w[3]);
  uniforms_left_ = 2;
}

double CounterStream::uniform() {
  if (uniforms_left_ == 0) refill();
  return uniforms_[2 - uniforms_left_--];
}

double CounterStream::normal() {
  if (has_normal_) {
    has_normal_ = false;
    return next_normal_;
  }
  refill();
  uniforms_left_ = 0;
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniforms_[0]));
  const double angle = 6.283185307179586476925286766559 * uniforms_[1];
  next_normal_ = radius * std::sin(angle);
  has_normal_ = true;
  return radius * std::cos(angle);
}

void shuffle(std::uint64_t seed, std::uint32_t epoch, std::int64_t n, std::int64_t* order) {
  for (std::int64_t i = 0; i < n; ++i) order[i] = i;
  std::array<std::uint32_t, 4> words{};
  std::int64_t drawn = 0;
  for (std::int64_t i = n - 1; i > 0; --i, ++drawn) {
    if (drawn % 4 == 0)
      words = philox_block(seed, epoch, static_cast<std::uint64_t>(drawn / 4), 0x5A0FF1Eu);
    // floor(w (i + 1) / 2^32): uniform on 0 ... i up to i / 2^32
    const std::uint64_t w = words[static_cast<std::size_t>(drawn % 4)];
    const std::int64_t j = static_cast<std::int64_t>((w * static_cast<std::uint64_t>(i + 1)) >> 32);
    const std::int64_t kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
}

}  // namespace trpo_fast
