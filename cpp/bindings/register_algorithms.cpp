// GAE, conjugate gradient on Python callables, running statistics, random streams, initialisation.
#include "arrays.h"
#include "trpo_fast/conjugate_gradient.h"
#include "trpo_fast/gae.h"
#include "trpo_fast/rng.h"
#include "trpo_fast/running_stats.h"

namespace trpo_fast::bindings {
namespace {

py::tuple gae(const Array<double>& rewards, const Array<double>& values,
              const Array<double>& next_values, const Array<std::uint8_t>& terminated,
              const Array<std::uint8_t>& truncated, double gamma, double gae_lambda) {
  check_shape("rewards", rewards, {-1, -1});
  const py::ssize_t T = rewards.shape(0), E = rewards.shape(1);
  check_shape("values", values, {T, E});
  check_shape("next_values", next_values, {T, E});
  check_shape("terminated", terminated, {T, E});
  check_shape("truncated", truncated, {T, E});
  Array<double> advantages({T, E}), returns({T, E});
  double* a = advantages.mutable_data();
  double* r = returns.mutable_data();
  {
    // the arrays are held by the arguments and nothing below touches Python
    py::gil_scoped_release release;
    generalized_advantage_estimation(T, E, rewards.data(), values.data(), next_values.data(),
                                     terminated.data(), truncated.data(), gamma, gae_lambda, a, r);
  }
  return py::make_tuple(advantages, returns);
}

using Operator = std::function<Array<double>(Array<double>)>;

// A Python callable on vectors of n numbers; a fresh array each time, because it may keep it.
LinearOperator native(const Operator& function, const char* what, py::ssize_t n) {
  return [&function, what, n](const double* p, double* y) {
    const Array<double> result = function(Array<double>(n, p));
    check_shape(what, result, {n});
    std::copy(result.data(), result.data() + n, y);
  };
}

py::dict solve(const Operator& product, const Array<double>& b, int max_iterations,
               double tolerance, const std::optional<Operator>& preconditioner) {
  check_shape("b", b, {-1});
  const py::ssize_t n = b.shape(0);
  Array<double> x(n);
  ConjugateGradientOptions options;
  options.max_iterations = max_iterations;
  options.relative_tolerance = tolerance;
  ConjugateGradientWorkspace workspace;
  const ConjugateGradientSummary summary = conjugate_gradient(
      native(product, "operator's result", n), n, b.data(), options, workspace, x.mutable_data(),
      preconditioner ? native(*preconditioner, "preconditioner's result", n) : LinearOperator{});
  py::dict out;
  out["x"] = x;
  out["status"] = to_string(summary.status);
  out["iterations"] = summary.iterations;
  out["relative_residual"] = summary.relative_residual;
  out["message"] = summary.message;
  return out;
}

template <class Scalar>
void update_stats(RunningStats& stats, const Array<Scalar>& batch) {
  check_shape("batch", batch, {-1, stats.dim()});
  py::gil_scoped_release release;  // `batch` is held by the argument
  stats.update(batch.data(), batch.shape(0));
}

Array<double> to_array(const std::vector<double>& v) {
  return Array<double>(static_cast<py::ssize_t>(v.size()), v.data());
}

}  // namespace

void register_algorithms(py::module_& m) {
  using namespace py::literals;
  m.def("gae", &gae, "rewards"_a.noconvert(), "values"_a.noconvert(), "next_values"_a.noconvert(),
        "terminated"_a.noconvert(), "truncated"_a.noconvert(), "gamma"_a, "gae_lambda"_a);
  m.def("conjugate_gradient", &solve, "operator"_a, "b"_a.noconvert(), "max_iterations"_a,
        "tolerance"_a, "preconditioner"_a);

  m.def("normals", [](std::uint64_t seed, std::uint32_t environment, std::uint64_t step, int n) {
    Array<double> out(n);
    CounterStream stream(seed, environment, step);
    for (int i = 0; i < n; ++i) out.mutable_data()[i] = stream.normal();
    return out;
  });
  m.def("uniforms", [](std::uint64_t seed, std::uint32_t environment, std::uint64_t step, int n) {
    Array<double> out(n);
    CounterStream stream(seed, environment, step);
    for (int i = 0; i < n; ++i) out.mutable_data()[i] = stream.uniform();
    return out;
  });
  m.def("initialize_orthogonal", [](int inputs, const std::vector<int>& hidden, int outputs,
                                    double hidden_gain, double output_gain, std::uint64_t seed) {
    const NetworkShape shape = make_network_shape(inputs, hidden, outputs, Activation::kIdentity);
    Array<double> flat(parameter_count(shape));
    initialize_orthogonal(shape, hidden_gain, output_gain, seed, flat.mutable_data());
    return flat;
  });

  py::class_<RunningStats>(m, "RunningStats")
      .def(py::init<Index>(), "dim"_a)
      .def("update", &update_stats<float>, "batch"_a.noconvert())
      .def("update", &update_stats<double>, "batch"_a.noconvert())
      .def_property_readonly("dim", &RunningStats::dim)
      .def_property_readonly("count", &RunningStats::count)
      .def_property_readonly("mean", [](const RunningStats& s) { return to_array(s.mean()); })
      .def_property_readonly("m2",
                             [](const RunningStats& s) { return to_array(s.sum_of_squares()); })
      .def("restore",
           [](RunningStats& s, double count, const Array<double>& mean, const Array<double>& m2) {
             check_shape("mean", mean, {s.dim()});
             check_shape("m2", m2, {s.dim()});
             s.restore(count, mean.data(), m2.data());
           });
}

}  // namespace trpo_fast::bindings
