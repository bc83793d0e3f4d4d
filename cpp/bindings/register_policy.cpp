// Policy, Actor, PolicyBatch and PolicyUpdater, for float and double.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "arrays.h"
#include "trpo_fast/policy.h"
#include "trpo_fast/trust_region_update.h"

namespace trpo_fast::bindings {
namespace {

template <class Scalar>
const Array<Scalar>& checked_observations(const Policy<Scalar>& policy, const Array<Scalar>& x) {
  check_shape("observations", x, {-1, policy.shape().inputs()});
  check_rows("observations", x);
  return x;
}

template <class Scalar>
std::unique_ptr<Policy<Scalar>> make_policy(int obs_dim, const std::vector<int>& hidden,
                                            const std::string& activation, const std::string& kind,
                                            const std::vector<int>& sizes) {
  const DistributionSpec spec = make_distribution_spec(kind, sizes);
  const NetworkShape shape =
      make_network_shape(obs_dim, hidden, spec.n_outputs(), parse_activation(activation));
  return std::make_unique<Policy<Scalar>>(shape, spec);
}

template <class Scalar>
std::unique_ptr<Policy<Scalar>> copy_of(const Policy<Scalar>& policy) {
  auto copy = std::make_unique<Policy<Scalar>>(policy.shape(), policy.spec());
  copy->set_parameters(policy.parameters());
  return copy;
}

// Row-wise functions of the outputs at the policy's parameters: f(outputs, row) for each row.
template <class Scalar, class Function>
Array<double> map_rows(const Policy<Scalar>& policy, const Array<Scalar>& x, const Function& f) {
  const Index rows = x.shape(0), P = policy.shape().outputs();
  Array<double> result(rows);
  double* y = result.mutable_data();
  const Scalar* data = x.data();
  py::gil_scoped_release release;  // x and result are held by the caller's frame
  std::vector<Scalar> outputs(static_cast<std::size_t>(rows * P));
  policy.outputs(data, rows, outputs.data());
  for (Index n = 0; n < rows; ++n) y[n] = f(outputs.data() + n * P, n);
  return result;
}

// The unclipped action (1 x A) for one raw observation; None where that is no
// vector of finite floats.
template <class Scalar>
py::object act_one(const Policy<Scalar>& policy, const py::object& observation, std::uint64_t seed,
                   std::uint64_t step, bool deterministic) {
  const Index O = policy.shape().inputs();
  std::vector<Scalar> x(static_cast<std::size_t>(O));
  const auto is_finite = [](Scalar number) { return std::isfinite(number); };
  if (!copy_numbers(observation, {O}, x.data()) || !std::all_of(x.begin(), x.end(), is_finite))
    return py::none();
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
    if (deterministic) actor.mode(x.data(), numbers, indices);
    else actor.step(x.data(), seed, &environment, &step, numbers, indices);
  }
  return action;
}

// Buffers of one rollout, borrowed and kept alive; one call a step.
template <class Scalar>
class BoundActor {
 public:
  BoundActor(const Policy<Scalar>& policy, Array<Scalar> observations, py::array actions,
             Array<std::uint64_t> counters, Array<std::uint32_t> environments, std::uint64_t seed)
      : observations_(std::move(observations)),
        actions_(std::move(actions)),
        counters_(std::move(counters)),
        environments_(std::move(environments)),
        seed_(seed),
        actor_(policy, observations_.ndim() == 3 ? observations_.shape(1) : 1) {
    const Index A = policy.spec().action_dim();
    check_shape("observations", observations_, {-1, -1, policy.shape().inputs()});
    steps_ = observations_.shape(0);
    const Index E = observations_.shape(1);
    check_shape("actions", actions_, {-1, E, A});
    check_shape("counters", counters_, {E});
    check_shape("envs", environments_, {E});
    steps_ = std::min<Index>(steps_, actions_.shape(0));
    row_observations_ = E * policy.shape().inputs();
    row_actions_ = E * A;
    x_ = observations_.data();
    counter_data_ = counters_.mutable_data();
    if (policy.spec().discrete()) {
      if (!py::isinstance<Array<std::int32_t>>(actions_))
        throw py::type_error(
            "actions: expected a C-contiguous int32 array for a discrete distribution.");
      discrete_ = static_cast<std::int32_t*>(actions_.mutable_data());
    } else {
      if (!py::isinstance<Array<Scalar>>(actions_))
        throw py::type_error("actions: expected a C-contiguous array of the policy's dtype.");
      continuous_ = static_cast<Scalar*>(actions_.mutable_data());
    }
  }

  void step(Index t) {
    if (t < 0 || t >= steps_)
      throw py::index_error("t: expected a step in [0, " + std::to_string(steps_) + "), got " +
                            std::to_string(t) + ".");
    py::gil_scoped_release release;  // the buffers are members
    actor_.step(x_ + t * row_observations_, seed_, environments_.data(), counter_data_,
                continuous_ ? continuous_ + t * row_actions_ : nullptr,
                discrete_ ? discrete_ + t * row_actions_ : nullptr);
  }

 private:
  Array<Scalar> observations_;
  py::array actions_;
  Array<std::uint64_t> counters_;
  Array<std::uint32_t> environments_;
  std::uint64_t seed_;
  Actor<Scalar> actor_;
  Index steps_ = 0, row_observations_ = 0, row_actions_ = 0;
  const Scalar* x_ = nullptr;
  std::uint64_t* counter_data_ = nullptr;
  Scalar* continuous_ = nullptr;
  std::int32_t* discrete_ = nullptr;
};

// An option by its name: `names` and `values` side by side.
template <class Enum>
Enum parse_option(const char* what, const std::string& text,
                  std::initializer_list<std::pair<const char*, Enum>> options) {
  std::string known;
  for (const auto& [name, value] : options) {
    if (text == name) return value;
    known += (known.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  throw py::value_error(std::string(what) + ": expected one of " + known + ", got '" + text + "'.");
}

FisherForm parse_fisher(const std::string& text) {
  return parse_option<FisherForm>("fisher", text,
                                  {{"gauss_newton", FisherForm::kGaussNewton},
                                   {"empirical", FisherForm::kEmpirical},
                                   {"identity", FisherForm::kIdentity}});
}

KlConstraint parse_constraint(const std::string& text) {
  return parse_option<KlConstraint>("constraint", text,
                                    {{"mean", KlConstraint::kMean}, {"max", KlConstraint::kMax}});
}

Preconditioner parse_preconditioner(const std::string& text) {
  return parse_option<Preconditioner>(
      "preconditioner", text,
      {{"none", Preconditioner::kNone}, {"kronecker", Preconditioner::kKronecker}});
}

StepRule parse_step_rule(const std::string& text) {
  return parse_option<StepRule>("step", text,
                                {{"line_search", StepRule::kLineSearch},
                                 {"boundary", StepRule::kBoundary},
                                 {"fixed", StepRule::kFixed}});
}

// r -> M^{-1} r
class BoundPreconditioner {
 public:
  explicit BoundPreconditioner(Index n_parameters) : n_parameters_(n_parameters) {}
  KroneckerPreconditioner& kronecker() { return kronecker_; }

  Array<double> apply(const Array<double>& r) {
    check_shape("residual", r, {n_parameters_});
    Array<double> z(n_parameters_);
    const double* in = r.data();
    double* out = z.mutable_data();
    py::gil_scoped_release release;  // r and z are held by this frame
    kronecker_.apply(in, out);
    return z;
  }

 private:
  Index n_parameters_;
  KroneckerPreconditioner kronecker_;
};

// A PolicyBatch with its own copy of the policy, so that later changes of the policy cannot meet
// activations cached before.
template <class Scalar>
class BoundBatch {
 public:
  BoundBatch(const Policy<Scalar>& policy, Array<Scalar> observations,
             std::optional<py::array> actions, Index activation_budget, const std::string& fisher,
             int products)
      : policy_(copy_of(policy)), observations_(std::move(observations)) {
    const FisherForm form = parse_fisher(fisher);
    checked_observations(policy, observations_);
    sample_.observations = observations_.data();
    sample_.size = observations_.shape(0);
    if (actions) {
      actions_ = *actions;
      sample_.actions = actions_of<Scalar>(policy.spec(), actions_, sample_.size);
      has_actions_ = true;
    }
    if (form == FisherForm::kEmpirical) need_actions();
    py::gil_scoped_release release;  // the arrays are members
    batch_.assign(*policy_, sample_, activation_budget, form, products);
  }

  Array<double> fisher_vector_product(const Array<double>& v) {
    check_shape("vector", v, {policy_->n_parameters()});
    Array<double> y(v.shape(0));
    const double* in = v.data();
    double* out = y.mutable_data();
    py::gil_scoped_release release;  // v and y are held by this frame
    batch_.fisher_vector_product(in, out);
    return y;
  }

  Array<double> surrogate_gradient(const Array<double>& weights,
                                   const std::optional<Array<double>>& old_log_probs) {
    need_actions();
    check_shape("advantages", weights, {sample_.size});
    if (old_log_probs) check_shape("old_log_probs", *old_log_probs, {sample_.size});
    Array<double> g(policy_->n_parameters());
    const double* w = weights.data();
    const double* old = old_log_probs ? old_log_probs->data() : nullptr;
    double* out = g.mutable_data();
    py::gil_scoped_release release;  // all arrays are held by this frame
    batch_.surrogate_gradient(w, old, out);
    return g;
  }

  Array<double> penalised_gradient(const BoundBatch& old, const Array<double>& weights,
                                   double kl_coefficient) {
    need_actions();
    old.need_actions();
    check_shape("advantages", weights, {sample_.size});
    if (old.sample_.size != sample_.size)
      throw py::value_error("old: expected a batch of the same samples.");
    Array<double> g(policy_->n_parameters());
    const double* w = weights.data();
    double* out = g.mutable_data();
    py::gil_scoped_release release;  // all arrays are held by this frame
    batch_.penalised_gradient(old.batch_, nullptr, w, kl_coefficient, out);
    return g;
  }

  std::unique_ptr<BoundPreconditioner> kronecker_preconditioner(double damping,
                                                                std::uint64_t seed) {
    auto preconditioner = std::make_unique<BoundPreconditioner>(policy_->n_parameters());
    py::gil_scoped_release release;  // nothing below touches Python
    batch_.precondition(damping, seed, preconditioner->kronecker());
    return preconditioner;
  }

  double largest_curvature(const Array<double>& v) {
    check_shape("vector", v, {policy_->n_parameters()});
    const double* in = v.data();
    py::gil_scoped_release release;  // v is held by this frame
    return batch_.largest_curvature(in);
  }

  py::dict evaluate(const Policy<Scalar>& policy, const Array<double>& weights) {
    need_actions();
    check_shape("advantages", weights, {sample_.size});
    if (policy.n_parameters() != policy_->n_parameters())
      throw py::value_error("policy: expected the same network as the batch was made with.");
    typename PolicyBatch<Scalar>::Evaluation e;
    {
      const double* w = weights.data();
      py::gil_scoped_release release;  // weights are held by this frame
      e = batch_.evaluate(policy, w);
    }
    py::dict out;
    out["surrogate_gain"] = e.candidate.surrogate_gain;
    out["kl"] = e.candidate.kl;
    out["kl_max"] = e.candidate.kl_max;
    out["entropy"] = e.entropy;
    return out;
  }

  double mean_entropy() const { return batch_.mean_entropy(); }

 private:
  void need_actions() const {
    if (!has_actions_) throw py::value_error("actions: this batch was made without actions.");
  }

  std::unique_ptr<Policy<Scalar>> policy_;
  Array<Scalar> observations_;
  py::array actions_;
  bool has_actions_ = false;
  SampleBatch<Scalar> sample_;
  PolicyBatch<Scalar> batch_;
};

py::dict to_dict(const PolicyUpdateSummary& s) {
  py::dict d;
  d["status"] = to_string(s.status);
  d["message"] = s.message;
  d["kl"] = s.kl;
  d["kl_predicted"] = s.kl_predicted;
  d["kl_max"] = s.kl_max;
  d["max_kl"] = s.max_kl;
  d["surrogate_gain"] = s.surrogate_gain;
  d["surrogate_gain_predicted"] = s.surrogate_gain_predicted;
  d["gradient_norm"] = s.gradient_norm;
  d["step_norm"] = s.step_norm;
  d["step_scale"] = s.step_scale;
  d["step_size"] = s.step_size;
  d["cg_iterations"] = s.conjugate_gradient.iterations;
  d["cg_status"] = to_string(s.conjugate_gradient.status);
  d["cg_relative_residual"] = s.conjugate_gradient.relative_residual;
  d["backtracks"] = s.backtracks;
  d["entropy"] = s.entropy;
  d["entropy_before"] = s.entropy_before;
  d["seconds_gradient"] = s.seconds_gradient;
  d["seconds_cg"] = s.seconds_cg;
  d["seconds_line_search"] = s.seconds_line_search;
  d["seconds_total"] = s.seconds_total;
  return d;
}

template <class Scalar>
SampleBatch<Scalar> samples_of(const Policy<Scalar>& policy, const Array<Scalar>& x,
                               const py::array& actions, const Array<Scalar>& advantages) {
  SampleBatch<Scalar> batch;
  batch.observations = checked_observations(policy, x).data();
  batch.size = x.shape(0);
  batch.actions = actions_of<Scalar>(policy.spec(), actions, batch.size);
  check_shape("advantages", advantages, {batch.size});
  batch.advantages = advantages.data();
  return batch;
}

template <class Scalar>
py::dict update(PolicyUpdater<Scalar>& updater, Policy<Scalar>& policy, const Array<Scalar>& x,
                const py::array& actions, const Array<Scalar>& advantages, double max_kl,
                int cg_iterations, double cg_tolerance, double cg_damping, double backtrack_ratio,
                int max_backtracks, double fisher_fraction, bool standardize_advantages,
                std::uint64_t seed, Index activation_budget, const std::string& constraint,
                const std::string& fisher, const std::string& step, double step_size,
                const std::string& preconditioner) {
  const SampleBatch<Scalar> batch = samples_of(policy, x, actions, advantages);
  PolicyUpdateOptions options;
  options.line_search.max_kl = max_kl;
  options.line_search.backtrack_ratio = backtrack_ratio;
  options.line_search.max_backtracks = max_backtracks;
  options.conjugate_gradient.max_iterations = cg_iterations;
  options.conjugate_gradient.relative_tolerance = cg_tolerance;
  options.damping = cg_damping;
  options.fisher_fraction = fisher_fraction;
  options.standardize_advantages = standardize_advantages;
  options.seed = seed;
  options.activation_budget = activation_budget;
  options.constraint = parse_constraint(constraint);
  options.fisher = parse_fisher(fisher);
  options.step_rule = parse_step_rule(step);
  options.step_size = step_size;
  options.preconditioner = parse_preconditioner(preconditioner);
  PolicyUpdateSummary summary;
  {
    py::gil_scoped_release release;  // every array is held by this frame
    summary = updater.update(policy, batch, options);
  }
  return to_dict(summary);
}

template <class Scalar>
py::dict ascend(PolicyUpdater<Scalar>& updater, Policy<Scalar>& policy, const Array<Scalar>& x,
                const py::array& actions, const Array<Scalar>& advantages, int epochs,
                Index minibatch_size, double learning_rate, double kl_coefficient,
                bool standardize_advantages, std::uint64_t seed, Index activation_budget) {
  const SampleBatch<Scalar> batch = samples_of(policy, x, actions, advantages);
  PolicyAscentOptions options;
  options.epochs = epochs;
  options.minibatch_size = minibatch_size;
  options.learning_rate = learning_rate;
  options.kl_coefficient = kl_coefficient;
  options.standardize_advantages = standardize_advantages;
  options.seed = seed;
  options.activation_budget = activation_budget;
  PolicyUpdateSummary summary;
  {
    py::gil_scoped_release release;  // every array is held by this frame
    summary = updater.ascend(policy, batch, options);
  }
  return to_dict(summary);
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
          [](const P& p, const Array<Scalar>& x) {
            checked_observations(p, x);
            Array<Scalar> y({x.shape(0), py::ssize_t{p.shape().outputs()}});
            Scalar* out = y.mutable_data();
            const Scalar* in = x.data();
            py::gil_scoped_release release;  // x and y are held by this frame
            p.outputs(in, x.shape(0), out);
            return y;
          },
          "observations"_a.noconvert())
      .def(
          "log_prob",
          [](const P& p, const Array<Scalar>& x, const py::array& actions) {
            checked_observations(p, x);
            const auto a = actions_of<Scalar>(p.spec(), actions, x.shape(0));
            return map_rows(p, x, [&](const Scalar* out, Index n) {
              return p.distribution().log_prob(out, a, n);
            });
          },
          "observations"_a.noconvert(), "actions"_a)
      .def(
          "entropy",
          [](const P& p, const Array<Scalar>& x) {
            checked_observations(p, x);
            return map_rows(
                p, x, [&](const Scalar* out, Index) { return p.distribution().entropy(out); });
          },
          "observations"_a.noconvert())
      .def(
          "kl",
          [](const P& p, const Array<Scalar>& x, const P& old) {
            checked_observations(p, x);
            checked_observations(old, x);
            const Index outputs = p.shape().outputs();
            std::vector<Scalar> old_outputs(static_cast<std::size_t>(x.shape(0) * outputs));
            old.outputs(x.data(), x.shape(0), old_outputs.data());
            return map_rows(p, x, [&](const Scalar* out, Index n) {
              return p.distribution().kl(old.distribution(), old_outputs.data() + n * outputs, out);
            });
          },
          "observations"_a.noconvert(), "old"_a)
      .def(
          "sample",
          [](const P& p, const Array<Scalar>& x, std::uint64_t seed,
             const Array<std::uint32_t>& environments, const Array<std::uint64_t>& steps,
             bool deterministic) -> py::array {
            checked_observations(p, x);
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
              if (deterministic) actor.mode(in, c, d);
              else actor.step(in, seed, ids, counters.data(), c, d);
            }
            if (p.spec().discrete()) return discrete;
            return continuous;
          },
          "observations"_a.noconvert(), "seed"_a, "envs"_a.noconvert(), "steps"_a.noconvert(),
          "deterministic"_a)
      .def("act_one", &act_one<Scalar>, "observation"_a, "seed"_a, "step"_a, "deterministic"_a);

  using A = BoundActor<Scalar>;
  py::class_<A>(m, ("Actor" + suffix).c_str())
      .def(py::init<const P&, Array<Scalar>, py::array, Array<std::uint64_t>, Array<std::uint32_t>,
                    std::uint64_t>(),
           py::keep_alive<1, 2>(), "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "counters"_a.noconvert(), "envs"_a.noconvert(), "seed"_a)
      .def("step", &A::step, "t"_a);

  using B = BoundBatch<Scalar>;
  py::class_<B>(m, ("PolicyBatch" + suffix).c_str())
      .def(py::init<const P&, Array<Scalar>, std::optional<py::array>, Index, std::string, int>(),
           "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "activation_budget"_a = PolicyBatch<Scalar>::kDefaultActivationBudget,
           "fisher"_a = "gauss_newton", "products"_a = 0)
      .def("fisher_vector_product", &B::fisher_vector_product, "vector"_a.noconvert())
      .def("surrogate_gradient", &B::surrogate_gradient, "advantages"_a.noconvert(),
           "old_log_probs"_a.noconvert())
      .def("penalised_gradient", &B::penalised_gradient, "old"_a, "advantages"_a.noconvert(),
           "kl_coefficient"_a)
      .def("kronecker_preconditioner", &B::kronecker_preconditioner, "damping"_a, "seed"_a)
      .def("largest_curvature", &B::largest_curvature, "vector"_a.noconvert())
      .def("evaluate", &B::evaluate, "policy"_a, "advantages"_a.noconvert())
      .def("mean_entropy", &B::mean_entropy);

  using U = PolicyUpdater<Scalar>;
  py::class_<U>(m, ("PolicyUpdater" + suffix).c_str())
      .def(py::init<>())
      .def("update", &update<Scalar>, "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "advantages"_a.noconvert(), "max_kl"_a, "cg_iterations"_a, "cg_tolerance"_a,
           "cg_damping"_a, "backtrack_ratio"_a, "max_backtracks"_a, "fisher_fraction"_a,
           "standardize_advantages"_a, "seed"_a, "activation_budget"_a, "constraint"_a = "mean",
           "fisher"_a = "gauss_newton", "step"_a = "line_search", "step_size"_a = 0.1,
           "preconditioner"_a = "none")
      .def("ascend", &ascend<Scalar>, "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "advantages"_a.noconvert(), "epochs"_a, "minibatch_size"_a, "learning_rate"_a,
           "kl_coefficient"_a, "standardize_advantages"_a, "seed"_a, "activation_budget"_a)
      .def(
          "get_adam",
          [](U& u, Index n_parameters) {
            auto& adam = u.adam();  // sized here where no ascent was made yet
            adam.first_moment.resize(static_cast<std::size_t>(n_parameters));
            adam.second_moment.resize(static_cast<std::size_t>(n_parameters));
            return py::make_tuple(Array<Scalar>(n_parameters, adam.first_moment.data()),
                                  Array<Scalar>(n_parameters, adam.second_moment.data()),
                                  adam.steps);
          },
          "n_parameters"_a)
      .def(
          "set_adam",
          [](U& u, const Array<Scalar>& first, const Array<Scalar>& second, std::int64_t steps) {
            check_shape("second_moment", second, {first.size()});
            u.adam().first_moment.assign(first.data(), first.data() + first.size());
            u.adam().second_moment.assign(second.data(), second.data() + second.size());
            u.adam().steps = steps;
          },
          "first_moment"_a.noconvert(), "second_moment"_a.noconvert(), "steps"_a);
}

}  // namespace

void register_policy(py::module_& m) {
  using namespace py::literals;
  py::class_<BoundPreconditioner>(m, "KroneckerPreconditioner")
      .def("apply", &BoundPreconditioner::apply, "residual"_a.noconvert());
  register_policy_of<float>(m, "F32");
  register_policy_of<double>(m, "F64");
}

}  // namespace trpo_fast::bindings
