// PolicyBatch and its preconditioner, for float and double.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "arrays.h"
#include "options.h"
#include "policies.h"
#include "trpo_fast/policy_batch.h"

namespace trpo_fast::bindings {
namespace {

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

// A PolicyBatch with copies of the policy and of the rows: every product is with the matrix of the
// moment when it was made, whatever the caller does to policy and rows later.
template <class Scalar>
class BoundBatch {
 public:
  BoundBatch(const Policy<Scalar>& policy, const Array<Scalar>& observations,
             const std::optional<py::array>& actions, Index activation_budget,
             const std::string& fisher, int products, const std::optional<Array<bool>>& masks)
      : policy_(copy_of(policy)) {
    const FisherForm form = checked_choice("fisher", py::str(fisher), kFisherForms);
    checked_observations(policy, observations);
    sample_.size = observations.shape(0);
    observations_.assign(observations.data(), observations.data() + observations.size());
    sample_.observations = observations_.data();
    if (actions) copy_actions(actions_of<Scalar>(policy.spec(), *actions, sample_.size));
    if (form == FisherForm::kEmpirical) need_actions();
    if (masks) copy_masks(masks_of(policy.spec(), masks, sample_.size));
    py::gil_scoped_release release;  // the rows are members
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
    check_alike("old", *policy_, *old.policy_);
    if (old.sample_.size != sample_.size)
      throw py::value_error("old: expected a batch of " + std::to_string(sample_.size) +
                            " samples, got " + std::to_string(old.sample_.size) + ".");
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

 private:
  void copy_actions(const Actions<Scalar>& actions) {
    const auto n = static_cast<std::size_t>(sample_.size * policy_->spec().action_dim());
    if (actions.continuous) continuous_.assign(actions.continuous, actions.continuous + n);
    if (actions.discrete) discrete_.assign(actions.discrete, actions.discrete + n);
    sample_.actions.continuous = actions.continuous ? continuous_.data() : nullptr;
    sample_.actions.discrete = actions.discrete ? discrete_.data() : nullptr;
  }
  void copy_masks(const bool* allowed) {
    const Index n = sample_.size * policy_->spec().mask_width();
    allowed_ = std::make_unique<bool[]>(static_cast<std::size_t>(n));
    std::copy_n(allowed, n, allowed_.get());
    sample_.allowed = allowed_.get();
  }
  void need_actions() const {
    if (!sample_.actions.continuous && !sample_.actions.discrete)
      throw py::value_error("actions: expected a batch made with actions, got one without.");
  }

  std::unique_ptr<Policy<Scalar>> policy_;
  std::vector<Scalar> observations_, continuous_;
  std::vector<std::int32_t> discrete_;
  std::unique_ptr<bool[]> allowed_;
  SampleBatch<Scalar> sample_;
  PolicyBatch<Scalar> batch_;
};

template <class Scalar>
void register_batch_of(py::module_& m, const char* name) {
  using namespace py::literals;
  using B = BoundBatch<Scalar>;
  py::class_<B>(m, name)
      .def(py::init<const Policy<Scalar>&, const Array<Scalar>&, const std::optional<py::array>&,
                    Index, const std::string&, int, const std::optional<Array<bool>>&>(),
           "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "activation_budget"_a = PolicyBatch<Scalar>::kDefaultActivationBudget,
           "fisher"_a = "gauss_newton", "products"_a = 0, "action_masks"_a.noconvert() = py::none())
      .def("fisher_vector_product", &B::fisher_vector_product, "vector"_a.noconvert())
      .def("surrogate_gradient", &B::surrogate_gradient, "advantages"_a.noconvert(),
           "old_log_probs"_a.noconvert())
      .def("penalised_gradient", &B::penalised_gradient, "old"_a, "advantages"_a.noconvert(),
           "kl_coefficient"_a)
      .def("kronecker_preconditioner", &B::kronecker_preconditioner, "damping"_a, "seed"_a)
      .def("largest_curvature", &B::largest_curvature, "vector"_a.noconvert());
}

}  // namespace

void register_batch(py::module_& m) {
  using namespace py::literals;
  py::class_<BoundPreconditioner>(m, "KroneckerPreconditioner")
      .def("apply", &BoundPreconditioner::apply, "residual"_a.noconvert());
  register_batch_of<float>(m, "PolicyBatchF32");
  register_batch_of<double>(m, "PolicyBatchF64");
}

}  // namespace trpo_fast::bindings
