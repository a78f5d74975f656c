"""A real cluster on this machine: a master, two workers, and executors that have only what `--py-files` brings."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from tests.cluster.all_jobs import HOWS

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
#: Five JVMs share two cores.
LEAN = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
#: A task that takes longer than the others is tried elsewhere as well.
SPECULATION = {"": "true", ".quantile": "0.5", ".minTaskRuntime": "6s"}
SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python with this environment's libraries that does not have the package."""
    # Without the site module the editable install of the test environment is out of reach, its libraries are not.
    wrapper = tmp_path / "python"
    libraries = ":".join(site.getsitepackages())
    wrapper.write_text(
        f'#!/bin/sh\nPYTHONPATH="{libraries}:$PYTHONPATH" exec {sys.executable} -S "$@"\n', encoding="utf-8"
    )
    wrapper.chmod(0o755)
    alone = subprocess.run([wrapper, "-c", "import causal_spark"], cwd=tmp_path, capture_output=True, check=False)
    assert b"No module named 'causal_spark'" in alone.stderr
    return wrapper


@pytest.fixture
def master(tmp_path: Path) -> Iterator[str]:
    """The address of a running cluster."""
    port = free_port()
    address = f"spark://127.0.0.1:{port}"
    settings = {"SPARK_CONF_DIR": str(tmp_path / "no_conf"), "SPARK_NO_DAEMONIZE": "1", "SPARK_DAEMON_JAVA_OPTS": LEAN}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings
    package = "org.apache.spark.deploy"
    # A task is tried a second time beside the first on another host only: two names for this one.
    hosts = ("127.0.0.1", "127.0.0.2")
    commands = [[f"{package}.master.Master", "--host", hosts[0], "--port", str(port), "--webui-port", "0"]]
    for number, host in enumerate(hosts):
        place = ["--host", host, "--webui-port", "0", "-d", str(tmp_path / f"worker_{number}")]
        commands.append([f"{package}.worker.Worker", "--cores", "1", "--memory", "1g", *place, address])
    log = tmp_path / "cluster.log"
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with log.open("ab") as file:
                started.append(
                    subprocess.Popen([str(SPARK_CLASS), *command], env=environment, stdout=file, stderr=file)
                )
            until(log, "I have been elected leader" if len(started) == 1 else "Successfully registered", len(started))
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def until(log: Path, words: str, n_started: int) -> None:
    """Wait for the words of the process started last."""
    deadline = time.monotonic() + 90
    while log.read_text(encoding="utf-8", errors="replace").count(words) < max(1, n_started - 1):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8", errors="replace")[-3000:]
        time.sleep(0.2)


def test_every_job_gives_on_a_cluster_on_which_things_die_what_it_gives_alone(
    tmp_path: Path, python: Path, master: str
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`make wheel`" in readme
    assert re.search(r"spark-submit --master spark://.*--py-files dist/causal_spark\.zip", readme, re.DOTALL)
    built = subprocess.run(["make", "wheel"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    (tmp_path / "helpers").mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests", tmp_path / "helpers" / "tests", ignore=ignored)
    helpers = shutil.make_archive(str(tmp_path / "helpers"), "zip", tmp_path / "helpers")
    script = shutil.copy(ROOT / "tests" / "cluster" / "all_jobs.py", tmp_path / "main.py")
    settings = {
        "spark.jars.packages": "",
        "spark.driver.host": "127.0.0.1",
        "spark.executor.extraJavaOptions": LEAN,
        **INTERPRETED,
        **{f"spark.speculation{key}": value for key, value in SPECULATION.items()},
    }
    command = [
        str(Path(sys.executable).parent / "spark-submit"),
        *("--master", master, "--executor-memory", "800m", "--executor-cores", "1"),
        *(part for key, value in settings.items() for part in ("--conf", f"{key}={value}")),
        *("--py-files", f"{ROOT}/dist/causal_spark.zip,{helpers}"),
        *(script, str(tmp_path)),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"SPARK_CONF_DIR": str(ROOT / "conf"), "PYSPARK_PYTHON": str(python), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert all("/causal_spark.zip/" in file for file in said.pop("package"))
    assert said == {f"{name} {how}": [1, 5, 4, 1] for name, hows in HOWS.items() for how in hows}
