// Sentences with numbers, and times.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace trpo_fast {

// As std::printf, into a string of at most 319 characters.
template <class... Numbers>
std::string format(const char* text, Numbers... numbers) {
  char line[320];
  std::snprintf(line, sizeof(line), text, numbers...);
  return line;
}

class Stopwatch {
 public:
  // Seconds since it was made.
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace trpo_fast
