#!/usr/bin/env bash
# Print the home of a Java 17 or 21, the two that Spark 4 runs on. Looks at JAVA_HOME, then the PATH, then where systems
# keep their Javas; as root on Debian or Ubuntu it installs one when there is none.
set -euo pipefail

major() {
  "$1/bin/java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1
}

find_java() {
  local home on_path
  on_path=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.home = //p' || true)
  for home in "${JAVA_HOME:-}" "$on_path" /usr/lib/jvm/*17* /usr/lib/jvm/*21* \
    /Library/Java/JavaVirtualMachines/*/Contents/Home /opt/homebrew/opt/openjdk@{17,21}; do
    [ -n "$home" ] && [ -x "$home/bin/java" ] || continue
    case "$(major "$home")" in
      17 | 21) printf '%s\n' "$home" && return 0 ;;
    esac
  done
  return 1
}

find_java && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "No Java 17 or 21 found: installing openjdk-17-jre-headless (openjdk-21-jre-headless where 17 is gone)." >&2
  {
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openjdk-17-jre-headless ||
      DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openjdk-21-jre-headless
  } >&2
  find_java && exit 0
fi

cat >&2 <<'MESSAGE'
Spark 4 needs Java 17 or 21, and none was found in JAVA_HOME, on the PATH or under /usr/lib/jvm. Install one:
  Debian, Ubuntu:  sudo apt-get install openjdk-17-jre-headless
  Fedora, RHEL:    sudo dnf install java-21-openjdk-headless
  macOS:           brew install openjdk@17
or set JAVA_HOME to the folder of one.
MESSAGE
exit 1
