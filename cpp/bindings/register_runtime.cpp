#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "trpo_fast/line_forwarder.h"
#include "trpo_fast/runtime.h"

namespace trpo_fast::bindings {

namespace py = pybind11;

void register_runtime(py::module_& m) {
  m.attr("__version__") = TRPO_FAST_VERSION;
  m.def("simd_level", &simd_level);
  m.def("available_simd_levels", &available_simd_levels);
  m.def("get_num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("default_num_threads", &default_num_threads);
  m.def("granted_num_threads", &granted_num_threads);
  m.def("rest_threads", &rest_threads);
  m.def("forward_lines", &forward_lines, py::arg("source"), py::arg("target"), py::arg("prefix"),
        py::arg("pending"));
  m.attr("line_forwarder_bytes") = kLineForwarderBytes;
  m.def("compiler_version", &compiler_version);
  m.def("eigen_version", &eigen_version);
}

}  // namespace trpo_fast::bindings
