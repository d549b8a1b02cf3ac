#!/usr/bin/env bash
# make audit: known holes in what is deployed, bandit, and the rules of tools/semgrep.yml.
# The tools live in an environment of their own: what they need and what the app needs do not go together.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ! -x .venv-audit/bin/semgrep ]]; then
  .venv/bin/python -m venv .venv-audit
  .venv-audit/bin/pip install --quiet --disable-pip-version-check \
    "bandit>=1.9,<2" "pip-audit>=2.9,<3" "semgrep>=1.140,<2"
fi
export PATH="$PWD/.venv-audit/bin:$PATH" SEMGREP_SEND_METRICS=off SEMGREP_ENABLE_VERSION_CHECK=0

failed=0
check() { # name, command…
  local name=$1
  shift
  if "$@"; then echo "$name: nothing found"; else echo "$name: FAILED, see above" >&2 && failed=1; fi
}
known_holes() {
  local report source
  report=$(mktemp)
  for source in pypi osv; do
    if pip-audit --strict --disable-pip --require-hashes --progress-spinner off --vulnerability-service "$source" \
      -r requirements.txt >"$report" 2>&1; then
      cat "$report" && rm "$report"
      return 0
    fi
    if ! grep -qiE "could not be audited|connection|timed? ?out|HTTP(S|Error)" "$report"; then
      break # it was reached, and knows of a hole
    fi
    echo "pip-audit cannot ask $source here: $(tail -n 1 "$report")" >&2
    : >"$report"
  done
  [[ -s $report ]] || echo "NOT AUDITED: no source of known holes can be reached, so nothing is known of them." >&2
  cat "$report" >&2 && rm "$report"
  return 1
}

check bandit bandit --quiet --severity-level medium --configfile pyproject.toml -r function_app.py functions shared
check semgrep semgrep scan --quiet --error --disable-version-check --metrics off --config tools/semgrep.yml functions shared
check pip-audit known_holes
exit "$failed"
