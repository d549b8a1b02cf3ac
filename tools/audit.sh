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
bandit --quiet --severity-level medium --configfile pyproject.toml -r function_app.py functions shared || failed=1
semgrep scan --quiet --error --disable-version-check --metrics off --config tools/semgrep.yml functions shared || failed=1
pip-audit --strict --disable-pip --require-hashes -r requirements.txt || failed=1
exit "$failed"
