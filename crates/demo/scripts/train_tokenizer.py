#!/usr/bin/env python3
"""Trains the tokenizer: a byte-fallback BPE in the format of Phi-3's tokenizer.json.

    python train_tokenizer.py --corpus corpus/train.jsonl --out ../model

Pieces never cross a space, digits stay single. The merge list holds every split of a piece into two pieces, in the order
of the pieces, as in files converted from SentencePiece; the score of a piece is minus its rank.
"""

import argparse
import collections
import json
import re
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

BASE = 2080  # pieces; the added tokens follow
ADDED = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
         "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PIECE = re.compile(r"▁?[A-Za-z]+|[0-9]|▁?[^\sA-Za-z0-9▁]+|▁")


def texts(path):
    for line in open(path, encoding="utf-8"):
        d = json.loads(line)
        if d["kind"] == "extra":
            continue
        if "text" in d:
            yield d["text"]
        for m in d.get("messages", ()):
            yield m["content"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--corpus", type=Path, required=True)
    ap.add_argument("--out", type=Path, default=Path("../model"))
    args = ap.parse_args()
    words = collections.Counter()
    for t in texts(args.corpus):
        for line in t.split("\n"):
            words.update(PIECE.findall("▁" + line.replace(" ", "▁")))
    # the square root reduces the weight of the stories, which are far more numerous than the other texts
    lines = [" ".join([w] * max(1, int(n ** 0.5))) for w, n in sorted(words.items())]
    chars = [chr(c) for c in range(33, 127)] + ["▁"]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=BASE - 259, initial_alphabet=chars, min_frequency=2, show_progress=False))
    learned = [p for p, _ in sorted(tok.get_vocab().items(), key=lambda x: x[1])]
    single = [p for p in learned if len(p) == 1]
    pieces = [p for p in learned if len(p) > 1]
    vocab = {t: i for i, t in enumerate(["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces + single)}
    assert len(vocab) == BASE, len(vocab)
    merges = []
    for p in pieces:
        pairs = [(p[:i], p[i:]) for i in range(1, len(p)) if p[:i] in vocab and p[i:] in vocab]
        merges += sorted(pairs, key=lambda x: (vocab[x[0]], vocab[x[1]]))

    def added(i, content, special, rstrip):
        return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": rstrip, "normalized": False, "special": special}

    tokens = [added(0, "<unk>", True, False), added(1, "<s>", True, False), added(2, "</s>", False, True)]
    tokens += [added(BASE + i, t, True, t != "<|endoftext|>") for i, t in enumerate(ADDED)]

    def write(name, value):
        (args.out / name).write_text(json.dumps(value, indent=1 if name == "tokenizer.json" else 2, ensure_ascii=False) + "\n", encoding="utf-8")

    args.out.mkdir(parents=True, exist_ok=True)
    write("tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                     {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]},
    })
    eot = BASE
    write("tokenizer_config.json", {
        "add_bos_token": False, "add_eos_token": False,
        "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")} for t in tokens},
        "bos_token": "<s>", "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "legacy": False,
        "model_max_length": 4096, "pad_token": "<|endoftext|>", "padding_side": "left", "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>", "use_default_system_prompt": False,
    })
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    names = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"}
    write("special_tokens_map.json", {k: {"content": v, **plain} for k, v in names.items()})
    write("generation_config.json", {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": [eot, eot + 1, eot + 7], "pad_token_id": eot, "transformers_version": "4.43.3"})
    print(len(vocab), "pieces,", len(merges), "merges,", len(words), "distinct words;", sum(1 for w in words if w in vocab), "of them one piece")


if __name__ == "__main__":
    main()
