#!/usr/bin/env bash
# Makes .venv and node_modules hold exactly what the lock files say; does nothing, quickly, when they already do.
#   tools/setup.sh run    what the server imports: no Node needed
#   tools/setup.sh test   that, and what the checks and tests need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_DEFAULT_TIMEOUT="${PIP_DEFAULT_TIMEOUT:-60}"

python=.venv/bin/python

checksum() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

is_current() { # LOCK STAMP
  [ -f "$2" ] && [ "$(cat "$2")" = "$(checksum "$1")" ]
}

stamp() { # LOCK STAMP
  checksum "$1" >"$2"
}

make_venv() {
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && return
  base=$(tools/find-python.sh)
  echo "Making .venv with $("$base" --version)"
  "$base" -m venv --clear .venv
}

install_python() { # LOCK STAMP
  is_current "$1" "$2" && return
  echo "Installing Python packages ($1)"
  # The lock names every package and its hashes, so pip has nothing to resolve.
  "$python" -m pip install -qq --no-deps --require-hashes -r "$1"
  stamp "$1" "$2"
}

install_node() {
  if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || ! command -v npm >/dev/null; then
    echo "Node 20 or newer, with npm, is missing: install it (from nodejs.org or your distribution) and run this again; \`make run\` does without." >&2
    exit 1
  fi
  is_current package-lock.json node_modules/.stamp && return
  echo "Installing npm packages (package-lock.json)"
  npm ci --loglevel=error >/dev/null
  stamp package-lock.json node_modules/.stamp
}

make_venv
case "${1:-}" in
  run) install_python requirements.txt .venv/.stamp-run ;;
  test)
    install_python requirements-dev.txt .venv/.stamp-test
    stamp requirements.txt .venv/.stamp-run # the development lock holds the same pins and more
    install_node
    ;;
  *)
    echo "usage: tools/setup.sh run|test" >&2
    exit 2
    ;;
esac
