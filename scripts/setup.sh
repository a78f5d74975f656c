#!/usr/bin/env bash
# setup.sh EXTRAS: make the virtual environment .venv with this package (editable), its EXTRAS and Delta's jars.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$PWD/.venv
extras=$1

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

find_python() {
  local python
  for python in "${PYTHON:-}" python3.12 python3.11 python3.13 python3; do
    # Asked, not only found: a version manager may leave a name on the PATH that starts nothing.
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$python" && return 0
    fi
  done
  return 1
}

make_venv() {
  local python package
  python=$(find_python) || fail \
    "causal_spark needs Python 3.11 or newer, and none was found (python3, python3.11, python3.12, python3.13)." \
    "Install one, or name it: make PYTHON=/path/to/python3.12 run"
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
      echo "$python has no ensurepip: installing $package."
      apt-get update
      DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"
    else
      fail "$python cannot make virtual environments: its module ensurepip is missing." \
        "On Debian and Ubuntu: sudo apt-get install $package"
    fi
  fi
  "$python" -m venv "$venv"
}

# Delta's jars are resolved once and laid beside Spark's own. Resolved at every start, as spark.jars.packages does, they
# would cost a network or a cache, a second or more, and thirty lines of output each time.
add_delta_jars() {
  local spark_home ivy app jar
  spark_home=$("$venv/bin/python" -c 'from importlib.util import find_spec; print(find_spec("pyspark").submodule_search_locations[0])')
  ivy=$venv/ivy
  for jar in "$ivy"/jars/*.jar; do
    rm -f "$spark_home/jars/${jar##*/}"
  done
  rm -rf "$ivy/jars"
  app=$(mktemp "${TMPDIR:-/tmp}/resolve-XXXXXX")
  mv "$app" "$app.py"
  if ! SPARK_HOME=$spark_home SPARK_CONF_DIR=$PWD/conf PYSPARK_PYTHON=$venv/bin/python \
    "$spark_home/bin/spark-submit" --conf "spark.jars.ivy=$ivy" "$app.py" >"$ivy.log" 2>&1; then
    cat "$ivy.log" >&2
    rm -f "$app.py"
    fail "The jars of Delta Lake (spark.jars.packages in conf/spark-defaults.conf) could not be fetched; see above."
  fi
  rm -f "$app.py"
  cp "$ivy"/jars/*.jar "$spark_home/jars/"
}

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
echo "Installing causal_spark[$extras] into .venv ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt --editable ".[$extras]"
add_delta_jars
