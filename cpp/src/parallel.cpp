#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "trpo_fast/runtime.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace trpo_fast {
namespace {

std::atomic<int> requested_threads{0};  // 0: not decided yet
std::atomic<bool> pool_started{false};
std::atomic<bool> forked_after_pool{false};

int affinity_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// Processors that the control group grants (quota / period, rounded up), or a large number.
int cgroup_threads() {
  double quota = -1, period = -1;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string word;
  if (v2 >> word >> period) {
    if (word != "max") quota = std::atof(word.c_str());
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    q >> quota;
    p >> period;
  }
  if (quota > 0 && period > 0) return std::max(1, static_cast<int>(std::ceil(quota / period)));
  return 1 << 20;
}

}  // namespace

int default_num_threads() {
  int n = std::min(affinity_threads(), cgroup_threads());
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const int asked = std::atoi(text);  // "4" or "4,2": the outermost level counts
    if (asked >= 1) n = std::min(n, asked);
  }
  return n;
}

int num_threads() {
  int n = requested_threads.load();
  if (n == 0) {
    n = default_num_threads();
    requested_threads.store(n);
  }
  return n;
}

void set_num_threads(int n) {
  if (n < 1)
    throw std::invalid_argument("n_threads: expected at least 1, got " + std::to_string(n) +
                                "; pass the number of threads the core may use.");
  requested_threads.store(n);
}

int usable_threads() { return forked_after_pool.load() ? 1 : num_threads(); }

void rest_threads() {
#if defined(_OPENMP)
  if (pool_started.load() && !forked_after_pool.load() && !omp_in_parallel())
    omp_pause_resource(omp_pause_soft, omp_get_initial_device());
#endif
}

void note_pool_started() {
  if (pool_started.exchange(true)) return;
#if defined(__unix__) || defined(__APPLE__)
  // A forked child has none of the pool's threads, so waiting for them would hang: it uses one thread.
  pthread_atfork(nullptr, nullptr, [] { forked_after_pool.store(true); });
#endif
}

}  // namespace trpo_fast
