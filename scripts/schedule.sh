#!/usr/bin/env bash
# Runs several trainings, one after the other; the same command again goes on where the last one was stopped or failed.
#
#     scripts/schedule.sh "experiment=example" "experiment=example model.optimizer.lr=0.01 seed=1"
#
# Each argument holds the words for one `python src/train.py`. A training that fails does not keep the next ones from
# running; a signal ends the running one, which saves itself, and starts no other. The exit code is 0 when all are done,
# else that of the first that failed, or of the one that was stopped (130, 143). Which are done is kept in
# logs/schedule-<number of this command>.done until all are; SCHEDULE_DIR=<folder> keeps it elsewhere.
set -ufo pipefail
cd "$(dirname "$0")/.." || exit 2
[[ $# -gt 0 ]] || { sed -n '4,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

done_before="${SCHEDULE_DIR:-logs}/schedule-$(printf '%s\n' "$@" | cksum | cut -d' ' -f1).done"
first_failure=0
number=0
run=
stopped=
signalled=
# shellcheck disable=SC2329  # the traps call it
stop() { # SIGNAL: pass it on to the running training
  stopped=1
  signalled=1
  [[ -z "$run" ]] || kill -"$1" "$run" 2>/dev/null
}
trap 'stop TERM' TERM
trap 'stop INT' INT
trap 'stop USR1' USR1

for words in "$@"; do
  number=$((number + 1))
  if grep -qxs "$number" "$done_before"; then
    echo "schedule: $number of $# is done: $words"
    continue
  fi
  echo "schedule: $number of $#: $words"
  signalled=
  # shellcheck disable=SC2086  # the words of one training are separate arguments
  "${PY:-.venv/bin/python}" src/train.py $words resume=auto &
  run=$!
  [[ -z "$stopped" ]] || kill -TERM "$run"
  wait "$run"
  code=$?
  # a trap ends `wait` before the training has ended
  while [[ -n "$signalled" ]]; do
    signalled=
    wait "$run"
    code=$?
  done
  run=
  if [[ -n "$stopped" || $code -eq 130 || $code -eq 143 ]]; then
    echo "schedule: stopped in $number of $#; the same command goes on"
    exit "$code"
  fi
  if [[ $code -ne 0 ]]; then
    echo "schedule: $number of $# failed with exit code $code"
    [[ $first_failure -ne 0 ]] || first_failure=$code
  else
    echo "$number" >> "$done_before"
  fi
done
[[ $first_failure -ne 0 ]] || rm -f "$done_before"
exit "$first_failure"
