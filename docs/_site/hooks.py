"""What the site is made of besides the files in ``docs/``, and what it must not contain.

MkDocs calls these functions. Pages that live elsewhere are taken from there, so that no text exists
twice: the methods' pages are those that ``trpo-fast explain`` shows, the figures those of
``benchmarks/README.md``, the settings those of the configuration's own fields. A new file in
``docs/guides`` is in the navigation by being there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
METHODS = ROOT / "python" / "trpo_fast" / "algorithms"

# the order of the guides in the navigation; those that are not named here follow by name
GUIDES = (
    "environments",
    "reading_the_table",
    "evaluation",
    "resume",
    "settings",
    "workers",
    "vine",
    "deployment",
)
# pages before and behind the guides
FIRST = ("start.md", "tour.md")
HELP = ("questions.md", "coming_from.md")

EXPORTED = """# How fast an exported policy acts

Microseconds of one action, the mode for one observation, on one thread: median and quartiles, by turns,
of networks with two hidden layers of 64. `predict` is this package in Python; the C header is called in a
loop in C, all others from Python.

| | {environments} |
|---|{columns}
{rows}

{machine}; {versions}; {date}; load of the minute before: {load}. The page is made
from `benchmarks/results/exported.json`, which this command writes:

    python benchmarks/speed/exported.py --json benchmarks/results/exported.json
"""


def on_config(config: Any) -> Any:
    """Write the navigation from what is there.

    Parameters
    ----------
    config
        MkDocs' configuration, changed in place.
    """
    sys.path.insert(0, str(Path(__file__).parent))
    # one of several versions side by side: a menu leads to them
    if "MIKE_DOCS_VERSION" in os.environ:
        config.extra["version"] = {"provider": "mike", "alias": True, "default": "latest"}
    docs = Path(config.docs_dir)
    guides = {page.stem: f"guides/{page.name}" for page in sorted((docs / "guides").glob("*.md"))}
    first = [guides.pop(name) for name in GUIDES if name in guides]
    config.nav = [
        {"Overview": "index.md"},
        *FIRST,
        {"Guides": [*first, *guides.values()]},
        {"Help": [*HELP]},
        {"Methods": ["methods/index.md", *(f"methods/{file.name}" for file in _methods())]},
        {
            "Reference": [
                "settings.md",
                *(f"reference/{page.name}" for page in sorted((docs / "reference").glob("*.md"))),
            ]
        },
        {"Results": ["benchmarks.md", "exported.md", "changelog.md"]},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that live elsewhere.

    Parameters
    ----------
    files
        The files of the site, extended in place.
    config
        MkDocs' configuration.
    """

    def add(name: str, text: str) -> None:
        files.append(File.generated(config, name, content=text))

    for file in _methods():
        add(f"methods/{file.name}", file.read_text(encoding="utf-8"))
    add("methods/index.md", _overview())
    add("settings.md", _settings())
    add("changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    figures = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    add("benchmarks.md", figures)
    add("exported.md", exported_page())
    for picture in re.findall(r"\]\((pictures/[^)]+)\)", figures):
        path = ROOT / "benchmarks" / picture
        files.append(File.generated(config, picture, abs_src_path=str(path)))
    return files


def exported_page() -> str:
    """The table of exported policies, from what benchmarks/speed/exported.py has measured."""
    told = json.loads(
        (ROOT / "benchmarks" / "results" / "exported.json").read_text(encoding="utf-8")
    )
    facts = told["facts"]
    environments = [result["env"] for result in told["results"]]
    times: dict[str, list[str]] = {}
    for result in told["results"]:
        for side, timing in result["seconds"].items():
            calls = result["calls"][side]
            low, high = (1e6 * seconds / calls for seconds in timing["quartile_seconds"])
            middle = 1e6 * timing["median_seconds"] / calls
            times.setdefault(side, []).append(f"{middle:.3g} ({low:.3g} to {high:.3g})")
    rows = "\n".join(f"| {side} | {' | '.join(cells)} |" for side, cells in times.items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return EXPORTED.format(
        environments=" | ".join(environments),
        columns="---:|" * len(environments),
        rows=rows,
        machine=f"{facts['cpu']}, {facts['cores']} cores, instruction-set level {facts['simd_level']}",
        versions=f"Python {facts['python']}, {versions}",
        date=facts["date"][:10],
        load=facts["load_average_1min"],
    )


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would load something from another place.

    Parameters
    ----------
    output
        The page's HTML.
    page
        The page.
    config
        MkDocs' configuration.
    """
    remote = re.findall(
        r"<(?:script|img|iframe|video|source)[^>]*\bsrc=[\"']?((?:https?:)?//[^\"'>\s]+)"
        r"|<link(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?((?:https?:)?//[^\"'>\s]+)",
        output,
    )
    if remote:
        place = page.file.src_uri
        raise PluginError(f"{place}: expected local files only, got {remote}; copy them to docs/")
    return output


def _methods() -> list[Path]:
    pages = sorted(METHODS.glob("*.md"))
    return sorted(pages, key=lambda page: page.stem != "trpo")  # the first is what most want


def _overview() -> str:
    rows = []
    for page in _methods():
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        name = page.stem.replace("_", "-")
        method = f"`--algorithm {name}`" if page.with_suffix(".py").is_file() else ""
        rows.append(f"| [{title}]({page.name}) | `trpo-fast explain {name}` | {method} |")
    head = (
        "# Methods\n\nThe pages that `trpo-fast explain` shows in a terminal, the same files: equations, "
        "facts, pseudocode with the code behind each line, and when to use it.\n\n"
        "| page | in a terminal | to train with it |\n|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def _settings() -> str:
    """A table of every setting of every method, from the fields themselves."""
    from settings_page import settings_page  # beside this file

    return settings_page()
