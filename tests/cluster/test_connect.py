"""The public face on Spark Connect: a server of its own, no classic session in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from causal_spark import PanelEffects, panel_effects
from causal_spark.engine import panel_groups, panels
from causal_spark.jobs import JOB_NAMES
from tests.engine.steps import with_steps
from tests.frames import ROLES, grouped, long_panel

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
FRAME = grouped(north=long_panel(seed=1), south=long_panel(seed=2), bad=long_panel().assign(w=2))

#: Runs in a process of its own, because classic and Connect sessions do not live in one.
CLIENT = """
import json, sys
import pandas as pd
from pyspark.sql import SparkSession
from causal_spark import EstimatorStudy, IndividualEffects, PanelEffects, RootCauses, panel_effects, score
from causal_spark.engine import panel_groups, panels, plan
from causal_spark.engine.node_frames import by_condition
from causal_spark.errors import ConfigError
from tests.arm_frames import ROLES as ARMS, S_LEARNER, customers
from tests.engine.steps import with_steps
from tests.node_frames import QUICK, incidents, services

# One estimator is split: on every group, as each costs 12 seconds by its own account.
panels.ESTIMATORS = panel_groups.ESTIMATORS = panel_effects.ESTIMATORS = with_steps()
plan.SPLIT_SECONDS = plan.PART_SECONDS = 2.0
folder, rows, roles = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
spark = SparkSession.builder.remote("local[2]").getOrCreate()
assert "connect" in type(spark).__module__
data = spark.createDataFrame(pd.read_parquet(rows))
job = PanelEffects(["did", "sdid", "steps"], seed=3)
result = job.fit(data, groups=["region"], work_location=folder + "/work", **roles)
written = result.write(folder + "/out")
again = result.write(folder + "/out")
effects = spark.read.format("delta").load(folder + "/out/panel_effects").toPandas()
effects.attrs.clear()
effects.to_parquet(folder + "/effects.parquet")
failures = result.failures.toPandas()
people = customers(120)
models = IndividualEffects([S_LEARNER], control="none").fit(people, **ARMS).models
wanted = score(models, people, row_id="id")
found = score(spark.createDataFrame(models), spark.createDataFrame(people), row_id="id").toPandas()
by = ["row_id", "treatment"]
apart = (found.sort_values(by)["effect"].to_numpy() - wanted.sort_values(by)["effect"].to_numpy())
normal, events = services(150, 1), incidents(2, 2)
mine = RootCauses(**QUICK).fit(normal, events, event_id="incident").root_causes
sent = [spark.createDataFrame(one) for one in (normal, events)]
theirs = RootCauses(**QUICK).fit(*sent, event_id="incident", work_location=folder + "/causes").root_causes.toPandas()
by = ["event_id", "node"]
differ = (theirs.sort_values(by)["contribution"].to_numpy() - mine.sort_values(by)["contribution"].to_numpy())
plan.SPLIT_SECONDS = 1e-3
study = EstimatorStudy(["did", "sdid"], variances=[{"name": "placebo", "replicates": 5}], replicates=6)
tried = study.fit(data, groups=["region"], work_location=folder + "/study", **roles).estimators.toPandas()
alone = study.fit(pd.read_parquet(rows), groups=["region"], **roles).estimators
by = ["group_id", "design", "effect_shape", "place"]
gap = (tried.sort_values(by)["rmse"].to_numpy() - alone.sort_values(by)["rmse"].to_numpy())
try:
    by_condition(sent[0], ["load"], {"normal": "lod > 0"}, {})
    condition = "taken"
except ConfigError as error:
    condition = error.message[:24]
n_normal = by_condition(sent[0], ["load"], {"normal": "load > 0", "event": "load > 0"}, {}).count()
print(json.dumps({
    "caused": [len(theirs), float(abs(differ).max())],
    "studied": [len(tried), float(abs(gap).max())],
    "condition": condition,
    "twice": n_normal == 2 * int((normal["load"] > 0).sum()),
    "scored": [len(found), float(abs(apart).max())],
    "new": [written.new, again.new],
    "failures": failures[["error_class", "kind"]].to_numpy().tolist(),
    "n_groups": result.summary.n_groups,
    "rounds": sum("rounds_" in path for path in result._run.folders),
}))
"""


def client(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A Python process with what a client of Spark Connect needs."""
    # Many plans over few rows: compiling them takes longer than running them.
    settings = (ROOT / "conf" / "spark-defaults.conf").read_text(encoding="utf-8")
    settings += "spark.sql.codegen.wholeStage false\nspark.sql.codegen.factoryMode NO_CODEGEN\n"
    (folder / "conf").mkdir()
    (folder / "conf" / "spark-defaults.conf").write_text(settings, encoding="utf-8")
    environment = {
        **os.environ,
        "SPARK_CONF_DIR": str(folder / "conf"),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
        env=environment,
        cwd=folder,
    )


def words_of(done: subprocess.CompletedProcess[str]) -> str:
    """What it said before it ended, less the JVM's stack traces."""
    return "\n".join(line for line in done.stderr.splitlines() if "\tat " not in line)[-4000:]


def test_fit_and_write_give_on_connect_what_they_give_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    FRAME.to_parquet(tmp_path / "rows.parquet")
    done = client(["-c", CLIENT, str(tmp_path), str(tmp_path / "rows.parquet"), json.dumps(ROLES)], tmp_path)
    assert done.returncode == 0, words_of(done)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    # The last of the rounds are the placebos, which cost as much again each.
    assert said == {
        "caused": [12, 0.0],
        "studied": [16, 0.0],
        "condition": "A condition in rows is n",
        "twice": True,
        "scored": [360, 0.0],
        "new": [True, False],
        "failures": [["TreatmentValueError", "failed"]],
        "n_groups": 3,
        "rounds": 5,
    }
    for module in (panels, panel_groups, panel_effects):
        monkeypatch.setattr(module, "ESTIMATORS", with_steps())
    wanted = PanelEffects(["did", "sdid", "steps"], seed=3).fit(FRAME, groups=["region"], **ROLES).effects
    found = pd.read_parquet(tmp_path / "effects.parquet").sort_values(["group_id", "estimator"], ignore_index=True)
    wanted = wanted.sort_values(["group_id", "estimator"], ignore_index=True)
    columns = [name for name in wanted if name != "seconds"]
    pd.testing.assert_frame_equal(found[columns], wanted[columns], check_exact=True, check_dtype=False)


def test_every_job_gives_on_connect_what_it_gives_in_process(tmp_path: Path) -> None:
    done = client([str(ROOT / "tests" / "cluster" / "all_jobs.py"), str(tmp_path), "remote"], tmp_path)
    assert done.returncode == 0, words_of(done)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert said == {name: [1, 3, 2, 1] for name in JOB_NAMES}


def test_every_notebook_runs_on_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_REMOTE", "local[2]")
    done = client([str(ROOT / "tests" / "cluster" / "all_notebooks.py"), str(tmp_path)], tmp_path)
    assert done.returncode == 0, words_of(done)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == list(JOB_NAMES)
