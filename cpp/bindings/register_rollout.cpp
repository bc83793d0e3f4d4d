// Between two steps of a group of environments: one call where NumPy would take several.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "arrays.h"
#include "trpo_fast/actions.h"

namespace trpo_fast::bindings {
namespace {

// Actions (E x A) within bounds, always in a new array: an environment may keep the one it was given.
// With center and half, [-1, 1] is mapped to [center - half, center + half] first.
template <class Stored, class Bound>
class ActionClip {
 public:
  ActionClip(Array<Bound> low, Array<Bound> high, std::optional<Array<Bound>> center,
             std::optional<Array<Bound>> half)
      : low_(std::move(low)),
        high_(std::move(high)),
        center_(std::move(center)),
        half_(std::move(half)) {
    check_shape("low", low_, {-1});
    check_shape("high", high_, {low_.shape(0)});
    if (center_.has_value() != half_.has_value())
      throw py::value_error("center, half: expected both of them or neither, got one.");
    if (center_) check_shape("center", *center_, {low_.shape(0)});
    if (half_) check_shape("half", *half_, {low_.shape(0)});
  }

  Array<Bound> clip(const Array<Stored>& actions) const {
    const py::ssize_t A = low_.shape(0);
    check_shape("actions", actions, {-1, A});
    const py::ssize_t E = actions.shape(0);
    Array<Bound> clipped({E, A});
    if (center_ && half_)
      scale_and_clip_actions(actions.data(), E, A, low_.data(), high_.data(), center_->data(),
                             half_->data(), clipped.mutable_data());
    else clip_actions(actions.data(), E, A, low_.data(), high_.data(), clipped.mutable_data());
    return clipped;
  }

 private:
  Array<Bound> low_, high_;
  std::optional<Array<Bound>> center_, half_;
};

// Row t of a rollout's arrays as a vector environment gives it: r_t, its flags, and s_{t+1}.
template <class Scalar>
class RowWriter {
 public:
  RowWriter(Array<Scalar> observations, Array<double> rewards, Array<bool> terminated,
            Array<bool> truncated)
      : observations_(std::move(observations)),
        rewards_(std::move(rewards)),
        terminated_(std::move(terminated)),
        truncated_(std::move(truncated)) {
    check_shape("rewards", rewards_, {-1, -1});
    T_ = rewards_.shape(0);
    E_ = rewards_.shape(1);
    check_shape("observations", observations_, {T_ + 1, E_, -1});
    O_ = observations_.shape(2);
    check_shape("terminated", terminated_, {T_, E_});
    check_shape("truncated", truncated_, {T_, E_});
    x_ = observations_.mutable_data();
    r_ = rewards_.mutable_data();
    terminated_data_ = terminated_.mutable_data();
    truncated_data_ = truncated_.mutable_data();
  }

  // Whether an episode ended in row t. None, and the row may be partly written, where these are not
  // arrays (E x O), (E), (E), (E) of float or double and bool, C-contiguous: then NumPy must do it.
  std::optional<bool> write(py::ssize_t t, const py::object& observations,
                            const py::object& rewards, const py::object& terminated,
                            const py::object& truncated) {
    if (t < 0 || t >= T_)
      throw py::index_error("t: expected a row in [0, " + std::to_string(T_) + "), got " +
                            std::to_string(t) + ".");
    if (!copy_numbers(observations, {E_, O_}, x_ + (t + 1) * E_ * O_) ||
        !copy_numbers(rewards, {E_}, r_ + t * E_))
      return std::nullopt;
    const std::optional<bool> some_terminated = copy_flags(terminated, terminated_data_ + t * E_);
    const std::optional<bool> some_truncated = copy_flags(truncated, truncated_data_ + t * E_);
    if (!some_terminated || !some_truncated) return std::nullopt;
    return *some_terminated || *some_truncated;
  }

 private:
  std::optional<bool> copy_flags(const py::object& from, bool* to) const {
    const bool* flags = entries_of<bool>(from, {E_});
    if (flags == nullptr) return std::nullopt;
    std::copy(flags, flags + E_, to);
    return std::find(flags, flags + E_, true) != flags + E_;
  }

  Array<Scalar> observations_;
  Array<double> rewards_;
  Array<bool> terminated_, truncated_;
  py::ssize_t T_ = 0, E_ = 0, O_ = 0;
  Scalar* x_ = nullptr;
  double* r_ = nullptr;
  bool *terminated_data_ = nullptr, *truncated_data_ = nullptr;
};

// What step() of one environment returned, as far as it is what Gymnasium says and the episode goes on.
template <class Scalar>
class StepWriter {
 public:
  StepWriter(Array<double> rewards, std::optional<Array<Scalar>> observations)
      : rewards_(std::move(rewards)), observations_(std::move(observations)) {
    check_shape("rewards", rewards_, {-1, -1});
    E_ = rewards_.shape(1);
    r_ = rewards_.mutable_data();
    if (observations_) {
      check_shape("observations", *observations_, {rewards_.shape(0) + 1, E_, -1});
      O_ = observations_->shape(2);
      x_ = observations_->mutable_data();
    }
    const py::module_ numpy = py::module_::import("numpy");
    numpy_false_ = numpy.attr("False_");
    for (const char* name : {"float32", "int64", "int32", "bool_"})
      number_types_.push_back(numpy.attr(name));
  }

  // Stores r_t and, where there are observations, s_{t+1} of environment e, with i = t E + e. False, and
  // either may be written, unless all of it is plain: a tuple of five, the reward one number, both flags
  // False, the info a dict, the observation a C-contiguous array (O). Then Python must look at it.
  bool write(py::ssize_t i, const py::object& returned) {
    if (i < 0 || i >= rewards_.size())
      throw py::index_error("i: expected a step in [0, " + std::to_string(rewards_.size()) +
                            "), got " + std::to_string(i) + ".");
    PyObject* const step = returned.ptr();
    if (!PyTuple_CheckExact(step) || PyTuple_GET_SIZE(step) != 5) return false;
    if (!is_false(PyTuple_GET_ITEM(step, 2)) || !is_false(PyTuple_GET_ITEM(step, 3))) return false;
    if (!PyDict_CheckExact(PyTuple_GET_ITEM(step, 4))) return false;
    PyObject* const reward = PyTuple_GET_ITEM(step, 1);
    if (!is_number(reward)) return false;
    const double r = PyFloat_AsDouble(reward);
    if (r == -1.0 && PyErr_Occurred() != nullptr) {  // a whole number that no double can hold
      PyErr_Clear();
      return false;
    }
    r_[i] = r;
    if (!observations_) return true;
    const auto observation = py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(step, 0));
    return copy_entries<float, double, std::int64_t, std::uint8_t>(observation, {O_},
                                                                   x_ + (i + E_) * O_);
  }

 private:
  bool is_false(PyObject* flag) const { return flag == Py_False || flag == numpy_false_.ptr(); }
  bool is_number(PyObject* reward) const {
    if (PyFloat_Check(reward) || PyLong_Check(reward)) return true;
    const auto is_of = [&](const py::object& type) {
      return reinterpret_cast<PyObject*>(Py_TYPE(reward)) == type.ptr();
    };
    return std::any_of(number_types_.begin(), number_types_.end(), is_of);
  }

  Array<double> rewards_;
  std::optional<Array<Scalar>> observations_;
  py::object numpy_false_;
  std::vector<py::object> number_types_;
  py::ssize_t E_ = 0, O_ = 0;
  Scalar* x_ = nullptr;
  double* r_ = nullptr;
};

// Masks as environments give them, checked, into rows of W flags.
class MaskWriter {
 public:
  MaskWriter(Array<bool> rows, std::vector<int> sizes)
      : rows_(std::move(rows)), sizes_(std::move(sizes)) {
    for (int n : sizes_) W_ += n;
    check_shape("rows", rows_, {-1, W_});
    data_ = rows_.mutable_data();
  }

  // False, and the row may be partly written, where the mask is not a C-contiguous array (W) of bool or
  // of whole numbers 0 and 1, with a 1 for every component of an action: then Python must do it.
  bool write(py::ssize_t row, const py::object& mask) {
    if (row < 0 || row >= rows_.shape(0))
      throw py::index_error("row: expected one in [0, " + std::to_string(rows_.shape(0)) +
                            "), got " + std::to_string(row) + ".");
    bool* to = data_ + row * W_;
    return (copy<bool>(mask, to) || copy<std::int8_t>(mask, to) || copy<std::int64_t>(mask, to)) &&
           allows_something(to);
  }

 private:
  template <class T>
  bool copy(const py::object& from, bool* to) const {
    const T* values = entries_of<T>(from, {W_});
    if (values == nullptr) return false;
    std::transform(values, values + W_, to, [](T value) { return value != T(0); });
    return std::all_of(values, values + W_, [](T value) { return value == T(0) || value == T(1); });
  }
  bool allows_something(const bool* mask) const {
    for (int n : sizes_) {
      if (std::find(mask, mask + n, true) == mask + n) return false;
      mask += n;
    }
    return true;
  }

  Array<bool> rows_;
  std::vector<int> sizes_;
  py::ssize_t W_ = 0;
  bool* data_ = nullptr;
};

template <class Stored, class Bound>
void register_clip(py::module_& m, const char* name) {
  using namespace py::literals;
  using C = ActionClip<Stored, Bound>;
  py::class_<C>(m, name)
      .def(py::init<Array<Bound>, Array<Bound>, std::optional<Array<Bound>>,
                    std::optional<Array<Bound>>>(),
           "low"_a.noconvert(), "high"_a.noconvert(), "center"_a.noconvert() = py::none(),
           "half"_a.noconvert() = py::none())
      .def("clip", &C::clip, "actions"_a.noconvert());
}

template <class Scalar>
void register_writers(py::module_& m, const char* of_rows, const char* of_steps) {
  using namespace py::literals;
  using S = StepWriter<Scalar>;
  py::class_<S>(m, of_steps)
      .def(py::init<Array<double>, std::optional<Array<Scalar>>>(), "rewards"_a.noconvert(),
           "observations"_a.noconvert() = py::none())
      .def("write", &S::write, "i"_a, "returned"_a);
  using W = RowWriter<Scalar>;
  py::class_<W>(m, of_rows)
      .def(py::init<Array<Scalar>, Array<double>, Array<bool>, Array<bool>>(),
           "observations"_a.noconvert(), "rewards"_a.noconvert(), "terminated"_a.noconvert(),
           "truncated"_a.noconvert())
      .def("write", &W::write, "t"_a, "observations"_a, "rewards"_a, "terminated"_a, "truncated"_a);
}

}  // namespace

void register_rollout(py::module_& m) {
  using namespace py::literals;
  py::class_<MaskWriter>(m, "MaskWriter")
      .def(py::init<Array<bool>, std::vector<int>>(), "rows"_a.noconvert(), "sizes"_a)
      .def("write", &MaskWriter::write, "row"_a, "mask"_a);
  register_clip<float, float>(m, "ActionClipF32ToF32");
  register_clip<float, double>(m, "ActionClipF32ToF64");
  register_clip<double, double>(m, "ActionClipF64ToF64");
  register_writers<float>(m, "RowWriterF32", "StepWriterF32");
  register_writers<double>(m, "RowWriterF64", "StepWriterF64");
}

}  // namespace trpo_fast::bindings
