"""What can be wrong with an environment, as exceptions that name it."""

from __future__ import annotations


class EnvironmentFailure(RuntimeError):
    """An environment raised, or broke the Gymnasium interface; `__cause__` holds the original."""


class ObservationError(ValueError):
    """An observation that does not belong to the observation space."""


def unsupported_space(kind: str, space: object, supported: str) -> TypeError:
    """The error about a space that no policy can read or act in.

    Parameters
    ----------
    kind
        "observation" or "action".
    space
        The whole space.
    supported
        The spaces that are supported, as words.
    """
    return TypeError(
        f"{kind} space: {space} is not supported; expected {supported}. "
        f"Wrap the environment (gymnasium.{kind.capitalize()}Wrapper) so that its {kind} space is "
        "one of these"
    )
