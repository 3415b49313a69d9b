#!/usr/bin/env bash
# Sends requests that schemathesis makes from the server's own description, and checks the answers against it.
#
#     pip install schemathesis==4.32.5       (0.2 GB)
#     tests/clients/schemathesis.sh target/debug/phi3-run [OPTION of schemathesis…]
#
# EXAMPLES=N is the number of requests of each kind; PYTHON=PROGRAM the Python that has schemathesis; SCHEMA=FILE a description in place
# of the server's. That valid data are accepted is not checked: no description tells which texts, ids and grammars a model takes.
set -euo pipefail
program=$(realpath "$1")
shift
here=$(realpath "$(dirname "$0")")
python=$(command -v "${PYTHON:-python3}")
schema=${SCHEMA:+$(realpath "$SCHEMA")}
export PYTHONDONTWRITEBYTECODE=1
# a folder of its own for what schemathesis leaves behind
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$python" "$here/server.py" "$program" --request-timeout 20 -- sh -euc '
  python=$1 examples=$2 schema=${3:-$SERVER_URL/openapi.json}; shift 3
  exec "$python" -m schemathesis.cli run "$schema" --url "$SERVER_URL" --max-examples "$examples" --generation-deterministic \
    --exclude-checks positive_data_acceptance --output-sanitize false --request-timeout 60 --continue-on-failure "$@"
' sh "$python" "${EXAMPLES:-50}" "$schema" "$@"
