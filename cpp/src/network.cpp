#include "trpo_fast/network.h"

#include <cmath>
#include <stdexcept>

#include "trpo_fast/rng.h"

namespace trpo_fast {

Activation parse_activation(const std::string& name) {
  if (name == "identity") return Activation::kIdentity;
  if (name == "tanh") return Activation::kTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "elu") return Activation::kElu;
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  throw std::invalid_argument(
      "activation: expected one of tanh, relu, elu, silu, gelu, identity, got '" + name + "'.");
}

NetworkShape make_network_shape(int inputs, const std::vector<int>& hidden, int outputs,
                                Activation activation) {
  if (static_cast<int>(hidden.size()) + 1 > kMaxLayers)
    throw std::invalid_argument("hidden_sizes: expected at most " + std::to_string(kMaxLayers - 1) +
                                " hidden layers, got " + std::to_string(hidden.size()) + ".");
  NetworkShape shape;
  shape.activation = activation;
  shape.n_layers = static_cast<int>(hidden.size()) + 1;
  shape.sizes[0] = inputs;
  for (std::size_t l = 0; l < hidden.size(); ++l) shape.sizes[l + 1] = hidden[l];
  shape.sizes[shape.n_layers] = outputs;
  for (int l = 0; l <= shape.n_layers; ++l)
    if (shape.sizes[l] < 1)
      throw std::invalid_argument("network sizes: expected at least 1 unit in every layer, got " +
                                  std::to_string(shape.sizes[l]) + " in layer " +
                                  std::to_string(l) + ".");
  return shape;
}

Index parameter_count(const NetworkShape& shape) {
  Index n = 0;
  for (int l = 0; l < shape.n_layers; ++l)
    n += Index{shape.sizes[l + 1]} * shape.sizes[l] + shape.sizes[l + 1];
  return n;
}

// Saxe et al. 2014: Gram-Schmidt on the rows of a matrix of normal numbers, or on its columns where it
// has more rows than columns. A second pass over the earlier vectors removes what rounding left of them.
void initialize_orthogonal(const NetworkShape& shape, double hidden_gain, double output_gain,
                           std::uint64_t seed, double* flat) {
  for (int l = 0; l < shape.n_layers; ++l) {
    const Index in = shape.sizes[l], out = shape.sizes[l + 1];
    const Index vectors = std::min(in, out), length = std::max(in, out);
    const double gain = l + 1 == shape.n_layers ? output_gain : hidden_gain;

    std::vector<double> q(static_cast<std::size_t>(vectors * length));
    CounterStream stream(seed, static_cast<std::uint32_t>(l), 0);
    for (double& entry : q) entry = stream.normal();
    for (Index i = 0; i < vectors; ++i) {
      double* row = q.data() + i * length;
      for (int pass = 0; pass < 2; ++pass) {
        for (Index j = 0; j < i; ++j) {
          const double* other = q.data() + j * length;
          double projection = 0.0;
          for (Index k = 0; k < length; ++k) projection += row[k] * other[k];
          for (Index k = 0; k < length; ++k) row[k] -= projection * other[k];
        }
        double norm = 0.0;
        for (Index k = 0; k < length; ++k) norm += row[k] * row[k];
        norm = std::sqrt(norm);
        for (Index k = 0; k < length; ++k) row[k] /= norm;
      }
    }

    for (Index j = 0; j < out; ++j)
      for (Index i = 0; i < in; ++i)
        flat[j * in + i] = gain * (out <= in ? q[static_cast<std::size_t>(j * length + i)]
                                             : q[static_cast<std::size_t>(i * length + j)]);
    for (Index j = 0; j < out; ++j) flat[out * in + j] = 0.0;
    flat += out * in + out;
  }
}

}  // namespace trpo_fast
