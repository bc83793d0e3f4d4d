"""Samplers that step their environments in this process: how a rollout is filled."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ..envs import EnvironmentFailure
from ..envs.masks import mask_row, source_of_info
from .budget import Budget
from .crashes import (
    Episode,
    NonFinite,
    all_finite,
    broken_episodes,
    first_non_finite,
    split_into_episodes,
)
from .data import Rollout, no_masks
from .errors import Sentences
from .filling import Events, Filling, Quota, RolloutBuffers, first_rows, most_rows
from .interface import Actor
from .metrics import as_arrays
from .sampler import SamplerBase


class SteppingSampler(SamplerBase):
    """Fills rollouts; a subclass steps the environments in `_restart`, `_step` and `_replace`.

    Parameters are those of `SamplerBase`.
    """

    @cached_property
    def distribution(self) -> Any:
        """That of the actions."""
        return self.action_adapter.distribution

    @cached_property
    def _sentences(self) -> Sentences:
        return Sentences(self.name, self.first_index, self.observation_encoder)

    def resume(self) -> None:
        """Go on at the next rollout: the environments are where `state` says already."""
        self._started = True

    # --- for subclasses ---

    def _restart(self) -> None:
        """Reset every environment with a seed and write `self.state.observations`."""
        raise NotImplementedError

    def _step(
        self, filling: Filling, row: int, actor: Actor, on_step: Callable[[], object] | None
    ) -> int:
        """The inner loop: fill the rows from `row` on, to the last or until nobody is going.

        Returns
        -------
        int
            The number of rows that are full.
        """
        raise NotImplementedError

    def _replace(self, e: int) -> None:
        """Replace environment e, reset it with a fresh seed, and write `self.state.observations[e]`."""
        raise NotImplementedError

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        return self.fill(budget, self._allocate, on_step)

    # --- one rollout ---

    def fill(
        self,
        budget: Budget,
        allocate: Callable[[int], RolloutBuffers],
        on_step: Callable[[], object] | None,
    ) -> Rollout:
        """One rollout in arrays of the caller's; see `collect`.

        Parameters
        ----------
        budget
            How much each environment is to take.
        allocate
            Makes arrays of so many rows. It is called again, for more rows, where these do not
            suffice.
        on_step
            Called after every row.

        Returns
        -------
        Rollout
            Its arrays are views of those that `allocate` made last.
        """
        policy = self._policy
        assert policy is not None
        start_time = time.perf_counter()
        buffers = allocate(first_rows(budget))

        first_steps = self._sentences.first_steps = self.state.counters.astype(np.int64)

        # An exception below leaves the environments anywhere: reset them before the next rollout.
        started, self._started = self._started, False

        # Where the environments are not where the counters say, begin with fresh episodes.
        if not started:
            self.state.forget_episodes()
            self.mask_source = self._mask_source_at_first
            self._restart()
        if not self.has_masks:
            buffers = buffers.without_masks()
        first = self.first_index
        env_ids = np.arange(first, first + self.n_envs, dtype=np.uint32)
        self._begin_row(buffers, 0)

        # Step the environments.
        filling = Filling(buffers, Events(), Quota(budget))
        events, quota = filling.events, filling.quota
        n_steps = 0
        while True:
            rows = filling.buffers
            masks = {"action_masks": rows.action_masks[:-1]} if self.has_masks else {}
            actor = policy.actor(
                rows.observations[:-1],
                rows.actions,
                self.state.counters,
                env_ids,
                seed=self._noise_key,
                **masks,
            )
            n_steps = self._step(filling, n_steps, actor, on_step)
            if not quota.going:
                break
            if n_steps >= most_rows(budget):
                raise self._endless(n_steps, events, quota)
            larger = allocate(min(2 * n_steps, most_rows(budget)))
            filling.grow(larger if self.has_masks else larger.without_masks())
        buffers = filling.buffers.rows(n_steps)
        # The actor draws for all environments: what it drew for those that had stopped does not count.
        self.state.counters[:] = first_steps + quota.rows

        # Look at what came back, once for the whole rollout.
        episodes = split_into_episodes(events, quota.rows)
        sentences = [(e, t, sentence) for (t, e), sentence in events.crashes.items()]
        if self.recovers_crashes:
            sentences += self._drop_lost_episodes(buffers, events, episodes)
        for e in np.flatnonzero(quota.rows < n_steps).tolist():
            quota.pad(buffers, e, n_steps)
        if not all_finite(buffers, events):
            found = first_non_finite(buffers, events, states=slice(0, None), rewards=slice(0, None))
            assert found is not None
            raise self._non_finite(found, buffers, events)
        error = self._sentences.too_large(buffers.rewards) or self._sentences.too_large_state(
            buffers.observations, lambda t, e: self._follows_reset(t, e, buffers, events)
        )
        if error is not None:
            raise error

        # Keep what the next rollout starts from.
        finished = self.state.finish_episodes(buffers, episodes)
        self.state.observations[:] = buffers.observations[n_steps]
        if self.has_masks:
            self.state.action_masks[:] = buffers.action_masks[n_steps]
        self._started = True
        finals = np.array(events.finals, buffers.observations.dtype)
        return Rollout(
            observations=buffers.observations[:n_steps],
            actions=buffers.actions,
            rewards=buffers.rewards,
            terminated=buffers.terminated,
            truncated=buffers.truncated,
            valid=buffers.valid,
            last_observations=self.state.observations.copy(),
            final_observations=finals.reshape(-1, buffers.observations.shape[2]),
            final_indices=np.array(events.final_indices, np.int64).reshape(-1, 2),
            episode_returns=np.array([total for _, _, total, _ in finished], np.float64),
            episode_lengths=np.array([length for *_, length in finished], np.int64),
            episode_indices=np.array([(t, e) for t, e, *_ in finished], np.int64).reshape(-1, 2),
            episode_metrics=as_arrays(
                [events.metrics.get((t, e), {}) for t, e, *_ in finished] if events.metrics else ()
            ),
            action_masks=buffers.action_masks[:n_steps],
            last_action_masks=(
                self.state.action_masks.copy() if self.has_masks else no_masks(self.n_envs)
            ),
            seconds=time.perf_counter() - start_time,
            crashes=tuple(sentence for _, _, sentence in sorted(sentences)),
        )

    def _allocate(self, n_steps: int) -> RolloutBuffers:
        encoder, adapter = self.observation_encoder, self.action_adapter
        return RolloutBuffers.allocate(
            n_steps,
            self.n_envs,
            obs_dim=encoder.dim,
            action_dim=adapter.action_dim,
            dtype=encoder.dtype,
            action_dtype=adapter.stored_dtype(encoder.dtype),
            mask_width=self.mask_width,
        )

    def _begin_row(self, buffers: RolloutBuffers, t: int, e: int | slice = slice(None)) -> None:
        """Let row t go on from where the environments are."""
        buffers.observations[t, e] = self.state.observations[e]
        if self.has_masks:
            buffers.action_masks[t, e] = self.state.action_masks[e]

    def _look_for_masks(self, info: Any) -> None:
        """Let the info of the first reset decide where masks are, if nothing else has."""
        if self.mask_source == "auto":
            self.mask_source = source_of_info(info)

    def _mask_row(self, mask: Any) -> Any:
        """One mask as a row of flags, (W,) bool; MaskError where it is none."""
        return mask_row(self.distribution, mask, self.mask_source)

    def _drop_lost_episodes(
        self, buffers: RolloutBuffers, events: Events, episodes: list[Episode]
    ) -> list[tuple[int, int, str]]:
        """Take back every step of an episode that crashed, or that came to something not finite.

        The rows become zero and are not valid; what earlier rollouts hold of the episode stays.
        Where the broken episode goes on after the rollout, its environment is replaced.

        Returns
        -------
        list
            (e, t, why) of every episode that was not known to be lost.
        """
        for episode in episodes:
            if episode.lost:
                episode.erase(buffers)
        if all_finite(buffers, events):
            return []
        sentences = []
        broken = broken_episodes(buffers, events, episodes)
        for episode, found in broken:
            why = str(self._non_finite(found, buffers, events))
            sentences.append((episode.e, found.t, why))
            episode.lost = True
            episode.erase(buffers)
            if episode.goes_on:
                self._replace(episode.e)
                events.crashes.setdefault((episode.end, episode.e), why)
                self._begin_row(buffers, -1, episode.e)
        lost_ends = {(episode.end, episode.e) for episode, _ in broken if not episode.goes_on}
        events.forget_finals(lost_ends)
        return sentences

    # --- errors ---

    def _non_finite(self, found: NonFinite, buffers: RolloutBuffers, events: Events) -> ValueError:
        """The error about a NaN or an infinity of the rollout."""
        after_reset = self._follows_reset(found.t, found.e, buffers, events)
        return self._sentences.non_finite(found, after_reset=after_reset)

    def _follows_reset(self, t: int, e: int, buffers: RolloutBuffers, events: Events) -> bool:
        """Whether s_t of environment e came back from a reset, not from a step."""
        return t == 0 or (t - 1, e) in events.crashes or (t - 1, e) in events.ends

    def _endless(self, n_steps: int, events: Events, quota: Quota) -> EnvironmentFailure:
        """The error about an episode that does not end, though whole episodes are asked for."""
        e = quota.going[0]
        taken = n_steps - events.begin_of(n_steps, e)
        return EnvironmentFailure(
            f"{self._sentences.step(n_steps - 1, e)}: an episode has not ended after {taken} "
            "steps, and whole episodes are to be sampled; give the environment a time limit "
            "(max_episode_steps of gymnasium.make), or use sampling='steps'"
        )
