// Distributions by kind: each lives in a header of its own under distributions/, and visit() below is
// the only place that chooses among them. A new kind is a header, an enumerator, a name and a case.
#include "trpo_fast/distribution.h"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "distributions/bernoulli.h"
#include "distributions/gaussian.h"
#include "distributions/multi_categorical.h"
#include "distributions/state_dependent_gaussian.h"

namespace trpo_fast {
namespace {

// body(kind), with the kind that the specification names
template <class Body>
decltype(auto) visit(const DistributionSpec& spec, const Body& body) {
  switch (spec.kind) {
    case DistributionKind::kGaussian: return body(Gaussian{spec.sizes[0]});
    case DistributionKind::kStateDependentGaussian:
      return body(StateDependentGaussian{spec.sizes[0]});
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical: return body(MultiCategorical{spec.sizes});
    case DistributionKind::kBernoulli: break;
  }
  return body(Bernoulli{spec.sizes[0]});
}

constexpr std::pair<const char*, DistributionKind> kNames[] = {
    {"gaussian", DistributionKind::kGaussian},
    {"state_dependent_gaussian", DistributionKind::kStateDependentGaussian},
    {"categorical", DistributionKind::kCategorical},
    {"multi_categorical", DistributionKind::kMultiCategorical},
    {"bernoulli", DistributionKind::kBernoulli},
};

DistributionKind parse_kind(const std::string& text) {
  std::string known;
  for (const auto& [name, kind] : kNames) {
    if (text == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw std::invalid_argument("distribution kind: expected one of " + known + ", got '" + text +
                              "'.");
}

}  // namespace

bool DistributionSpec::discrete() const {
  return visit(*this, [](const auto& kind) { return kind.kDiscrete; });
}

bool DistributionSpec::constant_metric() const {
  return visit(*this, [](const auto& kind) { return kind.kConstantMetric; });
}

int DistributionSpec::choices(int column) const {
  return visit(*this, [&](const auto& kind) { return kind.choices(column); });
}

int DistributionSpec::mask_width() const {
  int sum = 0;
  for (int column = 0; column < action_dim(); ++column) sum += choices(column);
  return sum;
}

int DistributionSpec::n_outputs() const {
  return visit(*this, [](const auto& kind) { return kind.n_outputs(); });
}

int DistributionSpec::action_dim() const {
  return visit(*this, [](const auto& kind) { return kind.action_dim(); });
}

int DistributionSpec::free_parameters() const {
  return visit(*this, [](const auto& kind) { return kind.free_parameters(); });
}

DistributionSpec make_distribution_spec(const std::string& kind, const std::vector<int>& sizes) {
  DistributionSpec spec{parse_kind(kind), sizes};
  if (sizes.empty() || (sizes.size() > 1 && spec.kind != DistributionKind::kMultiCategorical))
    throw std::invalid_argument("distribution sizes: expected one size for '" + kind +
                                "' (several only for multi_categorical), got " +
                                std::to_string(sizes.size()) + ".");
  for (int n : sizes)
    if (n < 1)
      throw std::invalid_argument("distribution sizes: expected at least 1, got " +
                                  std::to_string(n) + ".");
  return spec;
}

template <class Scalar>
void FreeLogStd<Scalar>::set(const Scalar* values, int n) {
  log_std.resize(static_cast<std::size_t>(n));
  inverse_std.resize(log_std.size());
  inverse_variance.resize(log_std.size());
  for (std::size_t i = 0; i < log_std.size(); ++i) {
    log_std[i] = static_cast<double>(values[i]);
    inverse_std[i] = std::exp(-log_std[i]);
    inverse_variance[i] = static_cast<Scalar>(inverse_std[i] * inverse_std[i]);
  }
}

template <class Scalar>
Distribution<Scalar>::Distribution(const DistributionSpec& spec, const Scalar* log_std)
    : spec_(spec) {
  set_log_std(log_std);
}

template <class Scalar>
void Distribution<Scalar>::set_log_std(const Scalar* log_std) {
  free_.set(log_std, spec_.free_parameters());
}

template <class Scalar>
void Distribution<Scalar>::forbid(const bool* allowed, Scalar* outputs) const {
  visit(spec_, [&](const auto& kind) { kind.forbid(allowed, outputs); });
}

template <class Scalar>
double Distribution<Scalar>::log_prob(const Scalar* outputs, const Actions<Scalar>& actions,
                                      Index row) const {
  return visit(spec_,
               [&](const auto& kind) { return kind.log_prob(free_, outputs, actions, row); });
}

template <class Scalar>
double Distribution<Scalar>::entropy(const Scalar* outputs) const {
  return visit(spec_, [&](const auto& kind) { return kind.entropy(free_, outputs); });
}

template <class Scalar>
double Distribution<Scalar>::kl(const Distribution& old, const Scalar* old_outputs,
                                const Scalar* outputs) const {
  return visit(spec_,
               [&](const auto& kind) { return kind.kl(old.free_, old_outputs, free_, outputs); });
}

template <class Scalar>
void Distribution<Scalar>::add_score(const Scalar* outputs, const Actions<Scalar>& actions,
                                     Index row, double weight, Scalar* cotangent,
                                     double* log_std_cotangent) const {
  visit(spec_, [&](const auto& kind) {
    kind.add_score(free_, outputs, actions, row, weight, cotangent, log_std_cotangent);
  });
}

template <class Scalar>
void Distribution<Scalar>::add_kl_gradient(const Distribution& old, const Scalar* old_outputs,
                                           const Scalar* outputs, double weight, Scalar* cotangent,
                                           double* log_std_cotangent) const {
  visit(spec_, [&](const auto& kind) {
    kind.add_kl_gradient(old.free_, old_outputs, free_, outputs, weight, cotangent,
                         log_std_cotangent);
  });
}

template <class Scalar>
void Distribution<Scalar>::prepare_metric(const Scalar* outputs, Scalar* metric) const {
  visit(spec_, [&](const auto& kind) { kind.prepare_metric(outputs, metric); });
}

template <class Scalar>
void Distribution<Scalar>::apply_metric(const Scalar* metric, Index rows, Index stride,
                                        Scalar* tangent) const {
  visit(spec_, [&](const auto& kind) { kind.apply_metric(free_, metric, rows, stride, tangent); });
}

template <class Scalar>
void Distribution<Scalar>::apply_metric_root(const Scalar* metric, Scalar* u) const {
  visit(spec_, [&](const auto& kind) { kind.apply_metric_root(free_, metric, u); });
}

template <class Scalar>
void Distribution<Scalar>::sample(const Scalar* outputs, CounterStream& stream, Scalar* continuous,
                                  std::int32_t* discrete) const {
  visit(spec_,
        [&](const auto& kind) { kind.sample(free_, outputs, stream, continuous, discrete); });
}

template <class Scalar>
void Distribution<Scalar>::mode(const Scalar* outputs, Scalar* continuous,
                                std::int32_t* discrete) const {
  visit(spec_, [&](const auto& kind) { kind.mode(outputs, continuous, discrete); });
}

template class Distribution<float>;
template class Distribution<double>;

}  // namespace trpo_fast
