"""What a worker does, whatever carries its commands: an `InProcessSampler` that takes them.

A worker process gets them through a pipe, see `worker`; a Ray actor as calls, see `cluster.actor`.
What is large lies in a block of memory; what is rare are arguments and results.
"""

from __future__ import annotations

import gc
import pickle
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...words import words_of

if TYPE_CHECKING:
    from ..metrics import Metrics

# What an error may be in the parent; the first of its base classes that is listed counts.
ERROR_KINDS = ("EnvironmentFailure", "ValueError", "TypeError", "ImportError", "MemoryError")

_REMEDY = "define it in a module that can be imported, or step it in this process with n_workers=0"


def answer(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Carry out a command.

    Parameters
    ----------
    function
        A method of `Commands`.
    arguments
        Its arguments.

    Returns
    -------
    tuple
        ("result", value), or ("error", kind, sentence, traceback).
    """
    try:
        result = function(*arguments)
    except Exception as error:
        names = [base.__name__ for base in type(error).__mro__]
        kind = next((name for name in names if name in ERROR_KINDS), "RuntimeError")
        return "error", kind, words_of(error, 4000), traceback.format_exc()
    return "result", result


class Commands:
    """The commands, one method each.

    Parameters
    ----------
    memory
        Descriptor of the file that the block is mapped from, see `memory.anonymous_file`.
    pause
        Called after every row of a rollout where the parent wants that.
    remedy
        What to do about environments that cannot be made there: the end of a sentence.

    Attributes
    ----------
    sampler
        Steps the environments; None before `open`.
    block
        What comes from the parent and goes to it; None before `bind`.
    """

    def __init__(self, memory: int, pause: Callable[[], None], *, remedy: str = _REMEDY) -> None:
        self._memory, self._pause, self._remedy = memory, pause, remedy
        self.sampler: Any = None
        self._policy: Any = None
        self.block: Any = None

    def open(self, source: bytes, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Make a group of the environments of the run.

        Parameters
        ----------
        source
            See `portable_source`.
        settings
            ``n_envs``, ``first_index``, and arguments of `InProcessSampler`.

        Returns
        -------
        dict or None
            Their name, spaces and source of masks; None where the factory makes a whole vector
            environment.
        """
        import gymnasium

        from ... import runtime
        from ...envs import copy_environment, open_environments
        from ..in_process import InProcessSampler

        runtime.set_num_threads(1)
        try:
            env, kwargs, registration = pickle.loads(source)
        except Exception as error:
            raise ValueError(
                f"env: cannot be rebuilt in a worker process: {type(error).__name__}: {words_of(error)}; "
                f"{self._remedy}"
            ) from error
        if registration is not None:
            gymnasium.registry.setdefault(registration.id, registration)
        n_agents = settings.get("n_agents")
        opened = open_environments(
            env,
            n_envs=settings["n_envs"] // (n_agents or 1),
            env_kwargs=kwargs,
            are_copies=settings["first_index"] > 0,
        )
        if opened.parallel and n_agents:
            self._open_parallel(opened, env, kwargs, settings)
            return self._facts(opened.name)
        if opened.vector_env is not None or opened.parallel:
            for whole in filter(None, (opened.vector_env, *opened.parallel)):
                whole.close()
            return None
        recovers = settings["restart_crashed_environments"]
        self.sampler = InProcessSampler(
            opened.environments,
            name=opened.name,
            first_index=settings["first_index"],
            dtype=settings["dtype"],
            state_dependent_std=settings["state_dependent_std"],
            action_scaling=settings["action_scaling"],
            remake=(lambda _: copy_environment(env, **kwargs)) if recovers else None,
            make_copy=partial(copy_environment, env, **kwargs),
            action_masks=settings["action_masks"],
        )
        return self._facts(opened.name)

    def _open_parallel(
        self, opened: Any, env: Any, kwargs: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        from ...envs import copy_environment
        from ..pettingzoo import PettingZooSampler

        def make_copy() -> Any:
            return copy_environment(env, **kwargs).env  # type: ignore[attr-defined]

        self.sampler = PettingZooSampler(
            opened.parallel,
            name=opened.name,
            first_index=settings["first_index"],
            dtype=settings["dtype"],
            state_dependent_std=settings["state_dependent_std"],
            action_scaling=settings["action_scaling"],
            make_copy=make_copy,
            action_masks=settings["action_masks"],
        )

    def _facts(self, name: str) -> dict[str, Any]:
        """What the parent needs to know of the environments that were made."""
        import cloudpickle

        # What exists now stays: the collector of cycles need not look at it again.
        gc.collect()
        gc.freeze()
        spaces = (self.sampler.observation_space, self.sampler.action_space)
        return {
            "name": name,
            "spaces": cloudpickle.dumps(spaces),
            "mask_source": self.sampler.mask_source,
        }

    def bind(self, policy: dict[str, Any], shape: dict[str, Any], seed: int) -> None:
        """Make the policy, and map the memory that its parameters come through.

        Parameters
        ----------
        policy
            What it is made of, by name.
        shape
            Fields of a `BlockShape`.
        seed
            Of the run, in [0, 2**64).
        """
        from ...core import Distribution, Policy
        from .memory import BlockShape, SharedBlock

        distribution = Distribution(policy.pop("kind"), policy.pop("sizes"))
        self._policy = Policy(policy.pop("obs_dim"), distribution, **policy)
        self.block = SharedBlock(self._memory, BlockShape(**shape))
        self.sampler.state.keep_in(self.block.lasting)
        self.sampler.bind(self._policy, seed=seed)

    def collect(
        self,
        sampling: Any,
        steps: tuple[int, ...],
        start: str,
        pauses: bool,
        metric_names: tuple[str, ...],
        mask_source: str,
    ) -> tuple[int, int, int, tuple[str, ...], Metrics, str]:
        """Collect a rollout within a budget, in the shared block, which the parent has made ready.

        Parameters
        ----------
        sampling, steps
            The budget.
        start
            "fresh": with new episodes; "resume": with restored environments, and the state that the
            parent wrote; "": where the last rollout ended.
        pauses
            Whether to wait for the parent after every row.
        metric_names, mask_source
            See `SamplerBase`.

        Returns
        -------
        tuple
            The number of rows, of final observations, of episodes that ended; sentences of crashes;
            metrics of those episodes; where the environments have masks.
        """
        from ..budget import Budget
        from ..filling import RolloutBuffers

        block, sampler = self.block, self.sampler
        block.follow()
        first = len(block.arrays["rewards"])
        self._take_policy()
        sampler.metric_names, sampler.mask_source = metric_names, mask_source
        if start == "fresh":
            sampler.load_state_dict({"counters": block.lasting["counters"].copy()})
        if start == "resume":
            sampler.resume()

        def allocate(n_steps: int) -> RolloutBuffers:
            if n_steps > first:
                block.grow(n_steps)
            buffers: RolloutBuffers = block.buffers(fresh=start == "fresh" and n_steps == first)
            return buffers

        rollout = sampler.fill(Budget(sampling, steps), allocate, self._pause if pauses else None)
        counts = rollout.n_steps, len(rollout.final_indices), len(rollout.episode_indices)
        _, n_finals, n_episodes = counts
        for name in ("final_observations", "final_indices"):
            block.arrays[name][:n_finals] = getattr(rollout, name)
        for name in ("episode_returns", "episode_lengths", "episode_indices"):
            block.arrays[name][:n_episodes] = getattr(rollout, name)
        return *counts, rollout.crashes, rollout.episode_metrics, sampler.mask_source

    def call(self, name: str, function: bytes, arguments: bytes) -> bytes:
        """Call a function on the sampler, see `WorkerPool.call`.

        Parameters
        ----------
        name
            What errors call it in the parent; not used here.
        function, arguments
            Pickled.

        Returns
        -------
        bytes
            Pickled: ("result", value), or ("error", exception).
        """
        import cloudpickle

        outcome: tuple[str, Any]
        try:
            result = pickle.loads(function)(self.sampler, *pickle.loads(arguments))
            outcome = "result", cloudpickle.dumps(result)
        except Exception as error:
            outcome = "error", error
        try:
            answer: bytes = cloudpickle.dumps(outcome)
        except Exception:  # the error itself cannot be sent
            answer = cloudpickle.dumps(("error", RuntimeError(repr(outcome[1]))))
        return answer

    def close(self) -> None:
        """Close the environments."""
        if self.sampler is not None:
            self.sampler.close()

    def _take_policy(self) -> None:
        lasting = self.block.lasting
        self._policy.parameters = lasting["parameters"]
        enabled, clip, epsilon = lasting["normalizer"].tolist()
        if enabled:
            self._policy.set_normalizer(
                lasting["mean"], lasting["variance"], clip=clip, epsilon=epsilon
            )
        else:
            self._policy.clear_normalizer()
