"""Rollouts whose rows stay with the actors, and what is done where some of them are lost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ...envs import EnvironmentFailure
from ..budget import Budget
from ..calls import load_states
from ..changes import on_group
from ..data import Rollout
from ..filling import first_rows
from ..workers.transport import WorkerLost
from .beginning import Beginning
from .connection import ClusterError
from .sampler import MOST_LOSSES, ActorSampler

__all__ = ["ClusterSampler"]


class ClusterSampler(ActorSampler):
    """Steps E environments in Ray actors, which can keep the rows of rollouts for `cut`.

    The rows of an actor are a function of where its environments were when the rollout began, which
    this process keeps. Whatever is lost of them is made again. Parameters and errors are those of
    `ActorSampler`.

    Attributes
    ----------
    latest
        Where the latest rollout began, if its rows stay with the actors; None otherwise.
    """

    latest: Beginning | None = None

    def _prepare_rollout(
        self, budget: Budget, start: str, on_step: Callable[[], object] | None
    ) -> None:
        super()._prepare_rollout(budget, start, on_step)
        self.latest = self._beginning(budget, start) if self._actors.keeps_rows else None

    def _collect(self, budget: Budget, on_step: Callable[[], object] | None) -> Rollout:
        rollout = super()._collect(budget, on_step)
        if self.latest is not None:
            self.latest.published = self._published
            for worker in self._workers:
                worker.holds = self.latest
        return rollout

    def _close(self) -> None:
        self.latest = self._published = None  # objects in the store of this node
        super()._close()

    def _beginning(self, budget: Budget, start: str) -> Beginning:
        is_known = "fresh" not in self._renewed.values()
        return Beginning(
            budget=budget,
            start=start or "resume",
            state=copy.deepcopy(self.state),
            kept=self._kept if is_known else None,
            changes=list(self._early or self.changes.values()),
            why_none_kept=self._why_none_kept,
        )

    @property
    def keeps_rows(self) -> bool:
        """Whether the rows of rollouts stay with the actors, and `cut` brings them elsewhere."""
        return self._actors.keeps_rows

    @keeps_rows.setter
    def keeps_rows(self, value: bool) -> None:
        self._actors.keeps_rows = value

    def cut(self, function: Callable[..., Any], n_parts: int, *arguments: Any) -> list[list[Any]]:
        """Have every actor make objects of its part of the last rollout, all at once.

        Parameters
        ----------
        function
            Called with the part, the index of its first environment, and ``arguments``; returns
            them. Sent with cloudpickle.
        n_parts
            How many objects an actor makes.
        *arguments
            The same for all; what is large as a reference of ``ray.put``.

        Returns
        -------
        list
            References of what each actor has made.
        """
        return [worker.rows(n_parts, function, *arguments) for worker in self._workers]

    def bring_back(self, began: Beginning, looks: bool) -> None:
        """See to it that every actor has its rows of a rollout, some of which may be lost.

        An actor that is gone, or has other rows, is started again where the rollout began, and
        makes its part once more; then its environments go where they are now.

        Parameters
        ----------
        began
            Where it began.
        looks
            Whether to ask all actors first if they live.

        Raises
        ------
        ClusterError
            The states of the environments were not known when it began.
        EnvironmentFailure
            Actors are lost again and again.
        """
        losses = [0] * self.n_workers

        def start_again(w: int, lost: EnvironmentFailure) -> None:
            losses[w] += 1
            if losses[w] > MOST_LOSSES:
                raise lost
            self._renew(w, began)

        def begin_again(w: int, lost: EnvironmentFailure) -> None:
            start_again(w, lost)
            self._send_again(w, began)

        with self._exclusive.taken("bring_back"), self._stops_on_error():
            self._ensure_started()
            if looks:
                self.pool.call(_nothing, None, "looking for actors", on_loss=start_again)
            while which := [
                w for w, worker in enumerate(self._workers) if worker.holds is not began
            ]:
                if not began.can_come_back:
                    raise ClusterError(
                        f"distribute_update: the rows of worker {which[0]} are lost and cannot be made "
                        f"again, because {began.why_none_kept}; resume from the last checkpoint"
                    )
                keeps, self._actors.keeps_rows = self._actors.keeps_rows, True
                try:
                    for w in which:
                        self._renew(w, began)
                        self._send_again(w, began)
                    self.pool.gather(which, on_loss=begin_again)
                finally:
                    self._actors.keeps_rows = keeps
                for w in which:
                    try:
                        self._bring_here(w, began)
                    except WorkerLost as lost:
                        start_again(w, lost)
                        continue
                    self._workers[w].holds = began
                    self._notices.append(
                        f"worker {w}: its rows were lost with an actor or node that held them; they "
                        "were made again, with the same bits"
                    )

    def _send_again(self, w: int, began: Beginning) -> None:
        worker = self._workers[w]
        began.state.write(worker.block.lasting, worker.group)
        part = began.budget.part(worker.group)
        worker.block.reserve(first_rows(part))
        worker.take_policy(began.published)
        settings = (self.metric_names, self.mask_source)
        worker.send("collect", part.sampling, part.steps, began.start, False, *settings)

    def _bring_here(self, w: int, began: Beginning) -> None:
        """Bring environments from the end of a rollout that was made again to where they are now."""
        if self._kept is not None:
            if began is not self.latest:
                for change in self.changes.values():
                    self._call_one(w, on_group, change)
            self._call_one(w, load_states, self._with_seeds(w, self.state, self._kept))
        self._renewed[w] = "resume" if self._kept is not None or began is self.latest else "fresh"


def _nothing(sampler: Any) -> None:
    """Called to see that an actor lives."""
