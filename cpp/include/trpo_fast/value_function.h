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

template <class Scalar>
class InputBatch;

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

  // Adam's memory, kept from fit to fit
  AdamState<Scalar>& adam() { return adam_; }

 private:
  struct Workspace;
  int threads_for_fit(Index rows) const;
  double mean_loss(const Scalar* y, Index rows, double* gradient);
  double accumulate(InputBatch<Scalar>& inputs, const Scalar* y, Index rows, int threads,
                    bool with_gradient, const Scalar** packed_gradient);
  void fit_adam(const Scalar* y, Index rows, const ValueFitOptions& options,
                ValueFitSummary& summary);
  void fit_lbfgs(const Scalar* y, Index rows, const ValueFitOptions& options,
                 ValueFitSummary& summary);

  NetworkShape shape_;
  std::vector<Scalar> parameters_;
  AdamState<Scalar> adam_;
  std::unique_ptr<Workspace> w_;
};

}  // namespace trpo_fast
