"""TRPO's numerics by hand, on arrays of your own: python examples/numerics.py [samples]

No environment and no agent: a policy, a batch that came from wherever, and the pieces of an update one by
one. The whole story with its equations is docs/tour.md.
"""

import sys

import numpy as np

from trpo_fast import core


def main(samples: int = 2_048) -> None:
    rng = np.random.default_rng(0)
    policy = core.Policy(17, core.Distribution("gaussian", (6,)), seed=0)
    observations = rng.normal(size=(samples, 17)).astype(np.float32)
    actions = policy.act(observations, seed=1)  # unclipped, as they were drawn
    advantages = -np.square(actions - np.tanh(observations[:, :6])).sum(axis=1)
    advantages = (advantages - advantages.mean()) / advantages.std()

    delta, damping = 0.01, 0.1
    g = policy.surrogate_gradient(observations, actions, advantages)
    F = policy.fisher_operator(observations, damping=damping)
    solved = core.conjugate_gradient(F, g, max_iterations=10)
    x = solved.x
    step = np.sqrt(2 * delta / (g @ x)) * x
    print(
        f"conjugate gradient: {solved.iterations} products, residual {solved.relative_residual:.3f}"
    )

    old = policy.parameters
    before = policy.surrogate(observations, actions, advantages)
    for j in range(10):
        policy.parameters = old + 0.8**j * step
        kl = policy.kl(observations, old).mean()
        gain = policy.surrogate(observations, actions, advantages, old_parameters=old) - before
        print(
            f"step {j}: KL {kl:.5f} of {delta}, gain {gain:.4f} (predicted {0.8**j * g @ step:.4f})"
        )
        if kl <= delta and gain > 0:
            break
    by_hand = policy.parameters

    policy.parameters = old
    summary = policy.update(observations, actions, advantages, max_kl=delta, cg_damping=damping)
    print(f"in one call: {summary.message}")
    print(f"largest difference of a parameter: {np.abs(policy.parameters - by_hand).max():.0e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
