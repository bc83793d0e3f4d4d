#include "trpo_fast/line_forwarder.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

namespace trpo_fast {
namespace {

constexpr int kPatienceMilliseconds = 200;  // for the end of a line
constexpr std::size_t kLongestLine = 4000;  // what one write puts out in one piece, and less

// Writes all of it, or gives up where nobody reads.
void write_all(int to, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = write(to, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<std::size_t>(n);
  }
}

// `pending` is shared memory of kLineForwarderBytes, zero where nothing waits: what was read and not
// written yet stands at its beginning, so that it survives this process.
void pump(int from, int to, const std::string& prefix, char* pending) {
  std::size_t filled = 0;
  // writes the first n bytes as a line, and takes them and what follows them out of the buffer
  const auto put_out = [&](std::size_t n, std::size_t skipped) {
    write_all(to, prefix + std::string(pending, n) + "\n");
    const std::size_t rest = filled - n - skipped;
    std::memmove(pending, pending + n + skipped, rest);
    std::memset(pending + rest, 0, filled - rest);
    filled = rest;
  };
  for (;;) {
    // wait for more, and not long if a line has begun
    pollfd readable{from, POLLIN, 0};
    const int ready = poll(&readable, 1, filled == 0 ? -1 : kPatienceMilliseconds);
    if (ready == 0) {
      put_out(filled, 0);
      continue;
    }
    const ssize_t n = ready < 0 ? -1 : read(from, pending + filled, kLineForwarderBytes - filled);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) break;
    filled += static_cast<std::size_t>(n);

    // cut it into lines
    for (;;) {
      const void* end = std::memchr(pending, '\n', filled);
      if (end != nullptr) {
        put_out(static_cast<std::size_t>(static_cast<const char*>(end) - pending), 1);
      } else if (filled >= kLongestLine) {
        put_out(kLongestLine, 0);
      } else {
        break;
      }
    }
  }
  if (filled > 0) put_out(filled, 0);
}

}  // namespace

void forward_lines(int from, int to, const std::string& prefix, int pending) {
  void* memory = mmap(nullptr, kLineForwarderBytes, PROT_READ | PROT_WRITE, MAP_SHARED, pending, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("forward_lines: the buffer cannot be mapped");
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  // Signals are for the other threads: the new one inherits that it takes none.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(pump, from, to, prefix, static_cast<char*>(memory)).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace trpo_fast
