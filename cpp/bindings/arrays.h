// NumPy arrays at the boundary: exact dtype and C order, never converted or copied on the way in.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trpo_fast/distribution.h"
#include "trpo_fast/network.h"

namespace trpo_fast::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline std::string shape_text(const py::array& a) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : "") + std::to_string(a.shape(i));
  return text + (a.ndim() == 1 ? ",)" : ")");
}

// -1 in `expected` matches any extent.
inline void check_shape(const char* name, const py::array& a,
                        std::initializer_list<py::ssize_t> expected) {
  bool good = a.ndim() == static_cast<py::ssize_t>(expected.size());
  py::ssize_t i = 0;
  std::string text = "(";
  for (py::ssize_t n : expected) {
    if (good && n >= 0 && a.shape(i) != n) good = false;
    text += (i ? ", " : "") + (n < 0 ? std::string("N") : std::to_string(n));
    ++i;
  }
  text += expected.size() == 1 ? ",)" : ")";
  if (!good)
    throw py::value_error(std::string(name) + ": expected shape " + text + ", got " +
                          shape_text(a) + ".");
}

inline void check_rows(const char* name, const py::array& a) {
  if (a.shape(0) < 1)
    throw py::value_error(std::string(name) + ": expected at least one row, got none.");
}

// The entries of a C-contiguous array of exactly this dtype and shape, or null. One of a subclass has none:
// what a masked array hides counts as missing.
template <class T>
const T* entries_of(const py::object& object, std::initializer_list<py::ssize_t> shape) {
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_ ||
      !py::isinstance<Array<T>>(object))
    return nullptr;
  const auto array = py::reinterpret_borrow<py::array>(object);
  const bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size()) &&
                    std::equal(shape.begin(), shape.end(), array.shape());
  return fits ? static_cast<const T*>(array.data()) : nullptr;
}

// Copies a C-contiguous array of one of these dtypes and of this shape; false where it is not one.
template <class... From, class To>
bool copy_entries(const py::object& from, std::initializer_list<py::ssize_t> shape, To* to) {
  py::ssize_t n = 1;
  for (py::ssize_t extent : shape) n *= extent;
  const auto copy = [&](const auto* values) {
    if (values == nullptr) return false;
    std::transform(values, values + n, to, [](auto value) { return static_cast<To>(value); });
    return true;
  };
  return (copy(entries_of<From>(from, shape)) || ...);
}

// Copies a C-contiguous array of float or double of this shape; false where it is not one.
template <class To>
bool copy_numbers(const py::object& from, std::initializer_list<py::ssize_t> shape, To* to) {
  return copy_entries<double, float>(from, shape, to);
}

// The actions argument as the distribution needs it: int32 within range for discrete kinds.
template <class Scalar>
Actions<Scalar> actions_of(const DistributionSpec& spec, const py::array& array, Index rows) {
  check_shape("actions", array, {rows, spec.action_dim()});
  Actions<Scalar> actions;
  if (!spec.discrete()) {
    if (!py::isinstance<Array<Scalar>>(array))
      throw py::type_error("actions: expected a C-contiguous array of the policy's dtype.");
    actions.continuous = static_cast<const Scalar*>(array.data());
    return actions;
  }
  if (!py::isinstance<Array<std::int32_t>>(array))
    throw py::type_error(
        "actions: expected a C-contiguous int32 array for a discrete distribution.");
  actions.discrete = static_cast<const std::int32_t*>(array.data());
  const int dim = spec.action_dim();
  std::vector<int> choices_of;
  for (int i = 0; i < dim; ++i) choices_of.push_back(spec.choices(i));
  for (Index n = 0; n < rows; ++n) {
    for (int i = 0; i < dim; ++i) {
      const int choices = choices_of[static_cast<std::size_t>(i)];
      const std::int32_t a = actions.discrete[n * dim + i];
      if (a < 0 || a >= choices)
        throw py::value_error("actions: expected integers in [0, " + std::to_string(choices) +
                              ") in column " + std::to_string(i) + ", got " + std::to_string(a) +
                              " in row " + std::to_string(n) + ".");
    }
  }
  return actions;
}

// The masks of `rows` rows, W flags each, or null where none are given.
inline const bool* masks_of(const DistributionSpec& spec, const std::optional<Array<bool>>& masks,
                            Index rows) {
  if (!masks) return nullptr;
  if (!spec.discrete())
    throw py::value_error(
        "action_masks: expected None for a continuous distribution, got an array.");
  check_shape("action_masks", *masks, {rows, spec.mask_width()});
  return masks->data();
}

}  // namespace trpo_fast::bindings
