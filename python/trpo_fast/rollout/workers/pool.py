"""The worker processes of one sampler: started, asked together, and never left in the middle."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ...envs import EnvironmentFailure
from ...envs.spaces import are_alike
from ..interface import ActingPolicy, Array
from .memory import BlockShape
from .sources import NoWorkers
from .transport import Lost, Transport, Worker, WorkerLost
from .worker import GRACE_SECONDS

_LOOK_SECONDS = 0.5  # how often a parent that waits looks whether its workers live and move

_POLICY_FACTS = ("distribution", "hidden_sizes", "activation", "parameters", "normalizer")


class ForeignWorkers(RuntimeError):
    """Worker processes belong to the process that this one was forked from."""


class PortablePolicy(ActingPolicy, Protocol):
    """What a policy must tell so that a worker can have its twin, see ``trpo_fast.core.Policy``."""

    distribution: Any
    hidden_sizes: tuple[int, ...]
    activation: str

    @property
    def n_parameters(self) -> int:
        """D."""

    @property
    def parameters(self) -> Array:
        """(D,), dtype."""

    @property
    def normalizer(self) -> Any:
        """None, or what has ``mean`` and ``variance`` (O,), ``clip`` and ``epsilon``."""


class WorkerPool:
    """Workers, each with a contiguous group of E environments.

    Parameters
    ----------
    transport
        Starts them, and carries their messages.
    source
        What makes the environments, see `portable_source`.
    settings
        Further settings of `Commands.open`, alike for all workers.
    n_envs
        E.
    n_workers
        Number of workers, at least 1; never more than environments.
    together
        So many environments one after the other stay in one worker; a divisor of ``n_envs``.

    Attributes
    ----------
    workers
        Those that run now: all of them, or none.
    groups
        The environments of each.
    name, spaces
        Of the environments.
    mask_source
        Where they say which actions are allowed.

    Raises
    ------
    NoWorkers
        The factory makes a whole vector environment.
    ValueError
        Environments that are not alike, or that cannot be made.
    """

    def __init__(
        self,
        transport: Transport,
        source: bytes,
        settings: dict[str, Any],
        *,
        n_envs: int,
        n_workers: int,
        together: int = 1,
    ) -> None:
        self._transport, self._source, self._settings = transport, source, settings
        self._owner = os.getpid()
        self.workers: list[Worker] = []
        self.stop = weakref.finalize(self, stop_workers, self.workers, self._owner)
        units = n_envs // together
        n_workers = min(n_workers, units)
        bounds = [units * w // n_workers * together for w in range(n_workers + 1)]
        self.groups = [slice(*bounds[w : w + 2]) for w in range(n_workers)]
        self.name = self.mask_source = ""
        with self.stops_on_error():
            self.name, self.spaces = self.start()

    @contextlib.contextmanager
    def stops_on_error(self) -> Iterator[None]:
        """Whatever goes wrong, Ctrl-C included: no worker is left in the middle of something.

        Raises
        ------
        ForeignWorkers
            In a process that was forked from the one that started the workers.
        """
        if os.getpid() != self._owner:
            raise ForeignWorkers(
                "the worker processes belong to the process that this one was forked from; make "
                "the agent anew here (or load it from a checkpoint), or use n_workers=0"
            )
        try:
            yield
        except BaseException:
            stop_workers(self.workers, self._owner)
            raise

    def start(self) -> tuple[str, tuple[Any, Any]]:
        """Start all workers; returns the name and the spaces of the environments."""
        import cloudpickle

        for w in range(len(self.groups)):
            self.workers.append(self._launch(w))
        answers = self.gather(on_loss=self._start_again())
        if None in answers:
            raise NoWorkers(
                "env: the factory makes a whole vector environment, which worker processes "
                "cannot share: use n_workers=0",
                is_vector_env=True,
            )
        self._transport.check(answers)
        first, *others = (cloudpickle.loads(answer["spaces"]) for answer in answers)
        for group, spaces in zip(self.groups[1:], others, strict=True):
            for kind, got, expected in zip(("observation", "action"), spaces, first, strict=True):
                if not are_alike(got, expected):
                    raise ValueError(
                        f"environment {group.start}: expected the {kind}_space of "
                        f"environment 0, {expected}, got {got}; all environments must be alike"
                    )
        self.mask_source = answers[0]["mask_source"]
        return answers[0]["name"], first

    def _launch(self, w: int) -> Worker:
        group = self.groups[w]
        worker = self._transport.launch(w, group)
        size = {"n_envs": group.stop - group.start, "first_index": group.start}
        worker.send("open", self._source, {**self._settings, **size})
        return worker

    def replace(self, w: int) -> Worker:
        """End worker w, which is gone or hangs, and start another one in its place.

        Parameters
        ----------
        w
            Index of the worker, from 0.
        """
        self.workers[w].kill()
        self.workers[w] = self._launch(w)
        self._transport.check(self.gather([w], on_loss=self._start_again()))
        return self.workers[w]

    def _start_again(self) -> Callable[[int, EnvironmentFailure], None] | None:
        """What starts a worker again that is lost while it starts, as long as patience lasts."""
        if not self._transport.patience:
            return None
        deadline = time.monotonic() + self._transport.patience
        pauses: Counter[int] = Counter()

        def on_loss(w: int, lost: EnvironmentFailure) -> None:
            if time.monotonic() > deadline:
                raise lost
            # A node that is gone may be taken to be alive for some seconds.
            time.sleep(min(2.0, 0.1 * 2 ** pauses[w]))
            pauses[w] += 1
            self.workers[w].kill()
            self.workers[w] = self._launch(w)

        return on_loss

    def publish(self, policy: ActingPolicy) -> Any:
        """Put the numbers of a policy where every worker can take them, see `Worker.take_policy`.

        Parameters
        ----------
        policy
            A `PortablePolicy`.
        """
        return self._transport.publish(policy)

    def bind(
        self,
        policy: Any,
        *,
        seed: int,
        action_dim: int,
        action_dtype: str,
        mask_width: int,
        which: Sequence[int] | None = None,
        on_loss: Callable[[int, EnvironmentFailure], None] | None = None,
    ) -> None:
        """Give workers a twin of the policy, and map the memory that its parameters come through.

        Parameters
        ----------
        policy
            A `PortablePolicy`.
        seed
            Seed of the run.
        action_dim, action_dtype, mask_width
            A, the dtype that actions are stored in, and W.
        which
            Indices of the workers; None: all.
        on_loss
            Called for a worker that is gone or hangs; must replace it: then it is asked again.

        Raises
        ------
        TypeError
            Another kind of policy.
        """
        missing = [name for name in _POLICY_FACTS if not hasattr(policy, name)]
        if missing:
            raise TypeError(
                f"policy: expected a trpo_fast.core.Policy, got {type(policy).__name__} without "
                f"{missing[0]}; worker processes make their own copy of it (or use n_workers=0)"
            )
        dtype = np.dtype(policy.dtype).name
        facts = {
            "obs_dim": policy.obs_dim,
            "kind": policy.distribution.kind,
            "sizes": policy.distribution.sizes,
            "hidden_sizes": policy.hidden_sizes,
            "activation": policy.activation,
            "dtype": dtype,
        }

        def bind(w: int) -> None:
            worker = self.workers[w]
            shape = BlockShape(
                n_envs=worker.group.stop - worker.group.start,
                obs_dim=policy.obs_dim,
                action_dim=action_dim,
                n_parameters=policy.n_parameters,
                dtype=dtype,
                action_dtype=action_dtype,
                mask_width=mask_width,
            )
            worker.bind(facts, shape, seed)

        self._ask(range(len(self.workers)) if which is None else which, bind, on_loss)

    def _ask(
        self,
        which: Sequence[int],
        ask: Callable[[int], None],
        on_loss: Callable[[int, EnvironmentFailure], None] | None,
    ) -> list[Any]:
        """Ask workers, those that are replaced once more, and gather their answers."""

        def ask_again(w: int, lost: EnvironmentFailure) -> None:
            assert on_loss is not None
            on_loss(w, lost)
            ask(w)

        for w in which:
            ask(w)
        return self.gather(which, on_loss=None if on_loss is None else ask_again)

    def call(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any] | None,
        name: str,
        *,
        which: Sequence[int] | None = None,
        on_loss: Callable[[int, EnvironmentFailure], None] | None = None,
    ) -> list[Any]:
        """Call a function on the `InProcessSampler` of every worker.

        Parameters
        ----------
        function
            Called as ``function(sampler)``, or ``function(sampler, arguments[w])``. It, arguments
            and results are sent with cloudpickle.
        arguments
            One for each of these workers, or None.
        name
            What errors call the function.
        which
            Indices of the workers; None: all.
        on_loss
            Called for a worker that is gone or hangs; must replace it: then it is asked again.

        Returns
        -------
        list
            ("result", pickled) or ("error", exception) of each worker.
        """
        import cloudpickle

        sent = cloudpickle.dumps(function)
        asked = range(len(self.workers)) if which is None else which

        def ask(w: int) -> None:
            given = () if arguments is None else (arguments[list(asked).index(w)],)
            self.workers[w].send("call", name, sent, cloudpickle.dumps(given))

        answers = self._ask(asked, ask, on_loss)
        return [cloudpickle.loads(answer) for answer in answers]

    def gather(
        self,
        which: Sequence[int] | None = None,
        *,
        on_loss: Callable[[int, EnvironmentFailure], None] | None = None,
    ) -> list[Any]:
        """One answer of each worker.

        Parameters
        ----------
        which
            Indices of the workers; None: all.
        on_loss
            Called for a worker that is gone or hangs; must make it answer after all.

        Returns
        -------
        list
            The answers in the order of ``which``.

        Raises
        ------
        EnvironmentFailure
            A worker ended or hangs.
        Exception
            What a worker raised.
        """
        which = range(len(self.workers)) if which is None else which
        answers: dict[int, Any] = {}
        while len(answers) < len(which):
            waiting = [w for w in which if w not in answers]
            ready = self._transport.ready([self.workers[w] for w in waiting], _LOOK_SECONDS)
            for i, w in enumerate(waiting):
                worker = self.workers[w]
                try:
                    if i in ready:
                        answers[w] = worker.receive(self._where_is(w))
                    else:
                        worker.look(self._where_is(w))
                except Lost as lost:
                    failure = WorkerLost(str(lost))
                    if on_loss is None:
                        raise failure from lost.__cause__
                    on_loss(w, failure)
        return [answers[w] for w in which]

    def _where_is(self, w: int) -> Callable[[], str]:
        """Names worker w and the environment and step that it stands at."""

        def where() -> str:
            worker = self.workers[w]
            kind, *rest = worker.command
            if kind != "collect":
                return f"worker {w} ({rest[0] if kind == 'call' else kind})"
            return f"worker {w}: {worker.block.place(self.groups[w].start, self.name)}"

        return where


def stop_workers(workers: list[Worker], owner: int) -> None:
    """End all workers, gently where they are able to, and for certain.

    Parameters
    ----------
    workers
        Those to end; empty afterwards.
    owner
        Process id of who started them.
    """
    if os.getpid() != owner:  # a fork: it holds copies of the handles, but the workers are not its
        return
    for worker in workers:
        worker.ask_to_end()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.end(deadline)
    workers.clear()
