"""PyTorch's automatic differentiation as a second witness, where it is installed.

Networks are ``nn.Sequential(Linear, act, ..., Linear)`` loaded from the flat parameters, log
probabilities and divergences are ``torch.distributions``, Fisher-vector products are double
backpropagation through the mean KL. The reference and the core must both agree.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import reference
from cases import (
    DTYPES,
    SMALL_HEADS,
    TOLERANCE,
    Array,
    assert_close,
    core_batch,
    core_policy,
    core_value,
    moved,
    normals,
)

torch = pytest.importorskip("torch")
nn = torch.nn

ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sequential(sizes: tuple[int, ...], activation: str) -> Any:
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1]).double()


class TorchPolicy:
    """Parameters in PyTorch's own order: the module's, then log_std."""

    def __init__(self, policy: reference.Policy, flat: Array) -> None:
        self.head = policy.head
        self.module = sequential(policy.network.sizes, policy.activation)
        self.parameters = list(self.module.parameters())
        if self.head.kind == "gaussian":
            self.log_std = torch.zeros(self.head.sizes[0], dtype=torch.float64, requires_grad=True)
            self.parameters.append(self.log_std)
        # vector_to_parameters copies in the order of the list: no reshaping of our own
        torch.nn.utils.vector_to_parameters(torch.tensor(flat), self.parameters)

    def distribution(self, obs: Array) -> Any:
        """A torch distribution over one action vector, for each observation."""
        d, outputs = torch.distributions, self.module(torch.tensor(obs))
        if self.head.is_gaussian:
            if self.head.kind == "gaussian":
                mean, log_std = outputs, self.log_std.expand_as(outputs)
            else:
                mean, log_std = outputs.chunk(2, dim=1)
                log_std = log_std.clamp(-20.0, 2.0)
            return [d.Independent(d.Normal(mean, log_std.exp()), 1)]
        if self.head.kind == "bernoulli":
            return [d.Independent(d.Bernoulli(logits=outputs), 1)]
        return [d.Categorical(logits=part) for part in outputs.split(self.head.sizes, dim=1)]

    def log_prob(self, obs: Array, actions: Array) -> Any:
        parts = self.distribution(obs)
        a = torch.tensor(actions)
        if self.head.kind.endswith("categorical"):
            return sum(part.log_prob(a[:, k]) for k, part in enumerate(parts))
        return parts[0].log_prob(a.double())

    def entropy(self, obs: Array) -> Any:
        return sum(part.entropy() for part in self.distribution(obs))

    def kl_from(self, old: TorchPolicy, obs: Array) -> Any:
        """KL(old || self), (N,), no gradient through old."""
        with torch.no_grad():
            fixed = old.distribution(obs)
        pairs = zip(fixed, self.distribution(obs), strict=True)
        return sum(torch.distributions.kl_divergence(p, q) for p, q in pairs)

    def gradient(self, scalar: Any) -> Array:
        return flat_gradient(scalar, self.parameters)

    def fisher_vector_product(self, obs: Array, vector: Array) -> Array:
        """Double backpropagation, as the peers do it."""
        kl = self.kl_from(self, obs).mean()
        grads = torch.autograd.grad(kl, self.parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in grads])
        return flat_gradient((flat * torch.tensor(vector)).sum(), self.parameters)


def flat_gradient(scalar: Any, parameters: list[Any]) -> Array:
    grads = torch.autograd.grad(scalar, parameters, allow_unused=True)
    return np.concatenate(
        [
            np.zeros(p.numel()) if g is None else g.reshape(-1).numpy()
            for g, p in zip(grads, parameters, strict=True)
        ]
    )


CASES = [
    pytest.param(head, hidden, activation, id=f"{name}-{len(hidden)}-{activation}")
    for name, head in SMALL_HEADS.items()
    for hidden, activation in [
        ((), "tanh"),
        ((64, 64), "tanh"),
        ((17,), "relu"),
        ((5, 31), "elu"),
        ((9, 3, 4), "silu"),
        ((12, 7), "gelu"),
        ((6,), "identity"),
    ]
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("head", "hidden", "activation"), CASES)
def test_policy(head: reference.Head, hidden: tuple[int, ...], activation: str, dtype: str) -> None:
    policy = reference.Policy(11, head, hidden, activation)
    p = reference.make_problem(policy, 101, seed=len(hidden), dtype=dtype)
    old = moved(p.parameters, 1, dtype, 0.03)
    v = normals(2, len(p.parameters), dtype=dtype)
    new_torch, old_torch = TorchPolicy(policy, p.parameters), TorchPolicy(policy, old)

    # what PyTorch says, in float64
    with torch.no_grad():
        outputs = new_torch.module(torch.tensor(p.obs)).numpy()
        log_prob = new_torch.log_prob(p.obs, p.actions).numpy()
        entropy = new_torch.entropy(p.obs).numpy()
        kl = new_torch.kl_from(old_torch, p.obs).numpy()
        old_log_prob = old_torch.log_prob(p.obs, p.actions)
    ratio = (new_torch.log_prob(p.obs, p.actions) - old_log_prob).exp()
    surrogate = (ratio * torch.tensor(p.advantages)).mean()
    gradient = new_torch.gradient(surrogate)
    at_theta_k = new_torch.log_prob(p.obs, p.actions)
    ratio = (at_theta_k - at_theta_k.detach()).exp()
    gradient_at_theta_k = new_torch.gradient((ratio * torch.tensor(p.advantages)).mean())
    product = new_torch.fisher_vector_product(p.obs, v)

    # the reference
    reference_args = (p.parameters, old, p.obs, p.actions, p.advantages)
    for what, actual, expected in [
        ("outputs", policy.outputs(p.parameters, p.obs), outputs),
        ("log prob", policy.log_prob(p.parameters, p.obs, p.actions), log_prob),
        ("entropy", policy.entropy(p.parameters, p.obs), entropy),
        ("KL", policy.kl(old, p.parameters, p.obs), kl),
        ("gradient", policy.surrogate_gradient(*reference_args), gradient),
        ("F v", policy.fisher_vector_product(p.parameters, p.obs, v), product),
    ]:
        assert_close(actual, expected, 1e-10, what=f"reference: {what}")
    assert policy.surrogate(*reference_args) == pytest.approx(surrogate.item(), rel=1e-10)

    # the core
    compiled = core_policy(p, dtype)
    obs, actions, advantages = core_batch(p, dtype)
    core_old = old.astype(dtype)
    tolerance = TOLERANCE[dtype]
    size = policy.surrogate(*reference_args[:-1], np.abs(p.advantages))
    for what, actual, expected, scale in [
        ("outputs", compiled.outputs(obs), outputs, None),
        ("log prob", compiled.log_prob(obs, actions), log_prob, None),
        ("entropy", compiled.entropy(obs), entropy, None),
        ("KL", compiled.kl(obs, core_old), kl, None),
        (
            "surrogate",
            compiled.surrogate(obs, actions, advantages, old_parameters=core_old),
            surrogate.item(),
            size,
        ),
        (
            "gradient",
            compiled.surrogate_gradient(obs, actions, advantages, old_parameters=core_old),
            gradient,
            None,
        ),
        (
            "gradient at theta_k",
            compiled.surrogate_gradient(obs, actions, advantages),
            gradient_at_theta_k,
            None,
        ),
        ("F v", compiled.fisher_vector_product(obs, v.astype(dtype)), product, None),
    ]:
        assert_close(actual, expected, tolerance, what=f"core: {what}", scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", SMALL_HEADS.values(), ids=SMALL_HEADS)
def test_weights_are_exchanged_both_ways(head: reference.Head, dtype: str) -> None:
    """parameters_to_vector of the module is the core's flat vector, and names agree."""
    policy = reference.Policy(3, head, (5, 4), "tanh")
    p = reference.make_problem(policy, 10, dtype=dtype)
    compiled, witness = core_policy(p, dtype), TorchPolicy(policy, p.parameters)
    exported = torch.nn.utils.parameters_to_vector(witness.parameters).detach().numpy()
    assert np.array_equal(exported, compiled.parameters.astype(np.float64))
    # linear layer i of the core is module 2 i of nn.Sequential(Linear, act, Linear, ...)
    for name, tensor in witness.module.named_parameters():
        position, kind = name.split(".")
        where, shape = compiled.parameter_layout[f"{int(position) // 2}.{kind}"]
        assert np.array_equal(compiled.parameters[where].reshape(shape), tensor.detach().numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_value_function_and_adam(activation: str, dtype: str) -> None:
    value = reference.ValueFunction(7, (12, 5), activation)
    flat = reference.random_parameters(
        reference.Policy(7, reference.Head("bernoulli", (1,)), (12, 5), activation), 3
    )
    flat = flat.astype(dtype).astype(np.float64)
    obs, targets = normals(1, 130, 7, dtype=dtype), normals(2, 130, dtype=dtype)
    module = sequential(value.network.sizes, activation)
    parameters = list(module.parameters())
    torch.nn.utils.vector_to_parameters(torch.tensor(flat), parameters)

    def loss() -> Any:
        return ((module(torch.tensor(obs))[:, 0] - torch.tensor(targets)) ** 2).mean()

    compiled = core_value(value, flat, dtype)
    o, y, tolerance = obs.astype(dtype), targets.astype(dtype), TOLERANCE[dtype]
    expected = flat_gradient(loss(), parameters)
    assert_close(value.loss_gradient(flat, obs, targets), expected, 1e-10)
    assert_close(compiled.loss_gradient(o, y), expected, tolerance)
    assert_close(compiled.loss(o, y), loss().item(), tolerance)

    optimizer, adam, theta = torch.optim.Adam(parameters, lr=0.01), reference.Adam(0.01), flat
    for _ in range(25):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        theta = adam.step(theta, value.loss_gradient(theta, obs, targets))
    compiled.fit(o, y, epochs=25, minibatch_size=None, learning_rate=0.01)
    expected = torch.nn.utils.parameters_to_vector(parameters).detach().numpy()
    assert_close(theta, expected, 1e-10, what="reference: 25 Adam steps")
    step, expected_step = compiled.parameters.astype(np.float64) - flat, expected - flat
    assert_close(
        step, expected_step, {"float64": 1e-9, "float32": 2e-3}[dtype], what="25 Adam steps"
    )
