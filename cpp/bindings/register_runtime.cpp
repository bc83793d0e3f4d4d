#include "arrays.h"
#include "trpo_fast/first_layer.h"
#include "trpo_fast/line_forwarder.h"
#include "trpo_fast/runtime.h"

namespace trpo_fast::bindings {

namespace {

template <class Scalar>
bool sums_columns_of(const Array<Scalar>& rows) {
  check_shape("observations", rows, {-1, -1});
  check_rows("observations", rows);
  return sums_columns(rows.data(), rows.shape(0), rows.shape(1));
}

}  // namespace

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
  m.def("get_first_layer", [] { return first_layer() == FirstLayer::kDense ? "dense" : "auto"; });
  m.def(
      "set_first_layer",
      [](const std::string& choice) {
        if (choice != "auto" && choice != "dense")
          throw py::value_error("first layer: expected 'auto' or 'dense', got '" + choice + "'.");
        set_first_layer(choice == "dense" ? FirstLayer::kDense : FirstLayer::kAuto);
      },
      py::arg("choice"));
  m.def("sums_columns", &sums_columns_of<float>, py::arg("rows").noconvert());
  m.def("sums_columns", &sums_columns_of<double>, py::arg("rows").noconvert());
  m.attr("line_forwarder_bytes") = kLineForwarderBytes;
  m.def("compiler_version", &compiler_version);
  m.def("eigen_version", &eigen_version);
}

}  // namespace trpo_fast::bindings
