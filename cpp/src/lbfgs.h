// Minimisation of a smooth function by L-BFGS (Nocedal & Wright 2006, algorithm 7.5) with a line search
// for the weak Wolfe conditions (Lewis & Overton 2013).
#pragma once

#include <functional>
#include <vector>

namespace trpo_fast {

struct LbfgsOptions {
  int iterations = 25;  // at most;  >= 0
  int memory = 10;      // pairs (s, y) that stand for the inverse Hessian;  >= 1
};

// f(x), with its gradient in `gradient`, which has as many entries as x.
using SmoothFunction =
    std::function<double(const std::vector<double>& x, std::vector<double>& gradient)>;

// Replaces x by a point where f is no larger. Stops early where the gradient is zero or holds a NaN,
// or where the line search finds no smaller value. Returns the number of line searches made.
int minimize_lbfgs(const SmoothFunction& f, const LbfgsOptions& options, std::vector<double>& x);

}  // namespace trpo_fast
