"""Kill jobs at random, run them again, and see whether anything is lost, twice or half there (``make chaos``).

Each round starts from a folder in which a job ran before, starts the job's next run in a process of its own and, at a
random point, kills with SIGKILL either the driver (the Python process and its JVM at once) or one Python worker. After
a dead driver, readers must see what they saw before, or all of the new run; then the same run is started again. In the
end every visible table must equal that of a run nobody disturbed. Rounds go on until there are enough and every phase
was hit often enough.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pandas as pd
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from benchmarks.machine import ROOT, SCRATCH, SINGLE_THREAD, append_rows, origin
from causal_spark.config import JobConfig
from causal_spark.engine import plan
from causal_spark.errors import CausalSparkError
from causal_spark.job import run_job
from causal_spark.logs import about, logged
from tests.job_cases import CASES, JobCase, comparable, save, seen_by_spark

RESULTS = ROOT / "studies" / "results" / "chaos.csv"
#: Event of the log to the phase that begins with it.
PHASES = {
    "": "starting",
    "opened": "making tables",
    "tables": "packing",
    "planned": "waves",
    "wave": "waves",
    "round": "rounds",
    "appending": "appending",
    "landed": "committing",
    "finished": "tidying up",
}
#: In these phases there are workers to kill.
WITH_WORKERS = ("packing", "waves", "rounds")
#: Seconds after which a run that nobody killed is given up.
PATIENCE = 240.0
SERIES = "nightly"
#: Confidence levels of the run before and of the one that is disturbed.
BEFORE, DISTURBED = 0.95, 0.9


def config_for(case: JobCase, source: Path, target: Path, level: float) -> JobConfig:
    """One analysis. level: of confidence, which tells runs apart."""
    location = {"location": str(source / "input")}
    return case.config(target, input=location, series=SERIES, confidence_level=level)


def in_small_pieces() -> None:
    """Make a run of many waves, or of rounds where a job has them."""
    plan.WAVE_SECONDS = plan.TASK_SECONDS = 1e-2
    plan.SPLIT_SECONDS, plan.SPLIT_SHARE = 1e-4, 0.0
    plan.PART_SECONDS, plan.PART_ROW_SECONDS = 1e-3, 0.0


def session(master: str) -> SparkSession:
    """A session for many plans over few rows: compiling them takes longer than running them."""
    builder = SparkSession.builder.master(master).config("spark.sql.codegen.wholeStage", "false")
    return builder.config("spark.sql.codegen.factoryMode", "NO_CODEGEN").getOrCreate()


def be_the_victim(name: str, source: Path, target: Path) -> None:
    """The process that is killed."""
    in_small_pieces()
    case = CASES[name]
    # A worker that is killed is one failed attempt of a task.
    spark = session("local[2,4]")
    with logged("json"), about(job=name, run_id="victim"):
        run_job(spark, case.job, config_for(case, source, target, DISTURBED))
    spark.stop()


@dataclass
class Victim:
    """A running victim: its process and what its log says. marks: (seconds since its start, event) as they came."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float = field(default_factory=time.monotonic)
    marks: list[tuple[float, str]] = field(default_factory=list)
    read: int = 0

    def events(self) -> list[str]:
        """Events logged so far."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()[: text.count("\n")]
        for line in lines[self.read :]:
            if line.startswith("{"):
                event = str(json.loads(line).get("event", ""))
                if event in PHASES:
                    self.marks.append((time.monotonic() - self.started, event))
        self.read = len(lines)
        return [event for _, event in self.marks]

    def phase(self) -> str:
        """Where it is."""
        events = self.events()
        return PHASES[events[-1] if events else ""]

    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None


def start(name: str, source: Path, target: Path) -> Victim:
    """Start a victim in a session of its own."""
    target.mkdir(parents=True, exist_ok=True)
    log = target / "victim.log"
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "studies.chaos", "--victim", name, str(source), str(target)],
            cwd=ROOT,
            env=os.environ | SINGLE_THREAD,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Victim(process, log)


def _processes() -> Iterator[tuple[int, int, list[bytes]]]:
    """Number, parent and command line of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                yield int(entry.name), parent, (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue


def below(root: int) -> dict[int, list[bytes]]:
    """Processes below one, with their command lines."""
    every = {number: (parent, words) for number, parent, words in _processes()}
    found = [root]
    for number in found:
        found += [child for child, (parent, _) in every.items() if parent == number]
    return {number: every[number][1] for number in found[1:] if number in every}


def kill_driver(victim: Victim) -> bool:
    """Kill the driver, its JVM and what they started, as a machine that vanishes does."""
    family = [victim.process.pid, *below(victim.process.pid)]
    for number in family:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    victim.process.wait()
    return True


def kill_worker(victim: Victim, chance: random.Random) -> bool:
    """Kill one Python worker, if there is any: a process forked by the daemon that the JVM started."""
    family = below(victim.process.pid)
    daemons = {number for number, words in family.items() if b"pyspark.daemon" in words}
    parents = {number: parent for number, parent, _ in _processes()}
    workers = sorted(number for number in daemons if parents.get(number) in daemons)
    if not workers:
        return False
    try:
        os.kill(chance.choice(workers), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def latest_without_spark(case: JobCase, target: Path) -> dict[str, pd.DataFrame]:
    """What a reader of the latest results sees, by `deltalake`."""
    runs = DeltaTable(str(target / "out" / "runs")).to_pandas()
    runs = runs[(runs["status"] == "succeeded") & (runs["series"] == SERIES)]
    newest = runs.sort_values(["finished_at", "run_id"])["run_id"].iloc[-1]
    found = {}
    for name in case.job_tables:
        frame = DeltaTable(str(target / "out" / name)).to_pandas()
        found[name] = comparable(frame[frame["run_id"] == newest])
    return found


def same(found: Mapping[str, pd.DataFrame], wanted: Mapping[str, pd.DataFrame]) -> bool:
    """Whether tables are equal, bit for bit."""
    try:
        for name, frame in wanted.items():
            pd.testing.assert_frame_equal(found[name], frame, check_exact=True, check_dtype=False)
    except AssertionError:
        return False
    return True


@dataclass(frozen=True)
class Stage:
    """A job ready to be disturbed. before, after: its latest tables before and after the run that will be disturbed.
    spans: seconds that run takes in each phase when nobody disturbs it.
    """

    case: JobCase
    home: Path
    before: dict[str, pd.DataFrame]
    after: dict[str, pd.DataFrame]
    spans: Mapping[str, float]


def set_up(spark: SparkSession, case: JobCase, folder: Path) -> Stage:
    """Run the job once, and then its next run undisturbed, in a process like the victims'."""
    home = folder / case.name
    shutil.rmtree(home, ignore_errors=True)
    frames = [case.frame(f"region {k}", k) for k in range(5)]
    save(spark, pd.concat([*frames, case.bad()], ignore_index=True), home)
    run_job(spark, case.job, config_for(case, home, home, BEFORE))
    before = latest_without_spark(case, home)
    target = home / "undisturbed"
    shutil.copytree(home / "out", target / "out")
    victim = start(case.name, home, target)
    while not victim.ended():
        victim.events()
        time.sleep(0.05)
    if victim.process.returncode != 0:
        raise RuntimeError(victim.log.read_text(encoding="utf-8")[-3000:])
    victim.events()
    marks = [(0.0, ""), *victim.marks, (time.monotonic() - victim.started, "end")]
    spans = dict.fromkeys(PHASES.values(), 0.0)
    for (begin, event), (end, _) in pairwise(marks):
        spans[PHASES[event]] += end - begin
    after = latest_without_spark(case, target)
    if same(before, after):
        raise RuntimeError("The next run gives what the one before gave: nothing could be told apart.")
    return Stage(case, home, before, after, spans)


def disturb(
    spark: SparkSession, stage: Stage, phase: str, kill: str, chance: random.Random
) -> dict[str, object] | None:
    """One round; None when the run was over, or had no worker, before anything could be killed."""
    case, target = stage.case, stage.home / "round"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(stage.home / "out", target / "out")
    victim = start(case.name, stage.home, target)
    while not victim.ended() and victim.phase() != phase:
        time.sleep(0.02)
    until = time.monotonic() + chance.uniform(0, stage.spans[phase])
    while not victim.ended() and time.monotonic() < until:
        time.sleep(0.01)
    hit, done = victim.phase(), False
    while not victim.ended() and not done:
        hit = victim.phase()
        done = kill_driver(victim) if kill == "driver" else kill_worker(victim, chance)
    at = time.monotonic() - victim.started
    if not done:
        victim.process.wait(timeout=PATIENCE)
        return None
    row: dict[str, object] = {"job": case.name, "killed": kill, "phase": hit, "at_seconds": f"{at:.1f}"}
    if kill == "driver":
        shown = latest_without_spark(case, target)
        whole = same(shown, stage.before) or same(shown, stage.after)
        row["readers_meanwhile"] = "whole" if whole else "BROKEN"
    else:
        victim.process.wait(timeout=PATIENCE)
        row["readers_meanwhile"] = "-"
    row["ended"] = victim.process.returncode
    try:
        run_job(spark, case.job, config_for(case, stage.home, target, DISTURBED))
    except CausalSparkError as error:
        row["tables"] = f"BROKEN: {type(error).__name__}"
        return row
    found = {name: seen_by_spark(spark, target, name) for name in case.job_tables}
    runs = DeltaTable(str(target / "out" / "runs")).to_pandas()
    once = len(runs) == 2
    row["tables"] = "equal" if once and same(found, stage.after) else "BROKEN"
    return row


def rounds(
    spark: SparkSession, stages: list[Stage], n: int, least: int, chance: random.Random
) -> Iterable[dict[str, object]]:
    """Rounds over jobs and phases in turn, until there are n and every phase was hit so often."""
    names = [name for name in dict.fromkeys(PHASES.values()) if any(stage.spans[name] > 0 for stage in stages)]
    hits: Counter[str] = Counter()
    number = 0
    while number < n or min(hits[name] for name in names) < least:
        wanted = min(names, key=lambda name: (hits[name], chance.random()))
        able = [stage for stage in stages if stage.spans[wanted] > 0]
        stage = able[chance.randrange(len(able))]
        kill = "worker" if wanted in WITH_WORKERS and chance.random() < 0.5 else "driver"
        row = disturb(spark, stage, wanted, kill, chance)
        if row is not None:
            number += 1
            hits[str(row["phase"])] += 1
            yield {"round": number, **row}


def main() -> None:
    """Run all rounds and keep a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--least", type=int, default=5, help="kills of each phase")
    parser.add_argument("--jobs", nargs="+", default=list(CASES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--victim", nargs=3, metavar=("JOB", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.victim:
        name, source, target = options.victim
        be_the_victim(name, Path(source), Path(target))
        return
    in_small_pieces()
    stamp = origin()
    folder = SCRATCH / "chaos"
    spark = session("local[2]")
    stages = [set_up(spark, CASES[name], folder) for name in options.jobs]
    options.results.unlink(missing_ok=True)
    broken = 0
    for row in rounds(spark, stages, options.rounds, options.least, random.Random(options.seed)):  # noqa: S311
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)
        append_rows(options.results, [row | stamp])
        broken += "BROKEN" in str(row["tables"]) + str(row["readers_meanwhile"])
    print(f"{broken} rounds broken", flush=True)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
