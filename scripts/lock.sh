#!/usr/bin/env bash
# Makes requirements.txt, the full pin, from pyproject.toml, and puts the same versions into .pre-commit-config.yaml.
#
#   scripts/lock.sh                         keep what is pinned, change only what pyproject.toml asks for
#   scripts/lock.sh --upgrade               raise everything
#   scripts/lock.sh --upgrade-package NAME  raise one package
#   scripts/lock.sh --hooks                 raise the tools of .pre-commit-config.yaml (make update-hooks)
#
# One file serves Python 3.10 to 3.13 on Linux, macOS and Windows, by environment markers. It holds
# - no nvidia, cuda or triton packages: each build of torch brings exactly those it was made with, and a CPU build none;
# - no index: which build of torch is taken is the business of the machine's pip;
# - no hashes: the CPU and CUDA builds of one torch release are different files;
# - nothing published in the last 7 days: malicious releases are mostly found within that time.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python

pins=$(mktemp)
trap 'rm -f "$pins"' EXIT

arguments=("$@")
if [[ "${1:-}" == "--hooks" ]]; then
  arguments=("${@:2}")
  while read -r name; do arguments+=(--upgrade-package "$name"); done < <("$python" scripts/hook_pins.py --list)
fi

if [[ -f requirements.txt ]]; then cp requirements.txt "$pins"; fi
"$python" -m uv pip compile pyproject.toml --extra tensorboard --extra dev --universal --python-version 3.10 \
  --exclude-newer "7 days" --annotation-style line --no-header --quiet --output-file "$pins" ${arguments[@]+"${arguments[@]}"} >/dev/null

{
  echo "# The full pin for Python 3.10 to 3.13, made from pyproject.toml by scripts/lock.sh: change it there."
  grep -vE "^(nvidia-|cuda-|triton)|== 'pypy'" "$pins"
} >requirements.txt
"$python" scripts/hook_pins.py
