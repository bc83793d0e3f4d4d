// ValueFitOptions, and ValueFunction for float and double.
#include "arrays.h"
#include "options.h"
#include "summaries.h"
#include "trpo_fast/value_function.h"

namespace trpo_fast::bindings {
namespace {

void register_fit_options(py::module_& m) {
  using O = ValueFitOptions;
  OptionsClass<O>(m, "ValueFitOptions", "Settings of one fit of a value function.")
      .choice("method", &O::method,
              {{"adam", ValueFitMethod::kAdam}, {"lbfgs", ValueFitMethod::kLbfgs}},
              "passes over shuffled minibatches (Kingma & Ba 2015), or steps on the full batch "
              "(Nocedal & Wright 2006, algorithm 7.5)")
      .integer("epochs", &O::epochs, 1, "Adam's passes over the batch")
      .optional_integer("minibatch_size", &O::minibatch_size, Index{1},
                        "samples of one step of Adam; None: the full batch")
      .number("learning_rate", &O::learning_rate, kNotNegative, "step size of Adam")
      .integer("iterations", &O::iterations, 1, "the most steps of L-BFGS, each a line search")
      .integer("seed", &O::seed, std::uint64_t{0}, "of the order of Adam's minibatches")
      .finish();
}

template <class Scalar>
void register_value_function_of(py::module_& m, const std::string& suffix) {
  using namespace py::literals;
  using V = ValueFunction<Scalar>;
  const auto check = [](const V& v, const Array<Scalar>& x) {
    check_shape("observations", x, {-1, v.shape().inputs()});
    check_rows("observations", x);
  };
  py::class_<V>(m, ("ValueFunction" + suffix).c_str())
      .def(py::init([](int obs_dim, const std::vector<int>& hidden, const std::string& activation) {
             return std::make_unique<V>(
                 make_network_shape(obs_dim, hidden, 1, parse_activation(activation)));
           }),
           "obs_dim"_a, "hidden_sizes"_a, "activation"_a)
      .def_property_readonly("n_parameters", &V::n_parameters)
      .def("get_parameters",
           [](const V& v) { return Array<Scalar>(v.n_parameters(), v.parameters()); })
      .def(
          "set_parameters",
          [](V& v, const Array<Scalar>& flat) {
            check_shape("parameters", flat, {v.n_parameters()});
            v.set_parameters(flat.data());
          },
          "flat"_a.noconvert())
      .def(
          "predict",
          [check](const V& v, const Array<Scalar>& x) {
            check(v, x);
            Array<Scalar> y(x.shape(0));
            Scalar* out = y.mutable_data();
            const Scalar* in = x.data();
            py::gil_scoped_release release;  // x and y are held by this frame
            v.predict(in, x.shape(0), out);
            return y;
          },
          "observations"_a.noconvert())
      .def(
          "loss",
          [check](V& v, const Array<Scalar>& x, const Array<Scalar>& targets) {
            check(v, x);
            check_shape("targets", targets, {x.shape(0)});
            py::gil_scoped_release release;  // x and targets are held by this frame
            return v.loss(x.data(), targets.data(), x.shape(0), nullptr);
          },
          "observations"_a.noconvert(), "targets"_a.noconvert())
      .def(
          "loss_gradient",
          [check](V& v, const Array<Scalar>& x, const Array<Scalar>& targets) {
            check(v, x);
            check_shape("targets", targets, {x.shape(0)});
            Array<double> g(v.n_parameters());
            double* out = g.mutable_data();
            py::gil_scoped_release release;  // all arrays are held by this frame
            v.loss(x.data(), targets.data(), x.shape(0), out);
            return g;
          },
          "observations"_a.noconvert(), "targets"_a.noconvert())
      .def(
          "fit",
          [check](V& v, const Array<Scalar>& x, const Array<Scalar>& targets,
                  const ValueFitOptions& options) {
            check(v, x);
            check_shape("targets", targets, {x.shape(0)});
            const ValueFitOptions fixed = options;  // a copy: other threads may set the fields
            ValueFitSummary s;
            {
              py::gil_scoped_release release;  // x and targets are held by this frame
              s = v.fit(x.data(), targets.data(), x.shape(0), fixed);
            }
            return to_dict(s);
          },
          "observations"_a.noconvert(), "targets"_a.noconvert(), "options"_a)
      .def("get_adam",
           [](V& v) {
             const auto n = v.n_parameters();
             return py::make_tuple(Array<Scalar>(n, v.adam().first_moment.data()),
                                   Array<Scalar>(n, v.adam().second_moment.data()), v.adam().steps);
           })
      .def(
          "set_adam",
          [](V& v, const Array<Scalar>& first, const Array<Scalar>& second, std::int64_t steps) {
            check_shape("first_moment", first, {v.n_parameters()});
            check_shape("second_moment", second, {v.n_parameters()});
            v.adam().first_moment.assign(first.data(), first.data() + first.size());
            v.adam().second_moment.assign(second.data(), second.data() + second.size());
            v.adam().steps = steps;
          },
          "first_moment"_a.noconvert(), "second_moment"_a.noconvert(), "steps"_a);
}

}  // namespace

void register_value_function(py::module_& m) {
  register_fit_options(m);
  register_value_function_of<float>(m, "F32");
  register_value_function_of<double>(m, "F64");
}

}  // namespace trpo_fast::bindings
