.DEFAULT_GOAL := help
SHELL := /bin/bash

BIN := .venv/bin

# The job of `make run`; both can be replaced: make run CONFIG=my.yaml
JOB := jobs/panel_effects.py
CONFIG := conf/panel_effects.yaml
CURVES := conf/response_curves.yaml
EFFECTS := conf/individual_effects.yaml
CAUSES := conf/root_causes.yaml
STUDY := conf/estimator_study.yaml
UPKEEP := conf/upkeep.yaml

export SPARK_CONF_DIR := $(CURDIR)/conf
export PYSPARK_PYTHON := $(CURDIR)/$(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Tasks are the unit of parallelism, and results must not depend on the number of threads.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
# Another Spark or a notebook driver set up in the user's shell would take over.
unexport SPARK_HOME PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS

# Delta's jars already lie beside Spark's (scripts/setup.sh): nothing to resolve at start.
NO_RESOLVING := --conf spark.jars.packages=
WITH_JAVA = JAVA_HOME="$$(scripts/java_home.sh)" && export JAVA_HOME &&
INPUTS := setup.py constraints.txt conf/spark-defaults.conf scripts/setup.sh

.PHONY: help
help:  ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/installed-run  ## Estimate the effects of the example policies on local Spark (CONFIG=... for other data)
	@$(WITH_JAVA) $(BIN)/spark-submit $(NO_RESOLVING) $(JOB) --config $(CONFIG)

.PHONY: run-upkeep
run-upkeep: .venv/installed-run  ## Remove rows nobody sees, compact and vacuum tables (UPKEEP=... for other tables)
	@$(WITH_JAVA) $(BIN)/spark-submit $(NO_RESOLVING) jobs/upkeep.py --config $(UPKEEP)

.PHONY: run-estimator-study
run-estimator-study: .venv/installed-run  ## Which estimator and error bar to trust on the example policies (STUDY=... for other data)
	@$(WITH_JAVA) $(BIN)/spark-submit $(NO_RESOLVING) jobs/estimator_study.py --config $(STUDY)

.PHONY: run-response-curves
run-response-curves: .venv/installed-neural  ## The same for response curves, on a cohort of smokers (CURVES=... for other data)
	@$(WITH_JAVA) $(BIN)/spark-submit $(NO_RESOLVING) jobs/response_curves.py --config $(CURVES)

.PHONY: run-individual-effects
run-individual-effects: .venv/installed-neural  ## The same for individual effects, on a trial (EFFECTS=... for other data)
	@$(WITH_JAVA) $(BIN)/spark-submit $(NO_RESOLVING) jobs/individual_effects.py --config $(EFFECTS)

.PHONY: run-root-causes
run-root-causes: .venv/installed-run  ## The same for root causes, on delays of flights (CAUSES=... for other data)
	@$(WITH_JAVA) $(BIN)/spark-submit $(NO_RESOLVING) jobs/root_causes.py --config $(CAUSES)

.PHONY: test
test: .venv/installed-dev  ## Run all tests but those of make test-cluster (ARGS=... for pytest)
	@$(WITH_JAVA) PYSPARK_SUBMIT_ARGS="$(NO_RESOLVING) pyspark-shell" $(BIN)/python -m pytest -m "not cluster and not reruns" -n 2 --dist loadfile $(ARGS)

# In the order of their names, so that the files of few but long tests come first and none is left for the end.
.PHONY: test-cluster
test-cluster: .venv/installed-dev  ## Run the tests that start a cluster or a Connect server, and of jobs killed and run again
	@$(WITH_JAVA) PYSPARK_SUBMIT_ARGS="$(NO_RESOLVING) pyspark-shell" $(BIN)/python -m pytest -m "cluster or reruns" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: bench
bench: .venv/installed-dev .venv-bench/installed  ## Time single fits beside other packages (ARGS="--sizes 50x40 --runs 3")
	$(BIN)/python -m benchmarks.single_fits $(ARGS)

.PHONY: bench-dwcp
bench-dwcp: .venv/installed-dev .venv-bench/installed  ## Time DWCP beside other packages (ARGS="--libraries causal_spark")
	$(BIN)/python -m benchmarks.dwcp $(ARGS)

.PHONY: bench-throughput
bench-throughput: .venv/installed-dev  ## Time many panels through the job beside a plain loop (ARGS="--panels 1 60 200")
	@$(WITH_JAVA) $(BIN)/python -m benchmarks.throughput $(ARGS)

.PHONY: bench-scale
bench-scale: .venv/installed-dev  ## Time and weigh 2,000 to 100,000 small panels through the job (ARGS="--estimators did")
	@$(WITH_JAVA) $(BIN)/python -m benchmarks.scale $(ARGS)

.PHONY: bench-estimator-study
bench-estimator-study: .venv/installed-dev  ## Time the estimator study on one core and on two (ARGS="--panels 4 --draws 200")
	@$(WITH_JAVA) $(BIN)/python -m benchmarks.estimator_study $(ARGS)

.PHONY: bench-root-causes
bench-root-causes: .venv/installed-dev  ## Time root causes beside DoWhy (ARGS="--segments 500 --no-peers")
	$(BIN)/python -m benchmarks.root_causes $(ARGS)

.PHONY: bench-long
bench-long: .venv/installed-dev  ## Time and weigh one long panel through the job (ARGS="--units 2000 --periods 200")
	@$(WITH_JAVA) $(BIN)/python -m benchmarks.long_panel $(ARGS)

.PHONY: bench-variances
bench-variances: .venv/installed-dev  ## Time all variances of many panels beside another package (ARGS="--panels 100")
	$(BIN)/python -m benchmarks.variances $(ARGS)

.PHONY: bench-individual-effects
bench-individual-effects: .venv/installed-dev  ## Time many networks at once beside a loop, and scoring (ARGS="--rows 1000000")
	@$(WITH_JAVA) $(BIN)/python -m benchmarks.individual_effects $(ARGS)

.PHONY: bench-response-curves
bench-response-curves: .venv/installed-dev  ## Time e2b on many segments at once beside a loop (ARGS="--cases 64x500")
	$(BIN)/python -m benchmarks.response_curves $(ARGS)

.PHONY: chaos
chaos: .venv/installed-dev  ## Kill jobs at random and run them again: is anything lost, twice or half there? (ARGS="--rounds 10")
	@$(WITH_JAVA) PYSPARK_SUBMIT_ARGS="$(NO_RESOLVING) pyspark-shell" $(BIN)/python -m studies.chaos $(ARGS)

.PHONY: horse-race
horse-race: .venv/installed-dev  ## Who errs least on panels like real ones whose effect is known (ARGS="--n 50")
	$(BIN)/python -m studies.horse_race $(ARGS)

.PHONY: study-variances
study-variances: .venv/installed-dev  ## Coverage and power of conditional variances (ARGS="--estimator sdid --n 500")
	$(BIN)/python -m studies.variances $(ARGS)

.PHONY: study-coverage
study-coverage: .venv/installed-dev  ## Coverage of placebo, jackknife, bootstrap beside the published (ARGS="--designs urate")
	$(BIN)/python -m studies.coverage $(ARGS)

.PHONY: study-individual-effects
study-individual-effects: .venv/installed-dev  ## Accuracy and coverage of individual effects (ARGS="--designs acic4 --n 5")
	$(BIN)/python -m studies.individual_effects $(ARGS)

.PHONY: study-individual-effects-peers
study-individual-effects-peers: .venv/installed-dev .venv-econml/installed  ## The same draws beside learners of econml
	$(BIN)/python -m studies.individual_effects_peers $(ARGS)

.PHONY: study-response-curves
study-response-curves: .venv/installed-dev  ## Accuracy and coverage of response curves (ARGS="--part coverage --n 100")
	$(BIN)/python -m studies.response_curves $(ARGS)

.PHONY: study-root-causes
study-root-causes: .venv/installed-dev  ## How often rules name the cause of an outlier, beside DoWhy (ARGS="--n 5")
	$(BIN)/python -m studies.root_causes $(ARGS)

.PHONY: study-prop99
study-prop99: .venv/installed-dev .venv-bench/installed  ## Standard errors on Proposition 99 beside other packages'
	$(BIN)/python -m studies.prop99

.PHONY: pictures
pictures: .venv/installed-dev  ## Draw the pictures of docs/ anew
	$(BIN)/python docs/draw_pictures.py
	$(BIN)/python docs/draw_response_curves.py
	$(BIN)/python docs/draw_individual_effects.py
	$(BIN)/python docs/draw_root_causes.py
	$(BIN)/python docs/draw_estimator_study.py

.PHONY: docs
docs: .venv/installed-dev  ## Build the documentation site into artifacts/site
	$(BIN)/python -m sphinx -W --keep-going -q -c docs . artifacts/site
	@echo "Open artifacts/site/index.html"

.PHONY: try-docs
try-docs: .venv/installed-dev  ## Run every command of the documentation in a fresh clone (ARGS="--list")
	$(BIN)/python scripts/try_docs.py $(ARGS)

.PHONY: lint
lint: .venv/installed-dev  ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: .venv/installed-dev  ## Format the code and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: wheel
wheel: .venv/installed-run  ## Build dist/causal_spark-*.whl, and the same as causal_spark.zip for spark-submit --py-files
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@# Executors put zips on their path and pass wheels over, though a wheel is one.
	cp dist/causal_spark-*.whl dist/causal_spark.zip

.PHONY: clean
clean:  ## Remove the virtual environments, builds and caches (never output/)
	rm -rf .venv .venv-bench .venv-econml artifacts/benchmarks build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis spark-warehouse metastore_db derby.log

.venv/installed-run: $(INPUTS)
	@$(WITH_JAVA) scripts/setup.sh spark,examples
	@touch $@

.venv/installed-neural: $(INPUTS)
	@$(WITH_JAVA) scripts/setup.sh spark,examples,neural
	@touch .venv/installed-run $@

.venv/installed-dev: $(INPUTS)
	@$(WITH_JAVA) scripts/setup.sh spark,examples,neural,dev
	@touch .venv/installed-run .venv/installed-neural $@

# The packages compared with want an older numpy than ours.
.venv-bench/installed: benchmarks/requirements.txt | .venv/installed-run
	$(BIN)/python -m venv --clear .venv-bench
	@echo '*' > .venv-bench/.gitignore
	.venv-bench/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	@touch $@

.venv-econml/installed: studies/econml_requirements.txt | .venv/installed-run
	$(BIN)/python -m venv --clear .venv-econml
	@echo '*' > .venv-econml/.gitignore
	.venv-econml/bin/python -m pip install --quiet --requirement studies/econml_requirements.txt
	@touch $@
