#!/usr/bin/env bash
# Makes a virtual environment that holds what the given files pin, when it is missing or out of date; says nothing when it is not.
#
#   scripts/venv.sh FOLDER REQUIREMENTS [REQUIREMENTS...]     each file is installed over the ones before it
#
# PYTHON=... names the interpreter, else the first of 3.11, 3.12, 3.13, 3.10 that runs is taken.
# The stamp is a copy of what was installed, written last: an interrupted install leaves none and is done again.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
stamp=$folder/installed.txt

python_works() { "$1" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
  local candidate
  if [[ -n "${PYTHON:-}" ]]; then
    python_works "$PYTHON" && echo "$PYTHON" && return
    echo "PYTHON=$PYTHON: this is no working Python 3.10 to 3.13 with venv; name another one" >&2
    return 1
  fi
  for candidate in python3 python3.11 python3.12 python3.13 python3.10 python; do
    python_works "$candidate" && echo "$candidate" && return
  done
  echo "no Python from 3.10 to 3.13 with venv on PATH; install one, or name it: make PYTHON=/path/to/python3.12" >&2
  return 1
}

# A folder that was moved or whose interpreter is gone runs nothing: it is made anew.
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -f "$stamp"
elif cat "$@" | cmp -s - "$stamp"; then
  exit 0
fi

rm -f "$stamp"
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(find_python) || exit 2
  rm -rf "$folder"
  echo "making $folder with $("$python" --version)" >&2
  "$python" -m venv "$folder"
fi
echo "installing $* into $folder (a minute or two, about 2 GB)" >&2
for file in "$@"; do
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$file"
done
cat "$@" >"$stamp.part"
mv "$stamp.part" "$stamp"
