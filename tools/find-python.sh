#!/usr/bin/env bash
# Prints the path of a Python 3.13 that can make virtual environments: an active one, or one that pyenv or uv only holds.
# A pyenv shim exists for versions that are not active and then fails, so every candidate is run before it is believed.
set -uo pipefail

account_home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)

# The pyenv folders worth looking in: the declared one, that of any shims folder on PATH, and the usual ones.
pyenv_roots() {
  printf '%s\n' "${PYENV_ROOT:-}"
  tr ':' '\n' <<<"$PATH" | sed -n 's#/shims/*$##p'
  printf '%s\n' "${HOME:-}/.pyenv" "$account_home/.pyenv"
}

candidates() {
  printf '%s\n' "${PYTHON:-}" python3.13 python3 python /usr/local/bin/python3.13
  while read -r root; do
    [ -d "$root/versions" ] && printf '%s\n' "$root"/versions/3.13*/bin/python3.13 | sort -rV
  done < <(pyenv_roots)
  printf '%s\n' "${HOME:-}"/.local/share/uv/python/cpython-3.13*/bin/python3.13 /opt/python*/bin/python3.13
}

while read -r candidate; do
  [ -n "$candidate" ] || continue
  if found=$("$candidate" -c 'import ensurepip, sys, venv; assert sys.version_info[:2] == (3, 13); print(sys.executable)' 2>/dev/null </dev/null); then
    printf '%s\n' "$found"
    exit 0
  fi
done < <(candidates)

echo "Python 3.13 is missing: install it (\`pyenv install 3.13\`, or the packages python3.13 and python3.13-venv) and run this again." >&2
exit 1
