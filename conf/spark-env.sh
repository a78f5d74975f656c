#!/usr/bin/env bash
# Read by spark-submit, and by pyspark when it starts the JVM, before anything else (SPARK_CONF_DIR=conf).

# Workers take `python3` from the PATH unless told otherwise, which may lack pandas: take the active virtual
# environment, else the one that make sets up beside this folder.
if [ -z "${PYSPARK_PYTHON:-}" ]; then
  for venv in "${VIRTUAL_ENV:-}" "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv"; do
    if [ -x "$venv/bin/python" ]; then
      export PYSPARK_PYTHON="$venv/bin/python"
      break
    fi
  done
fi

# A task has one core. Results must not depend on how many threads a linear-algebra library finds.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
