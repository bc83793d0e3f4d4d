// The multilayer perceptron as a shape, and the order of its parameters.
//
// Dimension letters, the same in every file of this library, C++ and Python:
//   N samples, T time steps, E environments, O observation width, H units of a hidden layer,
//   P network outputs, A action width, D parameters, K branches of a vine
// An apostrophe pads a width to whole vector registers: H', P'.
//
// Flat parameter order (that of PyTorch's nn.Sequential(Linear, act, ..., Linear)):
//   W_0 (out x in, row-major), b_0, W_1, b_1, ...
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace trpo_fast {

using Index = std::ptrdiff_t;

enum class Activation : int { kIdentity = 0, kTanh, kRelu, kElu, kSilu, kGelu };

// "tanh" -> Activation::kTanh; throws std::invalid_argument that lists the known names.
Activation parse_activation(const std::string& name);

inline constexpr int kMaxLayers = 16;

// Plain data, so that it can be handed to the kernels of every instruction-set level.
struct NetworkShape {
  int n_layers = 0;                // linear layers
  int sizes[kMaxLayers + 1] = {};  // sizes[0] inputs, sizes[n_layers] outputs
  Activation activation = Activation::kTanh;

  int inputs() const { return sizes[0]; }
  int outputs() const { return sizes[n_layers]; }
};

// Throws std::invalid_argument on non-positive sizes or more than kMaxLayers layers.
NetworkShape make_network_shape(int inputs, const std::vector<int>& hidden, int outputs,
                                Activation activation);

// Number of weights and biases.
Index parameter_count(const NetworkShape& shape);

// Orthogonal initialisation: every hidden W has orthonormal rows or columns times hidden_gain, the
// last W times output_gain; biases are zero. The result is a function of the arguments alone. `flat` has
// parameter_count() entries.
void initialize_orthogonal(const NetworkShape& shape, double hidden_gain, double output_gain,
                           std::uint64_t seed, double* flat);

}  // namespace trpo_fast
