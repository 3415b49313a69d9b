#!/usr/bin/env python3
"""Compares logits of files that `phi3-run quantize` writes with those that llama.cpp computes from them.

    cargo build --release
    pip install llama-cpp-python numpy safetensors
    python3 benches/compare_llama.py target/release/phi3-run tests/data/oracle/checkpoints/*

For every folder and type: quantize, open the file with both programs, and compare the logits of a text of 12 tokens. llama.cpp
ignores sliding windows; those of the small models are longer than the text. LongRoPE uses the long factors, as llama.cpp
always does here. llama.cpp rounds activations to eight bits in blocks of 32 or 256. The tolerance for this is an rms difference
of 5 % of the logits' standard deviation and a largest difference of 0.7; 7 % and 0.8 for K types and IQ4_XS.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import llama_cpp
import numpy
from safetensors.numpy import load_file

TYPES = "f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl int4 q2_k q3_k q4_k q5_k q6_k iq4_xs q4_k_m q5_k_m".split()
FINE = ("f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "int4")


def llama_logits(path, ids):
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), settings)
    if not model:
        raise RuntimeError("llama.cpp does not open the file")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 64, 1, 1
    settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    if llama_cpp.llama_decode(context, batch):
        raise RuntimeError("llama.cpp failed")
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocabulary,)).copy() for i in range(len(ids))]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return numpy.stack(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--types", default=",".join(TYPES))
    args = parser.parse_args()
    llama_cpp.llama_backend_init()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            for kind in args.types.split(","):
                path, out = os.path.join(folder, f"{kind}.gguf"), os.path.join(folder, "logits.safetensors")
                name = f"{os.path.basename(model.rstrip('/')) or model} {kind}"
                done = subprocess.run([args.program, "quantize", "-q", model, path, "--type", kind], capture_output=True, text=True)
                if done.returncode:
                    print(f"{name}: not written ({done.stderr.strip()[:160]})")
                    continue
                ids = [(i * 7 + 3) % 60 for i in range(12)]
                text = " ".join(map(str, ids))
                command = [args.program, "logits", "-q", "-m", path, "--device", "cpu", "--longrope", "long", "--ids", text, "--out", out]
                try:
                    subprocess.run(command, check=True, capture_output=True)
                    ours, theirs = load_file(out)["logits"], llama_logits(path, ids)
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    print(f"{name}: FAILED ({getattr(error, 'stderr', error)})")
                    failed += 1
                    continue
                difference = numpy.abs(ours - theirs)
                rms = float(numpy.sqrt((difference**2).mean()) / ours.std())
                share, most = (0.05, 0.7) if kind in FINE else (0.07, 0.8)
                ok = rms <= share and difference.max() <= most
                failed += not ok
                print(f"{name}: rms {100 * rms:.3f} % of the deviation, largest {difference.max():.4f}{'' if ok else ' FAILED'}")
                os.remove(path)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
