#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

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
std::atomic<int> most_granted{0};  // threads that the system let a loop have, where it refused more

// Largest team that a loop of this thread has had since its threads were last ended.
thread_local int largest_team = 1;

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

int granted_num_threads() { return most_granted.load(); }

int usable_threads() {
  if (forked_after_pool.load()) return 1;
  const int most = most_granted.load();
  return most > 0 ? std::min(most, num_threads()) : num_threads();
}

// OpenMP ends the process where it cannot start a thread, so as many as a larger team needs are started
// here first, all at once, and ended again.
int granted_threads(int threads) {
  if (const int most = most_granted.load(); most > 0) threads = std::min(threads, most);
  if (threads <= largest_team) return threads;
  std::mutex mutex;
  std::condition_variable condition;
  bool may_end = false;
  std::vector<std::thread> started;
  started.reserve(static_cast<std::size_t>(threads - largest_team));
  try {
    while (largest_team + static_cast<int>(started.size()) < threads)
      started.emplace_back([&] {
        std::unique_lock lock(mutex);
        condition.wait(lock, [&] { return may_end; });
      });
  } catch (const std::system_error&) {
    most_granted.store(largest_team + static_cast<int>(started.size()));
  }
  {
    const std::lock_guard lock(mutex);
    may_end = true;
  }
  condition.notify_all();
  for (std::thread& thread : started) thread.join();
  largest_team += static_cast<int>(started.size());
  return largest_team;
}

void rest_threads() {
#if defined(_OPENMP)
  if (pool_started.load() && !forked_after_pool.load() && !omp_in_parallel()) {
    omp_pause_resource(omp_pause_soft, omp_get_initial_device());
    largest_team = 1;
  }
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
