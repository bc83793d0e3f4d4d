"""Vine against single path: learning at equal numbers of simulator steps, and gradient variance.

    python benchmarks/learning/vine_comparison.py --jobs 2 --out runs/vine   about 25 minutes on 2 cores
    python benchmarks/learning/vine_comparison.py --timesteps 20000 --seeds 1 --repeats 4   a try

Learning: both schemes as in the paper's section 5, Monte Carlo Q-values and no value function, and
both with one (vine: V continues a branch that was cut; single path: generalised advantages, which
is our default TRPO). All get the same steps, branches included, and the same steps per update, but
for branches that end early with their episode.

Gradient: at one fixed policy, half-way trained by TRPO, each scheme estimates the gradient of its
objective many times from independent batches. ``relative variance`` is the trace of the estimates'
covariance over the squared length of their mean, corrected for the mean's own noise, and scaled to
batches of equal steps: the number of batches to average until noise and signal are of one size. The
objectives are not the same function (a vine cuts its branches, and weighs states as the trunk
visits them), hence relative. Where the noise drowns the signal the number is not known, and the
table says so.

The folder receives one JSON per run, ``vine.json``, ``vine.csv`` and ``vine.png``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning import method_runs
from benchmarks.learning.method_runs import Job
from benchmarks.tools import report, side_process

UPDATE_STEPS = 5000  # simulator steps behind each update, trunk and branches together
BRANCHES, STATES, BRANCH_STEPS = 4, 100, 10  # branches of 4,000 steps, on a trunk of 1,000
ENVIRONMENTS = 2  # so that a share of the batch holds whole episodes
HIDDEN = {"Swimmer-v5": (30,), "Hopper-v5": (50,)}  # units, as in the paper


@dataclass(frozen=True)
class Scheme:
    """A way to spend the steps of an update."""

    kind: str
    settings: dict[str, Any]


def schemes(env: str) -> dict[str, Scheme]:
    """What is compared in an environment."""
    shared = {
        "hidden_sizes": HIDDEN[env],
        "n_envs": ENVIRONMENTS,
        "gamma": 0.99,
        "max_kl": 0.01,
        "sampling": "steps",  # equal numbers of them
    }
    critic = {"value_hidden_sizes": HIDDEN[env]}
    whole = {**shared, "batch_size": UPDATE_STEPS}
    trunk = {**shared, "batch_size": UPDATE_STEPS - STATES * BRANCHES * BRANCH_STEPS}
    vine = {"states": STATES, "branches": BRANCHES, "branch_steps": BRANCH_STEPS}
    return {
        "single path, Monte Carlo": Scheme("SinglePathTRPO", {**whole, "baseline": "mean"}),
        "vine, Monte Carlo": Scheme("VineTRPO", {**trunk, "vine": {**vine, "bootstrap": False}}),
        "single path, GAE": Scheme("TRPO", {**whole, **critic}),
        "vine, bootstrap": Scheme(
            "VineTRPO", {**trunk, **critic, "vine": {**vine, "bootstrap": True}}
        ),
    }


# ---- variance of the gradient estimate


def gradient_estimates(
    env: str, scheme: Scheme, checkpoint: Path, repeats: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    """Gradients (R, D) of a scheme's objective at the checkpoint's policy; mean steps behind each.

    Advantages are in reward units, less their mean over the batch in the single-path schemes.
    """
    from trpo_fast import TRPO
    from trpo_fast.core import vine_gradient
    from trpo_fast.rollout.vine import VineRollout

    report.quiet_simulator(env)
    trained = TRPO.load(checkpoint, env=env, n_workers=0, n_threads=1)
    statistics = trained.observation_statistics
    agent = method_runs.agent_class(scheme.kind)(
        env, seed=seed, n_threads=1, n_workers=0, **scheme.settings
    )
    agent.policy.parameters = trained.policy.parameters
    agent.policy.set_normalizer(statistics.mean, statistics.variance)
    if agent.value_fitting is not None and "value_hidden_sizes" in scheme.settings:
        agent.value_function.parameters = trained.value_function.parameters
        agent.value_fitting.units = trained.value_fitting.units
    trained.close()

    # let the environments come to all times of an episode before the first batch counts
    steps = -(-agent.config.batch_size // agent.sampler.n_envs)
    agent.sampler.collect(steps)
    gradients, taken = [], 0
    for _ in range(repeats):
        rollout = agent.sampler.collect(steps)
        taken += rollout.n_transitions
        if isinstance(rollout, VineRollout):
            branches = rollout.branches
            values = agent.values_of_raw if agent.config.vine.bootstrap else None
            gradient = vine_gradient(
                agent.policy,
                branches.observations,
                branches.actions,
                branches.q_values(values),
                estimator=branches.estimator,
            )
            gradients.append(gradient)
        else:
            batch = agent.advantages(rollout)
            gradients.append(
                agent.policy.surrogate_gradient(
                    batch.observations,
                    batch.actions,
                    batch.advantages - batch.advantages.mean(),
                    normalized=True,
                )
            )
    agent.close()
    return np.stack(gradients), taken / repeats


def relative_variance(gradients: NDArray[np.float64], steps: float) -> dict[str, float | None]:
    """Trace of the covariance over the squared mean, both without bias, and their parts.

    ::

        variance = sum_i Var(g_i)        signal = ||mean||^2 - variance / R

    The relative variance is that of batches of ``UPDATE_STEPS``, if a batch took ``steps``.
    """
    variance = float(gradients.var(axis=0, ddof=1).sum())
    signal = float((gradients.mean(axis=0) ** 2).sum()) - variance / len(gradients)
    return {
        "steps": steps,
        "variance": variance,
        "signal": signal,
        "relative": variance / signal * steps / UPDATE_STEPS if signal > 0.0 else None,
    }


def estimate_all(
    envs: Sequence[str], repeats: int, training_steps: int, processes: int
) -> list[dict[str, Any]]:
    """Variances of every scheme in every environment, at one policy each."""
    from trpo_fast import TRPO

    entries: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for env in envs:
            report.quiet_simulator(env)
            # any policy would do; one that can move, and still gets better
            path = Path(folder) / f"{env}.safetensors"
            settings = schemes(env)["single path, GAE"].settings
            agent = TRPO(env, seed=0, n_workers=0, **settings)
            agent.learn(training_steps, progress=False)
            agent.save(path)
            agent.close()
            jobs += [(env, name, scheme, path) for name, scheme in schemes(env).items()]
        with ProcessPoolExecutor(
            processes, mp_context=context, initializer=side_process.end_with_parent
        ) as executor:
            futures = {
                executor.submit(gradient_estimates, env, scheme, path, repeats, seed): (env, name)
                for seed, (env, name, scheme, path) in enumerate(jobs, 1)
            }
            for future in as_completed(futures):
                env, name = futures[future]
                found = relative_variance(*future.result())
                entries.append({"env": env, "scheme": name, "batches": repeats, **found})
                print(f"{env}, {name}: {repeats} gradients", flush=True)
    order = [(env, name) for env in envs for name in schemes(env)]
    return sorted(entries, key=lambda entry: order.index((entry["env"], entry["scheme"])))


# ---- what came out


def show_learning(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the table of final returns; return it."""
    entries = [
        {
            "env": env,
            "scheme": scheme,
            "timesteps": max(run["timesteps"] for run in runs),
            "final_means": [method_runs.final_mean(run) for run in runs],
        }
        for env in method_runs.places(results)
        for scheme, runs in method_runs.by_method(results, env).items()
    ]
    report.print_table(
        ["scheme", "environment", "steps", "seeds", "return"],
        [
            [
                entry["scheme"],
                entry["env"],
                f"{entry['timesteps']:,}",
                len(entry["final_means"]),
                method_runs.mean_and_deviation(entry["final_means"]),
            ]
            for entry in entries
        ],
        title=f"Learning at equal simulator steps ({UPDATE_STEPS:,} an update), mean over seeds "
        "± their deviation",
    )
    return entries


def show_variance(entries: Sequence[dict[str, Any]]) -> None:
    """Print the table of variances."""
    report.print_table(
        [
            "scheme",
            "environment",
            "batches",
            "steps each",
            "variance",
            "|mean|²",
            "relative variance",
        ],
        [
            [
                entry["scheme"],
                entry["env"],
                entry["batches"],
                f"{entry['steps']:,.0f}",
                f"{entry['variance']:.3g}",
                f"{entry['signal']:.3g}",
                f"{entry['relative']:.3g}" if entry["relative"] is not None else "noise only",
            ]
            for entry in entries
        ],
        title=f"Gradient estimates at one policy; relative variance: of {UPDATE_STEPS:,} steps",
    )


def main() -> int:
    """Parse flags, train, estimate, print, write."""
    parser = argparse.ArgumentParser(description="vine against single path at equal steps")
    parser.add_argument("--envs", type=report.comma_list, default=list(HIDDEN))
    parser.add_argument("--timesteps", type=int, default=500_000, help="of each training")
    parser.add_argument("--repeats", type=int, default=64, help="gradient estimates of a scheme")
    parser.add_argument(
        "--policy-timesteps", type=int, default=100_000, help="behind the fixed policy"
    )
    method_runs.add_run_flags(parser, out="runs/vine", seeds=5)
    flags = parser.parse_args()
    method_runs.check_run_flags(parser, flags, "timesteps", "policy_timesteps")
    if flags.repeats < 2:
        parser.error(f"--repeats: expected at least 2, got {flags.repeats}")
    for env in flags.envs:
        if env not in HIDDEN:
            parser.error(f"--envs: expected of {', '.join(HIDDEN)}, got {env!r}")

    facts = report.machine_facts()
    report.print_facts(facts)
    flags.out.mkdir(parents=True, exist_ok=True)
    variances = estimate_all(flags.envs, flags.repeats, flags.policy_timesteps, flags.jobs)
    show_variance(variances)
    print()
    every = [
        Job(name, scheme.kind, env, seed, flags.timesteps, scheme.settings)
        for env in flags.envs
        for seed in range(flags.seeds)
        for name, scheme in schemes(env).items()
    ]
    results = method_runs.run_all(every, flags.out, flags.jobs, resume=flags.resume)
    if not results:
        return 1
    learning = show_learning(results)
    report.write_json(
        flags.out / "vine.json", {"facts": facts, "variances": variances, "learning": learning}
    )
    method_runs.write_csv(flags.out / "vine.csv", results)
    method_runs.plot(flags.out / "vine.png", results, title="Vine and single path at equal steps")
    return 0 if len(results) == len(every) else 1


if __name__ == "__main__":
    raise SystemExit(main())
