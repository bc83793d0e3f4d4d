"""A report holds everything that the runs tell, loads nothing, and says what was refused."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from command_line import TINY, trpo_fast
from trpo_fast.cli import main
from trpo_fast.logging import read_rows
from trpo_fast.report import write_report
from trpo_fast.report.reading import read_reported_run
from trpo_fast.run_folder import RunFolderError


class _Page(HTMLParser):
    """Every id, and every address that a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        for name in ("src", "href", "xlink:href", "data"):
            if values.get(name):
                self.loaded.append(str(values[name]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short runs that differ in seed and bound."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for seed, kl in ((0, "0.01"), (1, "0.02")):
        path = folder / f"pole-{seed}"
        flags = f"--total-timesteps 2048 --workers 0 --seed {seed} --max-kl {kl} --run-dir {path}"
        flags += " --evaluate-every 1024 --evaluation-episodes 3"
        assert main(["train", "CartPole-v1", *TINY, *flags.split()]) == 0
        found.append(path)
    return found


def refuse_an_update(run: Path) -> None:
    """Write into a run's file what a refused update leaves there."""
    rows = read_rows(run / "progress.csv")
    text = (run / "progress.csv").read_text(encoding="utf-8")
    message = rows[1]["policy/message"]
    assert text.count(message) == 1
    text = text.replace("accepted", "line_search_failed").replace(
        "line_search_failed after", "accepted after"
    )
    text = text.replace(message, "refused: <no> step improved the surrogate")
    (run / "progress.csv").write_text(text, encoding="utf-8")


def test_a_page_of_two_runs(runs: list[Path], tmp_path: Path) -> None:
    text = write_report(runs, tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert all(address.startswith(("#", "data:")) for address in page.loaded), page.loaded
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert text.count("<svg") == text.count("</svg>") >= 5
    for words in ("pole-0", "pole-1", "2,048", "Every update was accepted", "CartPole-v1"):
        assert words in text
    differing = text[text.index("What differs") : text.index("All settings")]
    assert "max_kl" in differing
    assert "<code>0.01</code>" in differing
    assert "gamma" not in differing
    # the numbers of the evaluation are those of its file
    steps, returns, _ = read_reported_run(runs[0]).evaluation_table()[-1]
    assert f"{steps:,}" in text
    assert f"{returns.mean():.4g} ± {returns.std():.4g}" in text
    assert "instruction-set level" in text


def test_refused_updates_and_a_film(runs: list[Path], tmp_path: Path) -> None:
    refuse_an_update(runs[1])
    (runs[1] / "video.mp4").write_bytes(b"a film")
    assert main(["report", str(runs[1])]) == 0
    text = (runs[1] / "report.html").read_text(encoding="utf-8")
    assert "refused: &lt;no&gt; step improved the surrogate" in text
    assert "4 × line_search_failed" in text
    assert 'src="data:video/mp4;base64,YSBmaWxt"' in text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="config"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ValueError, match="at least one run folder"):
        write_report([], tmp_path / "report.html")
    done = trpo_fast("report")
    assert done.returncode == 2
    assert "expected at least one run folder" in done.stderr
