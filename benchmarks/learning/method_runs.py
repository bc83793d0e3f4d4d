"""Many trainings by many methods: one process per run, one curve per run, tables and pictures.

A run is described by a :class:`Job`, which says everything that its result depends on. All methods
are judged alike: by fresh deterministic episodes, some at even distances on the way (``curve``) and
more of them at the end (``final``), none of which anybody trains on or counts as steps.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import multiprocessing
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.learning.learning_sides import SIDES, train_side
from benchmarks.tools import report, side_process

EVALUATION_SEED = 1_000_000
SEARCHES = ("cem", "cma-es")


@dataclass(frozen=True)
class Job:
    """One training."""

    method: str  # its name in tables
    kind: str  # a class, one of SEARCHES or of SIDES, or "path.py@digest" of a variant
    env: str
    seed: int
    timesteps: int
    settings: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 20
    episodes: int = 5  # of each evaluation on the way
    final_episodes: int = 20
    panel: str = ""  # of the picture; the environment if empty
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    keeps_best: bool = False  # evaluate the policy of the best evaluation again at the end

    @property
    def place(self) -> str:
        """The panel that the run belongs to."""
        return self.panel or self.env

    def path(self, folder: Path) -> Path:
        """Where its result is kept: another job has another place."""
        said = asdict(self)
        for name in ("env_kwargs", "keeps_best"):  # as jobs were kept before they had these
            if not said[name]:
                del said[name]
        words = json.dumps(said, sort_keys=True).encode()
        name = f"{self.place}-{self.method}-{self.seed}".replace("/", "_").replace(":", "_")
        return (
            folder
            / "runs"
            / f"{name}-{hashlib.sha256(words).hexdigest()[:8]}.json".replace(" ", "_")
        )


# ---- the agents


def agent_class(kind: str) -> Any:
    """The class behind a kind of job: by its name, or that of a variant's file."""
    if kind.rpartition("@")[0].endswith(".py"):
        return variant_class(Path(kind.rpartition("@")[0]))
    from trpo_fast import TRPO
    from trpo_fast.algorithms.kl_penalty import KLPenalty
    from trpo_fast.algorithms.npg import NPG, NPGConfig
    from trpo_fast.algorithms.single_path import SinglePathConfig, SinglePathTRPO
    from trpo_fast.algorithms.vine import VineTRPO
    from trpo_fast.algorithms.vpg import VPG

    @dataclass(frozen=True, kw_only=True)
    class SinglePathNPGConfig(SinglePathConfig, NPGConfig):
        """Settings of both."""

    class SinglePathNPG(SinglePathTRPO, NPG):
        """Natural gradient steps on Monte Carlo Q-values, without a value function."""

        config_type = SinglePathNPGConfig

    known = {
        cls.__name__: cls
        for cls in (TRPO, NPG, VPG, KLPenalty, SinglePathTRPO, SinglePathNPG, VineTRPO)
    }
    if kind not in known:
        raise ValueError(f"kind: expected one of {', '.join([*known, *SEARCHES])}, got {kind!r}")
    return known[kind]


def variant_class(path: Path) -> Any:
    """The class ``Agent`` that a variant's file defines; TRPO where it has settings alone."""
    from trpo_fast import TRPO

    return runpy.run_path(str(path)).get("Agent", TRPO)


class Curve:
    """Evaluates whenever another part of the training is over."""

    def __init__(self, job: Job) -> None:
        self.points: list[dict[str, float]] = []
        self.seconds = 0.0
        self._start = time.perf_counter()
        self._every = max(1, job.timesteps // job.evaluations)
        self._next = self._every

    def look(self, timesteps: int, evaluate: Callable[[int], Sequence[float]]) -> None:
        """Evaluate if it is time to; ``evaluate(seed)`` gives returns."""
        if timesteps < self._next:
            return
        self._next = (timesteps // self._every + 1) * self._every
        begin = time.perf_counter()
        returns = [float(value) for value in evaluate(timesteps)]
        point = {
            "timesteps": float(timesteps),
            "mean_return": statistics.fmean(returns),
            "seconds": begin - self._start - self.seconds,  # of training alone
        }
        self.points.append(point)
        self.seconds += time.perf_counter() - begin


def run(job: Job) -> dict[str, Any]:
    """Train and evaluate; everything that tables and pictures need."""
    report.quiet_simulator(job.env)
    if job.kind in SIDES:
        curve = Curve(job)
        return _described(job, curve, train_side(job, curve))
    return _run_search(job) if job.kind in SEARCHES else _run_agent(job)


def _run_agent(job: Job) -> dict[str, Any]:
    from trpo_fast.evaluation import evaluate_policy

    # runs side by side share the cores; neither threads nor workers change a bit of the result
    settings = {"seed": job.seed, "n_threads": 1, "n_workers": 0, **job.settings}
    agent = agent_class(job.kind)(job.env, env_kwargs=job.env_kwargs, **settings)
    curve = Curve(job)
    statuses: dict[str, int] = {}
    kl_over_bound = 0.0
    best: dict[str, Any] = {"return": float("-inf"), "policy": None, "timesteps": 0}

    def watch(agent: Any, record: dict[str, Any]) -> None:
        nonlocal kl_over_bound
        status = str(record["policy/status"])
        statuses[status] = statuses.get(status, 0) + 1
        if status == "accepted":
            kl_over_bound = max(kl_over_bound, record["policy/kl"] / record["policy/max_kl"])
        looks = len(curve.points)
        curve.look(agent.timesteps, lambda seed: agent.evaluate(job.episodes, seed=seed).returns)
        if job.keeps_best and len(curve.points) > looks:
            latest = curve.points[-1]["mean_return"]
            if latest > best["return"]:
                policy = copy.deepcopy(agent.acting)
                best.update({"return": latest, "policy": policy, "timesteps": agent.timesteps})

    start = time.perf_counter()
    agent.learn(job.timesteps, callback=watch, progress=False)
    seconds = time.perf_counter() - start - curve.seconds
    final = agent.evaluate(job.final_episodes, seed=EVALUATION_SEED).returns
    result = {
        "timesteps": agent.timesteps,
        "final_returns": [float(value) for value in final],
        "seconds": seconds,
        "statuses": statuses,
        "max_kl_over_bound": kl_over_bound,
        "config": agent.config.to_dict(),
    }
    if best["policy"] is not None:
        environment = agent.evaluation_environment()
        again = evaluate_policy(
            best["policy"], environment, job.final_episodes, seed=EVALUATION_SEED
        )
        result["best_returns"] = [float(value) for value in again.returns]
        result["best_timesteps"] = best["timesteps"]
    agent.close()
    return _described(job, curve, result)


def _run_search(job: Job) -> dict[str, Any]:
    import numpy as np

    from benchmarks.learning import derivative_free as free

    settings = dict(job.settings)
    std = settings.pop("std", 0.5)
    normalize = settings.pop("normalize_observations", True)
    hidden = settings.pop("hidden_sizes", (64, 64))
    player = free.Player(
        job.env, hidden_sizes=hidden, seed=job.seed, normalize_observations=normalize
    )
    curve = Curve(job)

    def evaluate(episodes: int) -> list[float]:
        theta = distribution.mean
        return [player.play(theta, learn_statistics=False) for _ in range(episodes)]

    start = time.perf_counter()
    distribution = free.METHODS[job.kind](
        np.zeros(player.n_weights), std=std, seed=job.seed, **settings
    )
    while player.timesteps < job.timesteps:
        thetas = distribution.ask()
        distribution.tell(thetas, np.array([player.play(theta) for theta in thetas]))
        curve.look(player.timesteps, lambda _: evaluate(job.episodes))
    seconds = time.perf_counter() - start - curve.seconds
    final = evaluate(job.final_episodes)
    player.close()
    result = {
        "timesteps": player.timesteps,
        "final_returns": [float(value) for value in final],
        "seconds": seconds,
    }
    return _described(job, curve, result)


def _described(job: Job, curve: Curve, result: dict[str, Any]) -> dict[str, Any]:
    """A result beside what led to it."""
    return {
        "job": asdict(job),
        **result,
        "curve": curve.points,
        "evaluation_seconds": curve.seconds,
        "commit": report.commit(),
    }


# ---- all of them


def run_all(
    jobs: Sequence[Job], folder: Path, processes: int, *, resume: bool
) -> list[dict[str, Any]]:
    """Run the jobs side by side; each result is written and said as it comes, in the jobs' order.

    A job that fails is named, and the others go on.
    """
    results: dict[Job | str, dict[str, Any]] = {}
    waiting = []
    for job in jobs:
        path = job.path(folder)
        if resume and path.exists():
            results[str(path)] = json.loads(path.read_text())
        else:
            waiting.append(job)
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are in {folder} already")

    start = time.perf_counter()
    steps_asked = sum(job.timesteps for job in waiting)
    steps_taken = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=side_process.end_with_parent
    ) as executor:
        futures = {executor.submit(run, job): job for job in waiting}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                job = futures[future]
                steps_taken += job.timesteps
                elapsed = time.perf_counter() - start
                left = elapsed * (steps_asked - steps_taken) / steps_taken
                head = (
                    f"[{number}/{len(waiting)}, {elapsed / 60:.1f} min, {left / 60:.1f} to go] "
                    f"{job.place}, {job.method}, seed {job.seed}: "
                )
                try:
                    result = future.result()
                except Exception as error:  # one run must not take the others along
                    print(f"{head}{type(error).__name__}: {error}", flush=True)
                    continue
                path = job.path(folder)
                report.write_json(path, result)
                results[str(path)] = result
                print(
                    f"{head}{statistics.fmean(result['final_returns']):.1f} after "
                    f"{result['timesteps']:,} steps in {result['seconds']:.0f} s",
                    flush=True,
                )
        except KeyboardInterrupt:
            executor.shutdown(wait=False, cancel_futures=True)
            print(f"\nstopped; --resume goes on with the runs that are not in {folder}")
            sys.exit(130)
    paths = [str(job.path(folder)) for job in jobs]
    return [results[path] for path in paths if path in results]


# ---- what came out


def final_mean(result: dict[str, Any]) -> float:
    """Mean return of the final evaluation."""
    return statistics.fmean(result["final_returns"])


def mean_and_deviation(values: Sequence[float]) -> str:
    """``12.3 ± 4.5`` over runs."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 0 if abs(statistics.fmean(values)) >= 1000 else 1
    return f"{statistics.fmean(values):,.{digits}f} ± {deviation:,.{digits}f}"


def by_method(
    results: Sequence[dict[str, Any]], place: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Results of each method, in the order of their first run; of one panel only if given."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        job = Job(**result["job"])
        if place is None or job.place == place:
            groups.setdefault(job.method, []).append(result)
    return groups


def places(results: Sequence[dict[str, Any]]) -> list[str]:
    """Panels, in the order of their first run."""
    return list(dict.fromkeys(Job(**result["job"]).place for result in results))


def write_csv(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write one row per evaluation, the final ones included."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["panel", "env", "method", "seed", "kind", "timesteps", "mean_return"])
        for result in results:
            job = Job(**result["job"])
            head = [job.place, job.env, job.method, job.seed]
            for point in result["curve"]:
                numbers = [int(point["timesteps"]), point["mean_return"]]
                writer.writerow([*head, "evaluation", *numbers])
            writer.writerow([*head, "final", result["timesteps"], final_mean(result)])


def plot(path: Path, results: Sequence[dict[str, Any]], *, title: str = "") -> None:
    """Draw a panel per place and a curve per method: the mean over seeds, a band of ± 1 std."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = places(results)
    colors = {method: f"C{i}" for i, method in enumerate(by_method(results))}
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.4 * columns, 3.6 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, place in zip(axes.flat, names, strict=False):
        for method, runs in by_method(results, place).items():
            grid, curves = common_grid(runs)
            if not len(grid):
                continue
            mean, deviation = curves.mean(axis=0), curves.std(axis=0)
            axis.plot(grid, mean, color=colors[method], lw=1.6, label=method)
            axis.fill_between(
                grid, mean - deviation, mean + deviation, color=colors[method], alpha=0.15, lw=0
            )
        axis.set_title(place, fontsize=10)
        axis.set_xlabel("environment steps")
        axis.set_ylabel("return")
        axis.grid(alpha=0.25)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
    handles = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9)
    seeds = max(len(runs) for place in names for runs in by_method(results, place).values())
    text = f"mean over seeds (up to {seeds}), band ± 1 standard deviation"
    figure.suptitle(f"{title}\n{text}" if title else text, fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def common_grid(runs: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
    """Step counts (G,) and the runs' evaluations there (R, G), linear in between.

    Evaluations of different seeds fall on different steps where episodes decide when.
    """
    import numpy as np

    curves = [
        (
            np.array([point["timesteps"] for point in run["curve"]]),
            np.array([point["mean_return"] for point in run["curve"]]),
        )
        for run in runs
        if run["curve"]
    ]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    low = max(steps[0] for steps, _ in curves)
    high = min(steps[-1] for steps, _ in curves)
    grid = np.linspace(low, high, max(2, max(len(steps) for steps, _ in curves)))
    if high <= low:
        grid = np.array([low])
    return grid, np.stack([np.interp(grid, steps, means) for steps, means in curves])


# ---- flags that all of them have


def add_run_flags(parser: Any, *, out: str, seeds: int) -> None:
    """Add ``--seeds``, ``--jobs``, ``--out`` and ``--resume``."""
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for all that comes out")
    parser.add_argument("--resume", action="store_true", help="keep runs that are in the folder")


def check_run_flags(parser: Any, flags: Any, *names: str) -> None:
    """End with a sentence if a count is below 1."""
    for name in ("seeds", "jobs", *names):
        value = getattr(flags, name)
        if value is not None and not value >= 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
