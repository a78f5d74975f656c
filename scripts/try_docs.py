"""Every command of the documentation, run as a new user would: in a fresh clone, in a new folder (``make try-docs``).

Commands are the lines of code blocks without a language, and targets of make in running text. Those that need hours, a
cluster or a workspace are run by other means, which are named here; a command that is neither run nor named stops this
script, and a test.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/index.md", "CONTRIBUTING.md", "docs/*.md", "studies/README.md", "benchmarks/README.md")
COMMAND = re.compile(r"^(make|causal-spark|spark-submit|databricks|python|source|pip) ")
#: Commands that are run here, in their order on the pages.
RUN = re.compile(r"make (run|docs|wheel|pictures)|causal-spark |spark-submit jobs/|source ")
#: And those that are not, with what runs them.
ELSEWHERE = {
    "make test": ".ci/run, which runs the tests on every change",
    "make lint": ".ci/run",
    "make try-docs": "this is it",
    "make bench": "by hand: the committed tables of benchmarks/results name the commit and machine",
    "make study": "by hand: the committed tables of studies/results name the commit and machine",
    "make horse-race": "by hand: studies/results/horse_race.csv",
    "make chaos": "by hand: studies/results/chaos.csv",
    "spark-submit --master spark://": "tests/cluster/test_standalone.py, on a cluster of its own",
    "databricks bundle": "tests/test_databricks.py checks the bundle; deploying it takes a workspace",
    "python -m pytest": "tests/test_adding_an_estimator.py",
}


def commands() -> Iterator[tuple[str, str]]:
    """Page and command, a comment behind it left out, continued lines joined; each once."""
    seen: set[str] = set()
    for path in dict.fromkeys(path for pattern in PAGES for path in sorted(ROOT.glob(pattern))):
        page = path.read_text(encoding="utf-8")
        fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        blocks = [text.replace("\\\n", " ") for language, text in fenced if not language]
        inline = re.findall(r"`(make [a-z0-9-]+)`", page)
        for line in [*"\n".join(blocks).splitlines(), *inline]:
            command = re.sub(r"\s+", " ", line.partition(" #")[0]).strip()
            if COMMAND.match(command) and command not in seen:
                seen.add(command)
                yield path.relative_to(ROOT).as_posix(), command


def elsewhere(command: str) -> str | None:
    """What runs a command that this script does not."""
    return next((by for start, by in ELSEWHERE.items() if command.startswith(start)), None)


def unknown() -> list[str]:
    """Commands that nothing runs."""
    return [command for _, command in commands() if not RUN.match(command) and elsewhere(command) is None]


def main() -> int:
    """Clone, run, and tell how long each took; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="say what would be run, and what runs the others")
    options = parser.parse_args()
    if unknown():
        sys.exit(f"Nothing runs these commands of the documentation: {unknown()}")
    wanted = [command for _, command in commands() if RUN.match(command)]
    if options.list:
        for page, command in commands():
            print(f"{page}: {command}  <- {'run here' if RUN.match(command) else elsewhere(command)}")
        return 0
    folder = tempfile.mkdtemp(prefix="new_user_")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
    print(f"In {folder}, a clone of {ROOT}", flush=True)
    active, failed = "", 0
    for command in wanted:
        if command.startswith("source "):
            active = f"{command} && "
            continue
        start = time.monotonic()
        with (Path(folder) / "try_docs.log").open("a") as log:
            shell = ["bash", "-c", active + command]
            done = subprocess.run(shell, cwd=folder, stdout=log, stderr=log, check=False)
        failed += done.returncode != 0
        print(f"{time.monotonic() - start:7.0f} s  {'failed' if done.returncode else 'done  '}  {command}", flush=True)
    print(f"What they said: {folder}/try_docs.log")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
