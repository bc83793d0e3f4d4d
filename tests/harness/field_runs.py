"""Environments of many packages, each through everything that a user does with it.

    python tests/harness/field_runs.py                          all of them, an hour or so
    python tests/harness/field_runs.py --packages minigrid,ale  some
    python tests/harness/field_runs.py --venvs FOLDER           keep the environments for the next time

For each package a fresh virtual environment is made, the package and trpo_fast are installed in it, and
each id goes through the steps of ``field_steps.py`` in a process of its own: random actions, training
in process and in two workers, the same with a save in the middle, loaded and gone on with, evaluated
with a cap, predicted by hand, recorded, the command line. A table is printed at the end: ``ok``,
``anew`` (episodes start anew, and a sentence says so), ``refused`` (cannot be trained, and a sentence
says so), ``-`` (nothing to try), ``not reached`` (after a crash or a hang), or FAILED, with reasons
below. Where a package is to blame, its reason stands in the table of this file. A package that cannot be
installed is left out by name. The status is 1 if any step failed without such a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEPS = (
    "bare", "train", "workers", "saved", "resumed", "evaluated", "predicted", "recorded",
    "command_line",
)  # fmt: skip


@dataclass(frozen=True)
class Id:
    """An environment of a package."""

    name: str  # as trpo_fast takes it
    kwargs: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # step: why it fails, by no fault of ours
    batch: int = 128  # steps of an iteration; fewer where the simulator is slow
    minutes: float = 12.0
    repeats: str = ""  # why two trainings from one seed differ, where they do
    refused: str = ""  # words of the sentence that says why it cannot be trained, where it cannot


@dataclass(frozen=True)
class Package:
    """What is installed, and the environments in it."""

    name: str
    requirements: tuple[str, ...]
    ids: tuple[Id, ...]


def ids(*names: str) -> tuple[Id, ...]:
    """Environments without anything particular."""
    return tuple(Id(name) for name in names)


NO_PICTURES = "its pictures take np.integer as a dtype, which NumPy 2.3 refuses"
BLUESKY = {
    "recorded": "its render() returns nothing",
    "command_line": "its shapes write a traceback where the interpreter ends",
}
UNSEEDED_TASKS = "the generator that draws its tasks is not seeded by reset(seed=)"
UNSEEDED_AIRCRAFT = "its aircraft are drawn from the global generator of NumPy"
UNSEEDED_GOALS = "a reset without a seed takes a new generator, of the operating system's entropy"

PACKAGES = (
    Package(
        "gymnasium",
        ("gymnasium[classic-control,box2d,toy-text,mujoco]",),
        ids(
            "CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "LunarLander-v3",
            "BipedalWalker-v3", "FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1",
            "HalfCheetah-v5", "InvertedPendulum-v5",
        ),
    ),
    Package(
        "ale",
        ("ale-py",),
        (Id("ale_py:ALE/Boxing-v5", {"obs_type": "ram"}), Id("ale_py:ALE/Pong-v5", {"obs_type": "ram"})),
    ),
    Package("minigrid", ("minigrid",), ids("field_envs:FlatMiniGrid-v0", "field_envs:ImageMiniGrid-v0")),
    Package(
        "highway-env",
        ("highway-env",),
        (Id("highway_env:highway-fast-v0", batch=16), Id("highway_env:parking-v0", batch=16),
         Id("highway_env:racetrack-v0", batch=16)),
    ),
    Package(
        "flappy-bird-gymnasium",
        ("flappy-bird-gymnasium",),
        (Id("flappy_bird_gymnasium:FlappyBird-v0", {"use_lidar": False}),
         Id("flappy_bird_gymnasium:FlappyBird-v0", {"use_lidar": True})),
    ),
    Package(
        "gym-anytrading",
        ("gym-anytrading",),
        ids("gym_anytrading:stocks-v0", "gym_anytrading:forex-v0"),
    ),
    Package(
        "panda-gym",
        ("panda-gym",),
        (Id("panda_gym:PandaReach-v3", batch=32, repeats=UNSEEDED_GOALS),
         Id("panda_gym:PandaPush-v3", batch=32, repeats=UNSEEDED_GOALS)),
    ),
    Package(
        "gymnasium-robotics",
        ("gymnasium-robotics", "mujoco<3.4"),
        (Id("gymnasium_robotics:FetchReach-v4", batch=32),
         Id("gymnasium_robotics:PointMaze_UMaze-v3", batch=32)),
    ),
    Package(
        "shimmy",
        ("shimmy[dm-control]", "packaging", "mujoco<4"),  # packaging is imported, not asked for
        ids("shimmy:dm_control/cartpole-swingup-v0", "shimmy:dm_control/walker-walk-v0"),
    ),
    Package("gym-pusht", ("gym-pusht", "pymunk<7"), (Id("gym_pusht:gym_pusht/PushT-v0", batch=32),)),
    Package(
        "mo-gymnasium",
        ("mo-gymnasium",),
        (*ids("field_envs:WeightedTreasure-v0", "field_envs:WeightedMountainCar-v0"),
         Id("mo_gymnasium:deep-sea-treasure-v0", refused="several rewards")),
    ),
    Package("pettingzoo", ("pettingzoo", "mpe2", "supersuit"), ids("field_envs:spread()")),
    Package("metaworld", ("metaworld", "packaging"),
            (Id("field_envs:Reach-v0", batch=32, repeats=UNSEEDED_TASKS),)),
    Package("pyflyt", ("PyFlyt",), (Id("PyFlyt.gym_envs:PyFlyt/QuadX-Hover-v4", batch=32),)),
    Package(
        "tetris-gymnasium",
        ("tetris-gymnasium",),
        (Id("tetris_gymnasium.envs:tetris_gymnasium/Tetris", reasons={"recorded": NO_PICTURES}),),
    ),
    Package(
        "bluesky-gym",
        ("bluesky-gym", "numpy<2.4"),  # its step takes an array of one entry for a number
        (Id("field_envs:Descent-v0", batch=32, repeats=UNSEEDED_AIRCRAFT, reasons=BLUESKY),),
    ),
)  # fmt: skip


def environment_variables() -> dict[str, str]:
    """Of the processes: the modules beside this file, nothing else, and pictures without a display."""
    variables = {**os.environ, "PYTHONPATH": str(HERE)}
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        variables.setdefault("MUJOCO_GL", "egl")
    return variables


def run(command: list[str | Path], log: Path, minutes: float = 20.0) -> bool:
    """Run a command, its words into the log; whether it went well."""
    with log.open("ab") as stream:
        try:
            answer = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env=environment_variables(), timeout=60.0 * minutes, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
    return answer.returncode == 0


def build_wheel(folder: Path) -> Path:
    """A wheel of this tree."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    subprocess.run([*build, str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(package: Package, folder: Path, wheel: Path) -> Path | None:
    """The interpreter of an environment that has the package and trpo_fast; None if that failed."""
    place, log = folder / package.name, folder / f"{package.name}.log"
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
    if not run([*pip, *package.requirements, f"{wheel}[video]"], log):
        return None
    # the same version from another commit
    again = [*pip, "--force-reinstall", "--no-deps", wheel]
    return python if run(again, log) else None


def try_id(python: Path, entry: Id, log: Path) -> dict[str, tuple[str, str]]:
    """Status and detail of each step."""
    command = [python, HERE / "field_steps.py", entry.name, "--kwargs", json.dumps(entry.kwargs)]
    steps = ("train", "command_line") if entry.refused else STEPS
    command += ["--steps", ",".join(steps), "--batch", str(entry.batch)]
    found: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="trpo_fast_field_") as folder:
        out = Path(folder) / "out"
        in_time = run([*command], out, entry.minutes) or b'"command_line"' in out.read_bytes()
        text = out.read_text(errors="replace")
        with log.open("a") as stream:
            stream.write(f"== {entry.name} {entry.kwargs}\n{text}")
    for line in text.splitlines():
        if line.startswith('{"step"'):
            said = json.loads(line)
            found[said["step"]] = (said["status"], said["detail"])
    missing = [step for step in steps if step not in found]
    if missing:
        why = (
            "the process ended" if in_time else f"nothing in {entry.minutes:g} minutes, or a crash"
        )
        found[missing[0]] = ("failed", f"{why}: {text.strip().splitlines()[-1:]}")
        found.update(dict.fromkeys(missing[1:], ("not reached", "")))
    if entry.refused:
        return {step: judge_refusal(entry.refused, *found[step]) for step in found}
    return found


def judge_refusal(expected: str, status: str, said: str) -> tuple[str, str]:
    """Status and detail of a step of an environment that cannot be trained."""
    if status == "failed" and expected in said:
        return "refused", said
    return "failed", f"expected a sentence with '{expected}', got {status}: {said}"


def show(rows: list[tuple[str, Id, dict[str, tuple[str, str]]]]) -> int:
    """Print the table and the reasons; how many steps failed without one of the package's own."""
    marks = {status: status for status in ("ok", "anew", "theirs", "refused", "not reached")}
    marks["none"] = "-"
    head = ["package", "id", "bare steps/s", "of bare", *STEPS[1:]]
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    failures, words = 0, []
    for package, entry, found in rows:
        cells = []
        for step in STEPS[1:]:
            status, detail = found.get(step, ("none", ""))
            cells.append(marks.get(status, "FAILED"))
            if status == "failed" and step in entry.reasons:
                cells[-1] = "theirs"
                words.append(f"{entry.name}, {step}, theirs: {entry.reasons[step]} ({detail})")
            elif status == "failed":
                failures += 1
                words.append(f"{entry.name}, {step}, FAILED: {detail}")
            elif status == "theirs" and not entry.repeats:
                failures += 1
                cells[-1] = "FAILED"
                words.append(f"{entry.name}, {step}, FAILED: {detail}, and nobody has said why")
            elif status == "theirs":
                words.append(f"{entry.name}, {step}, theirs: {detail}, {entry.repeats}")
            elif status in ("anew", "refused"):
                words.append(f"{entry.name}, {step}, {status}: {detail}")
        bare = found.get("bare", ("", ""))[1].partition(" ")[0]
        ratio = found.get("train", ("", ""))[1].partition(", ")[2].partition(" ")[0]
        name = entry.name + (f" {json.dumps(entry.kwargs)}" if entry.kwargs else "")
        print("| " + " | ".join([package, name, bare, ratio, *cells]) + " |")
    print("\n" + "\n".join(words))
    return failures


def main() -> int:
    """Install, run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", default=",".join(p.name for p in PACKAGES))
    parser.add_argument("--venvs", type=Path, help="where the environments are made and kept")
    parser.add_argument("--wheel", type=Path, help="of trpo_fast; built here if it is not given")
    parser.add_argument("--json", type=Path, help="write everything that was found")
    flags = parser.parse_args()
    chosen = flags.packages.split(",")
    if unknown := set(chosen) - {package.name for package in PACKAGES}:
        parser.error(
            f"--packages: expected of {', '.join(p.name for p in PACKAGES)}, got {unknown}"
        )
    started = time.monotonic()
    rows, left_out = [], []
    with tempfile.TemporaryDirectory(prefix="trpo_fast_venvs_") as temporary:
        folder = flags.venvs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        wheel = flags.wheel or build_wheel(Path(temporary))
        for package in PACKAGES:
            if package.name not in chosen:
                continue
            python = install(package, folder, wheel)
            if python is None:
                left_out.append(package.name)
                print(f"{package.name}: left out, it could not be installed", flush=True)
                continue
            for entry in package.ids:
                found = try_id(python, entry, folder / f"{package.name}.log")
                rows.append((package.name, entry, found))
                if flags.json:
                    kept = [(name, e.name, e.kwargs, f) for name, e, f in rows]
                    flags.json.write_text(json.dumps(kept, indent=1))
                good = all(status != "failed" for status, _ in found.values())
                print(f"{package.name}, {entry.name}: {'good' if good else 'failed'}", flush=True)
    failures = show(rows)
    minutes = (time.monotonic() - started) / 60.0
    print(
        f"field: {len(rows)} environments of {len({p for p, *_ in rows})} packages, "
        f"{failures} steps failed, left out: {', '.join(left_out) or 'none'}, {minutes:.0f} minutes"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
