#include "trpo_fast/line_forwarder.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <thread>

namespace trpo_fast {
namespace {

constexpr int kPatienceMilliseconds = 200;  // for the end of a line
constexpr std::size_t kLongestLine = 4000;  // what one write puts out in one piece, and less
constexpr std::size_t kBufferSize = 1 << 16;

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

void pump(int from, int to, const std::string& prefix) {
  std::string line;
  std::string buffer(kBufferSize, '\0');
  const auto put_out = [&] {
    write_all(to, prefix + line + "\n");
    line.clear();
  };
  for (;;) {
    // wait for more, and not long if a line has begun
    pollfd readable{from, POLLIN, 0};
    const int ready = poll(&readable, 1, line.empty() ? -1 : kPatienceMilliseconds);
    if (ready == 0) {
      put_out();
      continue;
    }
    const ssize_t n = ready < 0 ? -1 : read(from, buffer.data(), buffer.size());
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) break;

    // cut it into lines
    for (ssize_t i = 0; i < n; ++i) {
      const char c = buffer[static_cast<std::size_t>(i)];
      if (c != '\n') line += c;
      if (c == '\n' || line.size() >= kLongestLine) put_out();
    }
  }
  if (!line.empty()) put_out();
}

}  // namespace

void forward_lines(int from, int to, const std::string& prefix) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  // Signals are for the other threads: the new one inherits that it takes none.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread(pump, from, to, prefix).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace trpo_fast
