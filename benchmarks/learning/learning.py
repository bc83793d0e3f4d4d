"""Train the default configuration on named environments and seeds: the learning table.

The tables of the README, classic control and Atari in some minutes, MuJoCo in about an hour:

    python benchmarks/learning/learning.py --tasks classic --jobs 2 --out runs/learning
    python benchmarks/learning/learning.py --tasks mujoco --jobs 2 --out runs/learning

Every run trains through the public API, one seed in one process. ``final`` is the policy at the
last step, ``best`` the one that did best in the evaluations on the way, kept and evaluated again at
the end: both over the same number of fresh deterministic episodes that neither has seen. A table
entry is the mean over seeds of each seed's mean return, ± the standard deviation over seeds.
``KL/δ`` is the largest realised mean KL of any accepted update, over its bound; above 1 fails.

The folder receives one JSON per run, ``learning.csv``, ``learning.json`` and ``learning.png``.
``--resume`` keeps the runs of the same length that are already there; ``--scale 0.01`` shortens all
of them for a try.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning.learning_results import plot, show, summarize, write_csv
from benchmarks.tools import report

EVALUATION_SEED = 1_000_000  # of the final evaluations; those on the way use others
RANDOM_EPISODES = 30  # of the random policy, where it is the yardstick


@dataclass(frozen=True)
class Task:
    """An environment, how long and how often to train, and what must come out."""

    env: str
    group: str
    total_timesteps: int
    seeds: int
    episodes: int = 20  # of the final evaluations
    threshold: float | None = None  # each seed's final mean return; None: clearly over random
    seeds_needed: int | None = None  # seeds that must reach the threshold
    aim: float | None = None  # mean over seeds
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)  # gamma only


TASKS = {
    task.env: task
    for task in (
        Task("CartPole-v1", "classic", 100_000, 10, 100, threshold=475.0, seeds_needed=9),
        Task("Pendulum-v1", "classic", 200_000, 5, 100, threshold=-200.0, seeds_needed=4),
        Task("Acrobot-v1", "classic", 100_000, 5, threshold=-100.0, seeds_needed=4),
        Task(
            "ale_py:ALE/Boxing-v5",
            "atari",
            500_000,
            3,
            seeds_needed=3,
            env_kwargs={"obs_type": "ram"},
        ),
        Task("HalfCheetah-v5", "mujoco", 1_000_000, 3, aim=4000.0),
        Task("Hopper-v5", "mujoco", 1_000_000, 3, aim=2500.0),
        Task("Walker2d-v5", "mujoco", 1_000_000, 3, aim=3000.0),
    )
}
GROUPS = sorted({task.group for task in TASKS.values()})


# ---- one run, in a process of its own


def train(
    task: Task, seed: int, threads: int, evaluations: int, evaluation_episodes: int
) -> dict[str, Any]:
    """Train one seed and return everything that the tables and the picture need."""
    from trpo_fast import TRPO

    # threads and workers do not change a bit of the result; runs side by side share the cores
    agent = TRPO(
        task.env,
        seed=seed,
        n_threads=threads,
        n_workers=0 if threads == 1 else None,
        env_kwargs=task.env_kwargs,
        **task.overrides,
    )
    every = max(1, task.total_timesteps // evaluations)
    next_evaluation = every
    curve: list[dict[str, float]] = []  # evaluations on the way
    episodes: list[dict[str, float]] = []  # returns of training episodes
    statuses: dict[str, int] = {}
    kl_over_bound: list[float] = []
    evaluation_seconds = 0.0
    best = float("-inf")
    best_timesteps = 0

    with tempfile.TemporaryDirectory() as folder:
        best_path = Path(folder) / "best.safetensors"

        def watch(agent: Any, record: dict[str, Any]) -> None:
            nonlocal next_evaluation, evaluation_seconds, best, best_timesteps
            status = str(record["policy/status"])
            statuses[status] = statuses.get(status, 0) + 1
            if status == "accepted":
                kl_over_bound.append(record["policy/kl"] / record["policy/max_kl"])
            if "rollout/episode_return" in record:
                episodes.append(
                    {
                        "timesteps": agent.timesteps,
                        "mean_return": record["rollout/episode_return"],
                    }
                )
            if agent.timesteps >= next_evaluation:
                while next_evaluation <= agent.timesteps:
                    next_evaluation += every
                begin = time.perf_counter()
                result = agent.evaluate(
                    evaluation_episodes, deterministic=True, seed=agent.timesteps
                )
                curve.append(
                    {
                        "timesteps": agent.timesteps,
                        "mean_return": result.mean_return,
                        "std_return": result.std_return,
                    }
                )
                if result.mean_return > best:
                    best, best_timesteps = result.mean_return, agent.timesteps
                    agent.save(best_path)
                evaluation_seconds += time.perf_counter() - begin

        start = time.perf_counter()
        agent.learn(task.total_timesteps, callback=watch, progress=False)
        seconds = time.perf_counter() - start - evaluation_seconds

        final = agent.evaluate(task.episodes, deterministic=True, seed=EVALUATION_SEED)
        best_returns = final.returns
        if best_path.exists():
            agent_then = TRPO.load(best_path, env=agent.evaluation_environment())
            best_returns = agent_then.evaluate(
                task.episodes, deterministic=True, seed=EVALUATION_SEED
            ).returns

    return {
        "env": task.env,
        "seed": seed,
        "asked_timesteps": task.total_timesteps,
        "timesteps": agent.timesteps,
        "commit": report.commit(),
        "config": agent.config.to_dict(),
        "final_returns": [float(value) for value in final.returns],
        "best_returns": [float(value) for value in best_returns],
        "best_timesteps": best_timesteps,
        "curve": curve,
        "episodes": episodes,
        "statuses": statuses,
        "max_kl_over_bound": max(kl_over_bound, default=0.0),
        "seconds": seconds,
        "evaluation_seconds": evaluation_seconds,
        "threads": threads,
        "load_average_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def random_returns(task: Task) -> list[float]:
    """Returns of uniformly random actions, the yardstick where a task has no threshold."""
    from trpo_fast.envs import make_environment

    env = make_environment(task.env, **task.env_kwargs)
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


# ---- all runs


def run_all(
    jobs: Sequence[tuple[Task, int]], flags: argparse.Namespace, threads: int
) -> list[dict[str, Any]]:
    """Run the jobs in `flags.jobs` processes; write and print each as it finishes."""
    results, waiting = [], []
    for task, seed in jobs:
        path = _run_path(flags.out, task, seed)
        kept = json.loads(path.read_text()) if flags.resume and path.exists() else {}
        if kept.get("asked_timesteps") == task.total_timesteps:
            results.append(kept)
        else:
            waiting.append((task, seed))

    failures = 0
    with ProcessPoolExecutor(
        flags.jobs, mp_context=multiprocessing.get_context("spawn")
    ) as executor:
        futures = {
            executor.submit(
                train, task, seed, threads, flags.evaluations, flags.evaluation_episodes
            ): (task, seed)
            for task, seed in waiting
        }
        for future in as_completed(futures):
            task, seed = futures[future]
            try:
                result = future.result()
            except Exception as error:  # one run must not take the others along
                failures += 1
                print(f"{task.env} seed {seed}: {type(error).__name__}: {error}", flush=True)
                continue
            report.write_json(_run_path(flags.out, task, seed), result)
            results.append(result)
            print(
                f"{task.env} seed {seed}: final {statistics.mean(result['final_returns']):.1f}, "
                f"best {statistics.mean(result['best_returns']):.1f} "
                f"(at {result['best_timesteps']:,}), KL/δ {result['max_kl_over_bound']:.4f}, "
                f"{result['timesteps'] / result['seconds']:,.0f} steps/s",
                flush=True,
            )
    if failures:
        print(f"{failures} of {len(waiting)} runs failed; the table leaves them out")
    return results


def _run_path(folder: Path, task: Task, seed: int) -> Path:
    name = task.env.replace(":", "_").replace("/", "_")
    return folder / f"{name}-seed{seed}.json"


def main() -> int:
    """Parse flags, run, print the table, write the files; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description="train the default configuration: learning table")
    parser.add_argument(
        "--tasks",
        type=report.comma_list,
        default=list(GROUPS),
        help=f"groups ({', '.join(GROUPS)}) or environments ({', '.join(TASKS)})",
    )
    parser.add_argument("--seeds", type=int, default=None, help="seeds per task, if not its own")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--threads", type=int, default=None, help="of each run; default cores/jobs")
    parser.add_argument("--evaluations", type=int, default=20, help="on the way, per run")
    parser.add_argument("--evaluation-episodes", type=int, default=10, help="on the way, each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all training lengths")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--resume", action="store_true", help="keep runs that are in the folder")
    flags = parser.parse_args()

    tasks = []
    for name in flags.tasks:
        chosen = [task for task in TASKS.values() if name in (task.env, task.group)]
        if not chosen:
            parser.error(f"--tasks: expected of {', '.join([*GROUPS, *TASKS])}, got {name!r}")
        tasks += [task for task in chosen if task not in tasks]
    if flags.scale != 1.0:
        tasks = [
            replace(task, total_timesteps=max(1, int(task.total_timesteps * flags.scale)))
            for task in tasks
        ]
    facts = report.machine_facts()
    threads = flags.threads or max(1, facts["cores"] // flags.jobs)
    report.print_facts(facts)

    jobs = [(t, seed) for t in tasks for seed in range(flags.seeds or t.seeds)]
    flags.out.mkdir(parents=True, exist_ok=True)
    runs = run_all(jobs, flags, threads)
    runs.sort(key=lambda run: (list(TASKS).index(run["env"]), run["seed"]))
    summaries = []
    for task in tasks:
        own = [run for run in runs if run["env"] == task.env]
        if own:
            yardstick = task.threshold is None and task.aim is None
            summaries.append(summarize(task, own, random_returns(task) if yardstick else []))
    if not summaries:
        return 1

    show(summaries)
    if len(commits := {str(run["commit"]) for run in runs}) > 1:
        print(f"\nruns of several commits: {', '.join(sorted(commits))}")
    report.write_json(
        flags.out / "learning.json",
        {"facts": facts, "jobs": flags.jobs, "threads": threads, "summaries": summaries},
    )
    write_csv(flags.out / "learning.csv", runs)
    plot(flags.out / "learning.png", TASKS, runs)
    return 0 if len(summaries) == len(tasks) and all(s["passed"] for s in summaries) else 1


if __name__ == "__main__":
    raise SystemExit(main())
