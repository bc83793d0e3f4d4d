"""Docstrings as Markdown: roles, literal blocks and examples of reStructuredText are rewritten.

mkdocstrings reads docstrings as Markdown; those of the package are written for ``help`` and editors.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class PlainDocstrings(griffe.Extension):
    """Rewrites the docstring of every object that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring in place.

        Parameters
        ----------
        obj
            What it belongs to.
        **_
            What else griffe passes.
        """
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The text without the markup of reStructuredText.

    Parameters
    ----------
    text
        Of a docstring, without its indentation.
    """
    # :class:`~trpo_fast.TRPO` and :func:`.c_header` become `TRPO` and `c_header`
    text = re.sub(r":(?:\w+:)+`~([^`]*?\.)?([^`.]+)`", r"`\2`", text)
    text = re.sub(r":(?:\w+:)+`\.?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"^[ ]*\.\. code-block:: (\w+)\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^([ ]*)::[ ]*$", r"", text, flags=re.MULTILINE)
    text = re.sub(r"(\S) ?::[ ]*$", r"\1:", text, flags=re.MULTILINE)
    text = re.sub(r"(?:^[ ]*(?:>>>|\.\.\.) .*\n?)+", _example, text, flags=re.MULTILINE)
    return re.sub(
        r"^(=+ +=[= ]*)\n(?:.*\n)*?\1(?:\n(?:.*\n)*?\1)?$", _table, text, flags=re.MULTILINE
    )


def _example(match: re.Match[str]) -> str:
    lines = match[0].rstrip("\n").splitlines()
    indent = re.match(r" *", lines[0])
    assert indent is not None
    code = "\n".join(indent[0] + line.lstrip()[4:] for line in lines)
    return f"\n{indent[0]}```python\n{code}\n{indent[0]}```\n\n"


def _table(match: re.Match[str]) -> str:
    rows = [line for line in match[0].splitlines() if not re.fullmatch("[= ]+", line)]
    return "```text\n" + "\n".join(rows).replace("`", "") + "\n```"
