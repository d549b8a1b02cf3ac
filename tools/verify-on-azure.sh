#!/usr/bin/env bash
# What could not be checked without a subscription: docs/verify-on-azure.md says why each line matters.
# After `azd up`, in the same folder:  tools/verify-on-azure.sh     (about a quarter of an hour; costs some cents)
# Prints ok or NO for each; exits 1 if anything is NO.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
ok() { printf 'ok   %2s %s\n' "$1" "$2"; }
no() { printf 'NO   %2s %s\n' "$1" "$2"; failed=1; }
check() { # NUMBER SENTENCE COMMAND…
  local number=$1 sentence=$2
  shift 2
  if "$@" >/tmp/companion-verify.log 2>&1; then ok "$number" "$sentence"; else no "$number" "$sentence"; tail -5 /tmp/companion-verify.log; fi
}

value() { azd env get-value "$1"; }
group=$(value AZURE_RESOURCE_GROUP) app=$(value FUNCTION_APP) location=$(value AZURE_LOCATION)
export OPENAI_BASE_URL; OPENAI_BASE_URL=$(value BASE_URL)
root=${OPENAI_BASE_URL%/v1}
keys=$(az functionapp config appsettings list -g "$group" -n "$app" --query "[?name=='COMPANION_API_KEYS'].value | [0]" -o tsv)
export OPENAI_API_KEY=${keys%%=*}
auth="Authorization: Bearer $OPENAI_API_KEY"
workspace=$(az monitor log-analytics workspace list -g "$group" --query '[0].customerId' -o tsv)
logs() { az monitor log-analytics query -w "$workspace" --analytics-query "$1" -o tsv; }
rows() { [ -n "$(logs "$1")" ]; }

compiles() {
  az bicep lint --file infra/main.bicep && az bicep build --file infra/main.bicep --stdout >/dev/null &&
    COMPANION_OWNER_KEY=xxxxxxxxxxxxxxxxxxxxxxxx COMPANION_ALERT_EMAIL=a@example.com \
      az bicep build-params --file infra/prod.bicepparam --stdout >/dev/null
}
nothing_to_change() { # a second deployment changes nothing
  COMPANION_OWNER_KEY=$OPENAI_API_KEY AZURE_ENV_NAME=$(value AZURE_ENV_NAME) AZURE_LOCATION=$location \
    az deployment sub what-if --location "$location" --parameters infra/dev.bicepparam --no-pretty-print -o json |
    jq -e '[.changes[] | select(.changeType == "Delete" or .changeType == "Create")] | length == 0'
}
runtime_offered() {
  az functionapp list-flexconsumption-runtimes --location "$location" --runtime python --query "[].version" -o tsv | grep -qx 3.13
}
bytecode_kept() { # what azd uploaded still has its __pycache__
  local storage
  storage=$(az functionapp deployment config show -g "$group" -n "$app" --query storage.value -o tsv)
  az storage blob download --auth-mode login --blob-url "$storage/released-package.zip" --file /tmp/companion-released.zip &&
    unzip -l /tmp/companion-released.zip | grep -q 'shared/__pycache__/settings.cpython-313.pyc'
}
keyless() { # the stores refuse keys
  [ "$(az cosmosdb list -g "$group" --query '[0].disableLocalAuth')" = true ] &&
    [ "$(az storage account list -g "$group" --query 'length([?allowSharedKeyAccess])')" = 0 ]
}
invocation_header_is_ours() { # a caller's invocation id must not win
  local status
  status=$(curl -s -o /dev/null -w '%{http_code}' -m 20 -H "$auth" -H 'x-ms-invocation-id: 00000000-0000-0000-0000-000000000000' "$root/v1/models")
  [ "$status" = 200 ] || [ "$status" = 400 ]
}
flows() { # a stream arrives in pieces: the first long before the last
  curl -sN -m 120 -H "$auth" -H 'content-type: application/json' "$root/v1/responses" \
    -d '{"model":"companion","stream":true,"input":"Count slowly to two hundred, in words."}' |
    .venv/bin/python -c 'import sys,time; t=[time.monotonic() for line in sys.stdin if line.startswith("data:")]; sys.exit(not t or t[-1]-t[0] < 1)'
}
root_is_ours() { ! curl -s -m 20 "$root/" | grep -q 'Your Functions'; }
background() { # the queue, by identity, and back
  local id status=queued
  id=$(curl -s -H "$auth" -H 'content-type: application/json' "$root/v1/responses" \
    -d '{"model":"companion","background":true,"input":"Say yes."}' | jq -r .id)
  for _ in $(seq 60); do
    status=$(curl -s -H "$auth" "$root/v1/responses/$id" | jq -r .status)
    [ "$status" = completed ] && return 0
    sleep 2
  done
  echo "still $status"; return 1
}
survives_an_update() { # a stream that is open while instances are replaced ends, or is resumed, whole
  local id
  id=$(curl -s -H "$auth" -H 'content-type: application/json' "$root/v1/responses" \
    -d '{"model":"companion","background":true,"stream":false,"input":"Write two thousand words on tides."}' | jq -r .id)
  azd deploy --no-prompt >/dev/null && curl -sN -m 600 -H "$auth" "$root/v1/responses/$id?stream=true" | grep -q 'response.completed'
}
concurrency_is_set() {
  [ "$(az functionapp scale config show -g "$group" -n "$app" --query triggers.http.perInstanceConcurrency -o tsv)" -ge 16 ]
}

check 1 'the real compiler and linter accept the templates' compiles
check 2 'what is deployed is what the templates say' nothing_to_change
check 3 'the region offers Python 3.13 on this plan' runtime_offered
check 4 'azd left the compiled bytecode in the package' bytecode_kept
check 5 'the stock SDK holds a conversation' .venv/bin/python -m tools.smoke --wait 600
check 6 'stores refuse keys, and the app works without' keyless
check 7 'HTTP concurrency per instance is set' concurrency_is_set
check 8 'the root is not the page of the Functions host' root_is_ours
check 9 'an invocation id from outside is overwritten or refused' invocation_header_is_ours
check 10 'a stream is not held back on its way' flows
check 11 'background work goes through the queue' background
check 12 'a running turn survives an update' survives_an_update
echo 'waiting five minutes for logs' && sleep 300
check 13 'turns are logged with their fields' rows 'AppTraces | where Message == "turn.ended" and isnotnull(todouble(Properties.first_token_ms)) | take 1'
check 14 'the host says how long messages waited' rows 'AppTraces | where Message startswith "Trigger Details:" and Message has "InsertedOn" | take 1'
check 15 'requests are logged with their status' rows 'AppRequests | where isnotempty(ResultCode) | take 1'
exit $failed
