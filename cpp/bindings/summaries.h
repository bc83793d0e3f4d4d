// What updates tell, as dictionaries.
#pragma once

#include <pybind11/pybind11.h>

#include "trpo_fast/policy_update_summary.h"
#include "trpo_fast/value_function.h"

namespace trpo_fast::bindings {

inline pybind11::dict to_dict(const PolicyUpdateSummary& s) {
  pybind11::dict d;
  d["status"] = to_string(s.status);
  d["message"] = s.message;
  d["kl"] = s.kl;
  d["kl_predicted"] = s.kl_predicted;
  d["kl_max"] = s.kl_max;
  d["max_kl"] = s.max_kl;
  d["surrogate_gain"] = s.surrogate_gain;
  d["surrogate_gain_predicted"] = s.surrogate_gain_predicted;
  d["gradient_norm"] = s.gradient_norm;
  d["step_norm"] = s.step_norm;
  d["step_scale"] = s.step_scale;
  d["step_size"] = s.step_size;
  d["cg_iterations"] = s.conjugate_gradient.iterations;
  d["cg_status"] = to_string(s.conjugate_gradient.status);
  d["cg_relative_residual"] = s.conjugate_gradient.relative_residual;
  d["backtracks"] = s.backtracks;
  d["entropy"] = s.entropy;
  d["entropy_before"] = s.entropy_before;
  d["seconds_gradient"] = s.seconds_gradient;
  d["seconds_cg"] = s.seconds_cg;
  d["seconds_line_search"] = s.seconds_line_search;
  d["seconds_total"] = s.seconds_total;
  return d;
}

inline pybind11::dict to_dict(const ValueFitSummary& s) {
  pybind11::dict d;
  d["status"] = s.finite ? "ok" : "non_finite";
  d["message"] = s.message;
  d["loss_before"] = s.loss_before;
  d["loss_after"] = s.loss_after;
  d["steps"] = s.steps;
  d["seconds"] = s.seconds;
  return d;
}

}  // namespace trpo_fast::bindings
