"""A stand-in for Ray: its actors live in this process and answer at once, but may be lost like Ray's.

Arguments and results are pickled, as between processes. `Die` raised in an environment takes its actor
with it; `lose` takes one that waits.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from trpo_fast import runtime

NAMES = (
    "RayActorError",
    "ObjectLostError",
    "NodeDiedError",
    "ActorUnschedulableError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
)


class RayError(Exception):
    """The base of Ray's exceptions."""


EXCEPTIONS: Any = SimpleNamespace(
    RayError=RayError, **{name: type(name, (RayError,), {}) for name in NAMES}
)


class Die(BaseException):
    """Takes the actor with it in which it is raised."""


class Ref:
    """A result, or what was put."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content

    def get(self) -> Any:
        """The result, or its exception raised."""
        if isinstance(self.content, Exception):
            raise self.content
        return cloudpickle.loads(self.content)

    def item(self, i: int) -> Ref:
        """One of several results."""
        if isinstance(self.content, Exception):
            return self
        return Ref(cloudpickle.dumps(self.get()[i]))


class Handle:
    """An actor as its owner sees it."""

    def __init__(self, cluster: FakeRay, made: Callable[[], Any], n_cores: int) -> None:
        self._cluster, self._cores = cluster, n_cores
        self._object: Any = made()
        cluster.handles.append(self)
        cluster.free -= n_cores

    def __reduce__(self) -> Any:
        return _handle_of, (self._cluster.handles.index(self),)

    def __getattr__(self, name: str) -> Any:
        def options(num_returns: int) -> Any:
            def call(*arguments: Any) -> Any:
                ref = self._call(name, arguments)
                return ref if num_returns == 1 else [ref.item(i) for i in range(num_returns)]

            return SimpleNamespace(remote=call)

        return SimpleNamespace(
            remote=lambda *arguments: self._call(name, arguments), options=options
        )

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Ref:
        if name == "collect":
            self._cluster.calls.append(arguments)
        target = self._object  # which another thread may lose meanwhile
        if target is None:
            return Ref(EXCEPTIONS.RayActorError("it is dead"))
        try:
            resolved = [a.get() if isinstance(a, Ref) else a for a in arguments]
        except RayError as error:
            return Ref(error)
        try:
            given = cloudpickle.loads(cloudpickle.dumps(resolved))
            return Ref(cloudpickle.dumps(getattr(target, name)(*given)))
        except Die:
            self.lose()
            return Ref(EXCEPTIONS.RayActorError("it died"))

    def lose(self) -> None:
        """End it."""
        if self._object is not None:
            self._object = None
            self._cluster.free += self._cores


def _handle_of(index: int) -> Any:
    """The handle that was sent."""
    handle: Any = sys.modules["ray"].handles[index]  # type: ignore[attr-defined]
    return handle


class FakeRay(ModuleType):
    """The module."""

    exceptions = EXCEPTIONS

    def __init__(self, cores: int = 8) -> None:
        super().__init__("ray")
        self.cores = self.free = cores
        self.handles: list[Handle] = []
        self.calls: list[tuple[Any, ...]] = []
        self.puts = 0
        self.lost_tasks = 0
        self.store_bytes = 10**9
        self.n_nodes = 1
        self._is_initialized = False

    @property
    def alive(self) -> list[Handle]:
        """Actors that live."""
        return [handle for handle in self.handles if handle._object is not None]

    def is_initialized(self) -> bool:
        """Whether this process is connected."""
        return self._is_initialized

    def init(self, **_: Any) -> None:
        """Connect."""
        self._is_initialized = True

    def shutdown(self) -> None:
        """Disconnect."""
        self._is_initialized = False

    def nodes(self) -> list[dict[str, Any]]:
        """Its nodes, of which this process is on the first."""
        has = {"object_store_memory": self.store_bytes}
        names = ["n", *(f"n{i}" for i in range(1, self.n_nodes))]
        return [{"Alive": True, "NodeID": name, "Resources": has} for name in names]

    def get_runtime_context(self) -> Any:
        """Where this process is."""
        return SimpleNamespace(get_node_id=lambda: "n")

    def cluster_resources(self) -> dict[str, float]:
        """What there is."""
        return {"CPU": self.cores}

    def available_resources(self) -> dict[str, float]:
        """What is free."""
        return {"CPU": self.free} if self.free else {}

    def remote(self, actor_class: Any) -> Any:
        """A class whose objects are actors, or a function that is done at once."""

        def task(*arguments: Any) -> Ref:
            if self.lost_tasks:
                self.lost_tasks -= 1
                return Ref(EXCEPTIONS.NodeDiedError("its node died"))
            return Ref(cloudpickle.dumps(actor_class(*arguments)))

        def options(num_cpus: int, **_: Any) -> Any:
            if not isinstance(actor_class, type):
                return SimpleNamespace(remote=task)
            return SimpleNamespace(
                remote=lambda *a: Handle(self, lambda: actor_class(*a), num_cpus)
            )

        return SimpleNamespace(options=options)

    def put(self, value: Any) -> Ref:
        """Store something."""
        self.puts += 1
        return Ref(cloudpickle.dumps(value))

    def get(self, ref: Ref) -> Any:
        """Fetch something."""
        return ref.get()

    def wait(self, refs: list[Ref], **_: Any) -> tuple[list[Ref], list[Ref]]:
        """All answers are there at once."""
        return list(refs), []

    def kill(self, handle: Handle) -> None:
        """End an actor."""
        handle.lose()


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """Ray's stand-in, in its place."""
    module = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", module)
    threads = runtime.get_num_threads()
    yield module
    runtime.set_num_threads(threads)
    gc.unfreeze()
    assert module.alive == []
    assert module.free == module.cores
    assert not module.is_initialized()
