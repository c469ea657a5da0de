#!/usr/bin/env bash
# All checks, each to its end, so that one run tells everything. .pre-commit-config.yaml runs the same tools in the same versions.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
bin=$PWD/.venv/bin
failed=()
# your own files: ruff's default rules that the template follows, mypy without its option strict, and only errors of YAML
# FURB, PLR0402, RUF013, UP: newer forms of what is right, such as dict for typing.Dict
# RUF100: a shipped file that you edited has noqa comments for rules that hold no longer
YOUR_RUFF="ruff check --isolated --line-length 120 --target-version py310 --ignore FURB,PLR0402,PYI,RUF012,RUF013,RUF100,TRY,UP"
YOUR_MYPY="mypy --config-file= --cache-dir .mypy_cache/yours --python-version 3.10 --explicit-package-bases"
YOUR_MYPY+=" --follow-imports silent --ignore-missing-imports"
# Lightning's types refuse what its users write: self.hparams.lr, self.trainer.model, a dictionary of optimizers
YOUR_MYPY+=" --disable-error-code attr-defined --disable-error-code union-attr --disable-error-code override"
YOUR_MYPY+=" --disable-error-code arg-type --disable-error-code assignment --disable-error-code valid-type"
# self.outputs = [], and hooks that promise a value and end without one
YOUR_MYPY+=" --disable-error-code var-annotated --disable-error-code return"
YOUR_YAMLLINT="yamllint --no-warnings -d '{extends: relaxed, rules: {trailing-spaces: disable, new-lines: disable,"
YOUR_YAMLLINT+=" new-line-at-end-of-file: disable}}'"

check() {
  local name=$1 output
  shift
  if output=$("$@" 2>&1); then
    printf 'ok      %s\n' "$name"
  else
    printf 'FAILED  %s\n%s\n\n' "$name" "$output"
    failed+=("$name")
  fi
}

# Every file that git knows or would take, that still exists: `files '*.sh'` gives each a line.
files() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do [[ -f "$file" ]] && echo "$file"; done; }
over() { # over PATTERN... -- COMMAND...: the command over those files; nothing to do when there are none
  local patterns=() list=() file
  while [[ "$1" != "--" ]]; do patterns+=("$1") && shift; done
  shift
  while read -r file; do list+=("$file"); done < <(files "${patterns[@]}")
  [[ ${#list[@]} -eq 0 ]] || "$@" "${list[@]}"
}

by_owner() { # by_owner COMMAND COMMAND PATTERN...: a module over the shipped files, and one over yours
  local strict=${1:+"'$bin/python' -m $1"} lenient=${2:+"'$bin/python' -m $2"}
  "$bin/python" scripts/by_owner.py "$strict" "$lenient" "${@:3}"
}

check "ruff format" by_owner "ruff format --check --quiet --force-exclude" "" '*.py' '*.ipynb'
check "ruff check" by_owner "ruff check --quiet --force-exclude" "$YOUR_RUFF --quiet" '*.py' '*.ipynb'
check "mypy" by_owner "mypy" "$YOUR_MYPY" {fulgurite,src,scripts,tests}/'*.py'
check "yamllint" by_owner "yamllint --strict" "$YOUR_YAMLLINT" '*.yaml' '*.yml'
check "codespell" over '*' -- "$bin/python" -m codespell_lib
check "shellcheck" over '*.sh' '*.sbatch' '.ci/run' -- "$bin/shellcheck"
check "nbstripout" over '*.ipynb' -- "$bin/python" -m nbstripout --verify
check "detect-secrets" over '*' -- "$bin/python" -m detect_secrets.pre_commit_hook --baseline .secrets.baseline
check "private keys" over '*' -- "$bin/python" -m pre_commit_hooks.detect_private_key
check "large files" over '*' -- "$bin/python" -m pre_commit_hooks.check_added_large_files --enforce-all --maxkb=1000
check "workflow schema" over '.github/workflows/*.yaml' -- "$bin/python" -m check_jsonschema --builtin-schema vendor.github-workflows
check "dependabot schema" over '.github/dependabot.yml' -- "$bin/python" -m check_jsonschema --builtin-schema vendor.dependabot
check "issue form schema" over '.github/ISSUE_TEMPLATE/*_*.yml' -- "$bin/python" -m check_jsonschema --builtin-schema vendor.github-issue-forms
check "zizmor" "$bin/zizmor" --offline --quiet --no-progress .github

if [[ ${#failed[@]} -gt 0 ]]; then
  echo "failed: ${failed[*]} (make format mends what can be mended)"
  exit 1
fi
