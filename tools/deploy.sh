#!/usr/bin/env bash
# Puts a built package on each app: tools/deploy.sh PACKAGE.zip GROUP/APP…
# The package is complete, so nothing is built in the cloud. Updates roll: instances go on with what they run.
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: tools/deploy.sh PACKAGE.zip GROUP/APP..." >&2
  exit 2
fi
package=$1
shift
for app in "$@"; do
  echo "Deploying $package to $app"
  az functionapp deployment source config-zip --resource-group "${app%%/*}" --name "${app##*/}" \
    --src "$package" --build-remote false --output none
done
