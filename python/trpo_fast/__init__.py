"""trpo_fast: Trust Region Policy Optimization on a C++ core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .algorithms.kl_penalty import KLPenalty
    from .algorithms.npg import NPG
    from .algorithms.single_path import SinglePathTRPO
    from .algorithms.vine import VineTRPO
    from .algorithms.vpg import VPG
    from .config import TRPOConfig
    from .presets import preset
    from .training.agent import TRPO

__all__ = [
    "NPG",
    "TRPO",
    "VPG",
    "KLPenalty",
    "SinglePathTRPO",
    "TRPOConfig",
    "VineTRPO",
    "__version__",
    "preset",
]

_HOMES = {
    "TRPO": "training.agent",
    "TRPOConfig": "config",
    "preset": "presets",
    "NPG": "algorithms.npg",
    "VPG": "algorithms.vpg",
    "KLPenalty": "algorithms.kl_penalty",
    "SinglePathTRPO": "algorithms.single_path",
    "VineTRPO": "algorithms.vine",
}


def __getattr__(name: str) -> Any:
    # loaded on first use, so that importing the package costs no more than NumPy
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
