// From what the distribution sampled to what an environment takes.
#pragma once

#include "trpo_fast/network.h"

namespace trpo_fast {

// a = min(max(a, low), high) for actions (rows x A) and bounds (A), in the type of the bounds.
template <class Stored, class Bound>
void clip_actions(const Stored* actions, Index rows, Index A, const Bound* low, const Bound* high,
                  Bound* clipped) {
  for (Index n = 0; n < rows; ++n, actions += A, clipped += A) {
    for (Index i = 0; i < A; ++i) {
      // a NaN stays one: both comparisons are false
      const Bound a = static_cast<Bound>(actions[i]);
      const Bound raised = a < low[i] ? low[i] : a;
      clipped[i] = raised > high[i] ? high[i] : raised;
    }
  }
}

// As clip_actions, after a <- center + half * a, which maps [-1, 1] to [center - half, center + half].
template <class Stored, class Bound>
void scale_and_clip_actions(const Stored* actions, Index rows, Index A, const Bound* low,
                            const Bound* high, const Bound* center, const Bound* half,
                            Bound* clipped) {
  for (Index n = 0; n < rows; ++n, actions += A, clipped += A) {
    for (Index i = 0; i < A; ++i) {
      const Bound a = center[i] + half[i] * static_cast<Bound>(actions[i]);
      const Bound raised = a < low[i] ? low[i] : a;
      clipped[i] = raised > high[i] ? high[i] : raised;
    }
  }
}

}  // namespace trpo_fast
