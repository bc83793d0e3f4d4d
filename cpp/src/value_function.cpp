// N samples, O observation width, D parameters
#include "trpo_fast/value_function.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "adam.h"
#include "aligned.h"
#include "dispatch.h"
#include "gradient_sum.h"
#include "input_batch.h"
#include "lbfgs.h"
#include "part_sum.h"
#include "reporting.h"
#include "row_gather.h"
#include "tiling.h"
#include "trpo_fast/rng.h"

namespace trpo_fast {

namespace {

// Rows of one step of the fit: a minibatch, or all of them.
Index rows_at_once(const ValueFitOptions& options, Index rows) {
  if (options.method != ValueFitMethod::kAdam) return rows;
  return std::min(options.minibatch_size.value_or(rows), rows);
}

}  // namespace

template <class Scalar>
struct ValueFunction<Scalar>::Workspace {
  AlignedBuffer<Scalar> packed;
  AlignedBuffer<Scalar> per_thread;  // of each: activations, outputs, cotangents, scratch
  GradientSum<Scalar> gradient;
  std::vector<double> loss_sums;         // one a chunk
  InputBatch<Scalar> inputs, minibatch;  // all rows; those of one step
  AlignedBuffer<Scalar> base, minibatch_y;
  AlignedBuffer<Scalar> theta, m, v;  // parameters and moments, in the layout of packed gradients
  std::vector<std::int64_t> order;    // of the rows in one epoch
  Index work = 0;                     // of all rows, see InputBatch::work
  Index activations = 0, stride = 0, thread_size = 0;

  void reserve(const NetworkShape& shape, const Tiling& tiling, int threads) {
    const KernelTable<Scalar>& k = kernels<Scalar>();
    activations = k.activation_size(shape, kTileRows);
    stride = k.output_stride(shape);
    thread_size = activations + 2 * kTileRows * stride + k.scratch_size(shape);
    per_thread.reserve(thread_size * threads);
    gradient.reserve(shape, tiling);
    if (static_cast<Index>(loss_sums.size()) < tiling.chunks)
      loss_sums.resize(static_cast<std::size_t>(tiling.chunks));
  }
};

template <class Scalar>
ValueFunction<Scalar>::ValueFunction(const NetworkShape& shape)
    : shape_(shape),
      parameters_(static_cast<std::size_t>(parameter_count(shape))),
      adam_{std::vector<Scalar>(parameters_.size()), std::vector<Scalar>(parameters_.size())},
      w_(std::make_unique<Workspace>()) {
  if (shape.outputs() != 1)
    throw std::invalid_argument("value network: expected 1 output, got " +
                                std::to_string(shape.outputs()) + ".");
  w_->packed.reserve(kernels<Scalar>().packed_size(shape_));
  set_parameters(parameters_.data());
}

template <class Scalar>
ValueFunction<Scalar>::~ValueFunction() = default;

template <class Scalar>
void ValueFunction<Scalar>::set_parameters(const Scalar* flat) {
  if (flat != parameters_.data()) std::copy(flat, flat + parameters_.size(), parameters_.begin());
  kernels<Scalar>().pack(shape_, parameters_.data(), /*backward=*/true, w_->packed.data());
}

template <class Scalar>
void ValueFunction<Scalar>::predict(const Scalar* observations, Index rows, Scalar* values) const {
  w_->inputs.assign(shape_, observations, rows);
  const Index work = w_->inputs.work(shape_, n_parameters());
  const Tiling tiling = tiling_for(rows, work);
  const int threads = threads_for(rows, work);
  w_->reserve(shape_, tiling, threads);
  const Scalar* base = w_->inputs.base(shape_, w_->packed.data(), w_->base);
  tiling.for_each_tile(threads, [&](Index tile, Index, int thread) {
    Scalar* hidden = w_->per_thread.data() + thread * w_->thread_size;
    Scalar* outputs = hidden + w_->activations;
    const Index begin = tiling.tile_begin(tile), n = tiling.tile_rows(tile);
    w_->inputs.forward(shape_, w_->packed.data(), base, begin, n, hidden, outputs);
    for (Index i = 0; i < n; ++i) values[begin + i] = outputs[i * w_->stride];
  });
}

// Where the rows of a fit are. Sums are those of squared errors.
template <class Scalar>
class ValueFunction<Scalar>::Source {
 public:
  virtual ~Source() = default;
  // Over all rows, with `threads` here. With packed_gradient, unless it is null, that points to the packed
  // gradient of the sum, valid until the next call.
  virtual double loss(int threads, const Scalar** packed_gradient) = 0;
  // Takes `count` rows into the minibatch, those from order[begin] on; returns their targets.
  virtual const Scalar* take(const std::vector<std::int64_t>& order, Index begin, Index count) = 0;
};

template <class Scalar>
class ValueFunction<Scalar>::HereSource final : public Source {
 public:
  HereSource(ValueFunction& v, const Scalar* observations, const Scalar* targets, Index rows)
      : v_(v), targets_(targets), rows_(rows) {
    v.w_->inputs.assign(v.shape_, observations, rows);
    v.w_->work = v.w_->inputs.work(v.shape_, v.n_parameters());
  }
  double loss(int threads, const Scalar** packed_gradient) override {
    return v_.accumulate(v_.w_->inputs, targets_, rows_, threads, packed_gradient != nullptr,
                         packed_gradient);
  }
  const Scalar* take(const std::vector<std::int64_t>& order, Index begin, Index count) override {
    v_.w_->minibatch.gather(v_.shape_, v_.w_->inputs, order.data() + begin, count);
    return gather_rows(targets_, order.data() + begin, count, 1, v_.w_->minibatch_y);
  }

 private:
  ValueFunction& v_;
  const Scalar* targets_;
  Index rows_;
};

template <class Scalar>
class ValueFunction<Scalar>::ElsewhereSource final : public Source {
 public:
  ElsewhereSource(ValueFunction& v, ValueRows<Scalar>& rows, Index count,
                  std::vector<Index> first_chunks)
      : v_(v), rows_(rows), bounds_(std::move(first_chunks)) {
    v.w_->work = v.n_parameters();
    bounds_.push_back(chunks_of(count, v.n_parameters()).count);
  }
  double loss(int, const Scalar** packed_gradient) override {
    const std::vector<double> sums =
        rows_.loss_sums(v_.parameters(), packed_gradient ? &gradients_ : nullptr);
    if (packed_gradient)
      *packed_gradient =
          sum_of_parts(kernels<Scalar>().gradient_size(v_.shape_), bounds_, gradients_);
    double total = 0.0;
    for (double of_chunk : sums) total += of_chunk;
    return total;
  }
  const Scalar* take(const std::vector<std::int64_t>& order, Index begin, Index count) override {
    // few messages, and little memory
    constexpr Index kRowsAtOnce = 65'536, kBytesAtOnce = Index{1} << 24;
    if (begin == 0 || begin + count > end_) {
      const Index row = v_.shape_.inputs() * static_cast<Index>(sizeof(Scalar));
      const Index most = std::min(kRowsAtOnce, kBytesAtOnce / row);
      begin_ = begin;
      end_ = std::min(static_cast<Index>(order.size()),
                      begin + std::max<Index>(1, most / count) * count);
      rows_.gather(order.data() + begin_, end_ - begin_, &x_, &y_);
    }
    v_.w_->minibatch.assign(v_.shape_, x_ + (begin - begin_) * v_.shape_.inputs(), count,
                            /*dense=*/true);
    return y_ + (begin - begin_);
  }

 private:
  ValueFunction& v_;
  ValueRows<Scalar>& rows_;
  std::vector<Index> bounds_;
  std::vector<PartialGradient<Scalar>> gradients_;
  Index begin_ = 0, end_ = 0;  // the places in the order of the rows that were gathered
  const Scalar* x_ = nullptr;
  const Scalar* y_ = nullptr;
};

template <class Scalar>
double ValueFunction<Scalar>::loss(const Scalar* observations, const Scalar* targets, Index rows,
                                   double* gradient) {
  HereSource source(*this, observations, targets, rows);
  return mean_loss(source, rows, gradient);
}

template <class Scalar>
double ValueFunction<Scalar>::mean_loss(Source& source, Index rows, double* gradient) {
  const Scalar* packed_gradient = nullptr;
  const double inverse_n = 1.0 / static_cast<double>(rows);
  const double sum = source.loss(threads_for_fit(rows), gradient ? &packed_gradient : nullptr);
  if (gradient) kernels<Scalar>().unpack_gradient(shape_, packed_gradient, inverse_n, gradient);
  return sum * inverse_n;
}

// Threads worth using for `rows` rows of a fit.
template <class Scalar>
int ValueFunction<Scalar>::threads_for_fit(Index rows) const {
  return threads_for(rows, w_->work);
}

// Returns sum_n (V(s_n) - y_n)^2 over the inputs' rows. With with_gradient, *packed_gradient points to the
// packed gradient of that sum, valid until the next call.
template <class Scalar>
double ValueFunction<Scalar>::accumulate(InputBatch<Scalar>& inputs, const Scalar* targets,
                                         Index rows, int threads, bool with_gradient,
                                         const Scalar** packed_gradient) {
  // cut by the work of all rows, so that every minibatch is cut alike
  const Tiling tiling = tiling_for(rows, w_->work);
  accumulate_chunks(inputs, targets, tiling, threads, with_gradient);
  if (with_gradient) *packed_gradient = w_->gradient.sum(shape_, inputs, tiling, threads);
  double total = 0.0;
  for (Index c = 0; c < tiling.chunks; ++c) total += w_->loss_sums[static_cast<std::size_t>(c)];
  return total;
}

template <class Scalar>
std::vector<double> ValueFunction<Scalar>::loss_part(const Scalar* observations,
                                                     const Scalar* targets, Index rows,
                                                     Index whole_size, Index begin,
                                                     PartialGradient<Scalar>* gradient) {
  w_->inputs.assign(shape_, observations, rows, /*dense=*/true);
  w_->work = n_parameters();
  const Tiling whole = tiling_for(whole_size, w_->work);
  const Tiling tiling = whole.part(rows);
  accumulate_chunks(w_->inputs, targets, tiling, threads_for_fit(rows), gradient != nullptr);
  if (gradient) w_->gradient.collect_roots(tiling, begin, whole.chunks, gradient->roots);
  return {w_->loss_sums.begin(), w_->loss_sums.begin() + tiling.chunks};
}

// The sums of squared errors over each chunk, and the partials of their gradient.
template <class Scalar>
void ValueFunction<Scalar>::accumulate_chunks(InputBatch<Scalar>& inputs, const Scalar* targets,
                                              const Tiling& tiling, int threads,
                                              bool with_gradient) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  w_->reserve(shape_, tiling, threads);
  if (with_gradient) inputs.prepare_gradient();
  const Scalar* base = inputs.base(shape_, w_->packed.data(), w_->base);

  parallel_for(tiling.chunks, threads, [&](Index chunk, int thread) {
    Scalar* hidden = w_->per_thread.data() + thread * w_->thread_size;
    Scalar* outputs = hidden + w_->activations;
    Scalar* u = outputs + kTileRows * w_->stride;
    Scalar* scratch = u + kTileRows * w_->stride;
    double sum = 0.0;
    for (Index tile = tiling.chunk_begin(chunk); tile < tiling.chunk_end(chunk); ++tile) {
      const Index begin = tiling.tile_begin(tile), n = tiling.tile_rows(tile);
      inputs.forward(shape_, w_->packed.data(), base, begin, n, hidden, outputs);

      // e_n = V(s_n) - y_n,  u_n = 2 e_n
      std::fill_n(u, n * w_->stride, Scalar(0));
      for (Index i = 0; i < n; ++i) {
        const Scalar error = outputs[i * w_->stride] - targets[begin + i];
        sum += static_cast<double>(error) * static_cast<double>(error);
        u[i * w_->stride] = Scalar(2) * error;
      }
      if (with_gradient)
        k.adjoint(shape_, w_->packed.data(), inputs.tile(begin, n, hidden), u, scratch,
                  /*add=*/tile > tiling.chunk_begin(chunk), w_->gradient.partial(chunk));
    }
    w_->loss_sums[static_cast<std::size_t>(chunk)] = sum;
  });
}

template <class Scalar>
void ValueFunction<Scalar>::fit_adam(Source& source, Index rows, const ValueFitOptions& options,
                                     ValueFitSummary& summary) {
  const KernelTable<Scalar>& k = kernels<Scalar>();
  const Index size = rows_at_once(options, rows);
  const bool full_batch = size == rows;
  w_->order.resize(static_cast<std::size_t>(full_batch ? 0 : rows));

  // parameters and moments in the layout of packed gradients, for the length of this fit
  const Index packed_size = k.gradient_size(shape_);
  w_->theta.reserve(packed_size);
  w_->m.reserve(packed_size);
  w_->v.reserve(packed_size);
  k.pack_gradient(shape_, parameters_.data(), w_->theta.data());
  k.pack_gradient(shape_, adam_.first_moment.data(), w_->m.data());
  k.pack_gradient(shape_, adam_.second_moment.data(), w_->v.data());

  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    if (!full_batch)
      shuffle(options.seed, static_cast<std::uint32_t>(epoch), rows, w_->order.data());
    for (Index begin = 0; begin < rows; begin += size) {
      const Index n = std::min(size, rows - begin);
      const Scalar* gradient = nullptr;
      if (full_batch) {
        source.loss(threads_for_fit(n), &gradient);
      } else {
        const Scalar* batch_y = source.take(w_->order, begin, n);
        accumulate(w_->minibatch, batch_y, n, threads_for_fit(n), /*with_gradient=*/true,
                   &gradient);
      }
      ++summary.steps;
      adam_step(++adam_.steps, options.learning_rate, 1.0 / static_cast<double>(n), packed_size,
                gradient, w_->m.data(), w_->v.data(), w_->theta.data());
      k.repack(shape_, w_->theta.data(), w_->packed.data());
      if (full_batch)
        k.unpack(shape_, w_->theta.data(), parameters_.data());  // a source elsewhere sends them on
    }
  }
  k.unpack(shape_, w_->theta.data(), parameters_.data());
  k.unpack(shape_, w_->m.data(), adam_.first_moment.data());
  k.unpack(shape_, w_->v.data(), adam_.second_moment.data());
}

template <class Scalar>
void ValueFunction<Scalar>::fit_lbfgs(Source& source, Index rows, const ValueFitOptions& options,
                                      ValueFitSummary& summary) {
  // the search moves in doubles; the network sees them rounded to its type
  std::vector<Scalar> rounded(parameters_.size());
  const auto move_to = [&](const std::vector<double>& theta) {
    for (std::size_t i = 0; i < theta.size(); ++i) rounded[i] = static_cast<Scalar>(theta[i]);
    set_parameters(rounded.data());
  };
  std::vector<double> theta(parameters_.begin(), parameters_.end());
  summary.steps = minimize_lbfgs(
      [&](const std::vector<double>& at, std::vector<double>& gradient) {
        move_to(at);
        return mean_loss(source, rows, gradient.data());
      },
      LbfgsOptions{.iterations = options.iterations}, theta);
  move_to(theta);
}

template <class Scalar>
ValueFitSummary ValueFunction<Scalar>::fit(const Scalar* observations, const Scalar* targets,
                                           Index rows, const ValueFitOptions& options) {
  HereSource source(*this, observations, targets, rows);
  return fit_source(source, rows, options);
}

template <class Scalar>
ValueFitSummary ValueFunction<Scalar>::fit(ValueRows<Scalar>& rows, Index count,
                                           std::vector<Index> first_chunks,
                                           const ValueFitOptions& options) {
  const std::vector<Scalar> parameters = parameters_;
  const AdamState<Scalar> adam = adam_;
  ElsewhereSource source(*this, rows, count, std::move(first_chunks));
  try {
    return fit_source(source, count, options);
  } catch (...) {
    set_parameters(parameters.data());
    adam_ = adam;
    throw;
  }
}

template <class Scalar>
ValueFitSummary ValueFunction<Scalar>::fit_source(Source& source, Index rows,
                                                  const ValueFitOptions& options) {
  const Stopwatch total;
  ValueFitSummary summary;
  const std::vector<Scalar> parameters = parameters_;
  const AdamState<Scalar> adam = adam_;

  // The two losses use as many threads as the steps between them, which is one where minibatches are
  // small. A thread started for a loss alone would spin for a while, on a processor that a rollout needs.
  const auto loss_of_all = [&] {
    const int threads = threads_for_fit(rows_at_once(options, rows));
    return source.loss(threads, nullptr) / static_cast<double>(rows);
  };
  summary.loss_before = loss_of_all();
  if (std::isfinite(summary.loss_before)) {
    if (options.method == ValueFitMethod::kAdam) fit_adam(source, rows, options, summary);
    else fit_lbfgs(source, rows, options, summary);
    summary.loss_after = loss_of_all();
  } else {
    summary.loss_after = summary.loss_before;
  }

  if (std::isfinite(summary.loss_after)) {
    summary.message =
        format("mean squared error %.4g before, %.4g after %lld steps", summary.loss_before,
               summary.loss_after, static_cast<long long>(summary.steps));
  } else {
    set_parameters(parameters.data());
    adam_ = adam;
    summary.finite = false;
    summary.message = format(
        "the loss was not finite (%g before, %g after); the parameters are those before; "
        "look at the observations and targets, or lower the learning rate",
        summary.loss_before, summary.loss_after);
  }
  summary.seconds = total.seconds();
  return summary;
}

template class ValueFunction<float>;
template class ValueFunction<double>;

}  // namespace trpo_fast
