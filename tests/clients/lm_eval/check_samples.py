"""Compares the log-likelihoods that lm-evaluation-harness logged in a folder with sums over the prompt's tokens of the server.

Called by lm_eval.sh, with the server's address in SERVER_URL.
"""

import json
import math
import os
import pathlib
import sys
import urllib.request


def ask(path, body):
    request = urllib.request.Request(os.environ["SERVER_URL"] + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def likelihood(context, ending):
    """The log-likelihood of an ending, and whether each of its tokens is the likeliest."""
    ids = [ask("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"] for text in (context, context + ending)]
    scores = ask("/v1/completions", {"prompt": ids[1], "echo": True, "logprobs": 1, "max_tokens": 0})["choices"][0]["logprobs"]
    first = len(ids[0])
    values, tops = scores["token_logprobs"][first:], scores["top_logprobs"][first:]
    return sum(values), all(value == max(top.values()) for value, top in zip(values, tops))


def main():
    files = list(pathlib.Path(sys.argv[1]).rglob("samples_*.jsonl"))
    assert len(files) == 1, files
    compared, faults = 0, []
    for line in files[0].read_text().splitlines():
        sample = json.loads(line)
        doc = sample["doc"]
        for ending, responses in zip(doc["endings"], sample["resps"]):
            value, greedy = responses[0]
            expected, is_greedy = likelihood(doc["beginning"], " " + ending)
            compared += 1
            if not math.isclose(float(value), expected, abs_tol=1e-3) or str(greedy) != str(is_greedy):
                faults.append(f"{doc['beginning']} {ending}: {value} {greedy}, expected {expected} {is_greedy}")
    print("\n".join(faults))
    print(f"{compared - len(faults)} passed, {len(faults)} failed")
    raise SystemExit(bool(faults))


main()
