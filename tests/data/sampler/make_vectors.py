#!/usr/bin/env python3
"""Distributions of transformers' logits processors and llama.cpp's samplers, and llama.cpp's penalties of DRY: vectors.json.

    python make_vectors.py --vocabulary ../oracle/gguf/models/phi3-window/Q4_0.gguf --out vectors.json

Needs `torch`, `transformers` and `llama-cpp-python`. Only llama.cpp's samplers and the vocabulary of the GGUF file are used.
Options have the names of SamplerOptions, samplers those of llama.cpp.
"""

import argparse
import ctypes
import json
import random

import llama_cpp as llama
import torch
from transformers.generation import logits_process as lp

DEFAULT_ORDER = "penalties;dry;temperature;top_n_sigma;top_k;top_p;min_p;typ_p;xtc"
LLAMA_ORDER = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"

TRANSFORMERS = [
    {"typical_p": 0.2}, {"typical_p": 0.5}, {"typical_p": 0.9}, {"typical_p": 0.99},
    {"temperature": 0.7, "typical_p": 0.6}, {"temperature": 1.5, "top_k": 20, "typical_p": 0.8},
    {"temperature": 0.9, "top_k": 30, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.7},
    {"repetition_penalty": 1.3, "temperature": 0.8, "top_p": 0.95, "min_p": 0.02},
    {"repetition_penalty": 0.8, "top_k": 7},
]

LLAMA = [
    {"presence_penalty": 0.7}, {"frequency_penalty": 0.3}, {"presence_penalty": -1.5, "frequency_penalty": 0.25},
    {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.1},
    {"logit_bias": [[3, 2.5], [5, -4], [7, "-inf"]]}, {"logit_bias": [[0, "-inf"], [1, "-inf"], [60, 10]]},
    {"typical_p": 0.4}, {"typical_p": 0.95},
    {"top_n_sigma": 0.5}, {"top_n_sigma": 1}, {"top_n_sigma": 2}, {"temperature": 0.3, "top_n_sigma": 1.5},
    {"xtc_probability": 1, "xtc_threshold": 0.02}, {"xtc_probability": 1, "xtc_threshold": 0.1},
    {"xtc_probability": 1, "xtc_threshold": 0.5}, {"xtc_probability": 1, "xtc_threshold": 0.6},
    {"dynatemp_range": 0.5}, {"temperature": 0.8, "dynatemp_range": 1.5, "dynatemp_exponent": 2},
    {"temperature": 1.2, "dynatemp_range": 0.3, "dynatemp_exponent": 0.5},
    {"temperature": 0.7, "top_k": 40, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.03},
    {"temperature": 2, "min_p": 0.1, "samplers": "min_p;temperature"},
    {"temperature": 2, "min_p": 0.1, "samplers": "temperature;min_p"},
    {"temperature": 2, "min_p": 0.1, "samplers": "min_p"},
    {"temperature": 1.5, "top_n_sigma": 1.2, "samplers": "temperature;top_n_sigma;dry"},
    {"temperature": 0.6, "top_p": 0.8, "repetition_penalty": 1.5, "presence_penalty": 0.5,
     "samplers": "top_p;penalties;temperature"},
    {"temperature": 1.3, "repetition_penalty": 1.1, "frequency_penalty": 0.2, "top_n_sigma": 2.5, "top_k": 40, "typical_p": 0.97,
     "top_p": 0.95, "min_p": 0.02, "xtc_probability": 1, "xtc_threshold": 0.15, "dynatemp_range": 0.4,
     "logit_bias": [[2, 1.5], [9, "-inf"]], "samplers": LLAMA_ORDER},
    {"temperature": 0.9, "top_k": 12, "xtc_probability": 1, "xtc_threshold": 0.08, "top_p": 0.9, "samplers": "xtc;top_k;top_p;temperature"},
]

DRY = [
    {}, {"base": 1.1, "allowed_length": 1}, {"multiplier": 0.33, "base": 3}, {"allowed_length": 4}, {"penalty_last_n": 12},
    {"sequence_breakers": []}, {"sequence_breakers": ["at", "e c"]}, {"sequence_breakers": ["the cat", "."], "allowed_length": 0},
    {"multiplier": 1.25, "base": 30, "allowed_length": 1, "sequence_breakers": []},
]

TEXTS = [
    "the cat and the cat and the cat", "a: the end of the day\nb: the end of the night\nc: the end of the",
    "one two three. one two three. one two", "\"yes\" and \"no\" and \"yes\" and \"no", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "that cat sat at the mat: that cat sat at", "nothing is said again",
]


def f32(numbers):
    return torch.tensor(numbers, dtype=torch.float32).tolist()


def distribution(ids, logits):
    rows = sorted((i, x) for i, x in zip(ids, logits) if x > float("-inf"))
    p = torch.tensor([x for _, x in rows], dtype=torch.float64).softmax(0).tolist()
    return {"ids": [i for i, _ in rows], "probabilities": [float(f"{x:.8g}") for x in p]}


def with_transformers(o, logits, past):
    ids, scores = torch.tensor([past]), torch.tensor([logits])
    chain = [
        ("repetition_penalty", lp.RepetitionPenaltyLogitsProcessor), ("temperature", lp.TemperatureLogitsWarper),
        ("top_k", lp.TopKLogitsWarper), ("top_p", lp.TopPLogitsWarper), ("min_p", lp.MinPLogitsWarper),
        ("typical_p", lp.TypicalLogitsWarper),
    ]
    for name, processor in chain:
        if name in o:
            scores = processor(o[name])(ids, scores)
    return distribution(range(len(logits)), scores[0].tolist())


def samplers(o, vocabulary):
    """llama.cpp's samplers of the options, in their order; with mirostat, penalties and temperature come before it."""
    get = lambda name, other: o.get(name, other)
    make = {
        "penalties": lambda: llama.llama_sampler_init_penalties(
            vocabulary, 1 << 20, get("repetition_penalty", 1), get("frequency_penalty", 0), get("presence_penalty", 0)),
        "top_n_sigma": lambda: llama.llama_sampler_init_top_n_sigma(get("top_n_sigma", 0)),
        "top_k": lambda: llama.llama_sampler_init_top_k(get("top_k", 0)),
        "typ_p": lambda: llama.llama_sampler_init_typical(get("typical_p", 1), 0),
        "top_p": lambda: llama.llama_sampler_init_top_p(get("top_p", 1), 0),
        "min_p": lambda: llama.llama_sampler_init_min_p(get("min_p", 0), 0),
        "xtc": lambda: llama.llama_sampler_init_xtc(get("xtc_probability", 0), get("xtc_threshold", 0.1), 0, 1),
        "temperature": lambda: llama.llama_sampler_init_temp_ext(
            get("temperature", 1), get("dynatemp_range", 0), get("dynatemp_exponent", 1)),
    }
    biases = [(token, float(bias)) for token, bias in get("logit_bias", [])]
    if biases:
        array = (llama.llama_logit_bias * len(biases))(*[llama.llama_logit_bias(*bias) for bias in biases])
        yield llama.llama_sampler_init_logit_bias(vocabulary, len(biases), array)
    for name in get("samplers", DEFAULT_ORDER).split(";"):
        if name in make and not ("mirostat" in o and name not in ("penalties", "temperature")):
            yield make[name]()
    if "mirostat" in o:
        yield llama.llama_sampler_init_mirostat_v2(1, o["mirostat"]["tau"], o["mirostat"]["eta"])


def apply(chain, logits):
    """Tokens and logits after a chain. Tokens of minus infinity are removed after each sampler: llama.cpp's typical-p computes NaN
    as entropy if there are any, as after top-n-sigma."""
    rows = (llama.llama_token_data * len(logits))(*[llama.llama_token_data(i, x, 0.0) for i, x in enumerate(logits)])
    array = llama.llama_token_data_array(rows, len(logits), -1, False)
    for sampler in chain:
        llama.llama_sampler_apply(sampler, ctypes.byref(array))
        kept = [(array.data[i].id, array.data[i].logit) for i in range(array.size) if array.data[i].logit > float("-inf")]
        for i, (token, logit) in enumerate(kept):
            array.data[i].id, array.data[i].logit = token, logit
        array.size = len(kept)
    return [array.data[i].id for i in range(array.size)], [array.data[i].logit for i in range(array.size)]


def with_llama(o, logits, past):
    chain = list(samplers(o, len(logits)))
    for sampler in chain:
        for token in past:
            llama.llama_sampler_accept(sampler, token)
    return distribution(*apply(chain, logits))


def mirostat(o, logits):
    """Steps with the same logits, until more than one token can be chosen: up to there the choice is certain."""
    chain, steps = list(samplers(o, len(logits))), []
    while not steps or (len(steps[-1]["ids"]) == 1 and len(steps) < 100):
        steps.append(distribution(*apply(chain, logits)))
    return steps


def dry(vocab, o, past):
    options = {"multiplier": 0.8, "base": 1.75, "allowed_length": 2, "penalty_last_n": -1,
               "sequence_breakers": ["\n", ":", "\"", "*"], **o}
    breakers = [text.encode() for text in options["sequence_breakers"]]
    last = len(past) if options["penalty_last_n"] == -1 else options["penalty_last_n"]
    sampler = llama.llama_sampler_init_dry(
        vocab, options["multiplier"], options["base"], options["allowed_length"], last,
        (ctypes.c_char_p * max(len(breakers), 1))(*breakers), len(breakers))
    for token in past:
        llama.llama_sampler_accept(sampler, token)
    ids, logits = apply([sampler], [0.0] * llama.llama_vocab_n_tokens(vocab))
    return {"options": options, "past": past, "penalties": [[i, -x] for i, x in zip(ids, logits) if x != 0]}


def tokenize(vocab, text):
    data = text.encode()
    ids = (llama.llama_token * 512)()
    return list(ids[: llama.llama_tokenize(vocab, data, len(data), ids, 512, False, False)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    rng = random.Random(5)
    logits = [f32([rng.gauss(0, spread) for _ in range(64)]) for spread in (1, 2.5, 6)]
    past = [rng.randrange(64) for _ in range(40)]
    cases = []
    for reference, options, run in (("transformers", TRANSFORMERS, with_transformers), ("llama.cpp", LLAMA, with_llama)):
        for o in options:
            for i, row in enumerate(logits):
                if "dynatemp_range" in o or "samplers" in o or i < 2:
                    cases.append({"reference": reference, "options": o, "logits": i, **run(o, row, past)})
    steps = [{"options": o, "logits": i, "steps": mirostat(o, logits[i])}
             for o, i in (({"mirostat": {"tau": 0.25, "eta": 0.5}}, 1), ({"mirostat": {"tau": 3, "eta": 0.1}}, 0),
                          ({"mirostat": {"tau": 0.5, "eta": 0.3}, "temperature": 0.7, "top_k": 1}, 2))]
    parameters = llama.llama_model_default_params()
    parameters.vocab_only = True
    model = llama.llama_model_load_from_file(args.vocabulary.encode(), parameters)
    vocab = llama.llama_model_get_vocab(model)
    texts = [tokenize(vocab, text) for text in TEXTS]
    texts += [[rng.randrange(100, 100 + size) for _ in range(80)] for size in (2, 3, 5)]
    penalties = [dry(vocab, o, text) for o in DRY for text in texts]
    vectors = {"logits": logits, "past": past, "cases": cases, "mirostat": steps, "dry": penalties}
    with open(args.out, "w") as file:
        file.write(json.dumps(vectors, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
