#include "trpo_fast/distribution.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace trpo_fast {
namespace {

constexpr double kLog2Pi = 1.8378770664093454835606594728112;
constexpr double kMinLogStd = -20.0;
constexpr double kMaxLogStd = 2.0;

double clamp_log_std(double x) { return std::min(std::max(x, kMinLogStd), kMaxLogStd); }
bool log_std_is_free(double x) { return x >= kMinLogStd && x <= kMaxLogStd; }

// log sum_i e^{z_i}, with the largest taken out
template <class Scalar>
double log_sum_exp(const Scalar* z, int n) {
  double largest = static_cast<double>(z[0]);
  for (int i = 1; i < n; ++i) largest = std::max(largest, static_cast<double>(z[i]));
  double sum = 0.0;
  for (int i = 0; i < n; ++i) sum += std::exp(static_cast<double>(z[i]) - largest);
  return largest + std::log(sum);
}

// log(1 + e^z)
double softplus(double z) { return std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z))); }
double sigmoid(double z) {
  if (z >= 0.0) return 1.0 / (1.0 + std::exp(-z));
  const double e = std::exp(z);
  return e / (1.0 + e);
}

// KL(N(m1, s1^2) || N(m2, s2^2)) = log s2/s1 + (s1^2/s2^2 - 1 + (m1 - m2)^2 / s2^2) / 2,
// with expm1, so that it is 0 for equal arguments and accurate for near ones.
double gaussian_kl(double mean1, double log_std1, double mean2, double log_std2) {
  const double d = log_std1 - log_std2;
  const double z = (mean1 - mean2) * std::exp(-log_std2);
  return -d + 0.5 * (std::expm1(2.0 * d) + z * z);
}

}  // namespace

bool DistributionSpec::discrete() const {
  return kind != DistributionKind::kGaussian && kind != DistributionKind::kStateDependentGaussian;
}

int DistributionSpec::n_outputs() const {
  switch (kind) {
    case DistributionKind::kStateDependentGaussian: return 2 * sizes[0];
    case DistributionKind::kMultiCategorical: {
      int sum = 0;
      for (int n : sizes) sum += n;
      return sum;
    }
    default: return sizes[0];
  }
}

int DistributionSpec::action_dim() const {
  switch (kind) {
    case DistributionKind::kCategorical: return 1;
    case DistributionKind::kMultiCategorical: return static_cast<int>(sizes.size());
    default: return sizes[0];
  }
}

int DistributionSpec::free_parameters() const {
  return kind == DistributionKind::kGaussian ? sizes[0] : 0;
}

DistributionSpec make_distribution_spec(const std::string& kind, const std::vector<int>& sizes) {
  DistributionSpec spec;
  if (kind == "gaussian") spec.kind = DistributionKind::kGaussian;
  else if (kind == "state_dependent_gaussian")
    spec.kind = DistributionKind::kStateDependentGaussian;
  else if (kind == "categorical") spec.kind = DistributionKind::kCategorical;
  else if (kind == "multi_categorical") spec.kind = DistributionKind::kMultiCategorical;
  else if (kind == "bernoulli") spec.kind = DistributionKind::kBernoulli;
  else
    throw std::invalid_argument(
        "distribution kind: expected one of gaussian, state_dependent_gaussian, categorical, "
        "multi_categorical, bernoulli, got '" +
        kind + "'.");
  if (sizes.empty() || (sizes.size() > 1 && kind != "multi_categorical"))
    throw std::invalid_argument("distribution sizes: expected one size for '" + kind +
                                "' (several only for multi_categorical), got " +
                                std::to_string(sizes.size()) + ".");
  for (int n : sizes)
    if (n < 1)
      throw std::invalid_argument("distribution sizes: expected at least 1, got " +
                                  std::to_string(n) + ".");
  spec.sizes = sizes;
  return spec;
}

template <class Scalar>
Distribution<Scalar>::Distribution(const DistributionSpec& spec, const Scalar* log_std)
    : spec_(spec),
      log_std_(static_cast<std::size_t>(spec.free_parameters())),
      inverse_std_(log_std_.size()),
      inverse_variance_(log_std_.size()) {
  set_log_std(log_std);
}

template <class Scalar>
void Distribution<Scalar>::set_log_std(const Scalar* log_std) {
  for (std::size_t i = 0; i < log_std_.size(); ++i) {
    log_std_[i] = static_cast<double>(log_std[i]);
    inverse_std_[i] = std::exp(-log_std_[i]);
    inverse_variance_[i] = static_cast<Scalar>(inverse_std_[i] * inverse_std_[i]);
  }
}

template <class Scalar>
double Distribution<Scalar>::log_prob(const Scalar* outputs, const Actions<Scalar>& actions,
                                      Index row) const {
  const int n = spec_.sizes[0];
  double sum = 0.0;
  switch (spec_.kind) {
    case DistributionKind::kGaussian: {
      // log N(a; m, s^2) = -(a - m)^2 / (2 s^2) - log s - log(2 pi) / 2
      const Scalar* a = actions.continuous + row * n;
      for (int i = 0; i < n; ++i) {
        const double z = (double(a[i]) - double(outputs[i])) * inverse_std_[i];
        sum -= 0.5 * z * z + log_std_[i] + 0.5 * kLog2Pi;
      }
      return sum;
    }
    case DistributionKind::kStateDependentGaussian: {
      const Scalar* a = actions.continuous + row * n;
      for (int i = 0; i < n; ++i) {
        const double log_std = clamp_log_std(double(outputs[n + i]));
        const double z = (double(a[i]) - double(outputs[i])) * std::exp(-log_std);
        sum -= 0.5 * z * z + log_std + 0.5 * kLog2Pi;
      }
      return sum;
    }
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical: {
      const std::int32_t* a = actions.discrete + row * static_cast<Index>(spec_.sizes.size());
      for (std::size_t g = 0; g < spec_.sizes.size(); ++g) {
        sum += double(outputs[a[g]]) - log_sum_exp(outputs, spec_.sizes[g]);
        outputs += spec_.sizes[g];
      }
      return sum;
    }
    case DistributionKind::kBernoulli: {
      const std::int32_t* a = actions.discrete + row * n;
      for (int i = 0; i < n; ++i) sum -= softplus(a[i] ? -double(outputs[i]) : double(outputs[i]));
      return sum;
    }
  }
  return sum;
}

template <class Scalar>
double Distribution<Scalar>::entropy(const Scalar* outputs) const {
  const int n = spec_.sizes[0];
  double sum = 0.0;
  switch (spec_.kind) {
    case DistributionKind::kGaussian:
      for (int i = 0; i < n; ++i) sum += log_std_[i] + 0.5 * (kLog2Pi + 1.0);
      return sum;
    case DistributionKind::kStateDependentGaussian:
      for (int i = 0; i < n; ++i)
        sum += clamp_log_std(double(outputs[n + i])) + 0.5 * (kLog2Pi + 1.0);
      return sum;
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      for (int size : spec_.sizes) {
        const double log_z = log_sum_exp(outputs, size);
        for (int i = 0; i < size; ++i) {
          const double log_p = double(outputs[i]) - log_z;
          const double p = std::exp(log_p);
          if (p != 0.0) sum -= p * log_p;  // NaN stays visible
        }
        outputs += size;
      }
      return sum;
    case DistributionKind::kBernoulli:
      for (int i = 0; i < n; ++i) {  // H = log(1 + e^z) - z p
        const double z = double(outputs[i]);
        sum += softplus(z) - z * sigmoid(z);
      }
      return sum;
  }
  return sum;
}

template <class Scalar>
double Distribution<Scalar>::kl(const Distribution& old, const Scalar* old_outputs,
                                const Scalar* outputs) const {
  const int n = spec_.sizes[0];
  double sum = 0.0;
  switch (spec_.kind) {
    case DistributionKind::kGaussian:
      for (int i = 0; i < n; ++i)
        sum +=
            gaussian_kl(double(old_outputs[i]), old.log_std_[i], double(outputs[i]), log_std_[i]);
      return sum;
    case DistributionKind::kStateDependentGaussian:
      for (int i = 0; i < n; ++i)
        sum += gaussian_kl(double(old_outputs[i]), clamp_log_std(double(old_outputs[n + i])),
                           double(outputs[i]), clamp_log_std(double(outputs[n + i])));
      return sum;
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      // sum_i p_i (log p_i - log q_i)
      for (int size : spec_.sizes) {
        const double old_log_z = log_sum_exp(old_outputs, size);
        const double log_z = log_sum_exp(outputs, size);
        for (int i = 0; i < size; ++i) {
          const double log_p = double(old_outputs[i]) - old_log_z;
          const double p = std::exp(log_p);
          if (p != 0.0) sum += p * (log_p - (double(outputs[i]) - log_z));  // NaN stays visible
        }
        old_outputs += size;
        outputs += size;
      }
      return sum;
    case DistributionKind::kBernoulli:
      // p log(p / q) + (1 - p) log((1 - p) / (1 - q)), with log p = -softplus(-z): no term that
      // grows with a logit is left to cancel
      for (int i = 0; i < n; ++i) {
        const double z = double(old_outputs[i]), w = double(outputs[i]);
        sum +=
            sigmoid(z) * (softplus(-w) - softplus(-z)) + sigmoid(-z) * (softplus(w) - softplus(z));
      }
      return sum;
  }
  return sum;
}

template <class Scalar>
void Distribution<Scalar>::add_score(const Scalar* outputs, const Actions<Scalar>& actions,
                                     Index row, double weight, Scalar* cotangent,
                                     double* log_std_cotangent) const {
  const int n = spec_.sizes[0];
  switch (spec_.kind) {
    case DistributionKind::kGaussian: {
      // d/dm = (a - m) / s^2,  d/d log s = (a - m)^2 / s^2 - 1
      const Scalar* a = actions.continuous + row * n;
      for (int i = 0; i < n; ++i) {
        const double z = (double(a[i]) - double(outputs[i])) * inverse_std_[i];
        cotangent[i] += static_cast<Scalar>(weight * z * inverse_std_[i]);
        log_std_cotangent[i] += weight * (z * z - 1.0);
      }
      return;
    }
    case DistributionKind::kStateDependentGaussian: {
      const Scalar* a = actions.continuous + row * n;
      for (int i = 0; i < n; ++i) {
        const double raw = double(outputs[n + i]);
        const double inverse_std = std::exp(-clamp_log_std(raw));
        const double z = (double(a[i]) - double(outputs[i])) * inverse_std;
        cotangent[i] += static_cast<Scalar>(weight * z * inverse_std);
        if (log_std_is_free(raw)) cotangent[n + i] += static_cast<Scalar>(weight * (z * z - 1.0));
      }
      return;
    }
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical: {
      // d/dz_i = [i = a] - p_i
      const std::int32_t* a = actions.discrete + row * static_cast<Index>(spec_.sizes.size());
      for (std::size_t g = 0; g < spec_.sizes.size(); ++g) {
        const int size = spec_.sizes[g];
        const double log_z = log_sum_exp(outputs, size);
        for (int i = 0; i < size; ++i) {
          const double p = std::exp(double(outputs[i]) - log_z);
          cotangent[i] += static_cast<Scalar>(weight * ((i == a[g] ? 1.0 : 0.0) - p));
        }
        outputs += size;
        cotangent += size;
      }
      return;
    }
    case DistributionKind::kBernoulli: {
      const std::int32_t* a = actions.discrete + row * n;
      for (int i = 0; i < n; ++i)
        cotangent[i] +=
            static_cast<Scalar>(weight * ((a[i] ? 1.0 : 0.0) - sigmoid(double(outputs[i]))));
      return;
    }
  }
}

template <class Scalar>
void Distribution<Scalar>::add_kl_gradient(const Distribution& old, const Scalar* old_outputs,
                                           const Scalar* outputs, double weight, Scalar* cotangent,
                                           double* log_std_cotangent) const {
  const int n = spec_.sizes[0];
  switch (spec_.kind) {
    case DistributionKind::kGaussian:
    case DistributionKind::kStateDependentGaussian: {
      // z = (m - m_old) / s:  d/dm = z / s,  d/d log s = 1 - s_old^2 / s^2 - z^2
      const bool free = spec_.kind == DistributionKind::kGaussian;
      for (int i = 0; i < n; ++i) {
        const auto a = static_cast<std::size_t>(i);
        const double raw = free ? log_std_[a] : double(outputs[n + i]);
        const double log_std = free ? raw : clamp_log_std(raw);
        const double old_log_std =
            free ? old.log_std_[a] : clamp_log_std(double(old_outputs[n + i]));
        const double inverse_std = std::exp(-log_std);
        const double z = (double(outputs[i]) - double(old_outputs[i])) * inverse_std;
        const double d_log_std = -(std::expm1(2.0 * (old_log_std - log_std)) + z * z);
        cotangent[i] += static_cast<Scalar>(weight * z * inverse_std);
        if (free) log_std_cotangent[i] += weight * d_log_std;
        else if (log_std_is_free(raw)) cotangent[n + i] += static_cast<Scalar>(weight * d_log_std);
      }
      return;
    }
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      // d/dz_i = q_i - p_i,  p old, q new
      for (int size : spec_.sizes) {
        const double old_log_z = log_sum_exp(old_outputs, size);
        const double log_z = log_sum_exp(outputs, size);
        for (int i = 0; i < size; ++i) {
          const double p = std::exp(double(old_outputs[i]) - old_log_z);
          const double q = std::exp(double(outputs[i]) - log_z);
          cotangent[i] += static_cast<Scalar>(weight * (q - p));
        }
        old_outputs += size;
        outputs += size;
        cotangent += size;
      }
      return;
    case DistributionKind::kBernoulli:  // d/dz = q - p
      for (int i = 0; i < n; ++i)
        cotangent[i] += static_cast<Scalar>(
            weight * (sigmoid(double(outputs[i])) - sigmoid(double(old_outputs[i]))));
      return;
  }
}

template <class Scalar>
void Distribution<Scalar>::prepare_metric(const Scalar* outputs, Scalar* metric) const {
  const int n = spec_.sizes[0];
  switch (spec_.kind) {
    case DistributionKind::kGaussian: return;
    case DistributionKind::kStateDependentGaussian:  // 1/s^2, and 2 where log_std is not clamped
      for (int i = 0; i < n; ++i) {
        const double raw = double(outputs[n + i]);
        metric[i] = static_cast<Scalar>(std::exp(-2.0 * clamp_log_std(raw)));
        metric[n + i] = Scalar(log_std_is_free(raw) ? 2 : 0);
      }
      return;
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:  // p
      for (int size : spec_.sizes) {
        const double log_z = log_sum_exp(outputs, size);
        for (int i = 0; i < size; ++i)
          metric[i] = static_cast<Scalar>(std::exp(double(outputs[i]) - log_z));
        outputs += size;
        metric += size;
      }
      return;
    case DistributionKind::kBernoulli:  // p (1 - p)
      for (int i = 0; i < n; ++i) {
        const double z = double(outputs[i]);
        metric[i] = static_cast<Scalar>(sigmoid(z) * sigmoid(-z));
      }
      return;
  }
}

template <class Scalar>
void Distribution<Scalar>::apply_metric(const Scalar* metric, Index rows, Index stride,
                                        Scalar* tangent) const {
  switch (spec_.kind) {
    case DistributionKind::kGaussian: {
      const Index n = spec_.sizes[0];
      const Scalar* scale = inverse_variance_.data();
      for (Index row = 0; row < rows; ++row)
        for (Index i = 0; i < n; ++i) tangent[row * stride + i] *= scale[i];
      return;
    }
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      // (diag(p) - p p^T) u = p (u - p^T u)
      for (Index row = 0; row < rows; ++row) {
        const Scalar* p = metric + row * stride;
        Scalar* u = tangent + row * stride;
        for (int size : spec_.sizes) {
          // p^T u / sum p: rounded probabilities may sum to a little more than 1, and the product
          // must not become indefinite for it
          double mean = 0.0, total = 0.0;
          for (int i = 0; i < size; ++i) {
            mean += static_cast<double>(p[i]) * static_cast<double>(u[i]);
            total += static_cast<double>(p[i]);
          }
          mean /= total;
          for (int i = 0; i < size; ++i)
            u[i] =
                static_cast<Scalar>(static_cast<double>(p[i]) * (static_cast<double>(u[i]) - mean));
          p += size;
          u += size;
        }
      }
      return;
    default: {
      const Index n = spec_.n_outputs();
      for (Index row = 0; row < rows; ++row)
        for (Index i = 0; i < n; ++i) tangent[row * stride + i] *= metric[row * stride + i];
      return;
    }
  }
}

template <class Scalar>
void Distribution<Scalar>::apply_metric_root(const Scalar* metric, Scalar* u) const {
  switch (spec_.kind) {
    case DistributionKind::kGaussian:
      for (int i = 0; i < spec_.sizes[0]; ++i)
        u[i] = static_cast<Scalar>(double(u[i]) * inverse_std_[static_cast<std::size_t>(i)]);
      return;
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      // (diag(q) - p q^T) u, q = sqrt(p):  (diag(q) - p q^T) (diag(q) - q p^T) = diag(p) - p p^T
      for (int size : spec_.sizes) {
        double q_dot_u = 0.0;
        for (int i = 0; i < size; ++i) q_dot_u += std::sqrt(double(metric[i])) * double(u[i]);
        for (int i = 0; i < size; ++i) {
          const double p = double(metric[i]);
          u[i] = static_cast<Scalar>(std::sqrt(p) * double(u[i]) - p * q_dot_u);
        }
        metric += size;
        u += size;
      }
      return;
    default:
      for (int i = 0; i < spec_.n_outputs(); ++i)
        u[i] = static_cast<Scalar>(std::sqrt(double(metric[i])) * double(u[i]));
      return;
  }
}

template <class Scalar>
void Distribution<Scalar>::sample(const Scalar* outputs, CounterStream& stream, Scalar* continuous,
                                  std::int32_t* discrete) const {
  const int n = spec_.sizes[0];
  switch (spec_.kind) {
    case DistributionKind::kGaussian:
      for (int i = 0; i < n; ++i)
        continuous[i] = static_cast<Scalar>(double(outputs[i]) + stream.normal() / inverse_std_[i]);
      return;
    case DistributionKind::kStateDependentGaussian:
      for (int i = 0; i < n; ++i)
        continuous[i] = static_cast<Scalar>(
            double(outputs[i]) + stream.normal() * std::exp(clamp_log_std(double(outputs[n + i]))));
      return;
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      // inverse cumulative distribution; the last action catches rounding
      for (std::size_t g = 0; g < spec_.sizes.size(); ++g) {
        const int size = spec_.sizes[g];
        const double log_z = log_sum_exp(outputs, size);
        const double u = stream.uniform();
        double cumulative = 0.0;
        int a = 0;
        for (; a + 1 < size; ++a) {
          cumulative += std::exp(double(outputs[a]) - log_z);
          if (u < cumulative) break;
        }
        discrete[g] = a;
        outputs += size;
      }
      return;
    case DistributionKind::kBernoulli:
      for (int i = 0; i < n; ++i)
        discrete[i] = stream.uniform() < sigmoid(double(outputs[i])) ? 1 : 0;
      return;
  }
}

template <class Scalar>
void Distribution<Scalar>::mode(const Scalar* outputs, Scalar* continuous,
                                std::int32_t* discrete) const {
  switch (spec_.kind) {
    case DistributionKind::kGaussian:
    case DistributionKind::kStateDependentGaussian:
      std::copy(outputs, outputs + spec_.sizes[0], continuous);
      return;
    case DistributionKind::kCategorical:
    case DistributionKind::kMultiCategorical:
      for (std::size_t g = 0; g < spec_.sizes.size(); ++g) {
        discrete[g] = static_cast<std::int32_t>(
            std::max_element(outputs, outputs + spec_.sizes[g]) - outputs);
        outputs += spec_.sizes[g];
      }
      return;
    case DistributionKind::kBernoulli:
      for (int i = 0; i < spec_.sizes[0]; ++i) discrete[i] = outputs[i] > Scalar(0) ? 1 : 0;
      return;
  }
}

template class Distribution<float>;
template class Distribution<double>;

}  // namespace trpo_fast
