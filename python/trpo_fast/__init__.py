"""trpo_fast: Trust Region Policy Optimization on a C++ core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .algorithms.kl_penalty import KLPenalty, KLPenaltyConfig
    from .algorithms.npg import NPG, NPGConfig
    from .algorithms.single_path import SinglePathConfig, SinglePathTRPO
    from .algorithms.trpo import TRPO
    from .algorithms.vine import VineConfig, VineOptions, VineTRPO
    from .algorithms.vpg import VPG, VPGConfig
    from .config import TRPOConfig
    from .presets import preset
    from .studies.running import study
    from .studies.tuning import tune
    from .training.policy import Policy

__all__ = [
    "NPG",
    "TRPO",
    "VPG",
    "KLPenalty",
    "KLPenaltyConfig",
    "NPGConfig",
    "Policy",
    "SinglePathConfig",
    "SinglePathTRPO",
    "TRPOConfig",
    "VPGConfig",
    "VineConfig",
    "VineOptions",
    "VineTRPO",
    "__version__",
    "preset",
    "study",
    "tune",
]

# what needs no method's module
_LIGHT = {
    "Policy": "training.policy",
    "TRPOConfig": "config",
    "preset": "presets",
    "study": "studies.running",
    "tune": "studies.tuning",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that importing the package costs no more than NumPy. Classes are found
    # among the methods; names in lower case are modules, which the import system finds itself.
    import importlib

    if name in _LIGHT:
        value = getattr(importlib.import_module(f".{_LIGHT[name]}", __name__), name)
    elif name == "schedules":
        value = importlib.import_module(".schedules", __name__)
    elif name[:1].isupper():
        try:
            value = importlib.import_module(".algorithms", __name__).public_name(name)
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
