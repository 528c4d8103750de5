#!/usr/bin/env bash
# Makes everything `make parity` and `make test` need: R (where it may be installed), .venv, the package in it.
#
#   scripts/setup.sh            quick when nothing has changed
#   scripts/setup.sh hlmdiag    also tries HLMdiag again if an earlier try failed less than a day ago
#
# Settings: PYTHON=python3.12 (interpreter of a new .venv), MMPARITY_NO_R=1 (leave R alone, use recorded references).
# Nothing here is fatal but a failing Python environment: without R the recorded references are used.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly VENV=.venv STATE=.setup R_LIBRARY="$PWD/.r-library"
readonly R_PACKAGES="lme4 nlme mlmRev MASS lmerTest pbkrtest car sandwich clubSandwich jsonlite glmmTMB"
readonly DEBS="r-base-core r-base-dev r-cran-lme4 r-cran-nlme r-cran-mlmrev r-cran-mass r-cran-lmertest
  r-cran-pbkrtest r-cran-car r-cran-sandwich r-cran-clubsandwich r-cran-jsonlite r-cran-glmmtmb libopenblas0"
# What HLMdiag imports and Debian has, so that CRAN has little left to compile.
readonly HLMDIAG_DEBS="r-cran-dplyr r-cran-ggplot2 r-cran-janitor r-cran-magrittr r-cran-mgcv r-cran-plyr
  r-cran-purrr r-cran-rcpp r-cran-rcpparmadillo r-cran-reshape2 r-cran-rlang r-cran-stringr r-cran-tibble
  r-cran-tidyselect"

say() { printf 'setup: %s\n' "$*"; }
failed_lately() { [ -n "$(find "$STATE/$1" -mmin -1440 2>/dev/null)" ]; }
note_failure() { mkdir -p "$STATE" && touch "$STATE/$1"; }

# --- system packages -------------------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

may_install() {
  command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

UPDATED=
apt_install() { # packages that apt does not know are left out
  local log=$STATE/apt.log known
  mkdir -p "$STATE"
  if [ -z "$UPDATED" ]; then
    as_root apt-get update -o DPkg::Lock::Timeout=300 >"$log" 2>&1 </dev/null || return 1
    UPDATED=1
  fi
  known=$(apt-cache pkgnames | LC_ALL=C sort -u | LC_ALL=C comm -12 - <(printf '%s\n' "$@" | LC_ALL=C sort -u))
  [ -n "$known" ] || { echo "apt knows none of: $*" >>"$log"; return 1; }
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    -o DPkg::Lock::Timeout=300 $known >>"$log" 2>&1 </dev/null
}

missing_r_packages() { # prints those of $R_PACKAGES that this R lacks
  # shellcheck disable=SC2086
  Rscript --vanilla -e 'wanted <- commandArgs(TRUE); cat(wanted[!nzchar(suppressWarnings(
    vapply(wanted, function(p) system.file(package = p), "")))])' $R_PACKAGES </dev/null
}

# Once, where it is allowed, and again not before a day has passed if the registry could not be reached.
setup_r() {
  local missing=R
  [ -z "${MMPARITY_NO_R:-}" ] || { say "MMPARITY_NO_R is set: R is left alone"; return; }
  ! command -v Rscript >/dev/null || missing=$(missing_r_packages)
  [ -n "$missing" ] || return 0
  if ! may_install; then
    say "missing: $missing; cannot install it here (no root or password-less sudo, or no apt): going on without"
  elif failed_lately apt; then
    say "missing: $missing; installing it failed less than a day ago (see $STATE/apt.log): going on without"
  else
    say "installing R and its packages with apt (a few minutes; missing: $missing)"
    # shellcheck disable=SC2086
    apt_install $DEBS || true
    ! command -v Rscript >/dev/null || missing=$(missing_r_packages)
    [ -z "$missing" ] || { note_failure apt; say "apt could not install: $missing (see $STATE/apt.log): going on without"; }
  fi
}

have_hlmdiag() {
  R_LIBS="$R_LIBRARY" Rscript --vanilla -e 'quit(status = !nzchar(system.file(package = "HLMdiag")))' </dev/null
}

setup_hlmdiag() {
  [ -z "${MMPARITY_NO_R:-}" ] && command -v Rscript >/dev/null || return 0
  ! have_hlmdiag || return 0
  if failed_lately hlmdiag; then
    say "HLMdiag: recorded results (CRAN did not give it less than a day ago; \`make hlmdiag\` tries again)"
    return
  fi
  mkdir -p "$R_LIBRARY" "$STATE"
  if timeout 120 Rscript scripts/install_hlmdiag.R check >"$STATE/hlmdiag.log" 2>&1 </dev/null; then
    say "installing HLMdiag from CRAN into .r-library (log: $STATE/hlmdiag.log)"
    # shellcheck disable=SC2086
    if may_install; then apt_install $HLMDIAG_DEBS || true; fi
    timeout 3000 Rscript scripts/install_hlmdiag.R install "$R_LIBRARY" >>"$STATE/hlmdiag.log" 2>&1 </dev/null || true
  fi
  have_hlmdiag || { note_failure hlmdiag; say "HLMdiag: not to be had from CRAN here; going on with recorded results"; }
}

# --- Python ----------------------------------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

usable_venv() {
  new_enough "$VENV/bin/python" && { command -v uv >/dev/null || [ -x "$VENV/bin/pip" ]; }
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if new_enough "$candidate"; then echo "$candidate"; return; fi
  done
  return 1
}

make_venv() {
  local python
  if command -v uv >/dev/null; then
    say "making $VENV with uv"
    uv venv --quiet --allow-existing --python "${PYTHON:->=3.11}" "$VENV"
    return
  fi
  python=$(find_python) || { say "Python 3.11 or later is needed; set PYTHON=/path/to/python3"; exit 1; }
  say "making $VENV with $("$python" --version)"
  if ! "$python" -m venv --clear "$VENV" >/dev/null 2>&1; then # Debian's Python has no ensurepip of its own
    if may_install; then apt_install python3-venv python3-dev || true; fi
    "$python" -m venv --clear "$VENV" || { rm -rf "$VENV"; exit 1; }
  fi
}

r_version() { Rscript --vanilla -e 'cat(as.character(getRversion()))' </dev/null 2>/dev/null; }

r_extra() { # the rpy2 that fits this R: the pins stand in pyproject.toml
  local version
  [ -z "${MMPARITY_NO_R:-}" ] && command -v Rscript >/dev/null && version=$(r_version) || return 0
  if [ "$(printf '%s\n' 4.5 "$version" | sort -V | head -1)" = 4.5 ]; then echo ,r-new
  elif [ "$(printf '%s\n' 4.2 "$version" | sort -V | head -1)" = 4.2 ]; then echo ,r
  else say "R $version is older than 4.2: rpy2 is not installed" >&2; fi
}

install_package() { # $1: extras
  local log=$STATE/pip.log
  mkdir -p "$STATE"
  if command -v uv >/dev/null; then
    uv pip install --python "$VENV/bin/python" --editable ".[$1]" >"$log" 2>&1 </dev/null
  else
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip install --editable ".[$1]" >"$log" 2>&1 </dev/null
  fi || { say "that failed; the end of $log:"; tail -15 "$log" >&2; return 1; }
}

setup_python() {
  local extra key stamp=$VENV/.mmparity-setup python_h
  if ! usable_venv; then make_venv; fi
  extra=$(r_extra)
  key=$({ cat pyproject.toml; echo "$extra"; "$VENV/bin/python" --version; pwd; } | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" != "$key" ] || return 0
  python_h=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  if [ -n "$extra" ] && [ ! -e "$python_h" ] && may_install; then apt_install python3-dev || true; fi
  say "installing mmparity into $VENV: extras dev,plots,parquet$extra"
  if install_package "dev,plots,parquet$extra"; then
    echo "$key" >"$stamp"
  elif [ -n "$extra" ]; then
    say "trying without rpy2: live R will not be used"
    install_package dev,plots,parquet
  else
    exit 1
  fi
}

[ "${1:-}" != hlmdiag ] || rm -f "$STATE/hlmdiag"
setup_r
setup_python
setup_hlmdiag
say "ready ($("$VENV/bin/python" --version 2>&1), $(command -v Rscript >/dev/null && echo "R $(r_version)" || echo "no R: recorded references"))"
