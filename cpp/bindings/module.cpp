// The compiled module: one register function a topic.
#include <pybind11/pybind11.h>

namespace trpo_fast::bindings {
void register_acting(pybind11::module_& m);
void register_algorithms(pybind11::module_& m);
void register_batch(pybind11::module_& m);
void register_parts(pybind11::module_& m);
void register_policy(pybind11::module_& m);
void register_rollout(pybind11::module_& m);
void register_runtime(pybind11::module_& m);
void register_update(pybind11::module_& m);
void register_value_function(pybind11::module_& m);
}  // namespace trpo_fast::bindings

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled core of trpo_fast. Strict about dtype and layout: use trpo_fast.core.";
  trpo_fast::bindings::register_runtime(m);
  trpo_fast::bindings::register_algorithms(m);
  trpo_fast::bindings::register_policy(m);
  trpo_fast::bindings::register_acting(m);
  trpo_fast::bindings::register_batch(m);
  trpo_fast::bindings::register_update(m);
  trpo_fast::bindings::register_rollout(m);
  trpo_fast::bindings::register_value_function(m);
  trpo_fast::bindings::register_parts(m);
}
