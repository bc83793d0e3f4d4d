"""Environments: how they are made, and how their spaces become rows of numbers."""

from typing import TYPE_CHECKING

from .observations import *  # noqa: F403
from .observations import (  # noqa: F401
    __all__,
    _register_atari,
    copy_environment,
    maker_of,
)

if TYPE_CHECKING:
    from .observations import EnvSource  # noqa: F401
