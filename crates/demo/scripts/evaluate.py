#!/usr/bin/env python3
"""Greedy answers to the test questions of make_corpus.py, compared character by character.

    python evaluate.py --model ../model --eval corpus/eval.jsonl --train corpus/train.jsonl [--limit 100] [--wrong] [--out ../model/accuracy.json]

With --train, new questions are counted too: a sum or difference whose pair of numbers (for sums, in either order) does not occur
in the training set, or another question that does not occur in it.

Stories are checked for their end (`<|end|>` within 320 tokens), for the words of the request, for two different names, and for loops.
"""

import argparse
import collections
import json
import re
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import stories


def load(path):
    c = json.loads((path / "tokenizer_config.json").read_text())
    tok = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), eos_token=c["eos_token"], pad_token=c["pad_token"],
                                  unk_token=c["unk_token"], bos_token=c["bos_token"], padding_side="left", chat_template=c["chat_template"])
    return tok


def seen_in(path):
    """Returns a function that tells whether a test question is in the training set."""
    questions, pairs = set(), set()
    plain = lambda q: q.lower().rstrip(".?! ")  # noqa: E731
    for line in open(path, encoding="utf-8"):
        for m in json.loads(line).get("messages", ()):
            if m["role"] == "user":
                questions.add(plain(m["content"]))
            pairs.update(re.findall(r"\b(\d+) ([+-]) (\d+) = ", m["content"]))

    def seen(d):
        if d["kind"] in ("add", "subtract"):
            a, o, b = re.match(r"(\d+) ([+-]) (\d+)", d["expect"]).groups()
            return (a, o, b) in pairs or o == "+" and (b, o, a) in pairs
        return plain(d["messages"][-1]["content"]) in questions

    return seen


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=Path, default=Path("../model"))
    ap.add_argument("--eval", type=Path, required=True)
    ap.add_argument("--train", type=Path)
    ap.add_argument("--limit", type=int, default=10**9, help="questions of each kind")
    ap.add_argument("--wrong", action="store_true")
    ap.add_argument("--stories", type=int, default=4, help="print this many stories")
    ap.add_argument("--out", type=Path)
    args = ap.parse_args()
    tok = load(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    items, n = [], collections.Counter()
    for line in open(args.eval, encoding="utf-8"):
        d = json.loads(line)
        n[d["kind"]] += 1
        if n[d["kind"]] <= args.limit:
            d["prompt"] = tok.apply_chat_template(d["messages"], tokenize=False, add_generation_prompt=True)
            d["len"] = len(tok.encode(d["prompt"], add_special_tokens=False))
            items.append(d)
    items.sort(key=lambda d: (d["kind"] == "story", d["len"]))
    seen = seen_in(args.train) if args.train else None
    good, total, ended, new, new_good = (collections.Counter() for _ in range(5))
    shown = 0  # stories printed
    i = 0
    while i < len(items):
        b = items[i : i + 64]
        b = [d for d in b if (d["kind"] == "story") == (b[0]["kind"] == "story")]
        i += len(b)
        x = tok([d["prompt"] for d in b], return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False)
        story = b[0]["kind"] == "story"
        with torch.no_grad():
            y = model.generate(**x, do_sample=False, max_new_tokens=320 if story else 72)
        for d, ids in zip(b, y[:, x["input_ids"].shape[1] :].tolist()):
            end = next((k for k, t in enumerate(ids) if t in (2080, 2081, 2087)), None)
            text = tok.decode(ids[:end], skip_special_tokens=False)
            total[d["kind"]] += 1
            ended[d["kind"]] += end is not None and ids[end] == 2087
            if story:
                q = d["messages"][-1]["content"]
                about = (re.split(r" about | with ", q, maxsplit=1) + [""])[1]
                want = {w for w in re.findall(r"\b(?:a|an|named|called) ((?:[\w-]+ ?)+?)(?= and | in | on | by | named | called |[.?]|$)", about) for w in w.split()} - {"lost", "named", "called"}
                sentences = re.findall(r"[^.!?]+[.!?]", text)
                names = {w for w in re.findall(r"[A-Z][a-z]+", text) if w in stories.GIRLS + stories.BOYS}
                ok = all(w in text for w in want) and len(names) == 2 and len(sentences) - len(set(sentences)) < 2 and end is not None
                if shown < args.stories:
                    shown += 1
                    print("Q:", q, "\nA:", text, "\n   ", "ok" if ok else "missing or looping", "\n")
            else:
                ok = text.strip() == d["expect"]
            good[d["kind"]] += ok
            if seen and not seen(d):
                new[d["kind"]] += 1
                new_good[d["kind"]] += ok
            if args.wrong and not ok:
                print(f"{d['kind']}: {d['messages'][-1]['content']!r}\n    got {text!r}\n   want {d['expect']!r}" if not story else f"story: {d['messages'][-1]['content']!r}\n    got {text!r}")
    result = {k: {"questions": total[k], "exact": good[k], "percent": round(100 * good[k] / total[k], 1), "ended": ended[k]} for k in sorted(total)}
    if seen:
        for k, r in result.items():
            r["new"], r["new_exact"] = new[k], new_good[k]
    for k, r in result.items():
        print(f"{k:20} {r['exact']:5} of {r['questions']:5} {r['percent']:6.1f} %   ended by itself {r['ended']}" + (f"   new {r['new_exact']} of {r['new']}" if seen else ""))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
