"""Environments stepped one after the other in this process."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy.typing as npt

from ..core import MaskWriter, StepWriter
from ..envs import ActionAdapter
from ..envs.interface import is_end, one_number, require_info
from ..envs.masks import find_source, mask_giver
from ..envs.spaces import are_alike
from ..envs.wrappers import close_all, refuse_environment_in_use
from .changes import to_one
from .crashes import MOST_CRASHES, Kind, first_non_finite
from .errors import is_users_exit
from .filling import Filling, RolloutBuffers
from .interface import Actor
from .metrics import metrics_of
from .stepping import SteppingSampler
from .stored import environment_seed


class _Crash(Exception):
    """Environment e failed in row t; the failure is what the caller would see."""

    def __init__(self, t: int, e: int, failure: Exception) -> None:
        super().__init__(str(failure))
        self.t, self.e, self.failure = t, e, failure


class InProcessSampler(SteppingSampler):
    """Steps E environments one after the other, with one call of the policy per time step.

    An environment whose episode ends is reset at once: row t + 1 starts the next episode, and no
    step is lost. A worker process is this class on a part of the environments, with `first_index`
    set; `Rollout.concatenate` puts the parts together.

    Parameters
    ----------
    environments
        The environments, all with the same spaces.
    name
        How errors and logs call them.
    first_index
        Index of the first of them in the whole run.
    dtype
        dtype of observations and continuous actions: float32 or float64.
    state_dependent_std
        Whether the Gaussian's deviation is a network output.
    action_scaling
        Whether [-1, 1] is mapped to the finite bounds of continuous actions.
    remake
        Makes environment number e of the run anew. If given, an environment that raises or returns
        something wrong is replaced: the steps of its episode are dropped (not ``valid``), and
        ``Rollout.crashes`` says why.
    make_copy
        Makes one more environment, the way these were made: whether their state can be stored and
        restored is only tried on copies. None: nothing is tried, and their state is not saved.
    action_masks
        Where the environments say which actions are allowed: "auto", "none" or a source, see
        `trpo_fast.envs.masks`.

    Attributes
    ----------
    environments
        They may be replaced, see ``remake``.
    keeper
        Saves and restores their states.
    observer
        Called after every row of a rollout, if it is not None.

    Raises
    ------
    ValueError
        No environments, or different spaces.
    TypeError
        A space that is not supported.
    """

    def __init__(
        self,
        environments: Sequence[Any],
        *,
        name: str = "environment",
        first_index: int = 0,
        dtype: npt.DTypeLike = "float32",
        state_dependent_std: bool = False,
        action_scaling: bool = False,
        remake: Callable[[int], Any] | None = None,
        make_copy: Callable[[], Any] | None = None,
        action_masks: str = "auto",
    ) -> None:
        from ..snapshots import StateKeeper

        if not environments:
            raise ValueError("environments: expected at least one, got none")
        first = environments[0]
        for e, environment in enumerate(environments):
            for space in ("observation_space", "action_space"):
                expected, got = getattr(first, space), getattr(environment, space)
                if not are_alike(expected, got):
                    raise ValueError(
                        f"environment {first_index + e}: expected the {space} of environment "
                        f"{first_index}, {expected}, got {got}; all environments must be alike"
                    )
        distribution = ActionAdapter.from_space(first.action_space).distribution
        super().__init__(
            name,
            first.observation_space,
            first.action_space,
            n_envs=len(environments),
            first_index=first_index,
            dtype=dtype,
            state_dependent_std=state_dependent_std,
            action_scaling=action_scaling,
            recovers_crashes=remake is not None,
            mask_source=find_source(
                action_masks, first.observation_space, first.action_space, distribution, first
            ),
        )
        self.environments = list(environments)
        self.make_copy = make_copy
        self.keeper = StateKeeper(self.environments, make_copy)
        self.observer: Callable[[], object] | None = None
        self._spare: Any = None
        self._spare_version = 0
        self._remake = remake
        self._to_env = self.action_adapter.step_converter(
            self.n_envs, self.observation_encoder.dtype
        )

    def map_groups(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None = None,
        *,
        name: str = "map_groups",
    ) -> list[Any]:
        """Call a function on this sampler, as `WorkerSampler.map_groups` does on those of workers.

        Parameters
        ----------
        function
            Called as ``function(self)``, or ``function(self, arguments[0])``.
        arguments
            One, or None.
        name
            Not used here.

        Returns
        -------
        list
            One result.

        Raises
        ------
        Exception
            What the function raised.
        """
        return [function(self) if arguments is None else function(self, *arguments)]

    def show_life(self) -> None:
        """Count a step outside rollouts, by which the parent of a worker sees that it lives."""
        self.state.steps_beside += 1

    @contextlib.contextmanager
    def spare_environment(self, make: Any, version: int = 0) -> Iterator[Any]:
        """One environment more, for evaluations: made once, kept, and closed with the others.

        After an exception it is closed at once, and the next one is made anew.

        Parameters
        ----------
        make
            What ``trpo_fast.envs.make_environment`` takes.
        version
            Of what it makes: another one than before is made anew.
        """
        from ..envs import make_environment

        if self._spare is not None and version != self._spare_version:
            spare, self._spare = self._spare, None
            close_all([spare])

        if self._spare is None:
            made = make_environment(make)
            refuse_environment_in_use(made, self.environments)
            self._spare, self._spare_version = made, version
        try:
            yield self._spare
        except BaseException:
            spare, self._spare = self._spare, None
            with contextlib.suppress(Exception):  # what broke first is what there is to say
                spare.close()
            raise

    def _restart(self) -> None:
        for e in range(self.n_envs):
            self._reset(e)

    def _reset(self, e: int) -> None:
        """Reset environment e with the seed that belongs to its counter."""
        counter = int(self.state.counters[e])
        index = self.first_index + e
        returned: Any = None
        try:
            seed = environment_seed(self._seed, index, counter)
            returned = self.environments[e].reset(seed=seed, **self._options)
            observation, info = returned
            require_info(info)
            self.observation_encoder.write(observation, self.state.observations[e])
            self._look_for_masks(info)
            if self.has_masks:
                mask = mask_giver(self.mask_source, self.environments[e])(observation, info)
                self.state.action_masks[e] = self._mask_row(mask)
        except (Exception, SystemExit) as error:
            if is_users_exit(error):
                raise
            where = f"reset before environment {index} ({self.name}), step {counter}"
            raise self._sentences.failure(error, where, returned, of_reset=True) from error

    @property
    def _options(self) -> dict[str, Any]:
        """Keyword arguments of every reset."""
        return {} if self.reset_options is None else {"options": dict(self.reset_options)}

    def _replace(self, e: int) -> None:
        assert self._remake is not None
        with contextlib.suppress(Exception):  # it is broken: what it says now tells nothing new
            self.environments[e].close()
        self.environments[e] = self._remake(self.first_index + e)
        self.keeper.renewed(e)
        for change in self.changes.values():
            if change.kind != "reset":
                to_one(change, self.environments[e])
        self._reset(e)

    def _step(
        self, filling: Filling, row: int, actor: Actor, on_step: Callable[[], object] | None
    ) -> int:
        on_step = _one_after_the_other(self.observer, on_step)
        crashes: Counter[int] = Counter()
        begin = (row, 0)
        while True:
            try:
                return self._step_from(begin, filling, actor, on_step)
            except _Crash as crash:
                t, e = crash.t, crash.e
                crashes[e] += 1
                if crashes[e] > MOST_CRASHES:
                    raise crash.failure from crash.__cause__
                if (t, e) not in filling.events.ends:  # it was the step that failed, not the reset
                    filling.buffers.rewards[t, e] = 0.0
                filling.events.crashes[t, e] = str(crash)
                self._replace(e)
                self._begin_row(filling.buffers, t + 1, e)
                begin = (t, e + 1)

    def _step_from(
        self,
        begin: tuple[int, int],
        filling: Filling,
        actor: Actor,
        on_step: Callable[[], object] | None,
    ) -> int:
        """See `_step`; row t of begin = (t, e) is full up to environment e - 1."""
        buffers, events, quota = filling.buffers, filling.events, filling.quota
        n_steps, n_envs = buffers.rewards.shape

        # Bound once: what stands between two calls of env.step is all in these locals.
        encoder = self.observation_encoder
        dim, write = encoder.dim, encoder.write
        rows = buffers.observations.reshape(-1, dim)  # row i + E follows row i = t E + e
        rewards = buffers.rewards.reshape(-1)
        stored_actions, to_env = buffers.actions, self._to_env
        steps = [(e, self.environments[e].step) for e in quota.going]
        resets = [environment.reset for environment in self.environments]
        if self.reset_options is not None:
            resets = [partial(reset, **self._options) for reset in resets]
        act, keep_mask = actor.step, self._mask_keeper(buffers)
        store = StepWriter(
            buffers.rewards, buffers.observations if encoder.is_plain else None
        ).write
        stores_all = encoder.is_plain and keep_mask is None
        enough, names = quota.least, self.metric_names

        # After a crash in the middle of a row, the actions of that row are drawn already.
        first_t, first_e = begin
        rest = [turn for turn in steps if turn[0] >= first_e] if first_e else None
        turns = steps if rest is None else rest

        t, e = first_t, -1
        returned: Any = None
        try:
            for t in range(first_t, n_steps):
                e = -1
                if turns is not rest:
                    act(t)
                actions = to_env(stored_actions[t])
                first = t * n_envs
                for e, step in turns:
                    returned = step(actions[e])
                    i = first + e
                    # Nearly every step is a plain one, in the middle of an episode.
                    if store(i, returned):
                        if stores_all:
                            continue
                        observation, _, _, _, info = returned
                    else:
                        observation, reward, terminated, truncated, info = returned
                        rewards[i] = one_number(reward)
                        require_info(info)
                        if is_end(terminated, truncated):
                            # Keep the true successor before the reset replaces it.
                            if truncated and not terminated:
                                events.finals.append(encoder.encode(observation))
                                events.final_indices.append((t, e))
                            buffers.terminated[t, e] = terminated
                            buffers.truncated[t, e] = truncated
                            events.ends.append((t, e))
                            if told := metrics_of(info, names):
                                events.metrics[t, e] = told
                            returned = resets[e]()
                            observation, info = returned
                            require_info(info)
                    # Store s_{t+1}, and what is allowed there.
                    write(observation, rows[i + n_envs])
                    if keep_mask is not None:
                        keep_mask(i + n_envs, e, observation, info)
                e = -1
                if t + 1 >= enough:
                    quota.close_row(t, buffers, events)
                    steps = [turn for turn in steps if turn[0] in quota.going]
                turns = steps
                if on_step is not None:
                    on_step()
                if not steps:
                    break
        except (Exception, SystemExit) as error:
            if e < 0 or is_users_exit(error):  # not from an environment
                raise
            failure, is_the_policys = self._explain(error, filling, t, e, returned)
            if self._remake is None or is_the_policys:
                raise failure from error
            raise _Crash(t, e, failure) from error
        return t + 1

    def _mask_keeper(self, buffers: RolloutBuffers) -> Callable[[int, int, Any, Any], None] | None:
        """What writes the mask of environment e into row i = t E + e; None without masks."""
        if not self.has_masks:
            return None
        rows = buffers.action_masks.reshape(-1, self.mask_width)
        write = MaskWriter(rows, self.distribution.mask_sizes).write
        givers = [mask_giver(self.mask_source, environment) for environment in self.environments]

        def keep(i: int, e: int, observation: Any, info: Any) -> None:
            mask = givers[e](observation, info)
            if not write(i, mask):
                rows[i] = self._mask_row(mask)

        return keep

    def _explain(
        self, error: Exception | SystemExit, filling: Filling, t: int, e: int, returned: Any
    ) -> tuple[Exception, bool]:
        """The error to raise for one that came up in environment e at row t.

        Returns
        -------
        tuple
            The error, and whether the policy is at fault, which no fresh environment mends.
        """
        buffers, events = filling.buffers, filling.events
        ended = bool(buffers.terminated[t, e] or buffers.truncated[t, e])
        # A NaN often breaks an environment one step later: name the cause, not the effect. Where a
        # reset fails after an episode that will be dropped for its NaN, each is named by itself.
        if not (ended and self.recovers_crashes):
            begin = events.begin_of(t, e)
            cause = first_non_finite(
                buffers, events, states=slice(begin, t + 1), rewards=slice(begin, t), e=e
            )
            if cause is not None:
                return self._non_finite(cause, buffers, events), cause.kind is Kind.ACTION
        step = self._sentences.step(t, e)
        where = f"reset after {step}" if ended else step
        return self._sentences.failure(error, where, returned, of_reset=ended), False

    def _close(self) -> None:
        close_all([*self.environments, *([] if self._spare is None else [self._spare])])


def _one_after_the_other(
    first: Callable[[], object] | None, second: Callable[[], object] | None
) -> Callable[[], object] | None:
    if first is None or second is None:
        return first or second

    def both() -> None:
        first()
        second()

    return both
