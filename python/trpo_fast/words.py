"""What foreign exceptions say, on one line: their texts may be empty, endless, or raise themselves."""

from __future__ import annotations


def words_of(error: BaseException, most: int = 200) -> str:
    """Return the text of an exception on one line; empty where it has none, or cannot be asked.

    Parameters
    ----------
    error
        Any exception.
    most
        Characters that are kept, at least 4; of a longer text the beginning.
    """
    try:
        text = str(error)
    except Exception:  # a foreign __str__ may do anything
        return ""
    line = printable(" ".join(text[: 20 * most].split()))
    return line if len(line) <= most else f"{line[: most - 4]} ..."


def end_of(text: str, most: int = 300) -> str:
    """Return the end of a text on one line: of a traceback, that is where the cause stands.

    Parameters
    ----------
    text
        Any text.
    most
        Characters that are kept.
    """
    return printable(" ".join(text[-20 * most :].split())[-most:])


def printable(text: str) -> str:
    """Return a text that every file and terminal takes: halves of surrogate pairs are written out.

    Parameters
    ----------
    text
        Any text.
    """
    return text.encode("utf-8", "backslashreplace").decode()
