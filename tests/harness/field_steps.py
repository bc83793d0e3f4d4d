"""One environment through everything that a user does with it; run by ``field_runs.py``.

    python tests/harness/field_steps.py CartPole-v1

Each step prints one line of JSON, ``{"step", "status", "detail"}``, as soon as it has ended, so that
whoever started this knows where a crash or a hang happened. The status is

ok        as it should be
anew      what was learned is there, episodes start anew, and a sentence says so
theirs    the environment does not repeat itself from one seed, so that no bits can be compared
none      there is nothing to try, for example no frames
failed    anything else; the detail is the first line of the error, or what differs

Needs nothing but the package, Gymnasium and the package that has the environment. An id that ends with
``()`` names a function that makes a vector environment, which is only trained and saved.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from trpo_fast import TRPO
from trpo_fast.envs import make_environment
from trpo_fast.evaluation import evaluate_policy, record_video

N_ENVS = 2
MOST_FRAMES = 20  # of a film
SAVE_SECONDS = 0.25  # of the processor, at most, for a save that is not the first


class Failed(Exception):
    """Something is not as it should be."""


class SpySeeds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Remembers the seeds that it is reset with."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)


def bits(agent: TRPO) -> str:
    """A digest of everything that was learned."""
    digest = hashlib.sha256()
    for array in (agent.policy.parameters, agent.value_function.parameters):
        digest.update(array.tobytes())
    statistics = agent.observation_statistics.state_dict()
    for name in sorted(statistics):
        digest.update(np.asarray(statistics[name]).tobytes())
    return digest.hexdigest()


class Field:
    """The steps, in the order of their methods; later ones use what earlier ones have made."""

    def __init__(self, env_id: str, env_kwargs: dict[str, Any], batch: int, folder: Path) -> None:
        self.id, self.env_kwargs, self.folder = env_id, env_kwargs, folder
        self.batch = self.cap = (
            batch  # steps of an iteration over all environments, and of an episode
        )
        self.is_vector = env_id.endswith("()")
        self.whole = ""  # bits after two iterations in one go
        self.repeats = True  # whether a second training in this process gives the same
        self.bare_speed = 0.0

    def source(self) -> Any:
        """What the agent is made with."""
        if not self.is_vector:
            return self.id
        module, _, function = self.id.removesuffix("()").partition(":")
        return getattr(importlib.import_module(module), function)()

    def agent(self, n_workers: int = 0) -> TRPO:
        """A new agent, always of the same seed."""
        if self.is_vector:
            return TRPO(self.source(), batch_size=self.batch, seed=0)
        return TRPO(
            self.id, env_kwargs=self.env_kwargs, n_envs=N_ENVS, n_workers=n_workers,
            batch_size=self.batch, seed=0,
        )  # fmt: skip

    def loaded(self, n_workers: int | None) -> TRPO:
        """What ``saved`` has left; an id in a module is named again, as loading runs no code."""
        named = self.source() if self.is_vector or ":" in self.id else None
        return TRPO.load(self.folder / "half.safetensors", env=named, n_workers=n_workers)

    def _same_bits(self, agent: TRPO, otherwise: str) -> str:
        if bits(agent) == self.whole:
            return ""
        if self.repeats:
            raise Failed(otherwise)
        return "theirs: two trainings from one seed differ"

    def bare(self) -> str:
        """Random actions in one environment: how fast it is by itself."""
        if self.is_vector:
            return "none"
        env = make_environment(self.id, **self.env_kwargs)
        env.action_space.seed(0)
        env.reset(seed=0)
        started = time.perf_counter()
        for _ in range(2 * self.batch):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        self.bare_speed = 2 * self.batch / (time.perf_counter() - started)
        env.close()
        return f"{self.bare_speed:,.0f} steps/s"

    def train(self) -> str:
        """Two iterations in this process."""
        with closing(self.agent()) as agent:
            agent.learn(self.batch)
            started, before = time.perf_counter(), agent.timesteps
            agent.learn(self.batch)
            speed = (agent.timesteps - before) / (time.perf_counter() - started)
            self.whole = bits(agent)
        with closing(self.agent()) as again:
            again.learn(2 * self.batch)
            self.repeats = bits(again) == self.whole
        ratio = f", {speed / self.bare_speed:.2f} of bare" if self.bare_speed else ""
        return f"{speed:,.0f} steps/s{ratio}"

    def workers(self) -> str:
        """The same in two worker processes: the same bits."""
        if self.is_vector:
            return "none"
        with closing(self.agent(n_workers=2)) as agent:
            agent.learn(2 * self.batch)
            return self._same_bits(agent, "two workers give other bits")

    def saved(self) -> str:
        """The same with a save in the middle: the same bits, and the save takes no time."""
        with closing(self.agent()) as agent:
            agent.learn(self.batch)
            agent.save(self.folder / "half.safetensors")  # the first one tries what can be stored
            started = time.process_time()
            agent.save(self.folder / "half.safetensors")
            seconds = time.process_time() - started
            agent.learn(self.batch)
            said = self._same_bits(agent, "a save in the middle changes the training")
        if seconds > SAVE_SECONDS:
            raise Failed(f"a save takes {seconds:.2f} s of the processor")
        return said or f"{1e3 * seconds:.0f} ms"

    def resumed(self) -> str:
        """Load what was saved and go on: the same bits, or a sentence."""
        notices: list[str] = []

        def listen(_: Any, record: dict[str, Any]) -> None:
            if "start anew" in str(record.get("run/notice", "")):
                notices.append(str(record["run/notice"]))

        with closing(self.loaded(None)) as agent:
            agent.learn(self.batch, callback=listen)
            if notices:
                return f"anew: {notices[0]}"
            return self._same_bits(agent, "resumed to other bits, without a word")

    def evaluated(self) -> str:
        """Two episodes, cut if they do not end."""
        if self.is_vector:
            return "none"
        with closing(self.loaded(2)) as agent:
            shared = evaluate_policy(agent, None, 2, seed=1, max_steps=self.cap)
            alone = evaluate_policy(
                agent, agent.evaluation_environment(), 2, seed=1, max_steps=self.cap
            )
        if max(shared.lengths) > self.cap:
            raise Failed(f"an episode of {max(shared.lengths)} steps with a cap of {self.cap}")
        if not np.array_equal(shared.returns, alone.returns):
            if not self.repeats:
                return "theirs: two episodes from one seed differ"
            raise Failed(f"in workers {shared.returns}, in this process {alone.returns}")
        return str(shared)

    def predicted(self) -> str:
        """An episode played by hand with ``predict`` returns what the evaluation does."""
        if self.is_vector:
            return "none"
        with closing(self.loaded(0)) as agent:
            spy = SpySeeds(agent.evaluation_environment()())
            said = evaluate_policy(agent, spy, 1, seed=3, max_steps=self.cap).returns[0]
            spy.close()
            env = agent.evaluation_environment()()
            observation, _ = env.reset(seed=spy.seeds[0])
            total = 0.0
            for _ in range(self.cap):
                action, _ = agent.predict(observation, deterministic=True)
                observation, reward, terminated, truncated, _ = env.step(action)
                total += float(reward)
                if terminated or truncated:
                    break
            env.close()
        if total != said:
            if not self.repeats:
                return "theirs: two episodes from one seed differ"
            raise Failed(f"by hand {total}, evaluated {said}")
        return ""

    def recorded(self) -> str:
        """A film of some frames, where the environment has any."""
        if self.is_vector:
            return "none"
        env = make_environment(self.id, **self.env_kwargs)
        modes = env.metadata.get("render_modes") or []
        env.close()
        if "rgb_array" not in modes:
            return "none"
        path = self.folder / "film.mp4"
        with closing(self.loaded(0)) as agent:
            record_video(agent, path, episodes=1, seed=1, max_steps=min(MOST_FRAMES, self.cap))
        return f"{path.stat().st_size:,} bytes"

    def command_line(self) -> str:
        """Train, resume and evaluate by the command line."""
        if self.is_vector or self.env_kwargs:
            return "none"
        run = str(self.folder / "run")
        settings = [
            "--n-envs",
            str(N_ENVS),
            "--batch-size",
            str(self.batch),
            "--evaluate-every",
            "0",
        ]
        self._command(
            "train", self.id, "--run-dir", run, "--total-timesteps", str(self.batch), *settings
        )
        # an id in a module is named again, as reading a run folder runs no code
        named, trusted = ([self.id], ["--env", self.id]) if ":" in self.id else ([], [])
        self._command("train", *named, "--resume", run, "--total-timesteps", str(2 * self.batch))
        self._command("evaluate", run, *trusted, "--episodes", "1", "--max-steps", str(self.cap))
        return ""

    @staticmethod
    def _command(*arguments: str) -> None:
        answer = subprocess.run(
            [sys.executable, "-m", "trpo_fast", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode or "Traceback" in answer.stderr:
            said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
            raise Failed(f"{arguments[0]} ended with {answer.returncode}: {said[-1:]}")


STEPS = (
    "bare", "train", "workers", "saved", "resumed", "evaluated", "predicted", "recorded",
    "command_line",
)  # fmt: skip


def attempt(step: Callable[[], str]) -> tuple[str, str]:
    """Status and detail of one step."""
    try:
        said = step()
    except Failed as failure:
        return "failed", str(failure)
    except BaseException as error:
        if os.environ.get("FIELD_TRACEBACK"):
            traceback.print_exc()
        return "failed", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if said == "none":
        return "none", ""
    for status in ("anew", "theirs"):
        if said.startswith(f"{status}: "):
            return status, said.partition(": ")[2]
    return "ok", said


def main() -> int:
    """Run all steps, a line of JSON each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("id")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="of the environment, JSON")
    parser.add_argument("--batch", type=int, default=128, help="steps of an iteration")
    parser.add_argument("--steps", default=",".join(STEPS))
    flags = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # for field_envs
    failed = False
    with tempfile.TemporaryDirectory(prefix="trpo_fast_field_") as folder:
        field = Field(flags.id, flags.kwargs, flags.batch, Path(folder))
        for name in flags.steps.split(","):
            status, detail = attempt(getattr(field, name))
            failed |= status == "failed"
            line = json.dumps({"step": name, "status": status, "detail": detail[:500]})
            print(f"\n{line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
