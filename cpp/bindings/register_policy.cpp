// Policy, for float and double.
#include <algorithm>
#include <cmath>
#include <vector>

#include "arrays.h"
#include "policies.h"

namespace trpo_fast::bindings {
namespace {

template <class Scalar>
std::unique_ptr<Policy<Scalar>> make_policy(int obs_dim, const std::vector<int>& hidden,
                                            const std::string& activation, const std::string& kind,
                                            const std::vector<int>& sizes) {
  const DistributionSpec spec = make_distribution_spec(kind, sizes);
  const NetworkShape shape =
      make_network_shape(obs_dim, hidden, spec.n_outputs(), parse_activation(activation));
  return std::make_unique<Policy<Scalar>>(shape, spec);
}

using Masks = std::optional<Array<bool>>;  // (N x W), or none

// Outputs (rows x P), with what masks do not allow forbidden.
template <class Scalar>
void masked_outputs(const Policy<Scalar>& policy, const Scalar* x, const bool* allowed, Index rows,
                    Scalar* y) {
  policy.outputs(x, rows, y);
  if (!allowed) return;
  const Index P = policy.shape().outputs(), W = policy.spec().mask_width();
  for (Index n = 0; n < rows; ++n) policy.distribution().forbid(allowed + n * W, y + n * P);
}

// Row-wise functions of the outputs at the policy's parameters: f(outputs, row) for each row.
template <class Scalar, class Function>
Array<double> map_rows(const Policy<Scalar>& policy, const Array<Scalar>& x, const Masks& masks,
                       const Function& f) {
  const Index rows = x.shape(0), P = policy.shape().outputs();
  const bool* allowed = masks_of(policy.spec(), masks, rows);
  Array<double> result(rows);
  double* y = result.mutable_data();
  const Scalar* data = x.data();
  py::gil_scoped_release release;  // x, masks and result are held by the caller's frame
  std::vector<Scalar> outputs(static_cast<std::size_t>(rows * P));
  masked_outputs(policy, data, allowed, rows, outputs.data());
  for (Index n = 0; n < rows; ++n) y[n] = f(outputs.data() + n * P, n);
  return result;
}

// The unclipped action (1 x A) for one raw observation; None where that is no
// vector of finite floats. The mask (W) of the observation, or none, is taken as it is.
template <class Scalar>
py::object act_one(const Policy<Scalar>& policy, const py::object& observation, std::uint64_t seed,
                   std::uint64_t step, bool deterministic, const Masks& mask) {
  const Index O = policy.shape().inputs();
  std::vector<Scalar> x(static_cast<std::size_t>(O));
  const auto is_finite = [](Scalar number) { return std::isfinite(number); };
  if (!copy_numbers(observation, {O}, x.data()) || !std::all_of(x.begin(), x.end(), is_finite))
    return py::none();
  if (mask) check_shape("action_mask", *mask, {policy.spec().mask_width()});
  const bool* allowed = mask ? mask->data() : nullptr;
  const py::ssize_t A = policy.spec().action_dim();
  const bool discrete = policy.spec().discrete();
  py::array action = discrete ? py::array(Array<std::int32_t>({py::ssize_t{1}, A}))
                              : py::array(Array<Scalar>({py::ssize_t{1}, A}));
  auto* numbers = discrete ? nullptr : static_cast<Scalar*>(action.mutable_data());
  auto* indices = discrete ? static_cast<std::int32_t*>(action.mutable_data()) : nullptr;
  {
    py::gil_scoped_release release;  // the arrays are held by this frame
    Actor<Scalar> actor(policy, 1);
    const std::uint32_t environment = 0;
    if (deterministic) actor.mode(x.data(), allowed, numbers, indices);
    else actor.step(x.data(), allowed, seed, &environment, &step, numbers, indices);
  }
  return action;
}

template <class Scalar>
void register_policy_of(py::module_& m, const std::string& suffix) {
  using namespace py::literals;
  using P = Policy<Scalar>;
  py::class_<P>(m, ("Policy" + suffix).c_str())
      .def(py::init(&make_policy<Scalar>), "obs_dim"_a, "hidden_sizes"_a, "activation"_a,
           "distribution"_a, "sizes"_a)
      .def_property_readonly("n_parameters", &P::n_parameters)
      .def("get_parameters",
           [](const P& p) { return Array<Scalar>(p.n_parameters(), p.parameters()); })
      .def(
          "set_parameters",
          [](P& p, const Array<Scalar>& flat) {
            check_shape("parameters", flat, {p.n_parameters()});
            p.set_parameters(flat.data());
          },
          "flat"_a.noconvert())
      .def(
          "set_normalizer",
          [](P& p, const Array<double>& mean, const Array<double>& inverse_std, double clip) {
            check_shape("mean", mean, {p.shape().inputs()});
            check_shape("inverse_std", inverse_std, {p.shape().inputs()});
            p.set_normalizer(mean.data(), inverse_std.data(), clip);
          },
          "mean"_a.noconvert(), "inverse_std"_a.noconvert(), "clip"_a)
      .def("clear_normalizer", &P::clear_normalizer)
      .def(
          "normalize",
          [](const P& p, const Array<Scalar>& x) {
            check_shape("observations", x, {-1, p.shape().inputs()});
            Array<Scalar> y({x.shape(0), x.shape(1)});
            Scalar* out = y.mutable_data();
            const Scalar* in = x.data();
            py::gil_scoped_release release;  // x and y are held by this frame
            p.normalize(in, x.shape(0), out);
            return y;
          },
          "observations"_a.noconvert())
      .def(
          "outputs",
          [](const P& p, const Array<Scalar>& x, const Masks& masks) {
            checked_observations(p, x);
            const bool* allowed = masks_of(p.spec(), masks, x.shape(0));
            Array<Scalar> y({x.shape(0), py::ssize_t{p.shape().outputs()}});
            Scalar* out = y.mutable_data();
            const Scalar* in = x.data();
            py::gil_scoped_release release;  // x, masks and y are held by this frame
            masked_outputs(p, in, allowed, x.shape(0), out);
            return y;
          },
          "observations"_a.noconvert(), "action_masks"_a.noconvert() = py::none())
      .def(
          "log_prob",
          [](const P& p, const Array<Scalar>& x, const py::array& actions, const Masks& masks) {
            checked_observations(p, x);
            const auto a = actions_of<Scalar>(p.spec(), actions, x.shape(0));
            return map_rows(p, x, masks, [&](const Scalar* out, Index n) {
              return p.distribution().log_prob(out, a, n);
            });
          },
          "observations"_a.noconvert(), "actions"_a, "action_masks"_a.noconvert() = py::none())
      .def(
          "entropy",
          [](const P& p, const Array<Scalar>& x, const Masks& masks) {
            checked_observations(p, x);
            return map_rows(p, x, masks, [&](const Scalar* out, Index) {
              return p.distribution().entropy(out);
            });
          },
          "observations"_a.noconvert(), "action_masks"_a.noconvert() = py::none())
      .def(
          "kl",
          [](const P& p, const Array<Scalar>& x, const P& old, const Masks& masks) {
            checked_observations(p, x);
            check_alike("old", p, old);
            const bool* allowed = masks_of(p.spec(), masks, x.shape(0));
            const Index outputs = p.shape().outputs();
            std::vector<Scalar> old_outputs(static_cast<std::size_t>(x.shape(0) * outputs));
            masked_outputs(old, x.data(), allowed, x.shape(0), old_outputs.data());
            return map_rows(p, x, masks, [&](const Scalar* out, Index n) {
              return p.distribution().kl(old.distribution(), old_outputs.data() + n * outputs, out);
            });
          },
          "observations"_a.noconvert(), "old"_a, "action_masks"_a.noconvert() = py::none())
      .def(
          "sample",
          [](const P& p, const Array<Scalar>& x, std::uint64_t seed,
             const Array<std::uint32_t>& environments, const Array<std::uint64_t>& steps,
             bool deterministic, const Masks& masks) -> py::array {
            checked_observations(p, x);
            const bool* allowed = masks_of(p.spec(), masks, x.shape(0));
            check_shape("envs", environments, {x.shape(0)});
            check_shape("steps", steps, {x.shape(0)});
            const py::ssize_t rows = x.shape(0), A = p.spec().action_dim();
            Array<std::int32_t> discrete({p.spec().discrete() ? rows : 0, A});
            Array<Scalar> continuous({p.spec().discrete() ? 0 : rows, A});
            Scalar* c = p.spec().discrete() ? nullptr : continuous.mutable_data();
            std::int32_t* d = p.spec().discrete() ? discrete.mutable_data() : nullptr;
            std::vector<std::uint64_t> counters(steps.data(), steps.data() + rows);
            const Scalar* in = x.data();
            const std::uint32_t* ids = environments.data();
            {
              py::gil_scoped_release release;  // every array is held by this frame
              Actor<Scalar> actor(p, rows);
              if (deterministic) actor.mode(in, allowed, c, d);
              else actor.step(in, allowed, seed, ids, counters.data(), c, d);
            }
            if (p.spec().discrete()) return discrete;
            return continuous;
          },
          "observations"_a.noconvert(), "seed"_a, "envs"_a.noconvert(), "steps"_a.noconvert(),
          "deterministic"_a, "action_masks"_a.noconvert() = py::none())
      .def("act_one", &act_one<Scalar>, "observation"_a, "seed"_a, "step"_a, "deterministic"_a,
           "action_mask"_a.noconvert() = py::none());
}

}  // namespace

void register_policy(py::module_& m) {
  register_policy_of<float>(m, "F32");
  register_policy_of<double>(m, "F64");
}

}  // namespace trpo_fast::bindings
