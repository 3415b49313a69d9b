#!/usr/bin/env bash
# Scores a served model with lm-evaluation-harness, and checks its log-likelihoods against the server's own.
#
#     pip install 'lm_eval[api]==0.4.13'       (0.8 GB)
#     tests/clients/lm_eval.sh target/release/phi3-run [OPTION of `phi3-run serve`…]
#
# TOKENIZER=FOLDER takes the tokenizer of a folder in place of the server's, and needs transformers; PYTHON=PROGRAM is the Python that has
# lm_eval.
set -euo pipefail
program=$(realpath "$1")
shift
here=$(realpath "$(dirname "$0")")
python=$(command -v "${PYTHON:-python3}")
if [ -n "${TOKENIZER:-}" ]; then
  tokenizer="tokenizer_backend=huggingface,tokenizer=$(realpath "$TOKENIZER")"
else
  tokenizer=tokenizer_backend=remote
fi
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
cd "$here/lm_eval"
"$python" ../server.py "$program" --served-model-name served "$@" -- sh -euc '
  "$0" -m lm_eval --model local-completions --tasks beginnings.yaml --batch_size 4 --log_samples --output_path "$1" \
    --model_args "model=served,base_url=$SERVER_URL/v1/completions,num_concurrent=4,$2"
  "$0" check_samples.py "$1"
' "$python" "$results" "$tokenizer"
