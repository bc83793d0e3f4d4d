// The one parallel loop of the core; all OpenMP lives here. Callers cut their work into items that do not
// depend on the number of threads, let each item write memory of its own, and add up afterwards in a
// fixed order, so that the bits do not depend on the number of threads either.
#pragma once

#include "trpo_fast/network.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace trpo_fast {

// Threads that a parallel loop may use now: num_threads(), but 1 in a forked child whose parent had
// started the pool, because the pool's threads do not exist there, and no more than the system has granted.
int usable_threads();
// These two for parallel_for alone. The first returns `threads`, or fewer where the system refuses so many.
int granted_threads(int threads);
void note_pool_started();

// Calls body(item, thread) for every item, on at most `threads` threads, 0 <= thread < threads. `body` must
// not throw. Inside another parallel loop everything runs on the calling thread.
template <class Body>
void parallel_for(Index items, int threads, const Body& body) {
#if defined(_OPENMP)
  if (threads > items) threads = static_cast<int>(items);
  if (threads > 1 && !omp_in_parallel() && (threads = granted_threads(threads)) > 1) {
    note_pool_started();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (Index i = 0; i < items; ++i) body(i, omp_get_thread_num());
    return;
  }
#else
  (void)threads;
#endif
  for (Index i = 0; i < items; ++i) body(i, 0);
}

}  // namespace trpo_fast
