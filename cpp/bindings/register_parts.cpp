// Updates of a batch in parts, wherever these are: a part of a policy's batch, and the update over all of
// them, which asks a Python object for their sums.
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "options.h"
#include "policies.h"
#include "summaries.h"
#include "trpo_fast/first_layer.h"
#include "trpo_fast/parted_model.h"
#include "trpo_fast/policy_ascent.h"
#include "trpo_fast/trust_region_update.h"
#include "trpo_fast/value_function.h"

namespace trpo_fast::bindings {
namespace {

// sum, smallest, largest, sum of squares
using Sums = std::tuple<double, double, double, double>;
AdvantageSums sums_of(const Sums& s) {
  return {std::get<0>(s), std::get<1>(s), std::get<2>(s), std::get<3>(s)};
}
Sums tuple_of(const AdvantageSums& s) { return {s.sum, s.smallest, s.largest, s.squares}; }

template <class Scalar>
py::tuple tuple_of(const PartialGradient<Scalar>& part) {
  return py::make_tuple(
      Array<Scalar>(static_cast<py::ssize_t>(part.roots.size()), part.roots.data()),
      Array<double>(static_cast<py::ssize_t>(part.log_std.size()), part.log_std.data()));
}

// The vector's entries; the answer of a part has to be an array of exactly this dtype.
template <class T>
std::vector<T> vector_of(const py::handle& answer) {
  if (!py::isinstance<Array<T>>(answer))
    throw py::type_error("parts: expected a C-contiguous array of the right dtype as an answer.");
  const auto array = py::reinterpret_borrow<py::array>(answer);
  const T* begin = static_cast<const T*>(array.data());
  return {begin, begin + array.size()};
}

// A part of a batch at a copy of the policy. It holds references to the rows, which must not change.
template <class Scalar>
class BoundPart {
 public:
  BoundPart(const Policy<Scalar>& policy, Array<Scalar> observations, py::array actions,
            Array<Scalar> advantages, std::optional<Array<bool>> masks, Index whole_size,
            Index first_row, const py::str& fisher, int products, Index activation_budget)
      : policy_(copy_of(policy)),
        candidate_(copy_of(policy)),
        x_(std::move(observations)),
        actions_(std::move(actions)),
        advantages_(std::move(advantages)),
        masks_(std::move(masks)) {
    const FisherForm form = checked_choice("fisher", fisher, kFisherForms);
    SampleBatch<Scalar> samples;
    samples.observations = checked_observations(policy, x_).data();
    samples.size = x_.shape(0);
    samples.actions = actions_of<Scalar>(policy.spec(), actions_, samples.size);
    samples.allowed = masks_of(policy.spec(), masks_, samples.size);
    check_shape("advantages", advantages_, {samples.size});
    samples.whole_size = whole_size;
    samples.dense = true;
    const Chunks chunks = chunks_of(whole_size, policy.n_parameters());
    const Index end = first_row + samples.size;
    if (first_row < 0 || end > whole_size || first_row % chunks.rows != 0 ||
        (end % chunks.rows != 0 && end != whole_size))
      throw py::value_error("first_row: expected whole chunks of " + std::to_string(chunks.rows) +
                            " of " + std::to_string(whole_size) + " rows, got rows " +
                            std::to_string(first_row) + " to " + std::to_string(end) + ".");
    first_chunk_ = first_row / chunks.rows;
    weights_.resize(static_cast<std::size_t>(samples.size));
    py::gil_scoped_release release;  // the rows are members
    batch_.assign(*policy_, samples, activation_budget, form, products);
  }

  Array<double> entropy_sums() {
    Array<double> sums(batch_.chunks());
    batch_.entropy_sums(sums.mutable_data());
    return sums;
  }

  Sums add_advantages(const Sums& so_far) {
    AdvantageSums sums = sums_of(so_far);
    sums.add(advantages_.data(), batch_.size());
    return tuple_of(sums);
  }
  Sums add_advantage_squares(const Sums& so_far, double mean) {
    AdvantageSums sums = sums_of(so_far);
    sums.add_squares(advantages_.data(), batch_.size(), mean);
    return tuple_of(sums);
  }
  void weigh(double mean, double scale) {
    Weighing{mean, scale}.weigh(advantages_.data(), batch_.size(), weights_.data());
  }

  py::tuple surrogate_gradient() {
    {
      py::gil_scoped_release release;  // nothing below touches Python
      batch_.surrogate_part(weights_.data(), first_chunk_, gradient_);
    }
    return tuple_of(gradient_);
  }

  py::tuple fisher_vector_product(const Array<double>& v) {
    check_shape("vector", v, {policy_->n_parameters()});
    const double* in = v.data();
    {
      py::gil_scoped_release release;  // v is held by the caller's frame
      batch_.product_part(in, first_chunk_, gradient_);
    }
    return tuple_of(gradient_);
  }

  double largest_curvature(const Array<double>& v) {
    check_shape("vector", v, {policy_->n_parameters()});
    const double* in = v.data();
    py::gil_scoped_release release;  // v is held by the caller's frame
    return batch_.curvature_part(in);
  }

  Array<double> evaluation_sums(const Array<Scalar>& parameters) {
    check_shape("parameters", parameters, {policy_->n_parameters()});
    candidate_->set_parameters(parameters.data());
    Array<double> sums({batch_.chunks(), Index{4}});
    double* out = sums.mutable_data();
    py::gil_scoped_release release;  // sums are held by this frame
    batch_.evaluation_sums(*candidate_, weights_.data(), out);
    return sums;
  }

 private:
  std::unique_ptr<Policy<Scalar>> policy_, candidate_;
  Array<Scalar> x_;
  py::array actions_;
  Array<Scalar> advantages_;
  std::optional<Array<bool>> masks_;
  Index first_chunk_ = 0;
  std::vector<double> weights_;
  PartialGradient<Scalar> gradient_;
  PolicyBatch<Scalar> batch_;
};

// Parts that a Python object asks; called without the GIL.
template <class Scalar>
class CalledParts final : public Parts<Scalar> {
 public:
  CalledParts(py::object asked, const Policy<Scalar>& policy)
      : asked_(std::move(asked)), policy_(policy) {}

  void begin(const Policy<Scalar>& policy, const BatchPlan& plan) override {
    py::gil_scoped_acquire acquire;
    asked_.attr("begin")(parameters_of(policy), choice_name(plan.fisher, kFisherForms),
                         plan.products, plan.activation_budget);
  }
  std::vector<double> entropy_sums() override {
    py::gil_scoped_acquire acquire;
    return vector_of<double>(asked_.attr("entropy_sums")());
  }
  std::vector<PartialGradient<Scalar>> surrogate_gradient() override {
    py::gil_scoped_acquire acquire;
    return gradients_of(asked_.attr("surrogate_gradient")());
  }
  std::vector<PartialGradient<Scalar>> fisher_vector_product(const double* v) override {
    py::gil_scoped_acquire acquire;
    return gradients_of(asked_.attr("fisher_vector_product")(vector(v)));
  }
  std::vector<double> largest_curvatures(const double* v) override {
    py::gil_scoped_acquire acquire;
    return asked_.attr("largest_curvatures")(vector(v)).template cast<std::vector<double>>();
  }
  std::vector<double> evaluation_sums(const Policy<Scalar>& policy) override {
    py::gil_scoped_acquire acquire;
    return vector_of<double>(asked_.attr("evaluation_sums")(parameters_of(policy)));
  }
  void add_advantages(AdvantageSums& sums) override {
    py::gil_scoped_acquire acquire;
    sums = sums_of(asked_.attr("add_advantages")(tuple_of(sums)).template cast<Sums>());
  }
  void add_advantage_squares(AdvantageSums& sums, double mean) override {
    py::gil_scoped_acquire acquire;
    sums =
        sums_of(asked_.attr("add_advantage_squares")(tuple_of(sums), mean).template cast<Sums>());
  }
  void weigh(const Weighing& weighing) override {
    py::gil_scoped_acquire acquire;
    asked_.attr("weigh")(weighing.mean, weighing.scale);
  }
  SampleBatch<Scalar> every_tile(Index spacing) override {
    py::gil_scoped_acquire acquire;
    using Rows = std::tuple<Array<Scalar>, py::array, std::optional<Array<bool>>>;
    std::tie(x_, actions_, masks_) = asked_.attr("every_tile")(spacing).template cast<Rows>();
    SampleBatch<Scalar> samples;
    samples.observations = checked_observations(policy_, x_).data();
    samples.size = x_.shape(0);
    samples.actions = actions_of<Scalar>(policy_.spec(), actions_, samples.size);
    samples.allowed = masks_of(policy_.spec(), masks_, samples.size);
    samples.dense = true;
    return samples;
  }

 private:
  static Array<Scalar> parameters_of(const Policy<Scalar>& policy) {
    return Array<Scalar>(policy.n_parameters(), policy.parameters());
  }
  Array<double> vector(const double* v) const { return Array<double>(policy_.n_parameters(), v); }
  static std::vector<PartialGradient<Scalar>> gradients_of(const py::object& answers) {
    std::vector<PartialGradient<Scalar>> gradients;
    for (const py::handle& answer : answers) {
      const auto both = py::reinterpret_borrow<py::sequence>(answer);
      gradients.push_back({vector_of<Scalar>(both[0]), vector_of<double>(both[1])});
    }
    return gradients;
  }

  py::object asked_;
  const Policy<Scalar>& policy_;
  Array<Scalar> x_;
  py::array actions_;
  std::optional<Array<bool>> masks_;
};

// The update over parts, whose first chunks have these numbers.
template <class Scalar>
class BoundPartedUpdater {
 public:
  py::dict update(Policy<Scalar>& policy, const py::object& asked, Index rows,
                  std::vector<Index> first_chunks, const TrustRegionOptions& options,
                  const std::optional<Array<Scalar>>& further_x,
                  const std::optional<Array<bool>>& further_masks) {
    const TrustRegionOptions fixed = options;  // a copy, because other threads may set the fields
    const SampleBatch<Scalar> further = further_states(policy, further_x, further_masks);
    CalledParts<Scalar> parts(asked, policy);
    PolicyUpdateSummary summary;
    {
      py::gil_scoped_release release;  // what is called takes it again
      PartedModel<Scalar> model(parts, rows, chunks_of(rows, policy.n_parameters()).count,
                                std::move(first_chunks));
      summary = updater_.update(policy, model, fixed, further);
    }
    return to_dict(summary);
  }

 private:
  TrustRegionUpdater<Scalar> updater_;
};

// One step of Adam over parts, with its moments and steps before; (summary, those after).
template <class Scalar>
py::tuple ascend_parts(Policy<Scalar>& policy, const py::object& asked, Index rows,
                       std::vector<Index> first_chunks, const AscentOptions& options,
                       const Array<Scalar>& first, const Array<Scalar>& second,
                       std::int64_t steps) {
  const Index D = policy.n_parameters();
  check_shape("first_moment", first, {D});
  check_shape("second_moment", second, {D});
  const AscentOptions fixed = options;  // a copy, as above
  CalledParts<Scalar> parts(asked, policy);
  PolicyAscent<Scalar> ascent(D);
  AdamState<Scalar>& adam = ascent.adam();
  adam = {{first.data(), first.data() + D}, {second.data(), second.data() + D}, steps};
  PolicyUpdateSummary summary;
  {
    py::gil_scoped_release release;  // what is called takes it again
    PartedModel<Scalar> model(parts, rows, chunks_of(rows, D).count, std::move(first_chunks));
    summary = ascent.ascend(policy, model, fixed);
  }
  return py::make_tuple(to_dict(summary), Array<Scalar>(D, adam.first_moment.data()),
                        Array<Scalar>(D, adam.second_moment.data()), adam.steps);
}

// Rows of a value fit that a Python object has; called without the GIL.
template <class Scalar>
class CalledRows final : public ValueRows<Scalar> {
 public:
  CalledRows(py::object asked, const ValueFunction<Scalar>& v)
      : asked_(std::move(asked)), n_parameters_(v.n_parameters()), width_(v.shape().inputs()) {}

  std::vector<double> loss_sums(const Scalar* parameters,
                                std::vector<PartialGradient<Scalar>>* gradients) override {
    py::gil_scoped_acquire acquire;
    const py::tuple answer =
        asked_.attr("loss_sums")(Array<Scalar>(n_parameters_, parameters), gradients != nullptr);
    if (gradients) {
      gradients->clear();
      for (const py::handle& roots : answer[1])
        gradients->push_back({vector_of<Scalar>(roots), {}});
    }
    return vector_of<double>(answer[0]);
  }

  void gather(const std::int64_t* order, Index count, const Scalar** observations,
              const Scalar** targets) override {
    py::gil_scoped_acquire acquire;
    using Rows = std::tuple<Array<Scalar>, Array<Scalar>>;
    std::tie(x_, y_) =
        asked_.attr("gather")(Array<std::int64_t>(count, order)).template cast<Rows>();
    check_shape("observations", x_, {count, width_});
    check_shape("targets", y_, {count});
    *observations = x_.data();
    *targets = y_.data();
  }

 private:
  py::object asked_;
  Index n_parameters_, width_;
  Array<Scalar> x_, y_;
};

template <class Scalar>
py::dict fit_parts(ValueFunction<Scalar>& v, const py::object& asked, Index rows,
                   std::vector<Index> first_chunks, const ValueFitOptions& options) {
  const ValueFitOptions fixed = options;  // a copy, because other threads may set the fields
  CalledRows<Scalar> called(asked, v);
  ValueFitSummary summary;
  {
    py::gil_scoped_release release;  // what is called takes it again
    summary = v.fit(called, rows, std::move(first_chunks), fixed);
  }
  return to_dict(summary);
}

// (sums of squared errors by chunk, roots of their gradient or None)
template <class Scalar>
py::tuple loss_part(ValueFunction<Scalar>& v, const Array<Scalar>& x, const Array<Scalar>& targets,
                    Index whole_size, Index first_row, bool with_gradient) {
  check_shape("observations", x, {-1, v.shape().inputs()});
  check_rows("observations", x);
  check_shape("targets", targets, {x.shape(0)});
  const Chunks chunks = chunks_of(whole_size, v.n_parameters());
  PartialGradient<Scalar> gradient;
  std::vector<double> sums;
  {
    py::gil_scoped_release release;  // x and targets are held by the caller's frame
    sums = v.loss_part(x.data(), targets.data(), x.shape(0), whole_size, first_row / chunks.rows,
                       with_gradient ? &gradient : nullptr);
  }
  py::object roots = py::none();
  if (with_gradient)
    roots = Array<Scalar>(static_cast<py::ssize_t>(gradient.roots.size()), gradient.roots.data());
  return py::make_tuple(Array<double>(static_cast<py::ssize_t>(sums.size()), sums.data()), roots);
}

template <class Scalar>
void register_parts_of(py::module_& m, const std::string& suffix) {
  using namespace py::literals;
  // the background (O,), or None where the rows are dense
  m.def(
      "likely_background",
      [](const Array<Scalar>& looked_at) -> py::object {
        check_shape("looked_at", looked_at, {rows_looked_at(), -1});
        Array<Scalar> background(looked_at.shape(1));
        const bool found =
            likely_background(looked_at.data(), looked_at.shape(1), background.mutable_data());
        return found ? py::object(background) : py::none();
      },
      "looked_at"_a.noconvert());
  m.def(
      "count_entries",
      [](const Array<Scalar>& x, const Array<Scalar>& background) {
        check_shape("observations", x, {-1, -1});
        check_shape("background", background, {x.shape(1)});
        return count_entries(x.data(), x.shape(0), x.shape(1), background.data());
      },
      "observations"_a.noconvert(), "background"_a.noconvert());
  using P = BoundPart<Scalar>;
  py::class_<P>(m, ("PolicyPart" + suffix).c_str())
      .def(py::init<const Policy<Scalar>&, Array<Scalar>, py::array, Array<Scalar>,
                    std::optional<Array<bool>>, Index, Index, const py::str&, int, Index>(),
           "policy"_a, "observations"_a.noconvert(), "actions"_a, "advantages"_a.noconvert(),
           "action_masks"_a.noconvert(), "whole_size"_a, "first_row"_a, "fisher"_a, "products"_a,
           "activation_budget"_a)
      .def("entropy_sums", &P::entropy_sums)
      .def("add_advantages", &P::add_advantages, "sums"_a)
      .def("add_advantage_squares", &P::add_advantage_squares, "sums"_a, "mean"_a)
      .def("weigh", &P::weigh, "mean"_a, "scale"_a)
      .def("surrogate_gradient", &P::surrogate_gradient)
      .def("fisher_vector_product", &P::fisher_vector_product, "vector"_a.noconvert())
      .def("largest_curvature", &P::largest_curvature, "vector"_a.noconvert())
      .def("evaluation_sums", &P::evaluation_sums, "parameters"_a.noconvert());
  m.def("ascend_parts", &ascend_parts<Scalar>, "policy"_a, "parts"_a, "rows"_a, "first_chunks"_a,
        "options"_a, "first_moment"_a.noconvert(), "second_moment"_a.noconvert(), "steps"_a);
  m.def("fit_parts", &fit_parts<Scalar>, "value_function"_a, "rows"_a, "count"_a, "first_chunks"_a,
        "options"_a);
  m.def("loss_part", &loss_part<Scalar>, "value_function"_a, "observations"_a.noconvert(),
        "targets"_a.noconvert(), "whole_size"_a, "first_row"_a, "with_gradient"_a);
  using U = BoundPartedUpdater<Scalar>;
  py::class_<U>(m, ("PartedUpdater" + suffix).c_str())
      .def(py::init<>())
      .def("update", &U::update, "policy"_a, "parts"_a, "rows"_a, "first_chunks"_a, "options"_a,
           "further_observations"_a.noconvert() = py::none(),
           "further_masks"_a.noconvert() = py::none());
}

}  // namespace

void register_parts(py::module_& m) {
  using namespace py::literals;
  m.attr("TILE_ROWS") = rows_of_a_tile();
  m.attr("ROWS_LOOKED_AT") = rows_looked_at();
  m.def("are_few_entries", &are_few_entries, "entries"_a, "rows"_a, "width"_a);
  m.def(
      "chunks_of",
      [](Index rows, Index n_parameters) {
        const Chunks chunks = chunks_of(rows, n_parameters);
        return py::make_tuple(chunks.count, chunks.rows);
      },
      "rows"_a, "n_parameters"_a);
  register_parts_of<float>(m, "F32");
  register_parts_of<double>(m, "F64");
}

}  // namespace trpo_fast::bindings
