#!/usr/bin/env bash
# Makes .venv, node_modules and web/dist what the lock files and sources say; does nothing, quickly, when they are.
#   tools/setup.sh run    what the server imports; the chat page too, where there is Node
#   tools/setup.sh test   that, and what the checks and tests need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_DEFAULT_TIMEOUT="${PIP_DEFAULT_TIMEOUT:-60}"

python=.venv/bin/python

checksum() { # [FILE]
  cat "$@" | if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

is_current() { # STAMP CHECKSUM
  [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]
}

make_venv() {
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && return
  base=$(tools/find-python.sh)
  echo "Making .venv with $("$base" --version)"
  "$base" -m venv --clear .venv
}

install_python() { # LOCK STAMP
  sum=$(checksum "$1")
  is_current "$2" "$sum" && return
  echo "Installing Python packages ($1)"
  # The lock names every package and its hashes, so pip has nothing to resolve.
  "$python" -m pip install -qq --no-deps --require-hashes -r "$1"
  echo "$sum" >"$2"
}

has_node() {
  command -v npm >/dev/null &&
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(a * 100 + +b < 2019 ? 1 : 0)' 2>/dev/null
}

install_node() {
  sum=$(checksum package-lock.json)
  is_current node_modules/.stamp "$sum" && return
  echo "Installing npm packages (package-lock.json)"
  npm ci --loglevel=error >/dev/null && echo "$sum" >node_modules/.stamp
}

build_page() {
  [ -f web/index.html ] || return 0
  sum=$(find package-lock.json web -path web/dist -prune -o -type f -print | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cat | checksum)
  is_current web/dist/.stamp "$sum" && return
  echo "Building the chat page (web/dist)"
  node_modules/.bin/vite build web --logLevel error && echo "$sum" >web/dist/.stamp
}

missing_node="Node 20.19 or newer, with npm, is missing: install it (from nodejs.org or your distribution) and run this again"

make_venv
case "${1:-}" in
  run)
    install_python requirements.txt .venv/.stamp-run
    if ! has_node; then
      [ -d web/dist ] || echo "$missing_node for the chat page; the API works without." >&2
    elif ! { install_node && build_page; }; then
      echo "The chat page could not be built, for the reason above; the API works without." >&2
    fi
    ;;
  test)
    install_python requirements-dev.txt .venv/.stamp-test
    checksum requirements.txt >.venv/.stamp-run # the development lock holds the same pins and more
    if ! has_node; then
      echo "$missing_node." >&2
      exit 1
    fi
    install_node
    build_page
    ;;
  *)
    echo "usage: tools/setup.sh run|test" >&2
    exit 2
    ;;
esac
