"""Time whole trainings and their parts, side by side in one run: steps/s, CPU time, memory.

The tables of the README:

    python benchmarks/speed/training.py --envs CartPole-v1,HalfCheetah-v5 --json training.json
    python benchmarks/speed/training.py --quick            a minute, to see that it works

For each environment, in every round, the sides take turns of a second or less, in rotating order,
each beside its ceiling, so that both see the same moods of the machine:

- ``environment only``: bare environments under the actions of the trpo_fast training, bit for bit
  (see ``replay.py``), in one process and in several: the ceiling.
- ``rollout only``: the rollouts of that training with its recorded policies, nothing learnt.
- ``trpo_fast``: our defaults, eight environments, stepped in this process or by workers.
- ``sb3-contrib``: its defaults, one environment. ``trpo_fast, sb3 settings``: preset "sb3", the
  same network, batch, updates and single environment. ``torch_trpo``: the same in PyTorch.
- ``Tianshou``: its trainer and collector with the settings of its MuJoCo example, on as many
  environments, the same network and batch as ``trpo_fast``.
- the same on EnvPool, where it has the environment. ``EnvPool only`` calls its ``step``, as everybody
  does; ``by its arrays`` goes around the dictionaries that this makes, as ``trpo_fast`` does.

All Gymnasium environments, the bare ones included, are made without Gymnasium's passive checker.
Every side lives in a process of its own; building and importing stay outside the clock, and the
first turn of a round does not count. A turn is ``--turn`` updates, of peers ``--peer-turn``: all
figures are per step. ``--minutes`` bounds the whole: no environment begins a further round after its
share of them.

``of ceiling`` is the ceiling's wall time per step over the side's, turn by turn, the ceiling being
that with the same number of processes stepping environments; ``CPU share`` is the same of CPU time,
all processes together, which holds on a busy machine too, and charges what another core did. Both are
medians over all turns of all rounds; ``low`` and ``high`` are their quartiles.
``memory`` is the peak of all processes of a side together (see ``side_process.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for `import benchmarks`

from benchmarks.speed.training_sides import GROUPS, TASKS, UPDATE_STEPS, Plan, Task, plans
from benchmarks.tools import report
from benchmarks.tools.report import Timing
from benchmarks.tools.side_process import Measurement, SideFailed, SideProcess

PAUSE_SECONDS = 0.05  # until idle threads of the side before have stopped spinning

Turn = tuple[int, int]  # round, turn in it


# ---- one environment


def make_recording(path: Path, source: str, task: Task) -> None:
    """Train once, keep what was done, and see that bare environments repeat it."""
    import pickle

    from benchmarks.tools.replay import check_replay, record

    report.quiet_simulator(source)
    recording = record(source, (1 + task.turns) * task.turn, task.env_kwargs)
    check_replay(recording)
    path.write_bytes(pickle.dumps(recording))


def measure(
    task: Task, chosen: dict[str, Plan], rounds: int, seconds: float, folder: Path
) -> dict[str, Any]:
    """In every round, build all sides and let them take turns, the first of which does not count.

    After so many seconds no further round begins, but the first.
    """
    begun = time.perf_counter()
    needs_pool = any("envpool" in plan.packages for plan in chosen.values())
    make_recording(folder / "gymnasium.pickle", task.env, task)
    if needs_pool:
        make_recording(folder / "envpool.pickle", f"envpool:{task.env}", task)

    taken: dict[str, dict[Turn, Measurement]] = {}
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(SideProcess(plan.side)) for name, plan in chosen.items()
        }
        started = time.perf_counter()

        def ask(name: str, what: Callable[[SideProcess], Measurement | None], doing: str) -> Any:
            _progress(f"{task.env}: {doing}, {name}", started)
            try:
                return what(processes[name])
            except SideFailed as failure:
                failures[name] = str(failure)
                processes.pop(name).close()

        for index in range(rounds):
            if index > 0 and time.perf_counter() - begun > seconds:
                print(f"{task.env}: {index} of {rounds} rounds in the time given")
                break
            doing = f"round {index + 1} of {rounds}"
            for name in list(processes):
                ask(name, SideProcess.open, doing)
            for turn in range(-1, task.turns):
                names = list(processes)
                shift = (turn + 1) % len(names)
                for name in names[shift:] + names[:shift]:
                    time.sleep(PAUSE_SECONDS)
                    measurement = ask(name, SideProcess.turn, doing)
                    if turn >= 0 and measurement is not None:
                        taken.setdefault(name, {})[index, turn] = measurement
            for name in list(processes):
                ask(name, SideProcess.shut, doing)
    _progress("", started)
    taken = {name: taken[name] for name in chosen if name in taken}  # in the order of the table
    for name, reason in failures.items():
        taken.pop(name, None)
        print(f"{task.env}, {name}: left out, {reason}", flush=True)
    return summarize(task, chosen, taken, failures)


def _progress(text: str, started: float) -> None:
    if sys.stderr.isatty():
        seconds = f" ({time.perf_counter() - started:.0f} s)" if text else ""
        sys.stderr.write(f"\r\x1b[K{text}{seconds}")
        sys.stderr.flush()


def summarize(
    task: Task,
    chosen: dict[str, Plan],
    taken: dict[str, dict[Turn, Measurement]],
    failures: dict[str, str],
) -> dict[str, Any]:
    """Medians, spreads and shares of every side."""
    # a side that failed is not here: the others have the same turns
    timings = {
        name: Timing(
            [m.seconds / m.steps for m in runs.values()],
            [m.cpu_seconds / m.steps for m in runs.values()],
        )
        for name, runs in taken.items()
    }
    ours = timings.get("trpo_fast, in process")
    sides: dict[str, Any] = {}
    for name, timing in timings.items():
        ceiling = timings.get(chosen[name].ceiling or "")
        runs = list(taken[name].values())
        peaks = [m.peak_bytes for m in runs if m.peak_bytes is not None]
        cpu = statistics.median(timing.cpu_seconds)
        sides[name] = {
            **timing.to_dict(),  # of one step
            "steps": runs[0].steps,  # of a turn
            "steps_per_second": 1.0 / timing.median,
            "cpu_seconds_per_million_steps": 1e6 * cpu,
            "share_of_ceiling": report.ratio(ceiling, timing).to_dict() if ceiling else None,
            "cpu_share_of_ceiling": statistics.median(
                a / b for a, b in zip(ceiling.cpu_seconds, timing.cpu_seconds, strict=True)
            )
            if ceiling
            else None,
            "peak_bytes": max(peaks) if peaks else None,
            "slower_than_trpo_fast": report.ratio(timing, ours).to_dict() if ours else None,
        }
    sb3 = timings.get("sb3-contrib")
    return {
        "env": task.env,
        "updates": task.turns * task.turn,
        "sides": sides,
        "failures": failures,
        "sb3_contrib_over": {
            name: report.ratio(sb3, timing).to_dict()
            for name, timing in timings.items()
            if sb3 and name.startswith("trpo_fast")
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the table of one environment."""
    rows = []
    for name, data in result["sides"].items():
        low, high = (1.0 / seconds for seconds in data["quartile_seconds"][::-1])
        share, times = data["share_of_ceiling"], data["slower_than_trpo_fast"]
        rows.append(
            [
                name,
                f"{data['steps_per_second']:,.0f} ({low:,.0f} to {high:,.0f})",
                f"{share['median']:.2f} ({share['low']:.2f} to {share['high']:.2f})"
                if share
                else "",
                f"{data['cpu_share_of_ceiling']:.2f}" if share else "",
                f"{data['cpu_seconds_per_million_steps']:,.0f}",
                f"{data['peak_bytes'] / 2**20:,.0f}" if data["peak_bytes"] else "",
                f"{times['median']:.2f}" if times else "",
            ]
        )
    report.print_table(
        [
            "",
            "steps/s",
            "of ceiling",
            "CPU share",
            "CPU s / 1M steps",
            "memory, MB",
            "time / trpo_fast",
        ],
        rows,
        title=f"{result['env']}, {result['updates']} updates a training",
    )
    if ratios := result["sb3_contrib_over"]:
        print("\nsb3-contrib's time, same environment, network and batch, over that of")
        for name, times in ratios.items():
            print(f"{name}: {times['median']:.1f}x ({times['low']:.1f} to {times['high']:.1f})")


def main() -> None:
    """Parse flags, measure each environment, print and write."""
    import tempfile
    from dataclasses import replace

    parser = argparse.ArgumentParser(description="time whole trainings and their parts")
    parser.add_argument("--envs", type=report.comma_list, default=list(TASKS))
    parser.add_argument(
        "--sides",
        type=report.comma_list,
        default=list(GROUPS),
        help=f"groups of sides, of {','.join(GROUPS)}",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes stepping environments")
    parser.add_argument(
        "--threads", type=int, default=None, help="of every library's own; default: its choice"
    )
    parser.add_argument(
        "--updates", type=int, default=None, help=f"of {UPDATE_STEPS} steps; default: by task"
    )
    parser.add_argument("--turn", type=int, default=4, help="updates of trpo_fast in a turn")
    parser.add_argument("--peer-turn", type=int, default=1, help="of sb3-contrib and others")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="for all rounds but two of each environment"
    )
    parser.add_argument("--quick", action="store_true", help="two environments, 2 updates, 1 round")
    report.add_output_flags(parser)
    flags = parser.parse_args()
    if flags.quick:
        flags.envs, flags.updates, flags.turn = ["CartPole-v1", "Pendulum-v1"], 2, 1
        flags.rounds = 1
    for name in flags.envs:
        if name not in TASKS:
            parser.error(f"--envs: expected of {', '.join(TASKS)}, got {name!r}")
    for name in flags.sides:
        if name not in GROUPS:
            parser.error(f"--sides: expected of {', '.join(GROUPS)}, got {name!r}")
    for name in ("rounds", "workers", "updates", "turn", "peer_turn", "threads"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    if flags.workers < 2:
        parser.error(f"--workers: expected at least 2 (1 is in process), got {flags.workers}")

    if flags.threads is not None:  # before any library is loaded, and for all processes to come
        os.environ.update(report.thread_environment(flags.threads))
    facts = report.machine_facts(flags.threads)
    report.print_facts(facts)
    results = []
    missing: set[str] = set()
    for env_id in flags.envs:
        task = TASKS[env_id]
        updates = task.updates if flags.updates is None else flags.updates
        turn = min(flags.turn, updates)
        task = replace(task, updates=updates, turn=turn, peer_turn=flags.peer_turn)
        with tempfile.TemporaryDirectory() as folder:
            every = plans(task, Path(folder), flags.workers)
            chosen = {}
            for name, plan in every.items():
                lacking = [p for p in plan.packages if importlib.util.find_spec(p) is None]
                if plan.group in flags.sides and not lacking:
                    chosen[name] = plan
                elif plan.group in flags.sides and lacking[0] not in missing:
                    missing.add(lacking[0])
                    print(f"without {lacking[0]}, which is not installed")
            if chosen:
                seconds = 60.0 * flags.minutes / len(flags.envs)
                results.append(measure(task, chosen, flags.rounds, seconds, Path(folder)))
                show(results[-1])
        report.write_json(flags.json, {"facts": facts, "results": results})


if __name__ == "__main__":
    main()
