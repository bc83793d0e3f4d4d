// Actor, for float and double.
#include <algorithm>
#include <utility>

#include "arrays.h"
#include "policies.h"

namespace trpo_fast::bindings {
namespace {

// Buffers of one rollout, borrowed and kept alive; one call a step.
template <class Scalar>
class BoundActor {
 public:
  BoundActor(const Policy<Scalar>& policy, Array<Scalar> observations, py::array actions,
             Array<std::uint64_t> counters, Array<std::uint32_t> environments, std::uint64_t seed,
             std::optional<Array<bool>> masks)
      : observations_(std::move(observations)),
        actions_(std::move(actions)),
        counters_(std::move(counters)),
        environments_(std::move(environments)),
        masks_(std::move(masks)),
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
    if (masks_) {
      row_masks_ = E * policy.spec().mask_width();
      check_shape("action_masks", *masks_, {observations_.shape(0), E, policy.spec().mask_width()});
      allowed_ = masks_->data();
    }
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
    actor_.step(x_ + t * row_observations_, allowed_ ? allowed_ + t * row_masks_ : nullptr, seed_,
                environments_.data(), counter_data_,
                continuous_ ? continuous_ + t * row_actions_ : nullptr,
                discrete_ ? discrete_ + t * row_actions_ : nullptr);
  }

 private:
  Array<Scalar> observations_;
  py::array actions_;
  Array<std::uint64_t> counters_;
  Array<std::uint32_t> environments_;
  std::optional<Array<bool>> masks_;
  std::uint64_t seed_;
  Actor<Scalar> actor_;
  Index steps_ = 0, row_observations_ = 0, row_actions_ = 0, row_masks_ = 0;
  const Scalar* x_ = nullptr;
  const bool* allowed_ = nullptr;
  std::uint64_t* counter_data_ = nullptr;
  Scalar* continuous_ = nullptr;
  std::int32_t* discrete_ = nullptr;
};

template <class Scalar>
void register_actor(py::module_& m, const char* name) {
  using namespace py::literals;
  using A = BoundActor<Scalar>;
  py::class_<A>(m, name)
      .def(py::init<const Policy<Scalar>&, Array<Scalar>, py::array, Array<std::uint64_t>,
                    Array<std::uint32_t>, std::uint64_t, std::optional<Array<bool>>>(),
           py::keep_alive<1, 2>(), "policy"_a, "observations"_a.noconvert(), "actions"_a,
           "counters"_a.noconvert(), "envs"_a.noconvert(), "seed"_a,
           "action_masks"_a.noconvert() = py::none())
      .def("step", &A::step, "t"_a);
}

}  // namespace

void register_acting(py::module_& m) {
  register_actor<float>(m, "ActorF32");
  register_actor<double>(m, "ActorF64");
}

}  // namespace trpo_fast::bindings
