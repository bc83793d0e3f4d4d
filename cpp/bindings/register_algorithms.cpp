// GAE, conjugate gradient on Python callables, running statistics, random streams, initialisation.
#include "arrays.h"
#include "options.h"
#include "trpo_fast/conjugate_gradient.h"
#include "trpo_fast/gae.h"
#include "trpo_fast/rng.h"
#include "trpo_fast/running_stats.h"

namespace trpo_fast::bindings {
namespace {

constexpr NumberRange kUnit{0.0, 1.0, "a number in [0, 1]"};
constexpr int kMostInt = std::numeric_limits<int>::max();
constexpr Index kMostDim = kMostInt;

py::tuple gae(const Array<double>& rewards, const Array<double>& values,
              const Array<double>& next_values, const Array<std::uint8_t>& terminated,
              const Array<std::uint8_t>& truncated, const py::object& gamma,
              const py::object& gae_lambda) {
  check_shape("rewards", rewards, {-1, -1});
  const py::ssize_t T = rewards.shape(0), E = rewards.shape(1);
  check_shape("values", values, {T, E});
  check_shape("next_values", next_values, {T, E});
  check_shape("terminated", terminated, {T, E});
  check_shape("truncated", truncated, {T, E});
  const double discount = checked_number("gamma", gamma, kUnit);
  const double lambda = checked_number("gae_lambda", gae_lambda, kUnit);
  Array<double> advantages({T, E}), returns({T, E});
  double* a = advantages.mutable_data();
  double* r = returns.mutable_data();
  {
    // the arrays are held by the arguments and nothing below touches Python
    py::gil_scoped_release release;
    generalized_advantage_estimation(T, E, rewards.data(), values.data(), next_values.data(),
                                     terminated.data(), truncated.data(), discount, lambda, a, r);
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

template <class Integer>
Integer checked_unsigned(const char* name, const py::object& value) {
  return checked_integer(name, value, Integer{0}, std::numeric_limits<Integer>::max());
}

py::dict solve(const Operator& product, const Array<double>& b, const py::object& max_iterations,
               const py::object& tolerance, const std::optional<Operator>& preconditioner) {
  check_shape("b", b, {-1});
  const py::ssize_t n = b.shape(0);
  Array<double> x(n);
  ConjugateGradientOptions options;
  options.max_iterations = checked_integer("max_iterations", max_iterations, 0, kMostInt);
  options.relative_tolerance = checked_number("tolerance", tolerance, kNotNegative);
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

// The first n numbers of the stream (seed, environment, step): `draw` takes one.
template <class Draw>
Array<double> numbers(const py::object& seed, const py::object& environment, const py::object& step,
                      const py::object& n, const Draw& draw) {
  CounterStream stream(checked_unsigned<std::uint64_t>("seed", seed),
                       checked_unsigned<std::uint32_t>("environment", environment),
                       checked_unsigned<std::uint64_t>("step", step));
  Array<double> out(checked_integer("n", n, 0, kMostInt));
  std::generate_n(out.mutable_data(), out.size(), [&] { return draw(stream); });
  return out;
}

Array<double> orthogonal(const py::object& inputs, const std::vector<int>& hidden,
                         const py::object& outputs, const py::object& hidden_gain,
                         const py::object& output_gain, const py::object& seed) {
  const NetworkShape shape =
      make_network_shape(checked_integer("inputs", inputs, 1, kMostInt), hidden,
                         checked_integer("outputs", outputs, 1, kMostInt), Activation::kIdentity);
  const double hidden_factor = checked_number("hidden_gain", hidden_gain, kNotNegative);
  const double output_factor = checked_number("output_gain", output_gain, kNotNegative);
  const auto stream_seed = checked_unsigned<std::uint64_t>("seed", seed);
  Array<double> flat(parameter_count(shape));
  initialize_orthogonal(shape, hidden_factor, output_factor, stream_seed, flat.mutable_data());
  return flat;
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

  m.def(
      "normals",
      [](const py::object& seed, const py::object& environment, const py::object& step,
         const py::object& n) {
        return numbers(seed, environment, step, n, [](CounterStream& s) { return s.normal(); });
      },
      "seed"_a, "environment"_a, "step"_a, "n"_a);
  m.def(
      "uniforms",
      [](const py::object& seed, const py::object& environment, const py::object& step,
         const py::object& n) {
        return numbers(seed, environment, step, n, [](CounterStream& s) { return s.uniform(); });
      },
      "seed"_a, "environment"_a, "step"_a, "n"_a);
  m.def("initialize_orthogonal", &orthogonal, "inputs"_a, "hidden"_a, "outputs"_a, "hidden_gain"_a,
        "output_gain"_a, "seed"_a);

  py::class_<RunningStats>(m, "RunningStats")
      .def(py::init([](const py::object& dim) {
             return RunningStats(checked_integer("dim", dim, Index{1}, kMostDim));
           }),
           "dim"_a)
      .def("update", &update_stats<float>, "batch"_a.noconvert())
      .def("update", &update_stats<double>, "batch"_a.noconvert())
      .def_property_readonly("dim", &RunningStats::dim)
      .def_property_readonly("count", &RunningStats::count)
      .def_property_readonly("mean", [](const RunningStats& s) { return to_array(s.mean()); })
      .def_property_readonly("m2",
                             [](const RunningStats& s) { return to_array(s.sum_of_squares()); })
      .def(
          "restore",
          [](RunningStats& s, const py::object& count, const Array<double>& mean,
             const Array<double>& m2) {
            check_shape("mean", mean, {s.dim()});
            check_shape("m2", m2, {s.dim()});
            s.restore(checked_number("count", count, kNotNegative), mean.data(), m2.data());
          },
          "count"_a, "mean"_a.noconvert(), "m2"_a.noconvert());
}

}  // namespace trpo_fast::bindings
