"""The table of every setting, read from the classes that define them.

The sources are parsed, not imported: the site is built without the compiled core.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "trpo_fast"

# what a heading says, by class: the classes of config/settings.py, then those of the methods
SETTINGS = (
    ("AgentConfig", "Every method"),
    ("NaturalStepConfig", "The natural gradient: TRPO, its vine and single path, `npg`"),
    ("TrustRegionConfig", "The line search: TRPO, its vine and single path"),
    ("ValueConfig", "The value function: every method but `single-path`"),
)
CHANGES = {"always": "at any time", "load": "at load", "never": "never"}


def settings_page() -> str:
    """The page in Markdown: a table a class, then the methods' own."""
    parts = [
        "# Settings\n\nA setting is an argument of the agent, `TRPO(env, max_kl=0.02)`, a flag of the "
        "command, `--max-kl 0.02`, a line of a file for `--config`, and a field of `agent.config`. "
        "Every method honours a setting or refuses it by name. The last column says when the setting of "
        "an agent that exists may change: at any time (`agent.set(max_kl=0.02)`), when it is loaded "
        "(`TRPO.load(path, max_kl=0.02)`), or never. This page is made from the classes themselves.\n"
    ]
    classes = _classes(PACKAGE / "config" / "settings.py")
    parts += [f"## {title}\n\n{_table(classes[name])}" for name, title in SETTINGS]
    own = [PACKAGE / "rollout" / "branches.py", *sorted((PACKAGE / "algorithms").glob("*.py"))]
    for file in own:
        for name, node in _classes(file).items():
            if rows := _table(node):
                parts.append(f"## Of `{name}` alone\n\n{rows}")
    return "\n".join(parts)


def _classes(file: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {node.name: node for node in found if node.name.endswith(("Config", "Options"))}


def _table(node: ast.ClassDef) -> str:
    rows = list(_rows(node))
    if not rows:
        return ""
    head = "| setting | default | range | what it is | may change |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _rows(node: ast.ClassDef) -> Iterator[str]:
    for field, text in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)):
            continue
        what = " ".join(str(text.value.value).split()).replace("|", "\\|")
        annotation = ast.unparse(field.annotation)
        if isinstance(field.value, ast.Call) and field.value.args:
            call = field.value
            kind = ast.unparse(call.func)
            words = {word.arg: word.value for word in call.keywords}
            changes = ast.literal_eval(words["changes"]) if "changes" in words else _usual(kind)
            default, span = ast.unparse(call.args[0]), _span(kind, call, words, annotation)
        elif isinstance(field.value, ast.Constant):  # of an option without a range of its own
            default, changes = ast.unparse(field.value), "always"
            span = "`" + annotation.replace("|", "\\|") + "`"
        else:
            continue
        yield f"| `{field.target.id}` | `{default}` | {span} | {what} | {CHANGES[changes]} |"


def _usual(kind: str) -> str:
    return "never" if kind == "layer_sizes" else "always"


def _span(kind: str, call: ast.Call, words: dict[str | None, ast.expr], annotation: str) -> str:
    if kind == "flag":
        return "True, False"
    if kind == "integer":
        span = f"{ast.unparse(call.args[1])} or more"
    elif kind == "number":
        span = str(ast.literal_eval(call.args[1]))
    elif kind == "choice":
        return ", ".join(f"`{one}`" for one in _texts(ast.unparse(call.args[1])))
    elif kind == "layer_sizes":
        return "positive integers"
    elif kind == "names":
        return "names"
    else:
        return f"`{annotation}`"
    return f"{span}, None" if "optional" in words else span


def _texts(literal: str) -> tuple[str, ...]:
    """The texts of a Literal that is defined beside the settings."""
    tree = ast.parse((PACKAGE / "config" / "settings.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == literal:
            assert isinstance(node.value, ast.Subscript)
            texts = ast.literal_eval(node.value.slice)
            return texts if isinstance(texts, tuple) else (texts,)
    return (literal,)
