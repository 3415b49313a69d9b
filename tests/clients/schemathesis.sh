#!/usr/bin/env bash
# Sends requests that schemathesis makes from the server's own description, and checks the answers against it.
#
#     pip install schemathesis==4.32.5       (0.2 GB)
#     tests/clients/schemathesis.sh target/debug/phi3-run [OPTION of schemathesis…]
#
# EXAMPLES=N is the number of requests of each kind; PYTHON=PROGRAM the Python that has schemathesis.
set -euo pipefail
program=$(realpath "$1")
shift
here=$(realpath "$(dirname "$0")")
python=$(command -v "${PYTHON:-python3}")
export PYTHONDONTWRITEBYTECODE=1
# a folder of its own for what schemathesis leaves behind
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$python" "$here/server.py" "$program" --request-timeout 20 -- sh -euc '
  python=$1 examples=$2; shift 2
  exec "$python" -m schemathesis.cli run "$SERVER_URL/openapi.json" --max-examples "$examples" --seed 1 --generation-deterministic \
    --request-timeout 60 --continue-on-failure "$@"
' sh "$python" "${EXAMPLES:-50}" "$@"
