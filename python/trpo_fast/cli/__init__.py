"""The command line: ``trpo-fast train | study | evaluate | record | export | plot | ...``.

Environments, the compiled core and plotting are imported by the command that needs them, so that
``--help`` is quick.

Exit status: 0 done, 1 an error (one sentence on standard error), 2 wrong usage, 130 interrupted.
``TRPO_FAST_DEBUG=1`` shows the traceback of an error.
"""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Sequence

from ..config import ConfigError
from . import commands, pictures
from .arguments import (
    Command,
    Evaluate,
    Explain,
    Export,
    Info,
    Record,
    Selfcheck,
    Train,
    parse,
)
from .export import export
from .output import (
    DONE,
    FAILED,
    INTERRUPTED,
    USAGE,
    UsageError,
    fail,
    results_apart,
    say,
    version,
)
from .pictures import Plot, Report
from .seeds import train_seeds
from .streams import drop, prepare_streams
from .training import train
from .training_flags import Study, Tune

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments. None takes those of the process, makes its standard streams usable, and finds
        modules beside the user, as ``python -m trpo_fast`` does.

    Returns
    -------
    int
        Exit status.
    """
    if argv is None:
        prepare_streams()
        _find_modules_here()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        say(version())
        return DONE
    try:
        return _run(parse(arguments), arguments)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except (ConfigError, UsageError) as error:
        return fail(error, USAGE)
    except BrokenPipeError:  # nobody reads what is printed: `trpo-fast info | true`
        drop(sys.stdout)
        return DONE
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        return fail(error, FAILED)
    except Exception as error:
        if _comes_from_an_environment(error) or _is_a_sentence_of_ours(error):
            return fail(error, FAILED)
        from ..envs.errors import error_sentence, is_of_users_code

        hint = "set TRPO_FAST_DEBUG=1 to see the traceback"
        if is_of_users_code(error):
            return fail(f"{error_sentence(error)}; {hint}", FAILED)
        return fail(f"unexpected {error_sentence(error)}; {hint}, and please report it", FAILED)


def _run(command: Command, arguments: Sequence[str]) -> int:
    match command:
        case Train(seeds=str()) if command.save_config is None:
            return train_seeds(command, arguments)
        case Train():
            with results_apart():
                return train(command)
        case Study():
            from .study import study

            return study(command, arguments)
        case Tune():
            from .tune import tune

            return tune(command, arguments)
        case Evaluate():
            with results_apart():
                return commands.evaluate(command)
        case Record():
            with results_apart():
                return commands.record(command)
        case Export():
            return export(command)
        case Plot():
            return pictures.plot(command)
        case Report():
            return pictures.report(command)
        case Explain():
            return commands.explain(command)
        case Info():
            return commands.info()
        case Selfcheck():
            return commands.selfcheck()


def _find_modules_here() -> None:
    """Put the working folder first on the path of modules, unless Python was told to leave it out."""
    here = os.getcwd()
    if not getattr(sys.flags, "safe_path", False) and not {"", here} & set(sys.path):
        sys.path.insert(0, here)


def _is_a_sentence_of_ours(error: Exception) -> bool:
    """Return whether an exception was raised on purpose by this package, to say what is wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if (
        trace is None
        or trace.tb_frame.f_globals.get("__package__", "").partition(".")[0]
        != (__name__.partition(".")[0])
    ):
        return False
    instruction = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return dis.opname[instruction] == "RAISE_VARARGS"


def _comes_from_an_environment(error: Exception) -> bool:
    # told by its module, so that nothing need be imported
    return type(error).__module__.partition(".")[0] in ("gymnasium", "mujoco", "ale_py")
