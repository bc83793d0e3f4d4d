#include "trpo_fast/policy.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "aligned.h"
#include "dispatch.h"
#include "input_batch.h"
#include "tiling.h"

namespace trpo_fast {

template <class Scalar>
struct Policy<Scalar>::Packed {
  AlignedBuffer<Scalar> network;
  // of wide observations: what a row of zeros becomes, and W of the first layer times that, plus b
  AlignedBuffer<Scalar> background, base;
};

template <class Scalar>
Policy<Scalar>::Policy(const NetworkShape& shape, const DistributionSpec& spec)
    : shape_(shape),
      distribution_(spec,
                    std::vector<Scalar>(static_cast<std::size_t>(spec.free_parameters())).data()),
      n_network_(parameter_count(shape)),
      parameters_(static_cast<std::size_t>(n_network_ + spec.free_parameters())),
      packed_(std::make_unique<Packed>()) {
  if (shape.outputs() != spec.n_outputs())
    throw std::invalid_argument("network outputs: expected " + std::to_string(spec.n_outputs()) +
                                " for this distribution, got " + std::to_string(shape.outputs()) +
                                ".");
  packed_->network.reserve(kernels<Scalar>().packed_size(shape_));
  set_background();
  set_parameters(std::vector<Scalar>(parameters_.size()).data());
}

template <class Scalar>
Policy<Scalar>::~Policy() = default;

template <class Scalar>
const Scalar* Policy<Scalar>::packed() const {
  return packed_->network.data();
}

template <class Scalar>
const Scalar* Policy<Scalar>::background() const {
  return packed_->background.data();
}

template <class Scalar>
const Scalar* Policy<Scalar>::base() const {
  return packed_->base.data();
}

template <class Scalar>
void Policy<Scalar>::set_parameters(const Scalar* flat) {
  if (flat != parameters_.data()) std::copy(flat, flat + parameters_.size(), parameters_.begin());
  kernels<Scalar>().pack(shape_, parameters_.data(), /*backward=*/true, packed_->network.data());
  distribution_.set_log_std(parameters_.data() + n_network_);
  set_base();
}

template <class Scalar>
void Policy<Scalar>::set_background() {
  const Index O = shape_.inputs();
  if (O < kFewestColumns) return;
  Index first = 0, last = 0;
  kernels<Scalar>().first_weights(shape_, &first, &last);
  packed_->background.reserve(O);
  packed_->base.reserve((last - first) / O);
  const std::vector<Scalar> zeros(static_cast<std::size_t>(O));
  normalize(zeros.data(), 1, packed_->background.data());
}

template <class Scalar>
void Policy<Scalar>::set_base() {
  if (shape_.inputs() >= kFewestColumns)
    kernels<Scalar>().first_layer_base(shape_, packed(), packed_->background.data(),
                                       packed_->base.data());
}

template <class Scalar>
void Policy<Scalar>::set_normalizer(const double* mean, const double* inverse_std, double clip) {
  mean_.assign(mean, mean + shape_.inputs());
  inverse_std_.assign(inverse_std, inverse_std + shape_.inputs());
  clip_ = static_cast<Scalar>(clip);
  set_background();
  set_base();
}

template <class Scalar>
void Policy<Scalar>::clear_normalizer() {
  mean_.clear();
  inverse_std_.clear();
  set_background();
  set_base();
}

template <class Scalar>
void Policy<Scalar>::normalize(const Scalar* x, Index rows, Scalar* y) const {
  const Index width = shape_.inputs();
  if (!has_normalizer()) {
    std::copy(x, x + rows * width, y);
    return;
  }
  kernels<Scalar>().normalize(rows, width, x, mean_.data(), inverse_std_.data(), clip_, y);
}

template <class Scalar>
void Policy<Scalar>::outputs(const Scalar* x, Index rows, Scalar* y) const {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Tiling tiling(rows);
  const int threads = threads_for(rows, n_network_);
  const Index activations = k.activation_size(shape_, kTileRows);
  const Index stride = k.output_stride(shape_);
  const Index per_thread = activations + kTileRows * stride;
  AlignedBuffer<Scalar> scratch(per_thread * threads);
  tiling.for_each_tile(threads, [&](Index tile, Index, int thread) {
    Scalar* hidden = scratch.data() + thread * per_thread;
    Scalar* padded = hidden + activations;
    const Index begin = tiling.tile_begin(tile), n = tiling.tile_rows(tile);
    k.forward(shape_, packed(), x + begin * shape_.inputs(), shape_.inputs(), n, hidden, padded);
    for (Index i = 0; i < n; ++i)
      std::copy(padded + i * stride, padded + i * stride + shape_.outputs(),
                y + (begin + i) * shape_.outputs());
  });
}

template <class Scalar>
struct Actor<Scalar>::Workspace {
  AlignedBuffer<Scalar> observations, activations, outputs;
  // of wide rows: where they differ from the policy's background, none of those that differ too often
  std::vector<Index> starts;
  std::vector<std::int32_t> columns;
  std::vector<Scalar> values;
  std::vector<bool> sparse;
};

template <class Scalar>
Actor<Scalar>::Actor(const Policy<Scalar>& policy, Index environments)
    : policy_(policy), environments_(environments), workspace_(std::make_unique<Workspace>()) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Index rows = std::min(environments, kTileRows);
  workspace_->observations.reserve(rows * policy.shape().inputs());
  workspace_->activations.reserve(k.activation_size(policy.shape(), rows));
  workspace_->outputs.reserve(rows * k.output_stride(policy.shape()));
  if (policy.shape().inputs() < kFewestColumns) return;
  const auto most =
      static_cast<std::size_t>(rows * most_entries(policy.shape().inputs()) + kEntrySlack);
  workspace_->starts.resize(static_cast<std::size_t>(rows + 1));
  workspace_->columns.resize(most);
  workspace_->values.resize(most);
  workspace_->sparse.resize(static_cast<std::size_t>(rows));
}

template <class Scalar>
Actor<Scalar>::~Actor() = default;

// The outputs of wide rows in the workspace. A row alone decides whether it is a sum of columns, so that
// its bits do not depend on the rows beside it.
template <class Scalar>
void Actor<Scalar>::forward_wide(Index rows) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const NetworkShape& shape = policy_.shape();
  const Index width = shape.inputs(), most = most_entries(width);
  Workspace& w = *workspace_;
  const auto at = [](Index n) { return static_cast<std::size_t>(n); };
  for (Index n = 0; n < rows; ++n) {
    const Index begin = w.starts[at(n)];
    const Index count =
        k.find_entries(width, w.observations.data() + n * width, policy_.background(), most,
                       w.columns.data() + begin, w.values.data() + begin);
    w.sparse[at(n)] = count <= most;
    w.starts[at(n + 1)] = begin + (count <= most ? count : 0);
  }
  // rows of one kind after another at a time
  for (Index n = 0; n < rows;) {
    Index end = n + 1;
    while (end < rows && w.sparse[at(end)] == w.sparse[at(n)]) ++end;
    Scalar* outputs = w.outputs.data() + n * k.output_stride(shape);
    if (w.sparse[at(n)])
      k.forward_sparse(shape, policy_.packed(), policy_.base(),
                       {w.starts.data() + n, w.columns.data(), w.values.data()}, end - n,
                       w.activations.data(), outputs);
    else
      k.forward(shape, policy_.packed(), w.observations.data() + n * width, width, end - n,
                w.activations.data(), outputs);
    n = end;
  }
}

// The outputs of rows begin ... begin + rows - 1, with what masks do not allow forbidden.
template <class Scalar>
const Scalar* Actor<Scalar>::evaluate(const Scalar* observations, const bool* allowed, Index begin,
                                      Index rows) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Index width = policy_.shape().inputs();
  Scalar* outputs = workspace_->outputs.data();
  policy_.normalize(observations + begin * width, rows, workspace_->observations.data());
  if (width < kFewestColumns || first_layer() == FirstLayer::kDense)
    k.forward(policy_.shape(), policy_.packed(), workspace_->observations.data(), width, rows,
              workspace_->activations.data(), outputs);
  else forward_wide(rows);
  if (allowed) {
    const Index W = policy_.spec().mask_width(), stride = k.output_stride(policy_.shape());
    for (Index i = 0; i < rows; ++i)
      policy_.distribution().forbid(allowed + (begin + i) * W, outputs + i * stride);
  }
  return outputs;
}

template <class Scalar>
void Actor<Scalar>::step(const Scalar* observations, const bool* allowed, std::uint64_t seed,
                         const std::uint32_t* environment_ids, std::uint64_t* counters,
                         Scalar* continuous, std::int32_t* discrete) {
  const Index stride = kernels<Scalar>().output_stride(policy_.shape());
  const Index dim = policy_.spec().action_dim();
  for (Index begin = 0; begin < environments_; begin += kTileRows) {
    const Index rows = std::min(kTileRows, environments_ - begin);
    const Scalar* outputs = evaluate(observations, allowed, begin, rows);
    for (Index i = 0; i < rows; ++i) {
      const Index e = begin + i;
      CounterStream stream(seed, environment_ids[e], counters[e]++);
      policy_.distribution().sample(outputs + i * stride, stream,
                                    continuous ? continuous + e * dim : nullptr,
                                    discrete ? discrete + e * dim : nullptr);
    }
  }
}

template <class Scalar>
void Actor<Scalar>::mode(const Scalar* observations, const bool* allowed, Scalar* continuous,
                         std::int32_t* discrete) {
  const Index stride = kernels<Scalar>().output_stride(policy_.shape());
  const Index dim = policy_.spec().action_dim();
  for (Index begin = 0; begin < environments_; begin += kTileRows) {
    const Index rows = std::min(kTileRows, environments_ - begin);
    const Scalar* outputs = evaluate(observations, allowed, begin, rows);
    for (Index i = 0; i < rows; ++i)
      policy_.distribution().mode(outputs + i * stride,
                                  continuous ? continuous + (begin + i) * dim : nullptr,
                                  discrete ? discrete + (begin + i) * dim : nullptr);
  }
}

template class Policy<float>;
template class Policy<double>;
template class Actor<float>;
template class Actor<double>;

}  // namespace trpo_fast
