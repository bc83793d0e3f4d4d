// The value function V(s): a network with one output, fitted by least squares.
//
// N samples, O observation width, D parameters
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trpo_fast/adam_state.h"
#include "trpo_fast/network.h"
#include "trpo_fast/partial_gradient.h"

namespace trpo_fast {

enum class ValueFitMethod {
  kAdam,   // Kingma & Ba 2015, in PyTorch's form: passes over shuffled minibatches
  kLbfgs,  // Nocedal & Wright 2006, algorithm 7.5, on the full batch
};

struct ValueFitOptions {
  ValueFitMethod method = ValueFitMethod::kAdam;

  // Adam's passes over the batch.  epochs >= 1
  int epochs = 10;
  // Rows of one Adam step; none: the full batch.  minibatch_size >= 1
  std::optional<Index> minibatch_size = 128;
  // Adam's step size.  0 <= learning_rate < infinity
  double learning_rate = 1e-3;
  // Names the order in which Adam's minibatches are drawn.
  std::uint64_t seed = 0;

  // Steps of L-BFGS, each a line search, at most.  iterations >= 1
  int iterations = 25;
};

struct ValueFitSummary {
  bool finite = true;  // false: a NaN or infinity appeared and the parameters were restored
  std::string message;
  double loss_before = 0, loss_after = 0;  // mean squared error on the full batch
  std::int64_t steps = 0;                  // optimiser steps taken
  double seconds = 0;
};

// Rows of a fit that are elsewhere, in parts of whole chunks. An implementation may throw.
template <class Scalar>
class ValueRows {
 public:
  virtual ~ValueRows() = default;

  // The sums of squared errors over each chunk, at these parameters (D), and in `gradients`, unless it is
  // null, what each part adds to their gradient.
  virtual std::vector<double> loss_sums(const Scalar* parameters,
                                        std::vector<PartialGradient<Scalar>>* gradients) = 0;
  // Rows order[0], ..., order[count - 1]: observations (count x O) and targets (count), valid until the next
  // call.
  virtual void gather(const std::int64_t* order, Index count, const Scalar** observations,
                      const Scalar** targets) = 0;
};

template <class Scalar>
class InputBatch;
struct Tiling;

template <class Scalar>
class ValueFunction {
 public:
  explicit ValueFunction(const NetworkShape& shape);
  ~ValueFunction();
  ValueFunction(const ValueFunction&) = delete;
  ValueFunction& operator=(const ValueFunction&) = delete;

  const NetworkShape& shape() const { return shape_; }
  Index n_parameters() const { return static_cast<Index>(parameters_.size()); }
  const Scalar* parameters() const { return parameters_.data(); }
  void set_parameters(const Scalar* flat);

  // values (N) of observations as the network sees them, that is, normalised (N x O)
  void predict(const Scalar* observations, Index rows, Scalar* values) const;

  // mean_n (V(s_n) - y_n)^2 with targets y (N); `gradient` (D, may be null) receives its gradient
  double loss(const Scalar* observations, const Scalar* targets, Index rows, double* gradient);

  // Moves the parameters towards smaller loss. Where the loss before or after is not finite, the
  // parameters and Adam's state are, bit for bit, those before.
  ValueFitSummary fit(const Scalar* observations, const Scalar* targets, Index rows,
                      const ValueFitOptions& options);

  // The same of N dense rows that are elsewhere, to the same bits. `first_chunks` are the numbers of the
  // first chunk of each part. What `rows` throws is passed on, with parameters and Adam's state those before.
  ValueFitSummary fit(ValueRows<Scalar>& rows, Index count, std::vector<Index> first_chunks,
                      const ValueFitOptions& options);
  // What a part of whole_size rows, whose first chunk has the number `begin`, adds to that: sums of squared
  // errors by chunk, and what it adds to their gradient, unless that is null.
  std::vector<double> loss_part(const Scalar* observations, const Scalar* targets, Index rows,
                                Index whole_size, Index begin, PartialGradient<Scalar>* gradient);

  // Adam's memory, kept from fit to fit
  AdamState<Scalar>& adam() { return adam_; }

 private:
  struct Workspace;
  class Source;
  class HereSource;
  class ElsewhereSource;
  int threads_for_fit(Index rows) const;
  void accumulate_chunks(InputBatch<Scalar>& inputs, const Scalar* y, const Tiling& tiling,
                         int threads, bool with_gradient);
  double accumulate(InputBatch<Scalar>& inputs, const Scalar* y, Index rows, int threads,
                    bool with_gradient, const Scalar** packed_gradient);
  ValueFitSummary fit_source(Source& source, Index rows, const ValueFitOptions& options);
  double mean_loss(Source& source, Index rows, double* gradient);
  void fit_adam(Source& source, Index rows, const ValueFitOptions& options,
                ValueFitSummary& summary);
  void fit_lbfgs(Source& source, Index rows, const ValueFitOptions& options,
                 ValueFitSummary& summary);

  NetworkShape shape_;
  std::vector<Scalar> parameters_;
  AdamState<Scalar> adam_;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
