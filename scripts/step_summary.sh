#!/usr/bin/env bash
# Appends Markdown files to a CI step summary (or prints them), whole files only, never more than such a summary may be:
# a summary above 1 MiB is thrown away completely.
#
#   scripts/step_summary.sh FILE...        into $GITHUB_STEP_SUMMARY where that is set, else to the standard output
set -euo pipefail

readonly MOST=${STEP_SUMMARY_LIMIT:-1000000}
out=${GITHUB_STEP_SUMMARY:-/dev/stdout}
written=0
for file in "$@"; do
  [ -f "$file" ] || { printf 'step summary: there is no %s\n' "$file" >&2; continue; }
  size=$(wc -c <"$file")
  if ((written + size + 200 > MOST)); then
    printf '\n(%s is left out: a summary may not be longer)\n' "${file##*/}" >>"$out"
    continue
  fi
  cat "$file" >>"$out"
  printf '\n' >>"$out"
  written=$((written + size + 1))
done
