"""Train every method on CartPole-v1 and HalfCheetah-v5, and say whether each has learnt.

    python benchmarks/learning/methods.py --jobs 2 --out runs/methods   about 20 minutes on 2 cores
    python benchmarks/learning/methods.py --methods NPG,CEM --envs CartPole-v1   some of it
    python benchmarks/learning/methods.py --scale 0.02 --seeds 1   a try

On CartPole-v1 every seed's final policy must reach 475 (mean of 100 deterministic episodes), that
of vanilla policy gradient after 500,000 steps and the others after 200,000. On HalfCheetah-v5 it
must be clearly over random actions after 300,000, and over an untrained policy too, which stands
still and so does better than random ones: each by five standard errors. All settings are the
defaults of the methods' classes, except where ``SETTINGS`` says otherwise.

The folder receives one JSON per run, ``methods.json``, ``methods.csv`` and ``methods.png``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning import method_runs
from benchmarks.learning.method_runs import EVALUATION_SEED, Job
from benchmarks.tools import report

RANDOM_EPISODES = 30  # of the random policy, which is the yardstick
STANDARD_ERRORS = 5.0  # what "clearly over random" means

# name: kind of agent, settings
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "TRPO": ("TRPO", {}),
    "single path": ("SinglePathTRPO", {}),
    "vine": ("VineTRPO", {}),
    "natural gradient": ("NPG", {}),
    "vanilla gradient": ("VPG", {}),
    "KL penalty": ("KLPenalty", {}),
    "max KL": ("TRPO", {"kl_constraint": "max"}),
    "empirical Fisher": ("TRPO", {"fisher": "empirical"}),
    "CEM": ("cem", {}),
    "CMA-ES": ("cma-es", {}),
}

# (method, environment): what is not the default, and why
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    # without a value function returns are noisy: a shorter horizon, larger steps, and a baseline of
    # the whole batch, because four paths are too few for one at every time (seed 0: 266)
    ("single path", "HalfCheetah-v5"): {
        "batch_size": 4096,
        "sampling": "steps",
        "baseline": "mean",
        "n_envs": 4,
        "gamma": 0.97,
        "max_kl": 0.05,
    },
    # more states with short branches, most of the steps in branches: what there is to learn here
    # shows within a few steps
    ("vine", "HalfCheetah-v5"): {
        "batch_size": 512,
        "max_kl": 0.02,
        "vine": {"states": 256, "branch_steps": 4},
    },
    # searches without derivatives need few dimensions: a linear policy
    ("CEM", "HalfCheetah-v5"): {"hidden_sizes": ()},
    # and 300 episodes are 17 generations of its own population: a smaller one, closer together
    ("CMA-ES", "HalfCheetah-v5"): {"hidden_sizes": (), "std": 0.2, "population_size": 10},
}

THRESHOLD = {"CartPole-v1": 475.0}  # elsewhere: clearly over random and untrained
UNTRAINED_SEED = 2_000_000
TIMESTEPS = {"CartPole-v1": 200_000, "HalfCheetah-v5": 300_000}
LONGER = {("vanilla gradient", "CartPole-v1"): 500_000}
FINAL_EPISODES = {"CartPole-v1": 100, "HalfCheetah-v5": 20}


def jobs(methods: Sequence[str], envs: Sequence[str], seeds: int, scale: float) -> list[Job]:
    """Every method in every environment with every seed."""
    return [
        Job(
            method=method,
            kind=METHODS[method][0],
            env=env,
            seed=seed,
            timesteps=max(1, int(scale * LONGER.get((method, env), TIMESTEPS[env]))),
            settings=METHODS[method][1] | SETTINGS.get((method, env), {}),
            final_episodes=FINAL_EPISODES[env],
        )
        for env in envs
        for method in methods
        for seed in range(seeds)
    ]


def summarize(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry per method and environment."""
    summaries = []
    for env in method_runs.places(results):
        threshold = THRESHOLD.get(env)
        yardsticks = _yardsticks(env) if threshold is None else {}
        goal = ", ".join(f"{name} {statistics.fmean(r):,.0f}" for name, r in yardsticks.items())
        for method, runs in method_runs.by_method(results, env).items():
            finals = [method_runs.final_mean(run) for run in runs]
            passed = [
                mean >= threshold
                if threshold is not None
                else all(_over(run["final_returns"], other) for other in yardsticks.values())
                for mean, run in zip(finals, runs, strict=True)
            ]
            summaries.append(
                {
                    "env": env,
                    "method": method,
                    "seeds": len(runs),
                    "timesteps": max(run["timesteps"] for run in runs),
                    "final_means": finals,
                    "goal": f"over {goal}" if threshold is None else f"at least {threshold:g}",
                    "reached": sum(passed),
                    "passed": all(passed),
                    "reached_at": [_reached_at(run, threshold) for run in runs],
                    "refused": sum(_refused(run) for run in runs),
                    "updates": sum(sum(run.get("statuses", {}).values()) for run in runs),
                    "seconds": statistics.median(run["seconds"] for run in runs),
                }
            )
    return summaries


def random_returns(env_id: str) -> list[float]:
    """Returns of uniformly random actions."""
    from trpo_fast.envs import make_environment

    env = make_environment(env_id)
    env.action_space.seed(EVALUATION_SEED)
    returns = []
    for episode in range(RANDOM_EPISODES):
        env.reset(seed=EVALUATION_SEED + episode)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return returns


def _yardsticks(env: str) -> dict[str, list[float]]:
    from trpo_fast import TRPO

    report.quiet_simulator(env)
    agent = TRPO(env, n_envs=1, n_workers=0)
    untrained = agent.evaluate(RANDOM_EPISODES, seed=UNTRAINED_SEED).returns
    agent.close()
    return {
        "random": random_returns(env),
        "untrained": [float(value) for value in untrained],
    }


def _over(returns: Sequence[float], others: Sequence[float]) -> bool:
    # by so many standard errors of the difference of the means
    error = sum(statistics.variance(sample) / len(sample) for sample in (returns, others)) ** 0.5
    return bool(statistics.fmean(returns) - statistics.fmean(others) > STANDARD_ERRORS * error)


def _refused(run: dict[str, Any]) -> int:
    statuses: dict[str, int] = run.get("statuses", {})
    return sum(statuses.values()) - statuses.get("accepted", 0)


def _reached_at(run: dict[str, Any], threshold: float | None) -> int | None:
    if threshold is None:
        return None
    return next((int(p["timesteps"]) for p in run["curve"] if p["mean_return"] >= threshold), None)


def show(summaries: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    report.print_table(
        [
            "method",
            "environment",
            "steps",
            "return",
            "goal",
            "reached",
            "first at",
            "refused",
            "s",
            "",
        ],
        [
            [
                s["method"],
                s["env"],
                f"{s['timesteps']:,}",
                method_runs.mean_and_deviation(s["final_means"]),
                s["goal"],
                f"{s['reached']} of {s['seeds']}",
                ", ".join(f"{at // 1000}k" if at else "-" for at in s["reached_at"])
                if s["env"] in THRESHOLD
                else "",
                f"{s['refused']} of {s['updates']}" if s["updates"] else "",
                f"{s['seconds']:.0f}",
                "pass" if s["passed"] else "FAIL",
            ]
            for s in summaries
        ],
        title="Deterministic evaluation of the final policy, mean over seeds ± their deviation",
    )


def main() -> int:
    """Parse flags, train, print the table, write the files; 1 if a method has not learnt."""
    parser = argparse.ArgumentParser(description="every method on CartPole and HalfCheetah")
    parser.add_argument("--methods", type=report.comma_list, default=list(METHODS))
    parser.add_argument("--envs", type=report.comma_list, default=list(TIMESTEPS))
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all training lengths")
    method_runs.add_run_flags(parser, out="runs/methods", seeds=3)
    flags = parser.parse_args()
    method_runs.check_run_flags(parser, flags)
    for name, known in (("methods", METHODS), ("envs", TIMESTEPS)):
        for value in getattr(flags, name):
            if value not in known:
                parser.error(f"--{name}: expected of {', '.join(known)}, got {value!r}")
    if not flags.scale > 0.0:
        parser.error(f"--scale: expected a positive number, got {flags.scale}")

    facts = report.machine_facts()
    report.print_facts(facts)
    every = jobs(flags.methods, flags.envs, flags.seeds, flags.scale)
    flags.out.mkdir(parents=True, exist_ok=True)
    results = method_runs.run_all(every, flags.out, flags.jobs, resume=flags.resume)
    if not results:
        return 1
    summaries = summarize(results)
    show(summaries)
    report.write_json(flags.out / "methods.json", {"facts": facts, "summaries": summaries})
    method_runs.write_csv(flags.out / "methods.csv", results)
    method_runs.plot(flags.out / "methods.png", results)
    return 0 if len(results) == len(every) and all(s["passed"] for s in summaries) else 1


if __name__ == "__main__":
    raise SystemExit(main())
