// Instruction-set levels and threads: what this process runs on.
#pragma once

#include <string>
#include <vector>

namespace trpo_fast {

// Levels that are compiled in and that this processor and operating system can run, lowest first.
std::vector<std::string> available_simd_levels();

// The level in use: the highest available one, or TRPO_FAST_SIMD_LEVEL. Decided at first use.
// Throws std::runtime_error with a sentence if the variable names a level this machine lacks.
const std::string& simd_level();

// Threads of the core alone; other libraries' OpenMP settings are neither read later nor changed.
// The default is the smallest of OMP_NUM_THREADS, the processor affinity and the cgroup's limit.
int num_threads();
void set_num_threads(int n);  // throws std::invalid_argument unless n >= 1
int default_num_threads();

// Threads that the system (a limit of processes, memory) has let a parallel loop have, where it refused as
// many as were asked for; 0 where it never did. Loops keep to that number from then on.
int granted_num_threads();

// Ends the threads that the calling thread's parallel loops have started. Left alone they spin for
// milliseconds after each loop, on processors that other processes could use. The next loop starts them
// again, in a fraction of a millisecond.
void rest_threads();

std::string compiler_version();
std::string eigen_version();

}  // namespace trpo_fast
