#include "dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "trpo_fast/runtime.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace trpo_fast {
namespace {

#if defined(__x86_64__)
// The state that the operating system saves at a context switch (XCR0).
unsigned long long saved_state() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE)) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

bool can_run_v3() {
  constexpr unsigned long long kYmm = 0x6;  // SSE and AVX registers
  return (saved_state() & kYmm) == kYmm && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

bool can_run_v4() {
  constexpr unsigned long long kZmm = 0xe6;  // those, and the mask and 512-bit registers
  return can_run_v3() && (saved_state() & kZmm) == kZmm && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

std::string choose_level() {
  const std::vector<std::string> levels = available_simd_levels();
  const char* forced = std::getenv("TRPO_FAST_SIMD_LEVEL");
  if (forced == nullptr || *forced == '\0') return levels.back();
  if (std::find(levels.begin(), levels.end(), forced) != levels.end()) return forced;
  std::string known;
  for (const std::string& level : levels) known += (known.empty() ? "" : ", ") + level;
  throw std::runtime_error("TRPO_FAST_SIMD_LEVEL: expected one of " + known +
                           " on this processor, got '" + forced +
                           "'; unset it to use the highest.");
}

}  // namespace

std::vector<std::string> available_simd_levels() {
#if defined(__x86_64__)
  std::vector<std::string> levels{"v2"};
  if (can_run_v3()) levels.push_back("v3");
  if (can_run_v4()) levels.push_back("v4");
  return levels;
#else
  return {"neon"};
#endif
}

std::string eigen_version() { return TRPO_FAST_EIGEN_VERSION; }

std::string compiler_version() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#else
  return "unknown";
#endif
}

const std::string& simd_level() {
  static const std::string level = choose_level();
  return level;
}

template <>
const KernelTable<float>& kernels<float>() {
#if defined(__x86_64__)
  static const KernelTable<float>& table = simd_level() == "v4"   ? kernels_v4_f32()
                                           : simd_level() == "v3" ? kernels_v3_f32()
                                                                  : kernels_v2_f32();
#else
  static const KernelTable<float>& table = kernels_neon_f32();
#endif
  return table;
}

template <>
const KernelTable<double>& kernels<double>() {
#if defined(__x86_64__)
  static const KernelTable<double>& table = simd_level() == "v4"   ? kernels_v4_f64()
                                            : simd_level() == "v3" ? kernels_v3_f64()
                                                                   : kernels_v2_f64();
#else
  static const KernelTable<double>& table = kernels_neon_f64();
#endif
  return table;
}

}  // namespace trpo_fast
