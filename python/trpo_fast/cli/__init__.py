"""The command line: ``trpo-fast train | evaluate | record | plot | explain | info | selfcheck``.

Environments, the compiled core and plotting are imported by the command that needs them, so that
``--help`` is quick.

Exit status: 0 done, 1 an error (one sentence on standard error), 2 wrong usage, 130 interrupted.
``TRPO_FAST_DEBUG=1`` shows the traceback of an error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..config import ConfigError
from . import commands
from .arguments import Command, Evaluate, Explain, Info, Plot, Record, Selfcheck, Train, parse
from .output import DONE, FAILED, INTERRUPTED, USAGE, UsageError, fail, say, version
from .training import train

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with these arguments (those of the process if None)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        say(version())
        return DONE
    try:
        return _run(parse(arguments))
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except (ConfigError, UsageError) as error:
        return fail(error, USAGE)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        return fail(error, FAILED)
    except Exception as error:
        if _comes_from_an_environment(error):
            return fail(error, FAILED)
        hint = "set TRPO_FAST_DEBUG=1 to see where, and please report it"
        return fail(f"unexpected {type(error).__name__}: {error}; {hint}", FAILED)


def _run(command: Command) -> int:
    match command:
        case Train():
            return train(command)
        case Evaluate():
            return commands.evaluate(command)
        case Record():
            return commands.record(command)
        case Plot():
            return commands.plot(command)
        case Explain():
            return commands.explain(command)
        case Info():
            return commands.info()
        case Selfcheck():
            return commands.selfcheck()


def _comes_from_an_environment(error: Exception) -> bool:
    # told by its module, so that nothing need be imported
    return type(error).__module__.partition(".")[0] in ("gymnasium", "mujoco", "ale_py")
