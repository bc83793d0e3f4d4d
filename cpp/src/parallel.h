// All OpenMP lives here. Work is cut into items that do not depend on the number of threads; each
// item writes its own memory; nothing is reduced across threads.
#pragma once

#include "trpo_fast/network.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace trpo_fast {

// Threads a region may use now: 1 in a forked child whose parent had started the thread pool.
int usable_threads();
void note_pool_started();

// body(item, thread) for every item; thread < threads. body must not throw.
template <class Body>
void parallel_for(Index items, int threads, const Body& body) {
#if defined(_OPENMP)
  if (threads > items) threads = static_cast<int>(items);
  if (threads > 1 && !omp_in_parallel()) {
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
