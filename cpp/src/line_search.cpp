#include "trpo_fast/line_search.h"

namespace trpo_fast {

LineSearchSummary backtracking_line_search(const LineSearchOptions& options,
                                           const std::function<Candidate(double)>& evaluate) {
  LineSearchSummary summary;
  double scale = 1.0;  // alpha^j
  for (int j = 0; j <= options.max_backtracks; ++j, scale *= options.backtrack_ratio) {
    summary.candidate = evaluate(scale);
    summary.scale = scale;
    summary.backtracks = j;

    // written so that a NaN is refused
    const bool inside = summary.candidate.kl <= options.max_kl;
    const bool improves = summary.candidate.surrogate_gain > 0.0;
    if (inside && improves) {
      summary.accepted = true;
      return summary;
    }
    if (inside) ++summary.no_improvements;
    else ++summary.kl_violations;
  }
  return summary;
}

}  // namespace trpo_fast
