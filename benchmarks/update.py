"""Time a whole ``train()`` call: policy update and value fit, on the same synthetic rollout.

The table of the README:

    python benchmarks/update.py --rows 2048,8192 --threads 1,2 --json update.json

Everybody starts from the same weights, gets the same N samples as NumPy arrays (the plain PyTorch
side as tensors) and does the same work, that of sb3-contrib's defaults: 17-64-64-6 tanh policy and
17-64-64-1 critic, 15 conjugate gradient iterations, up to 10 line search tries, then 10 epochs of
Adam on minibatches of 128. sb3-contrib averages the KL over action dimensions; the others use the
true KL, so their δ and damping are multiplied by the action dimension, which makes it the same
problem. sb3-contrib may stop its conjugate gradient early (absolute residual): its iterations are
counted on this batch, and the others run exactly as many. Before anything is timed the parameter
steps of all sides are compared: they must point the same way.

Observations have scales from 0.1 to 3, as an unnormalised simulator's.

Starting weights, optimiser state and rollout are put back before every call, outside the clock.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import report

Array = NDArray[np.float32]

OBS_DIM, ACTION_DIM = 17, 6
MAX_KL, DAMPING = 0.01, 0.1  # sb3-contrib's, averaged over action dimensions
CG_ITERATIONS, LINE_SEARCH_STEPS = 15, 10
VALUE_EPOCHS, VALUE_MINIBATCH, VALUE_LEARNING_RATE = 10, 128, 1e-3


@dataclass(frozen=True)
class Batch:
    """A synthetic rollout of N samples and the weights that everybody starts from."""

    observations: Array  # (N, 17)
    actions: Array  # (N, 6)
    log_probs: Array  # (N,)
    advantages: Array  # (N,)
    returns: Array  # (N,)
    policy: Array  # flat: W_0, b_0, ..., log_std
    value: Array  # flat: W_0, b_0, ...


@dataclass
class Side:
    """One implementation: restore the start, train, and tell what came out."""

    prepare: Callable[[], object]
    train: Callable[[], object]
    cg_iterations: Callable[[], int]  # of the last call of train
    policy_parameters: Callable[[], Array]
    value_parameters: Callable[[], Array]
    note: Callable[[], str]


class Spaces(gym.Env[Array, Array]):
    """Only spaces; nobody steps it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)


def make_batch(n_rows: int) -> Batch:
    """Draw weights, then observations, actions of that policy, and learnable targets."""
    import torch

    from torch_trpo import GaussianPolicy, actor_parameters, flatten, mlp

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    policy = GaussianPolicy(OBS_DIM, ACTION_DIM, (64, 64), log_std=0.0)
    value = mlp([OBS_DIM, 64, 64, 1], output_gain=1.0)
    mixing = np.linalg.qr(random.standard_normal((OBS_DIM, OBS_DIM)))[0]
    scales = np.geomspace(0.1, 3.0, OBS_DIM)
    white = random.standard_normal((n_rows, OBS_DIM))
    observations = ((white * scales) @ mixing).astype(np.float32)
    with torch.no_grad():
        distribution = policy(torch.from_numpy(observations))
        actions = distribution.sample()
        log_probs = distribution.log_prob(actions).numpy()
    noise = random.standard_normal((2, n_rows), np.float32)
    wanted = np.tanh(observations[:, :ACTION_DIM])
    return Batch(
        observations=observations,
        actions=actions.numpy(),
        log_probs=log_probs,
        advantages=(actions.numpy() * wanted).sum(1) + noise[0],
        returns=np.tanh(observations).sum(1) + noise[1],
        policy=flatten([p.detach() for p in actor_parameters(policy)]).numpy(),
        value=flatten([p.detach() for p in value.parameters()]).numpy(),
    )


def sb3_contrib(batch: Batch, cg_iterations: int) -> Side:
    """``train()`` of sb3-contrib's TRPO with its defaults, on its own rollout buffer."""
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3.common.logger import Logger

    from torch_trpo import flatten, set_flat

    n_rows = len(batch.observations)
    model = TRPO(
        "MlpPolicy", Spaces(), n_steps=n_rows, cg_max_steps=cg_iterations, device="cpu", seed=0
    )
    model.set_logger(Logger(None, []))
    extractor, policy = model.policy.mlp_extractor, model.policy
    actor = [
        *extractor.policy_net.parameters(),
        *policy.action_net.parameters(),
        policy.log_std,
    ]
    critic = [*extractor.value_net.parameters(), *policy.value_net.parameters()]
    optimizer_state = copy.deepcopy(policy.optimizer.state_dict())

    products = 0  # one for the start residual, one per iteration, one for the step length
    original = model.hessian_vector_product

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal products
        products += 1
        return original(*args, **kwargs)

    def prepare() -> None:
        nonlocal products
        products = 0
        set_flat(actor, torch.from_numpy(batch.policy))
        set_flat(critic, torch.from_numpy(batch.value))
        policy.optimizer.load_state_dict(copy.deepcopy(optimizer_state))
        buffer = model.rollout_buffer
        buffer.reset()  # (N, 1, ...) again, as after a rollout
        buffer.observations[:, 0] = batch.observations
        buffer.actions[:, 0] = batch.actions
        buffer.log_probs[:, 0] = batch.log_probs
        buffer.advantages[:, 0] = batch.advantages
        buffer.returns[:, 0] = batch.returns
        buffer.full = True

    model.hessian_vector_product = counted  # a counter: nanoseconds beside a product
    return Side(
        prepare,
        model.train,
        lambda: products - 2,
        lambda: flatten([p.detach() for p in actor]).numpy(),
        lambda: flatten([p.detach() for p in critic]).numpy(),
        lambda: f"{products - 2} CG iterations, {products} Fisher-vector products",
    )


def plain_torch(batch: Batch, cg_iterations: int) -> Side:
    """``update_policy`` and ``fit_value`` of ``torch_trpo.py``."""
    import torch

    from torch_trpo import (
        GaussianPolicy,
        PolicyStep,
        Settings,
        actor_parameters,
        fit_value,
        flatten,
        mlp,
        set_flat,
        update_policy,
    )

    settings = Settings(
        max_kl=MAX_KL * ACTION_DIM,
        cg_damping=DAMPING * ACTION_DIM,
        cg_iterations=cg_iterations,
        cg_tolerance=0.0,  # all iterations
        line_search_steps=LINE_SEARCH_STEPS,
        value_learning_rate=VALUE_LEARNING_RATE,
        value_epochs=VALUE_EPOCHS,
        value_minibatch_size=VALUE_MINIBATCH,
    )
    policy = GaussianPolicy(OBS_DIM, ACTION_DIM, (64, 64), log_std=0.0)
    value = mlp([OBS_DIM, 64, 64, 1], output_gain=1.0)
    actor, critic = actor_parameters(policy), list(value.parameters())
    optimizer = torch.optim.Adam(critic, lr=VALUE_LEARNING_RATE)
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    observations = torch.from_numpy(batch.observations)
    actions, returns = torch.from_numpy(batch.actions), torch.from_numpy(batch.returns)
    advantages = torch.from_numpy(batch.advantages)
    last: list[PolicyStep] = []

    def prepare() -> None:
        set_flat(actor, torch.from_numpy(batch.policy))
        set_flat(critic, torch.from_numpy(batch.value))
        optimizer.load_state_dict(copy.deepcopy(optimizer_state))

    def train() -> None:
        last[:] = [update_policy(policy, observations, actions, advantages, settings)]
        fit_value(value, optimizer, observations, returns, settings)

    return Side(
        prepare,
        train,
        lambda: last[0].cg_iterations,
        lambda: flatten([p.detach() for p in actor]).numpy(),
        lambda: flatten([p.detach() for p in critic]).numpy(),
        lambda: f"{last[0].cg_iterations} CG iterations, {last[0].backtracks} backtracks",
    )


def trpo_fast_side(batch: Batch, cg_iterations: int) -> Side:
    """``Policy.update`` and ``ValueFunction.fit`` of ``trpo_fast.core``."""
    from trpo_fast import core

    gaussian = core.Distribution("gaussian", (ACTION_DIM,))
    policy = core.Policy(OBS_DIM, gaussian, hidden_sizes=(64, 64), initial_log_std=0.0)
    value = core.ValueFunction(OBS_DIM, hidden_sizes=(64, 64))
    optimizer_state = value.optimizer_state()
    last: list[tuple[Any, Any]] = []

    def prepare() -> None:
        policy.parameters = batch.policy
        value.parameters = batch.value
        value.load_optimizer_state(optimizer_state)

    def train() -> None:
        summary = policy.update(
            batch.observations,
            batch.actions,
            batch.advantages,
            max_kl=MAX_KL * ACTION_DIM,
            cg_damping=DAMPING * ACTION_DIM,
            cg_iterations=cg_iterations,
            cg_tolerance=0.0,  # all iterations
            max_backtracks=LINE_SEARCH_STEPS - 1,
        )
        fit = value.fit(
            batch.observations,
            batch.returns,
            epochs=VALUE_EPOCHS,
            minibatch_size=VALUE_MINIBATCH,
            learning_rate=VALUE_LEARNING_RATE,
        )
        last[:] = [(summary, fit)]

    def note() -> str:
        summary, fit = last[0]
        return (
            f"{summary.cg_iterations} CG iterations, {summary.backtracks} backtracks; "
            f"gradient {1e3 * summary.seconds_gradient:.2f}, CG {1e3 * summary.seconds_cg:.2f}, "
            f"line search {1e3 * summary.seconds_line_search:.2f}, "
            f"value fit {1e3 * fit.seconds:.2f} ms"
        )

    return Side(
        prepare,
        train,
        lambda: int(last[0][0].cg_iterations),
        lambda: np.asarray(policy.parameters, np.float32),
        lambda: np.asarray(value.parameters, np.float32),
        note,
    )


SIDES: dict[str, tuple[str, Callable[[Batch, int], Side]]] = {
    "sb3-contrib": ("sb3-contrib", sb3_contrib),
    "torch_trpo": ("torch", plain_torch),
    "trpo_fast": ("trpo-fast", trpo_fast_side),
}


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def value_loss(parameters: Array, batch: Batch) -> float:
    """Mean squared error of a critic on the batch, computed alike for everybody."""
    h, start = batch.observations, 0
    for n_in, n_out in ((OBS_DIM, 64), (64, 64), (64, 1)):
        weight = parameters[start : start + n_in * n_out].reshape(n_out, n_in)
        start += n_in * n_out
        h = h @ weight.T + parameters[start : start + n_out]
        start += n_out
        if n_out > 1:
            h = np.tanh(h)
    return float(np.mean((h[:, 0] - batch.returns) ** 2))


def measure(n_rows: int, names: list[str], rounds: int) -> dict[str, Any]:
    """Compare the steps of all sides, then time them in paired rounds."""
    batch = make_batch(n_rows)
    sides: dict[str, Side] = {}
    steps: dict[str, Array] = {}
    losses: dict[str, float] = {}
    cg_iterations = CG_ITERATIONS
    for name in sorted(names, key=list(SIDES).index):  # sb3-contrib first: it sets the iterations
        package, build = SIDES[name]
        if not report.have(package):
            print(f"{name}: left out, {package} is not installed")
            continue
        side = sides[name] = build(batch, cg_iterations)
        side.prepare()
        side.train()
        cg_iterations = side.cg_iterations()
        steps[name] = side.policy_parameters() - batch.policy
        losses[name] = value_loss(side.value_parameters(), batch)
    if not sides:
        raise SystemExit(f"sides: expected at least one that is installed, got {names}")

    # the same work, or no comparison
    first = next(iter(steps))
    for name, step in steps.items():
        if not cosine(step, steps[first]) > 0.95:
            raise SystemExit(
                f"{name}: its policy step differs from that of {first} "
                f"(cosine {cosine(step, steps[first]):.3f}); this is not the same work"
            )

    times = report.time_paired(
        {name: side.train for name, side in sides.items()},
        rounds=rounds,
        prepare={name: side.prepare for name, side in sides.items()},
    )
    return {
        "rows": n_rows,
        "sides": {
            name: {
                **times[name].to_dict(),
                "text": report.milliseconds(times[name]),
                "policy_step_norm": float(np.linalg.norm(steps[name])),
                "policy_step_cosine": cosine(steps[name], steps[first]),
                "value_loss": losses[name],
                "note": side.note(),
                "slower_than_trpo_fast": report.ratio(times[name], times["trpo_fast"]).to_dict()
                if "trpo_fast" in times
                else None,
            }
            for name, side in sides.items()
        },
    }


def show(result: dict[str, Any], threads: int) -> None:
    """Print the table of one batch size."""
    rows = []
    for name, data in result["sides"].items():
        times = data["slower_than_trpo_fast"]
        rows.append(
            [
                name,
                data["text"],
                f"{data['busy_cores']:.2f}",
                f"{times['median']:.1f} ({times['low']:.1f} to {times['high']:.1f})"
                if times
                else "",
                f"{data['policy_step_norm']:.3f}",
                f"{data['policy_step_cosine']:.4f}",
                f"{data['value_loss']:.3f}",
            ]
        )
    report.print_table(
        ["train()", "ms", "busy cores", "time / trpo_fast", "step", "cosine", "value loss"],
        rows,
        title=f"N = {result['rows']:,}, {threads} thread(s)",
    )
    for name, data in result["sides"].items():
        print(f"{name}: {data['note']}")


def main() -> None:
    """Parse flags, run each thread count in its own process, print and write."""
    parser = argparse.ArgumentParser(description="time policy update and value fit side by side")
    parser.add_argument("--rows", type=report.comma_integers, default=[2048, 8192])
    parser.add_argument(
        "--sides", type=report.comma_list, default=list(SIDES), help=f"of {', '.join(SIDES)}"
    )
    parser.add_argument("--threads", type=report.comma_integers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--in-process", type=int, default=None, help=argparse.SUPPRESS)
    report.add_output_flags(parser)
    flags = parser.parse_args()
    if unknown := set(flags.sides) - set(SIDES):
        parser.error(f"--sides: expected of {', '.join(SIDES)}, got {', '.join(unknown)}")

    if flags.in_process is None:
        arguments = ["--rows", ",".join(map(str, flags.rows)), "--sides", ",".join(flags.sides)]
        arguments += ["--rounds", str(flags.rounds)]
        runs = report.rerun_per_thread_count(flags.threads, arguments)
        report.write_json(flags.json, runs)
        return

    threads = flags.in_process
    report.use_threads(threads)
    facts = report.machine_facts(threads)
    report.print_facts(facts)
    results = []
    for n_rows in flags.rows:
        results.append(measure(n_rows, flags.sides, flags.rounds))
        show(results[-1], threads)
    report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
