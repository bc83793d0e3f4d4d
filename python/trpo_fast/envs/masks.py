"""Where an environment says which actions are allowed, and rows of flags made of what it says.

A source is one of

* ``"info"``: ``info["action_mask"]`` of `reset` and `step`;
* ``"method"``: the environment's method ``action_masks()``, or a wrapper's;
* ``"observation:<name>"``: a part of a Dict observation, which the network does not read;
* ``"none"``; and ``"auto"`` as long as only the info of the first reset can tell.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .asking import asked
from .errors import ObservationError, error_sentence
from .plain_spaces import Dict, plain_space

if TYPE_CHECKING:
    from ..core import Distribution

    Masks = npt.NDArray[np.bool_]

_NO_NAME = "no_attribute_has_this_name"
INFO_KEY = "action_mask"
METHOD = "action_masks"
_PART = "observation:"

MaskGiver = Callable[[Any, Any], Any]
"""From an observation and the info beside it to a mask, as the environment gives it."""


class MaskError(ObservationError):
    """A mask is missing, or is none."""


def find_source(
    setting: str,
    observation_space: Any,
    action_space: Any,
    distribution: Distribution,
    environment: Any,
) -> str:
    """Find out where the masks of an environment are, as far as no reset is needed for it.

    Parameters
    ----------
    setting
        A source, or "auto": the part "action_mask" of a Dict observation, else the method, else the
        info of the first reset decides.
    observation_space, action_space
        Of one environment.
    distribution
        Of its actions.
    environment
        What may have the method ``action_masks``; a vector environment too.

    Returns
    -------
    str
        A source; "auto" where the info of the first reset must tell.

    Raises
    ------
    ValueError
        A setting that this environment cannot satisfy.
    """
    if setting == "none":
        return "none"
    if not distribution.is_discrete:
        if setting == "auto":
            return "none"
        raise ValueError(
            f"action_masks: expected 'auto' or 'none' for the action space {action_space}, got "
            f"{setting!r}; only the choices of Discrete, MultiDiscrete and MultiBinary can be masked"
        )
    parts = _parts_of(observation_space)
    if setting.startswith(_PART):
        name = setting.removeprefix(_PART)
        if name not in parts:
            raise ValueError(
                f"action_masks: expected a part of the observation, one of {sorted(parts)}, got "
                f"{name!r}; the observation space is {observation_space}"
            )
        if len(parts) == 1 or not _may_be_mask(parts[name], distribution):
            raise ValueError(
                f"action_masks: expected a part of {distribution.mask_width} entries beside others, "
                f"got {name!r} of {observation_space}"
            )
        return setting
    has_method = _method_of(environment) is not None
    if setting == "method":
        if not has_method and not callable(getattr(environment, "call", None)):
            raise ValueError(
                "action_masks: expected an environment with a method action_masks(), got "
                f"{type(environment).__name__} without it; define it, or take another source"
            )
        return "method"
    if setting == "info":
        return "info"
    if INFO_KEY in parts and len(parts) > 1 and _may_be_mask(parts[INFO_KEY], distribution):
        return f"{_PART}{INFO_KEY}"
    return "method" if has_method else "auto"


def source_of_info(info: Any) -> str:
    """Return "info" where the info of a reset holds a mask, else "none".

    Parameters
    ----------
    info
        Of one environment, or of a vector environment.
    """
    if isinstance(info, list | tuple):  # one dictionary an environment
        info = info[0] if info else {}
    return "info" if isinstance(info, Mapping) and INFO_KEY in info else "none"


def network_space(observation_space: Any, source: str) -> Any:
    """Return what the network reads of an observation: all but a mask that is a part of it.

    Parameters
    ----------
    observation_space
        Of one environment.
    source
        Where the masks are.
    """
    if not source.startswith(_PART):
        return observation_space
    name = source.removeprefix(_PART)
    rest = ((key, part) for key, part in observation_space.spaces.items() if key != name)
    return type(observation_space)(OrderedDict(rest))


def describe_source(source: str) -> str:
    """Return a source in words; empty for "none" and "auto".

    Parameters
    ----------
    source
        Where the masks are.
    """
    if source.startswith(_PART):
        return f"observation[{source.removeprefix(_PART)!r}]"
    return {"info": f"info[{INFO_KEY!r}]", "method": f"{METHOD}()"}.get(source, "")


def mask_giver(source: str, environment: Any) -> MaskGiver:
    """Return what reads the masks of one environment.

    Parameters
    ----------
    source
        "info", "method" or "observation:<name>".
    environment
        Which one.

    Raises
    ------
    MaskError
        It has no such method; what is returned raises it too, where a mask is missing.
    """
    if source == "method":
        method = _method_of(environment)
        if method is None:
            raise MaskError(
                f"the environment {type(environment).__name__} has no method {METHOD}(), which "
                "training has taken the masks from; use an environment with it"
            )
        return lambda observation, info: _called(method)
    if source == "info":
        return _of_info
    return lambda observation, info: mask_in(source, observation)


def mask_in(source: str, observation: Any) -> Any:
    """Return the mask that is a part of an observation, or of a batch of them.

    Parameters
    ----------
    source
        "observation:<name>".
    observation
        As the environment gives it.
    """
    name = source.removeprefix(_PART)
    try:
        return observation[name]
    except (LookupError, TypeError):
        raise MaskError(
            f"action_masks: expected a part {name!r} of the observation, got none; every "
            "observation must hold the mask"
        ) from None


def mask_row(distribution: Distribution, mask: Any, source: str = "") -> Masks:
    """Return one mask as a row of flags, (W,) bool.

    Parameters
    ----------
    distribution
        Of the actions.
    mask
        As the environment gives it, see `trpo_fast.core.mask_rows`.
    source
        Where it is from, for the sentence of an error; empty for an argument.

    Raises
    ------
    MaskError
        It is none: another shape or value, or nothing is allowed.
    """
    from ..core import mask_rows

    batch = mask
    if not (isinstance(mask, tuple | list) and len(mask) == len(distribution.mask_sizes) > 1):
        batch = [mask]
    elif any(np.ndim(part) for part in mask):
        batch = tuple(np.asarray(part)[np.newaxis] for part in mask)
    else:
        batch = [mask]
    try:
        row: Masks = mask_rows(distribution, batch, 1)[0]
    except ValueError as error:
        where = describe_source(source)
        remedy = f"; look at {where} of the environment" if where else ""
        raise MaskError(f"{str(error).rstrip('.')}{remedy}") from None
    return row


def masks_of_vector(source: str, vector_env: Any, observations: Any, infos: Any) -> Any:
    """Return the masks of all environments of a vector environment, as it gives them.

    Parameters
    ----------
    source
        "info", "method" or "observation:<name>".
    vector_env
        Which one.
    observations, infos
        What its `reset` or `step` returned.

    Returns
    -------
    Any
        Something with E entries; an entry may be None where a mask is missing.
    """
    if source == "method":
        own = getattr(vector_env, METHOD, None)
        return _called(own) if callable(own) else vector_env.call(METHOD)
    if source != "info":
        return mask_in(source, observations)
    if isinstance(infos, Mapping):
        masks, present = infos.get(INFO_KEY), infos.get(f"_{INFO_KEY}")
        if masks is None or present is None or np.all(present):
            return masks
        return [mask if there else None for mask, there in zip(masks, present, strict=True)]
    return [info.get(INFO_KEY) for info in infos]


def missing_mask(source: str) -> MaskError:
    """Return the error about a mask that is missing.

    Parameters
    ----------
    source
        Where it should be.
    """
    return MaskError(
        f"action_masks: expected {describe_source(source)} at every reset and step, got none; give "
        "it always (ones allow everything), or set action_masks='none'"
    )


def _of_info(observation: Any, info: Any) -> Any:
    try:
        return info[INFO_KEY]
    except (LookupError, TypeError):
        raise missing_mask("info") from None


def _called(method: Callable[[], Any]) -> Any:
    try:
        return method()
    except Exception as error:
        raise MaskError(f"{METHOD}() raised {error_sentence(error)}") from error


def _parts_of(observation_space: Any) -> Mapping[str, Any]:
    is_dict = isinstance(plain_space(observation_space), Dict)
    parts: Mapping[str, Any] = observation_space.spaces if is_dict else {}
    return parts


def _may_be_mask(part: Any, distribution: Distribution) -> bool:
    """Whether a part of an observation has as many entries as a mask."""
    parts = getattr(part, "spaces", None)
    if isinstance(parts, tuple | list):
        sizes = [int(np.prod(one.shape)) for one in parts if one.shape is not None]
    else:
        sizes = [int(np.prod(part.shape)) if getattr(part, "shape", None) is not None else 0]
    widths = [distribution.mask_width]
    if distribution.kind == "bernoulli":
        widths.append(len(distribution.mask_sizes))
    return sum(sizes) in widths


def _method_of(environment: Any) -> Callable[[], Any] | None:
    """The method ``action_masks`` of an environment, of one of its wrappers, or of one inside."""
    inside = asked(environment, "envs")
    if isinstance(inside, list | tuple) and inside and asked(environment, METHOD) is None:
        environment = inside[0]
    try:
        find = getattr(environment, "get_wrapper_attr", None)
        method = find(METHOD) if find is not None else getattr(environment, METHOD, None)
        if asked(environment, _NO_NAME) is not None or (find is not None and _is_found(find)):
            return None  # its __getattr__ knows every name
    except Exception:  # none has it, or a foreign __getattr__ raises something else
        return None
    return method if callable(method) else None


def _is_found(find: Callable[[str], Any]) -> bool:
    try:
        return find(_NO_NAME) is not None
    except Exception:  # as it should be
        return False
