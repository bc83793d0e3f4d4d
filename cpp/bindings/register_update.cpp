// The options of policy updates, TrustRegionUpdater and PolicyAscent, for float and double.
#include <memory>

#include "arrays.h"
#include "options.h"
#include "policies.h"
#include "summaries.h"
#include "trpo_fast/gradient_signal.h"
#include "trpo_fast/policy_ascent.h"
#include "trpo_fast/trust_region_update.h"

namespace trpo_fast::bindings {
namespace {

Choices<StepRule> step_rules() {
  return {{"line_search", StepRule::kLineSearch},
          {"boundary", StepRule::kBoundary},
          {"fixed", StepRule::kFixed}};
}

Choices<VineEstimator> vine_estimators() {
  return {{"exact_sum", VineEstimator::kExactSum},
          {"self_normalized", VineEstimator::kSelfNormalized}};
}

// Refuses options that do not go together; for those set one by one, once more before each update.
void check_together(const TrustRegionOptions& options) {
  if (options.step_size.has_value() != (options.step == StepRule::kFixed))
    throw py::value_error(
        std::string("step_size: expected a number for step='fixed' and None otherwise, got ") +
        (options.step_size ? std::string(py::str(py::float_(*options.step_size))) : "None") +
        " for step='" + choice_name(options.step, step_rules()) + "'.");
}

using Masks = std::optional<Array<bool>>;  // (N x W), or none

template <class Scalar>
SampleBatch<Scalar> samples_of(const Policy<Scalar>& policy, const Array<Scalar>& x,
                               const py::array& actions, const Masks& masks) {
  SampleBatch<Scalar> samples;
  samples.observations = checked_observations(policy, x).data();
  samples.size = x.shape(0);
  samples.actions = actions_of<Scalar>(policy.spec(), actions, samples.size);
  samples.allowed = masks_of(policy.spec(), masks, samples.size);
  return samples;
}

template <class Scalar>
void assign_vine(VineObjective<Scalar>& vine, const Policy<Scalar>& policy, const Array<Scalar>& x,
                 const py::array& actions, const Array<double>& q_values, const py::str& estimator,
                 const Masks& masks) {
  const VineEstimator kind = checked_choice("estimator", estimator, vine_estimators());
  check_shape("q_values", q_values, {checked_observations(policy, x).shape(0), -1});
  SampleBatch<Scalar> samples;
  samples.observations = x.data();
  samples.size = x.shape(0);
  samples.branches = q_values.shape(1);
  if (samples.branches < 1)
    throw py::value_error("q_values: expected at least one action in every state, got none.");
  samples.actions = actions_of<Scalar>(policy.spec(), actions, samples.size * samples.branches);
  samples.allowed = masks_of(policy.spec(), masks, samples.size);
  vine.assign(samples, q_values.data(), kind);
}

// L(theta) of the vine in the unit of Q, with `old` at theta_k and `policy` at theta, and its gradient
// at theta_k.
template <class Scalar>
py::tuple vine_value(const Policy<Scalar>& policy, const Policy<Scalar>& old,
                     const Array<Scalar>& x, const py::array& actions,
                     const Array<double>& q_values, const py::str& estimator, const Masks& masks) {
  check_alike("old", policy, old);
  VineObjective<Scalar> vine;
  assign_vine(vine, policy, x, actions, q_values, estimator, masks);
  Array<double> gradient(policy.n_parameters());
  double* g = gradient.mutable_data();
  double value = 0.0;
  {
    py::gil_scoped_release release;  // every array is held by this frame
    PolicyBatch<Scalar> batch;
    batch.assign(old, vine.samples());
    vine.prepare(batch, /*standardize=*/false);
    vine.gradient(batch, g);
    value = vine.old_value() + vine.evaluate(batch, policy).candidate.surrogate_gain;
  }
  return py::make_tuple(value, gradient);
}

// A TrustRegionUpdater with the objectives that it steps on.
template <class Scalar>
class BoundUpdater {
 public:
  py::dict update(Policy<Scalar>& policy, const Array<Scalar>& x, const py::array& actions,
                  const Array<Scalar>& advantages, const TrustRegionOptions& options,
                  const Masks& masks, const std::optional<Array<Scalar>>& further_x,
                  const Masks& further_masks) {
    const SampleBatch<Scalar> samples = samples_of(policy, x, actions, masks);
    check_shape("advantages", advantages, {samples.size});
    surrogate_.assign(samples, advantages.data());
    return step(policy, surrogate_, options, further_states(policy, further_x, further_masks));
  }

  py::dict vine_update(Policy<Scalar>& policy, const Array<Scalar>& x, const py::array& actions,
                       const Array<double>& q_values, const py::str& estimator,
                       const TrustRegionOptions& options, const Masks& masks) {
    assign_vine(vine_, policy, x, actions, q_values, estimator, masks);
    return step(policy, vine_, options);
  }

  // (validated gain, apparent gain), or None where nothing could be measured
  py::object signal(const Policy<Scalar>& policy, const Array<Scalar>& x, const py::array& actions,
                    const Array<Scalar>& advantages, Index split, const TrustRegionOptions& options,
                    const Masks& masks) {
    const SampleBatch<Scalar> samples = samples_of(policy, x, actions, masks);
    check_shape("advantages", advantages, {samples.size});
    const TrustRegionOptions fixed = options;
    GradientSignal found;
    {
      py::gil_scoped_release release;  // every array is held by the caller's frame
      found = meter_.measure(policy, samples, advantages.data(), split, fixed);
    }
    if (!found.is_measured) return py::none();
    return py::make_tuple(found.validated_gain, found.apparent_gain);
  }

 private:
  py::dict step(Policy<Scalar>& policy, Objective<Scalar>& objective,
                const TrustRegionOptions& options, const SampleBatch<Scalar>& further = {}) {
    check_together(options);
    const TrustRegionOptions fixed = options;  // a copy, because other threads may set the fields
    PolicyUpdateSummary summary;
    {
      py::gil_scoped_release release;  // every array is held by the caller's frame
      summary = updater_.update(policy, objective, fixed, further);
    }
    return to_dict(summary);
  }

  TrustRegionUpdater<Scalar> updater_;
  GradientSignalMeter<Scalar> meter_;
  SurrogateObjective<Scalar> surrogate_;
  VineObjective<Scalar> vine_;
};

// A PolicyAscent with its objective.
template <class Scalar>
class BoundAscent {
 public:
  explicit BoundAscent(const Policy<Scalar>& policy)
      : n_parameters_(policy.n_parameters()), ascent_(policy.n_parameters()) {}

  py::dict ascend(Policy<Scalar>& policy, const Array<Scalar>& x, const py::array& actions,
                  const Array<Scalar>& advantages, const AscentOptions& options,
                  const Masks& masks) {
    if (policy.n_parameters() != n_parameters_)
      throw py::value_error("policy: expected one of " + std::to_string(n_parameters_) +
                            " parameters, got " + std::to_string(policy.n_parameters()) + ".");
    const SampleBatch<Scalar> samples = samples_of(policy, x, actions, masks);
    check_shape("advantages", advantages, {samples.size});
    objective_.assign(samples, advantages.data());
    const AscentOptions fixed = options;  // a copy, as above
    PolicyUpdateSummary summary;
    {
      py::gil_scoped_release release;  // every array is held by the caller's frame
      summary = ascent_.ascend(policy, objective_, fixed);
    }
    return to_dict(summary);
  }

  py::tuple get_adam() {
    const AdamState<Scalar>& adam = ascent_.adam();
    return py::make_tuple(Array<Scalar>(n_parameters_, adam.first_moment.data()),
                          Array<Scalar>(n_parameters_, adam.second_moment.data()), adam.steps);
  }

  void set_adam(const Array<Scalar>& first, const Array<Scalar>& second, std::int64_t steps) {
    check_shape("first_moment", first, {n_parameters_});
    check_shape("second_moment", second, {n_parameters_});
    ascent_.adam().first_moment.assign(first.data(), first.data() + n_parameters_);
    ascent_.adam().second_moment.assign(second.data(), second.data() + n_parameters_);
    ascent_.adam().steps = steps;
  }

 private:
  Index n_parameters_;
  PolicyAscent<Scalar> ascent_;
  SurrogateObjective<Scalar> objective_;
};

void register_trust_region_options(py::module_& m) {
  using O = TrustRegionOptions;
  OptionsClass<O>(m, "TrustRegionOptions", "Settings of one trust-region update.")
      .number("max_kl", &O::max_kl, kPositive,
              "delta, the most KL(old || new) that a step may have, nats, summed over the "
              "components of an action")
      .choice("constraint", &O::constraint,
              {{"mean", KlConstraint::kMean}, {"max", KlConstraint::kMax}},
              "which KL over the samples is bounded")
      .choice("fisher", &O::fisher,
              {{"gauss_newton", FisherForm::kGaussNewton},
               {"empirical", FisherForm::kEmpirical},
               {"identity", FisherForm::kIdentity}},
              "what stands for F in (F + cg_damping I) x = g; identity: x = g")
      .number("fisher_fraction", &O::fisher_fraction, kShare,
              "share of the samples, drawn once, that F is estimated on")
      .number("cg_damping", &O::cg_damping, kNotNegative, "lambda in (F + lambda I) x = g")
      .integer("cg_iterations", &O::cg_iterations, 1, "most products of conjugate gradient")
      .number("cg_tolerance", &O::cg_tolerance, kNotNegative,
              "conjugate gradient ends at this residual, relative to ||g||")
      .choice("cg_preconditioner", &O::cg_preconditioner,
              {{"none", Preconditioner::kNone}, {"kronecker", Preconditioner::kKronecker}},
              "what conjugate gradient is preconditioned with")
      .choice("step", &O::step, step_rules(), "how far to go along x")
      .optional_number("step_size", &O::step_size, kPositive,
                       "the step along x of step='fixed', which alone has one")
      .number("backtrack_ratio", &O::backtrack_ratio, kBelowOne,
              "factor from one candidate of the line search to the next")
      .integer("max_backtracks", &O::max_backtracks, 0, "candidates after the first")
      .flag("standardize_advantages", &O::standardize_advantages,
            "subtract the mean of the advantages and divide by their standard deviation; of a "
            "vine only divide")
      .integer("seed", &O::seed, std::uint64_t{0}, "of the subsample and the preconditioner")
      .integer("activation_budget", &O::activation_budget, Index{0},
               "bytes of activations to keep; beyond it they are recomputed, to the same bits")
      .rule(&check_together)
      .finish();
}

void register_ascent_options(py::module_& m) {
  using O = AscentOptions;
  OptionsClass<O>(m, "AscentOptions", "Settings of one ascent by Adam.")
      .number("learning_rate", &O::learning_rate, kNotNegative, "step size of Adam")
      .integer("epochs", &O::epochs, 1, "passes over the batch")
      .optional_integer("minibatch_size", &O::minibatch_size, Index{1},
                        "samples of a step; None: the full batch")
      .number("kl_coefficient", &O::kl_coefficient, kNotNegative,
              "weight of the mean KL(old || new), in standardised advantages per nat")
      .flag("standardize_advantages", &O::standardize_advantages,
            "subtract the mean of the advantages and divide by their standard deviation")
      .integer("seed", &O::seed, std::uint64_t{0}, "of the order of the samples")
      .integer("activation_budget", &O::activation_budget, Index{0},
               "bytes of activations to keep; beyond it they are recomputed, to the same bits")
      .finish();
}

template <class Scalar>
void register_updates_of(py::module_& m, const std::string& suffix) {
  using namespace py::literals;
  using U = BoundUpdater<Scalar>;
  py::class_<U>(m, ("TrustRegionUpdater" + suffix).c_str())
      .def(py::init<>())
      .def("update", &U::update, "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "advantages"_a.noconvert(), "options"_a, "action_masks"_a.noconvert() = py::none(),
           "further_observations"_a.noconvert() = py::none(),
           "further_masks"_a.noconvert() = py::none())
      .def("signal", &U::signal, "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "advantages"_a.noconvert(), "split"_a, "options"_a,
           "action_masks"_a.noconvert() = py::none())
      .def("vine_update", &U::vine_update, "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "q_values"_a.noconvert(), "estimator"_a, "options"_a,
           "action_masks"_a.noconvert() = py::none());
  m.def("vine_value", &vine_value<Scalar>, "policy"_a, "old"_a, "observations"_a.noconvert(),
        "actions"_a, "q_values"_a.noconvert(), "estimator"_a,
        "action_masks"_a.noconvert() = py::none());
  using A = BoundAscent<Scalar>;
  py::class_<A>(m, ("PolicyAscent" + suffix).c_str())
      .def(py::init<const Policy<Scalar>&>(), "policy"_a)
      .def("ascend", &A::ascend, "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "advantages"_a.noconvert(), "options"_a, "action_masks"_a.noconvert() = py::none())
      .def("get_adam", &A::get_adam)
      .def("set_adam", &A::set_adam, "first_moment"_a.noconvert(), "second_moment"_a.noconvert(),
           "steps"_a);
}

}  // namespace

void register_update(py::module_& m) {
  register_trust_region_options(m);
  register_ascent_options(m);
  register_updates_of<float>(m, "F32");
  register_updates_of<double>(m, "F64");
}

}  // namespace trpo_fast::bindings
