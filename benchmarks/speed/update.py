"""Time a whole update: policy step and value fit, on the same synthetic rollout.

The tables of the README:

    python benchmarks/speed/update.py --rows 2048,8192 --threads 1,2 --json update.json

One table for each peer: what it does by default (see ``peer_updates.py``), and trpo_fast doing the same:

- sb3-contrib, ``train()``: 15 conjugate gradient iterations, 10 epochs of Adam on minibatches of 128.
  Beside it the plain PyTorch TRPO of ``torch_trpo.py``, and trpo_fast with the Kronecker-factored
  preconditioner: not the same iterations but the same relative residual, from fewer products.
- Tianshou, ``_update_with_batch``: 10 iterations, 5 full-batch steps of Adam.
- skrl, ``update()``: GAE of 16 steps, 10 iterations, 8 epochs of Adam on halves of the batch.

Everybody starts from the same weights, gets the same N samples, in the arrays that it keeps them in,
and has the networks 17-64-64-6 and 17-64-64-1, tanh, and up to 10 line search tries. δ and damping
are the same in true KL. Peers may stop their conjugate gradient early (absolute residual): their
iterations are counted on this batch, and the others run exactly as many. Before anything is timed,
the sides of a table are compared: policy steps must point the same way and be equally long, and the
value losses must have fallen alike.

Observations have scales from 0.1 to 3, as an unnormalised simulator's.

Starting weights, optimiser state and rollout are put back before every call, outside the clock.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.peers import peer_updates
from benchmarks.peers.peer_updates import (
    ACTION_DIM,
    GAE_LAMBDA,
    GAMMA,
    HIDDEN,
    LEARNING_RATE,
    OBS_DIM,
    Array,
    Batch,
    Side,
    Work,
)
from benchmarks.tools import report
from trpo_fast import core

# ---- the batch


def network(parameters: Array, observations: Array, n_outputs: int) -> Array:
    """Outputs (N, n_outputs) of a tanh network whose parameters are flat: W_0, b_0, ..."""
    sizes = (OBS_DIM, *HIDDEN, n_outputs)
    h, start = observations, 0
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        weight = parameters[start : start + n_in * n_out].reshape(n_out, n_in)
        start += n_in * n_out
        h = h @ weight.T + parameters[start : start + n_out]
        start += n_out
        if layer < len(HIDDEN):
            h = np.tanh(h)
    return h


def value_loss(parameters: Array, batch: Batch) -> float:
    """Mean squared error of a critic on the batch, computed alike for everybody."""
    return float(np.mean((network(parameters, batch.observations, 1)[:, 0] - batch.returns) ** 2))


def make_networks() -> tuple[core.Policy, core.ValueFunction]:
    """Orthogonal weights, always the same; log-stds of zero."""
    gaussian = core.Distribution("gaussian", (ACTION_DIM,))
    policy = core.Policy(OBS_DIM, gaussian, hidden_sizes=HIDDEN, initial_log_std=0.0)
    return policy, core.ValueFunction(OBS_DIM, hidden_sizes=HIDDEN)


def make_batch(n_rows: int) -> Batch:
    """Draw observations, actions of the starting policy, and learnable targets."""
    policy, value = make_networks()
    random = np.random.default_rng(0)
    mixing = np.linalg.qr(random.standard_normal((OBS_DIM, OBS_DIM)))[0]
    scales = np.geomspace(0.1, 3.0, OBS_DIM)
    white = random.standard_normal((n_rows, OBS_DIM))
    observations = ((white * scales) @ mixing).astype(np.float32)
    z = random.standard_normal((n_rows, ACTION_DIM), np.float32)  # (a - mean) / std, std = 1
    actions = network(policy.parameters, observations, ACTION_DIM) + z
    noise = random.standard_normal((2, n_rows), np.float32)
    wanted = np.tanh(observations[:, :ACTION_DIM])
    return Batch(
        observations=observations,
        actions=actions,
        log_probs=-0.5 * (z**2 + np.float32(np.log(2.0 * np.pi))).sum(1),
        advantages=(actions * wanted).sum(1) + noise[0],
        returns=np.tanh(observations).sum(1) + noise[1],
        policy=policy.parameters,
        value=value.parameters,
    )


# ---- trpo_fast


def trpo_fast_side(batch: Batch, work: Work, **solver: Any) -> Side:
    """``Policy.update`` and ``ValueFunction.fit`` of ``trpo_fast.core``, and its GAE if asked for."""
    policy, value = make_networks()
    optimizer_state = value.optimizer_state()
    last: list[tuple[core.UpdateSummary, core.FitSummary]] = []

    def prepare() -> None:
        policy.parameters = batch.policy
        value.parameters = batch.value
        value.load_optimizer_state(optimizer_state)

    def train() -> None:
        advantages, returns = batch.advantages, batch.returns
        if work.gae_steps is not None:
            advantages, returns = estimate_advantages(batch, value, work.gae_steps)
        summary = policy.update(
            batch.observations,
            batch.actions,
            advantages,
            max_kl=work.max_kl,
            cg_damping=work.cg_damping,
            cg_iterations=work.cg_iterations,
            backtrack_ratio=work.backtrack_ratio,
            max_backtracks=work.line_search_steps - 1,
            **{"cg_tolerance": 0.0, **solver},  # all iterations, unless told otherwise
        )
        fit = value.fit(
            batch.observations,
            returns,
            epochs=work.value_epochs,
            minibatch_size=work.value_minibatch,
            learning_rate=LEARNING_RATE,
        )
        last[:] = [(summary, fit)]

    def note() -> str:
        summary, fit = last[0]
        return (
            f"{summary.cg_iterations} CG iterations to a relative residual of "
            f"{summary.cg_relative_residual:.2g}, {summary.backtracks} backtracks; "
            f"gradient {1e3 * summary.seconds_gradient:.2f}, CG {1e3 * summary.seconds_cg:.2f}, "
            f"line search {1e3 * summary.seconds_line_search:.2f}, "
            f"value fit {1e3 * fit.seconds:.2f} ms"
        )

    return Side(
        prepare,
        train,
        lambda: last[0][0].cg_iterations,
        lambda: np.asarray(policy.parameters, np.float32),
        lambda: np.asarray(value.parameters, np.float32),
        note,
    )


def estimate_advantages(
    batch: Batch, value: core.ValueFunction, n_steps: int
) -> tuple[Array, Array]:
    """GAE of a (T, N / T) rollout of one-step episodes, with V of the last observations: (N,) each."""
    shape = (n_steps, len(batch.returns) // n_steps)
    values = batch.values.reshape(shape)
    last_values = value.predict(batch.observations[-shape[1] :])
    advantages, returns = core.gae(
        batch.rewards.reshape(shape),
        values,
        np.vstack([values[1:], last_values]),
        np.ones(shape, np.bool_),
        np.zeros(shape, np.bool_),
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
    )
    return advantages.astype(np.float32).ravel(), returns.astype(np.float32).ravel()


def kronecker_side(batch: Batch, work: Work) -> Side:
    """trpo_fast, preconditioned, until the residual that it reaches without in those iterations."""
    policy, _ = make_networks()
    plain = policy.update(
        batch.observations,
        batch.actions,
        batch.advantages,
        cg_damping=work.cg_damping,
        cg_iterations=work.cg_iterations,
        cg_tolerance=0.0,
    )
    side = trpo_fast_side(
        batch, work, cg_preconditioner="kronecker", cg_tolerance=plain.cg_relative_residual
    )
    return replace(side, note=lambda: f"same residual, fewer products: {side.note()}")


# ---- who is compared with whom


@dataclass(frozen=True)
class Plan:
    """A side, and the package that it needs."""

    label: str
    package: str
    build: Callable[[Batch, Work], Side]


SIDES = {
    "sb3-contrib": Plan("sb3-contrib", "sb3-contrib", peer_updates.sb3_contrib),
    "tianshou": Plan("Tianshou", "tianshou", peer_updates.tianshou),
    "skrl": Plan("skrl", "skrl", peer_updates.skrl),
    "torch_trpo": Plan("torch_trpo", "torch", peer_updates.plain_torch),
    "trpo_fast": Plan("trpo_fast", "trpo-fast", trpo_fast_side),
    "kronecker": Plan("trpo_fast, Kronecker", "trpo-fast", kronecker_side),
}


@dataclass(frozen=True)
class Peer:
    """A table: the work of N rows, and who does it; the first sets the CG iterations."""

    work: Callable[[int], Work]
    sides: tuple[str, ...]


PEERS = {  # skrl last: importing it switches off PyTorch's check of Normal's arguments for everybody
    "sb3-contrib": Peer(
        peer_updates.sb3_work, ("sb3-contrib", "torch_trpo", "trpo_fast", "kronecker")
    ),
    "tianshou": Peer(peer_updates.tianshou_work, ("tianshou", "trpo_fast")),
    "skrl": Peer(peer_updates.skrl_work, ("skrl", "trpo_fast")),
}


def available(peer: str, wanted: list[str]) -> list[str]:
    """The sides of a table that can run; none where nothing is left to compare."""
    asked = [name for name in PEERS[peer].sides if name in wanted]
    sides = [name for name in asked if report.have(SIDES[name].package)]
    for name in asked:
        if name not in sides:
            print(f"{name}: left out, {SIDES[name].package} is not installed")
    return sides if len(sides) > 1 or sides == asked else []


# ---- measurement


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@dataclass(frozen=True)
class Outcome:
    """What one update did to the parameters."""

    step: Array  # of the policy
    value_loss: float
    value_loss_drop: float  # since the start


def check_same_work(outcomes: dict[str, Outcome]) -> None:
    """Refuse to compare sides whose results differ from those of the first."""
    first, expected = next(iter(outcomes.items()))
    length = np.linalg.norm(expected.step)
    for name, got in outcomes.items():
        if not got.step.any():
            raise SystemExit(f"{name}: its policy did not move, there is nothing to compare")
        differences = {
            "the directions of the policy steps": 1.0 - cosine(got.step, expected.step),
            "the lengths of the policy steps": abs(np.linalg.norm(got.step) / length - 1.0),
            "the drops of the value loss": abs(got.value_loss_drop / expected.value_loss_drop - 1),
        }
        for what, difference in differences.items():
            if not difference < 0.05:
                raise SystemExit(
                    f"{name}: this is not the work of {first}: {what} differ by "
                    f"{difference:.3f}, expected less than 0.05"
                )


def measure(peer: str, names: list[str], n_rows: int, rounds: int) -> dict[str, Any]:
    """Compare what all sides of a table do, then time them in paired rounds."""
    batch, work = make_batch(n_rows), PEERS[peer].work(n_rows)
    start_loss = value_loss(batch.value, batch)
    sides: dict[str, Side] = {}
    outcomes: dict[str, Outcome] = {}
    for name in names:
        plan = SIDES[name]
        side = sides[plan.label] = plan.build(batch, work)
        side.prepare()
        side.train()
        if name == peer:
            work = replace(work, cg_iterations=side.cg_iterations())
        loss = value_loss(side.value_parameters(), batch)
        outcomes[plan.label] = Outcome(
            side.policy_parameters() - batch.policy, loss, start_loss - loss
        )
    check_same_work(outcomes)
    first = next(iter(outcomes.values()))

    times = report.time_paired(
        {label: side.train for label, side in sides.items()},
        rounds=rounds,
        prepare={label: side.prepare for label, side in sides.items()},
    )
    return {
        "peer": peer,
        "rows": n_rows,
        "work": asdict(work),
        "sides": {
            label: {
                **times[label].to_dict(),
                "text": report.milliseconds(times[label]),
                "policy_step_norm": float(np.linalg.norm(outcomes[label].step)),
                "policy_step_cosine": cosine(outcomes[label].step, first.step),
                "value_loss": outcomes[label].value_loss,
                "cg_iterations": side.cg_iterations(),
                "note": side.note(),
                "slower_than_trpo_fast": report.ratio(times[label], times["trpo_fast"]).to_dict()
                if "trpo_fast" in times
                else None,
            }
            for label, side in sides.items()
        },
    }


def show(result: dict[str, Any], threads: int) -> None:
    """Print the table of one peer and batch size."""
    rows = []
    for label, data in result["sides"].items():
        times = data["slower_than_trpo_fast"]
        rows.append(
            [
                label,
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
        ["update", "ms", "busy cores", "time / trpo_fast", "step", "cosine", "value loss"],
        rows,
        title=f"the work of {result['peer']}, N = {result['rows']:,}, {threads} thread(s)",
    )
    for label, data in result["sides"].items():
        print(f"{label}: {data['note']}")


def main() -> None:
    """Parse flags, run each thread count in its own process, print and write."""
    parser = argparse.ArgumentParser(description="time policy update and value fit side by side")
    parser.add_argument("--rows", type=report.comma_integers, default=[2048, 8192])
    lists = {"peers": list(PEERS), "sides": list(SIDES)}
    for flag, known in lists.items():
        parser.add_argument(
            f"--{flag}", type=report.comma_list, default=known, help=f"of {', '.join(known)}"
        )
    parser.add_argument("--threads", type=report.comma_integers, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--in-process", type=int, default=None, help=argparse.SUPPRESS)
    report.add_output_flags(parser)
    flags = parser.parse_args()
    for flag, known in lists.items():
        if unknown := set(getattr(flags, flag)) - set(known):
            parser.error(f"--{flag}: expected of {', '.join(known)}, got {', '.join(unknown)}")
    try:
        for peer in flags.peers:
            _ = [PEERS[peer].work(n_rows) for n_rows in flags.rows]
    except ValueError as error:
        parser.error(str(error))

    if flags.in_process is None:
        arguments = ["--rows", ",".join(map(str, flags.rows)), "--rounds", str(flags.rounds)]
        arguments += ["--peers", ",".join(flags.peers), "--sides", ",".join(flags.sides)]
        runs = report.rerun_per_thread_count(flags.threads, arguments)
        report.write_json(flags.json, runs)
        return

    threads = flags.in_process
    report.use_threads(threads)
    facts = report.machine_facts(threads)
    report.print_facts(facts)
    results = []
    for peer in (name for name in PEERS if name in flags.peers):
        sides = available(peer, flags.sides)
        for n_rows in flags.rows if sides else []:
            results.append(measure(peer, sides, n_rows, flags.rounds))
            show(results[-1], threads)
    if not results:
        raise SystemExit(
            f"nothing to compare: expected a table with two sides that are installed, "
            f"got peers {', '.join(flags.peers)} and sides {', '.join(flags.sides)}"
        )
    report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
