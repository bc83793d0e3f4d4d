// Backtracking line search under a trust region.
#pragma once

#include <functional>

namespace trpo_fast {

struct LineSearchOptions {
  double max_kl = 0.01;          // delta, nats;  > 0
  double backtrack_ratio = 0.8;  // alpha;  (0, 1)
  int max_backtracks = 10;       // candidates tried: j = 0 ... max_backtracks;  >= 0
};

struct Candidate {
  double surrogate_gain = 0;  // L(theta) - L(theta_k), in the unit of L
  double kl = 0;              // mean KL(pi_k || pi_theta) over the samples, nats
  double kl_max = 0;          // largest KL of any sample, nats
};

struct LineSearchSummary {
  bool accepted = false;
  int backtracks = 0;       // j of the accepted candidate, or of the last one tried
  double scale = 0;         // alpha^j
  Candidate candidate;      // the accepted one, or the last one tried
  int kl_violations = 0;    // candidates refused because KL > delta (or not finite)
  int no_improvements = 0;  // candidates within the region that did not improve L
};

// Tries theta_k + alpha^j step for j = 0, 1, ...: the first with KL <= delta and a positive gain wins.
// `evaluate(scale)` sets the parameters to theta_k + scale * step and measures them.
LineSearchSummary backtracking_line_search(const LineSearchOptions& options,
                                           const std::function<Candidate(double scale)>& evaluate);

}  // namespace trpo_fast
