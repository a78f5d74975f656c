"""The documentation site builds without a warning: links lead somewhere, docstrings are well formed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", str(source / "docs")]
    return subprocess.run([*command, str(source), str(site)], capture_output=True, text=True, check=False)


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    written = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert written | {"index.html", "README.html"} <= pages
    api = (tmp_path / "docs" / "api.html").read_text(encoding="utf-8")
    for name in ("PanelEffects.fit", "Result.write", "causal_spark.plots.counterfactual", "NotIdentifiedError"):
        assert name in api


@pytest.mark.parametrize("link", ["[x](tables.md#no-such-heading)", "[x](no_such_page.md)"])
def test_a_link_that_leads_nowhere_stops_it(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    (tmp_path / "docs" / "conf.py").write_text(conf.replace("Path(__file__).parents[1]", f"Path({str(ROOT)!r})"))
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "docs" / "site")
    for page, text in (("index", f"# Start\n\n{link}\n"), ("tables", "# Tables\n")):
        (tmp_path / "docs" / f"{page}.md").write_text("---\norphan: true\n---\n" + text, encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "no" in done.stderr
