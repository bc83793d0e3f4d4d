// What the bindings of policies share: copies, and checks of what a caller passes.
#pragma once

#include <memory>

#include "arrays.h"
#include "options.h"
#include "trpo_fast/policy.h"
#include "trpo_fast/policy_batch.h"

namespace trpo_fast::bindings {

// What products are with.
inline const Choices<FisherForm> kFisherForms{{"gauss_newton", FisherForm::kGaussNewton},
                                              {"empirical", FisherForm::kEmpirical}};

template <class Scalar>
const Array<Scalar>& checked_observations(const Policy<Scalar>& policy, const Array<Scalar>& x) {
  check_shape("observations", x, {-1, policy.shape().inputs()});
  check_rows("observations", x);
  return x;
}

// Further states of a trust region, none where the array is None; borrowed.
template <class Scalar>
SampleBatch<Scalar> further_states(const Policy<Scalar>& policy,
                                   const std::optional<Array<Scalar>>& x,
                                   const std::optional<Array<bool>>& masks) {
  SampleBatch<Scalar> states;
  if (!x) return states;
  check_shape("further_observations", *x, {-1, policy.shape().inputs()});
  states.observations = x->data();
  states.size = x->shape(0);
  states.allowed = masks_of(policy.spec(), masks, states.size);
  return states;
}

template <class Scalar>
std::unique_ptr<Policy<Scalar>> copy_of(const Policy<Scalar>& policy) {
  auto copy = std::make_unique<Policy<Scalar>>(policy.shape(), policy.spec());
  copy->set_parameters(policy.parameters());
  return copy;
}

// Throws unless both policies have the same layers, activation and distribution.
template <class Scalar>
void check_alike(const char* name, const Policy<Scalar>& policy, const Policy<Scalar>& other) {
  const NetworkShape &a = policy.shape(), &b = other.shape();
  const bool same_network = a.n_layers == b.n_layers && a.activation == b.activation &&
                            std::equal(a.sizes, a.sizes + a.n_layers + 1, b.sizes);
  if (!same_network || policy.spec().kind != other.spec().kind ||
      policy.spec().sizes != other.spec().sizes)
    throw py::value_error(std::string(name) +
                          ": expected a policy of the same network and distribution, got another.");
}

}  // namespace trpo_fast::bindings
