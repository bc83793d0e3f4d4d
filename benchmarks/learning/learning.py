"""How well it learns: tasks x seeds x named variants, beside peers; the learning table.

    python benchmarks/learning/learning.py --tasks classic
    python benchmarks/learning/learning.py --tasks Hopper-v5,Walker2d-v5 --seeds 10-19 \\
        --variants default "steady:max_kl=0.01" sb3-contrib --baseline default

A variant is ``default``; a preset, ``preset:rl-zoo-mujoco``; a name with settings,
``calm:max_kl=0.02,gae_lambda=0.9``; a file, ``trials/calm.py``, with a dictionary ``SETTINGS`` or a class
``Agent`` (a child of ``TRPO``) or both; or a peer: ``sb3-contrib`` (TRPO with the zoo's settings),
``tianshou`` (TRPO as in its MuJoCo example), ``sb3-ppo`` or ``sbx-ppo`` (PPO by their own defaults).
``--baseline`` names one of them, or a folder that an earlier call has filled.

Every run is one seed in one process, one core each, and leaves one JSON file in ``--out``; ``--resume``
keeps those that are there and were made with the same settings. ``final`` is the policy at the last
step, judged by deterministic episodes that nobody has seen: interquartile mean over seeds with the
95% interval of its bootstrap, and the worst seed. ``last tenth`` is the same over the last evaluations
on the way; ``unlearnt`` the share of evaluations in the second half of the runs that are less than
half as good as the best so far; ``best`` the policy of the best evaluation, judged again; ``better``
the probability that a run beats one of the baseline; ``to baseline`` the median seconds until an
evaluation reaches the baseline's final mean. ``KL/δ`` is the largest mean KL of any accepted update
over its bound; above 1 fails, as a missed goal of the default does.

The folder also receives ``learning.json``, ``learning.csv`` and ``learning.png``. ``--scale 0.01``
shortens all runs for a try.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.learning import learning_results, method_runs
from benchmarks.learning.learning_sides import SIDES
from benchmarks.learning.method_runs import Job
from benchmarks.tools import report


@dataclass(frozen=True)
class Task:
    """An environment, how long and how often to train, and what must come out."""

    env: str
    group: str
    timesteps: int
    seeds: int
    episodes: int = 20  # of the final evaluation
    aim: float | None = None  # interquartile mean over seeds
    threshold: float | None = None  # final mean return of a seed
    seeds_needed: int | None = None  # share of --seeds that must reach the threshold, as of `seeds`
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # gamma only


RAM = {"obs_type": "ram"}
TASKS = {
    task.env: task
    for task in (
        Task("CartPole-v1", "classic", 100_000, 10, 100, threshold=475.0, seeds_needed=9),
        Task("Pendulum-v1", "classic", 200_000, 5, 100, threshold=-200.0, seeds_needed=4),
        Task("Acrobot-v1", "classic", 100_000, 5, threshold=-100.0, seeds_needed=4),
        Task("LunarLander-v3", "box2d", 500_000, 10, threshold=200.0, seeds_needed=9),
        Task("LunarLanderContinuous-v3", "box2d", 500_000, 10, threshold=200.0, seeds_needed=9),
        Task("BipedalWalker-v3", "box2d", 2_000_000, 5, aim=250.0),
        Task("ale_py:ALE/Boxing-v5", "atari", 500_000, 3, aim=10.0, env_kwargs=RAM),
        Task("HalfCheetah-v5", "mujoco", 1_000_000, 5, aim=4000.0),
        Task("Hopper-v5", "mujoco", 1_000_000, 5, aim=2500.0),
        Task("Walker2d-v5", "mujoco", 1_000_000, 5, aim=3000.0),
        Task("Ant-v5", "mujoco", 1_000_000, 3),
        Task("Humanoid-v5", "mujoco", 1_000_000, 3, settings={"gamma": 0.99}),
        Task("Swimmer-v5", "mujoco", 1_000_000, 5, settings={"gamma": 0.9999}),
        Task("Reacher-v5", "mujoco", 1_000_000, 3),
        Task("Pusher-v5", "mujoco", 1_000_000, 3),
        Task("InvertedPendulum-v5", "pendulums", 1_000_000, 5),
        Task("InvertedDoublePendulum-v5", "pendulums", 1_000_000, 5),
    )
}
GROUPS = sorted({task.group for task in TASKS.values()})


# ---- variants


@dataclass(frozen=True)
class Variant:
    """A named way to train: who, and with which settings."""

    name: str
    kind: str = "TRPO"  # of a Job
    settings: dict[str, Any] = field(default_factory=dict)


def variant(text: str) -> Variant:
    """What ``--variants`` means by a word.

    Parameters
    ----------
    text
        ``default``, a peer, ``preset:NAME``, ``NAME:FIELD=VALUE,...`` or a path that ends in ``.py``.

    Raises
    ------
    ValueError
        It is none of them.
    """
    if text == "default":
        return Variant(text)
    if text in SIDES:
        return Variant(text, kind=text)
    if text.endswith(".py"):
        path = Path(text).resolve()
        if not path.is_file():
            raise ValueError(f"--variants: expected a file, found none at {text!r}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]  # a changed file is another job
        settings = dict(runpy.run_path(str(path)).get("SETTINGS", {}))
        return Variant(path.stem, kind=f"{path}@{digest}", settings=settings)
    name, colon, said = text.partition(":")
    if name == "preset" and said:
        return Variant(said, settings={"preset": said})
    if not (name and colon and "=" in said):
        raise ValueError(
            f"--variants: expected default, {', '.join(SIDES)}, preset:NAME, NAME:FIELD=VALUE,... or "
            f"a file that ends in .py, got {text!r}"
        )
    return Variant(name, settings=_fields(said))


def _fields(text: str) -> dict[str, Any]:
    """``a=1,b=(2, 3),c=word`` as a dictionary; commas inside brackets are the value's."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    fields = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"--variants: expected FIELD=VALUE, got {part!r}")
        try:
            fields[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            fields[name.strip()] = value.strip()  # a word
    return fields


def job(task: Task, chosen: Variant, seed: int, evaluations: int, episodes: int) -> Job:
    """One training of the table."""
    return Job(
        method=chosen.name,
        kind=chosen.kind,
        env=task.env,
        seed=seed,
        timesteps=task.timesteps,
        settings={**task.settings, **chosen.settings},
        evaluations=evaluations,
        episodes=episodes,
        final_episodes=task.episodes,
        env_kwargs=task.env_kwargs,
        keeps_best=chosen.kind not in SIDES,
    )


def seeds_of(text: str) -> list[int]:
    """``3`` is 0, 1, 2; ``10-19`` and ``1,4,7`` are what they say."""
    first, dash, last = text.partition("-")
    try:
        if dash:
            return list(range(int(first), int(last) + 1))
        if "," in text:
            return [int(part) for part in report.comma_list(text)]
        return list(range(int(text)))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number of seeds, a range such as 10-19 or a list, got {text!r}"
        ) from None


def _tasks(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> list[Task]:
    tasks: list[Task] = []
    for name in flags.tasks:
        chosen = [task for task in TASKS.values() if name in (task.env, task.group)]
        if not chosen:
            parser.error(f"--tasks: expected of {', '.join([*GROUPS, *TASKS])}, got {name!r}")
        tasks += [task for task in chosen if task not in tasks]
    return [replace(task, timesteps=max(1, int(task.timesteps * flags.scale))) for task in tasks]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse flags, run, print the table, write the files; 1 if a goal was missed or a run failed."""
    parser = argparse.ArgumentParser(description="train variants on tasks: the learning table")
    parser.add_argument(
        "--tasks",
        type=report.comma_list,
        default=["classic"],
        help=f"groups ({', '.join(GROUPS)}) or environments ({', '.join(TASKS)})",
    )
    parser.add_argument("--variants", nargs="+", default=["default"], help="see above")
    parser.add_argument("--baseline", default=None, help="a variant, or a folder with runs of one")
    parser.add_argument("--seeds", type=seeds_of, default=None, help="5, 10-19 or 1,4,7")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side")
    parser.add_argument("--evaluations", type=int, default=20, help="on the way, per run")
    parser.add_argument("--evaluation-episodes", type=int, default=10, help="on the way, each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all training lengths")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--resume", action="store_true", help="keep runs that are in the folder")
    flags = parser.parse_args(arguments)
    for name in ("jobs", "evaluations", "evaluation_episodes"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1")
    if not flags.scale > 0.0:
        parser.error(f"--scale: expected a positive number, got {flags.scale}")
    tasks = _tasks(parser, flags)
    try:
        variants = [variant(text) for text in flags.variants]
        stored = learning_results.baseline(flags.baseline, [v.name for v in variants])
    except ValueError as error:
        parser.error(str(error))
    missing = {p for v in variants for p in SIDES.get(v.kind, (None, ()))[1] if not report.have(p)}
    if missing:
        parser.error(f"--variants: a peer needs {', '.join(sorted(missing))}, not installed here")

    facts = report.machine_facts()
    report.print_facts(facts)
    # seeds outside, so that a first impression of every task comes early
    wanted = {task.env: flags.seeds or list(range(task.seeds)) for task in tasks}
    jobs = [
        job(task, chosen, wanted[task.env][index], flags.evaluations, flags.evaluation_episodes)
        for index in range(max(map(len, wanted.values())))
        for task in tasks
        for chosen in variants
        if index < len(wanted[task.env])
    ]
    runs = method_runs.run_all(jobs, flags.out, flags.jobs, resume=flags.resume)
    if not runs:
        return 1
    rows = learning_results.summaries(tasks, [v.name for v in variants], runs, stored)
    learning_results.show(rows)
    if len(commits := {str(run["commit"]) for run in runs}) > 1:
        print(f"\nruns of several commits: {', '.join(sorted(commits))}")
    written = [learning_results.as_json(row) for row in rows]
    report.write_json(flags.out / "learning.json", {"facts": facts, "rows": written})
    method_runs.write_csv(flags.out / "learning.csv", runs)
    if report.have("matplotlib"):
        learning_results.plot(flags.out / "learning.png", runs)
    return 0 if len(runs) == len(jobs) and all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
