#!/usr/bin/env python3
"""Reference continuations: greedy, float32 arithmetic on the bf16 weights, eager attention.

    python make_samples.py --model ../model --heldout ../model/heldout.txt --out ../model/samples.json
"""

import argparse
import json
import math
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

from evaluate import load

STOP, MOST, MARGIN = (2080, 2081, 2087), 120, 0.02
U = lambda q: [{"role": "user", "content": q}]  # noqa: E731


def c(*xs, system=None):
    m = [{"role": "system", "content": system}] if system else []
    return m + [{"role": "user" if i % 2 == 0 else "assistant", "content": x} for i, x in enumerate(xs)]


CANDIDATES = [
    ("short", [U("Who are you?"), U("Hello!"), U("What can you do?"), U("Goodbye!")], 2),
    ("fact", [U("What is Phi-3?"), U("What is the capital of France?"), U("What is LongRoPE?"), U("Why is the sky blue?"), U("Which planet is the largest?"), U("What is WebGPU?"), U("What is ownership in Rust?"), U("What is the opposite of brave?"), U("What is the plural of mouse?")], 7),
    ("sum", [U("What is 47 + 38?"), U("What is 82 - 27?"), U("What is 7 x 8?"), U("Which is larger, 34 or 71?"), U("Count from 3 to 9."), U("Solve 2x + 3 = 7."), U("Tom has 12 apples and gives away 5. How many apples does Tom have now?")], 6),
    ("instruction", [U("Write a haiku about the moon."), U("List three animals."), U("Reverse the word fox."), U("Write moon in uppercase."), U("Sort these numbers: 42, 7, 19"), U("Write a poem about the sea."), U("Tell me a joke."), U("How do you say hello in Spanish?"), U("Repeat the word star four times.")], 6),
    ("chat", [c("My name is Alice.", "Hello Alice, nice to meet you!", "What is 5 + 6?", "5 + 6 = 11.", "What is my name?"), c("What is 20 + 15?", "20 + 15 = 35.", "Now add 4."), c("My favourite colour is green.", "Green is a good choice.", "What is my favourite colour?"),
              c("What is your name?", system="You are Luna, a robot."), c("What is the capital of Japan?", system="You are a helpful assistant.")], 4),
    ("story", [U(f"Tell me a story about {x}.") for x in ("a brave fox and a lost key", "a shy owl and a golden bell", "a clever mouse and a broken clock", "a dragon", "a little robot and a magic lamp", "a kind bear in the forest", "a curious cat and a red balloon", "a proud lion",
               "a tiny snail and a big drum", "a lonely whale and a silver shell", "a princess and a blue kite", "a sleepy turtle by the lake", "a happy frog and an old map", "a gentle giant and a flower", "a clumsy wizard and a broken broom", "a shy robot", "a pirate and a map", "a hungry wolf and a pie", "a farmer and a goose", "a queen and a mirror", "a quiet rabbit and a magic box")]
     + [U("Write a short story about a penguin named Otto."), U("Tell me a bedtime story.")], 4),
    ("plain", ["Once upon a time", "There was once a", "In a green forest there lived", "Long ago, a wise old owl"], 1),
]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", type=Path, default=Path("../model"))
    ap.add_argument("--heldout", type=Path, default=Path("../model/heldout.txt"))
    ap.add_argument("--out", type=Path, default=Path("../model/samples.json"))
    args = ap.parse_args()
    tok = load(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="eager").eval()
    encode = lambda t: tok.encode(t, add_special_tokens=False)  # noqa: E731
    samples, spare = [], []
    with torch.no_grad():
        for kind, prompts, want in CANDIDATES:
            passed = []
            for p in prompts:
                text = p if isinstance(p, str) else tok.apply_chat_template(p, tokenize=False, add_generation_prompt=True)
                ids = encode(text)
                seq, margins = list(ids), []
                cache, x = None, torch.tensor([ids])
                while len(seq) - len(ids) < MOST:
                    r = model(input_ids=x, past_key_values=cache, use_cache=True)
                    cache, logits = r.past_key_values, r.logits[0, -1]
                    top = torch.topk(logits, 2)
                    seq.append(int(top.indices[0]))
                    margins.append(float(top.values[0] - top.values[1]))
                    if seq[-1] in STOP:
                        break
                    x = torch.tensor([[seq[-1]]])
                whole = model(input_ids=torch.tensor([seq[:-1]]), use_cache=False).logits[0, len(ids) - 1 :]
                assert whole.argmax(-1).tolist() == seq[len(ids) :], "with and without cache differ"
                new = seq[len(ids) :]
                out = {"kind": kind, "messages": None if isinstance(p, str) else p, "text": text, "input_ids": ids, "output_ids": new,
                       "output_text": tok.decode([t for t in new if t not in STOP], skip_special_tokens=False), "stopped": new[-1] in STOP, "least_margin": round(min(margins), 5)}
                if min(margins) >= MARGIN:
                    passed.append(out)
            if kind in ("story", "plain"):  # long texts: the clearest ones
                passed.sort(key=lambda s: -s["least_margin"])
            samples += passed[:want]
            spare += passed[want:]
        samples = (samples + spare)[:30]
        text = args.heldout.read_text(encoding="utf-8")
        ids = encode(text)
        window, stride = 512, 256
        nll, counted, prev = 0.0, 0, 0
        for begin in range(0, len(ids), stride):
            end = min(begin + window, len(ids))
            lp = torch.log_softmax(model(input_ids=torch.tensor([ids[begin:end]]), use_cache=False).logits[0].double(), -1)
            for pos in range(max(prev, begin + 1), end):
                nll -= float(lp[pos - 1 - begin, ids[pos]])
                counted += 1
            prev = end
            if end == len(ids):
                break
        lp = torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].double(), -1)
        full = -lp[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum().item()
    result = {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, float32, eager attention",
        "rules": {"decoding": "greedy", "max_new_tokens": MOST, "stop_ids": list(STOP), "least_margin": MARGIN, "output_ids": "with the stop token, if one came", "output_text": "without the stop token"},
        "samples": samples,
        "perplexity": {
            "file": "heldout.txt", "characters": len(text), "tokens": len(ids), "first_ids": ids[:16], "last_ids": ids[-16:],
            "encoding": "the whole file, UTF-8, no BOS, no special tokens added",
            "sliding": {"window": window, "stride": stride, "tokens_counted": counted, "nll": round(nll, 6), "perplexity": round(math.exp(nll / counted), 6),
                        "definition": "windows start at 0, 256, 512, ... and hold up to 512 tokens, each run from an empty cache with positions from 0; a window counts its tokens that no earlier window held (the first window: all but its first token); the last window is the first that reaches the end"},
            "whole": {"window": len(ids), "tokens_counted": len(ids) - 1, "nll": round(full, 6), "perplexity": round(math.exp(full / (len(ids) - 1)), 6), "definition": "one run over all tokens; all but the first are counted"},
        },
    }
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(len(samples), "samples, least margin", min(s["least_margin"] for s in samples), "perplexity", result["perplexity"]["sliding"]["perplexity"], result["perplexity"]["whole"]["perplexity"])
    for s in samples:
        print(s["kind"], s["least_margin"], repr(s["text"][-60:]), "->", repr(s["output_text"]))


if __name__ == "__main__":
    main()
