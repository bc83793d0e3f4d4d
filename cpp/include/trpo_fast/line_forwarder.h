// Lines of a pipe, forwarded with a prefix by a thread that needs nobody: no GIL, no Python.
#pragma once

#include <cstddef>
#include <string>

namespace trpo_fast {

// From now on, a thread reads the descriptor `from` until its end and writes what it reads to the
// descriptor `to`, each line with `prefix` before it and by one call. A line without an end is written
// after 0.2 seconds, with an end. C's stdout is buffered by line from now on, so nothing may have been
// printed to it before. The thread lives as long as the process; both descriptors stay open.
// What was read and not written yet stands at the beginning of the file `pending`, of
// kLineForwarderBytes, which is zero behind it: who holds the file can put it out after a crash.
inline constexpr std::size_t kLineForwarderBytes = 8192;
void forward_lines(int from, int to, const std::string& prefix, int pending);

}  // namespace trpo_fast
