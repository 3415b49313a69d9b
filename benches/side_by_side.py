#!/usr/bin/env python3
"""Times phi3-run and llama.cpp on the same GGUF files, in turns, and prints their ratio.

    cargo build --release
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON \
        -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON" pip install llama-cpp-python
    python3 benches/side_by_side.py target/release/phi3-run model-q4_0.gguf model-q4_k_m.gguf

Each round times one engine, then the other, under the same load of the machine; the figures are medians over the rounds.
With --busy a process that never sleeps runs beside both. With --depth N tokens are generated after N others. With --sequences 1,2,4,8
as many sequences get tokens in each pass, after 16 tokens of prompt; the gain is the rate by that of the first number of sequences.

A decoded token reads the file's weights, so memory bandwidth limits the decode rate. Without --depth, tests of decoding measure the
bandwidth of all threads in each round, and print each engine's share of it. The whole file counts as read, with all of the embedding,
of which a token reads one row: 3 % of Phi-3-mini.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import statistics
import subprocess
import time


def spin():
    while True:
        pass


class Memory:
    """Memory bandwidth: all threads read data larger than the caches."""

    def __init__(self, threads):
        import numpy

        self.total = numpy.sum
        self.parts = [numpy.ones(16 << 20 >> 3, dtype=numpy.int64) for _ in range(64)]
        self.threads = concurrent.futures.ThreadPoolExecutor(threads)

    def rate(self):
        """Bytes per second, the best of five passes."""

        def once():
            since = time.monotonic()
            list(self.threads.map(self.total, self.parts))
            return sum(part.nbytes for part in self.parts) / (time.monotonic() - since)

        return max(once() for _ in range(5))


class Llama:
    def __init__(self, path, threads, tokens, sequences=1):
        import llama_cpp as library

        self.library = library
        library.llama_backend_init()
        settings = library.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = library.llama_model_load_from_file(path.encode(), settings)
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = (tokens + 64) * sequences, 2048, 512
        settings.n_seq_max = sequences
        settings.n_threads = settings.n_threads_batch = threads
        self.context = library.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp does not open {path}")
        self.vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        self.bytes = library.llama_model_size(self.model)
        self.decode(4)

    def clear(self):
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        self.length = 0

    def decode(self, count):
        first = getattr(self, "length", 0)
        for at in range(first, first + count, 512):
            ids = [(i * 53 + 7) % self.vocabulary for i in range(at, min(at + 512, first + count))]
            tokens = (self.library.llama_token * len(ids))(*ids)
            if self.library.llama_decode(self.context, self.library.llama_batch_get_one(tokens, len(ids))):
                raise SystemExit("llama.cpp failed")
        self.library.llama_synchronize(self.context)
        self.length = first + count

    def time(self, prompt, generated, depth):
        self.clear()
        if depth:
            self.decode(depth)
        since = time.monotonic()
        if prompt:
            self.decode(prompt)
        for _ in range(generated):
            self.decode(1)
        return (prompt + generated) / (time.monotonic() - since)

    def time_sequences(self, sequences, prompt, generated):
        """Tokens per second of all sequences together, one of each a pass."""
        self.clear()
        batch = self.library.llama_batch_init(max(sequences, prompt), 0, 1)

        def decode(tokens):
            batch.n_tokens = len(tokens)
            for i, (sequence, position, logits) in enumerate(tokens):
                batch.token[i], batch.pos[i] = (position * 53 + sequence * 7) % self.vocabulary, position
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, logits
            if self.library.llama_decode(self.context, batch):
                raise SystemExit("llama.cpp failed")

        for sequence in range(sequences):
            decode([(sequence, position, position + 1 == prompt) for position in range(prompt)])
        self.library.llama_synchronize(self.context)
        since = time.monotonic()
        for position in range(prompt, prompt + generated):
            decode([(sequence, position, True) for sequence in range(sequences)])
        self.library.llama_synchronize(self.context)
        elapsed = time.monotonic() - since
        self.library.llama_batch_free(batch)
        return sequences * generated / elapsed

    def close(self):
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)


def bench(program, path, threads, test):
    command = [program, "bench", "-m", path, "--device", "cpu", "-t", str(threads), "-o", "json", *test]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def ours(program, path, threads, prompt, generated, depth, kv):
    test = ["-p", str(prompt), "-n", str(generated), "-d", str(depth), "-r", "1", "--kv", kv]
    return bench(program, path, threads, test)[0]["avg_ts"]


def several(args):
    """Sequences that get their tokens together."""
    counts, prompt = [int(n) for n in args.sequences.split(",")], 16
    print("| model | sequences | phi3-run t/s | llama.cpp t/s | ratio | gain |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for path in args.models:
        llama = Llama(path, args.threads, prompt + args.generated, max(counts))
        first = None
        for count in counts:
            rates = [], []
            test = ["-np", str(count), "-p", str(prompt), "-n", str(args.generated), "--kv", args.kv]
            for _ in range(args.rounds):
                rates[0].append(bench(args.program, path, args.threads, test)["speed_tg"])
                rates[1].append(llama.time_sequences(count, prompt, args.generated))
            a, b = map(statistics.median, rates)
            first = first or (a, b)
            gain = f"{a / first[0]:.2f}, {b / first[1]:.2f}"
            print(f"| {os.path.basename(path)} | {count} | {a:.2f} | {b:.2f} | {a / b:.2f} | {gain} |", flush=True)
        llama.close()


def single(args):
    """One sequence: prompts, and tokens one by one."""
    tests = [(0, args.generated)] + [(int(n), 0) for n in args.prompts.split(",") if int(n) > 0]
    longest = args.depth + max(prompt + generated for prompt, generated in tests)
    memory = Memory(args.threads)
    print("| model | test | phi3-run t/s | llama.cpp t/s | ratio | memory GB/s | of it |\n| --- | --- | ---: | ---: | ---: | ---: | --- |")
    for path in args.models:
        llama = Llama(path, args.threads, longest)
        for prompt, generated in tests:
            rates, memory_rates = ([], []), []
            alone = not prompt and not args.depth
            for _ in range(args.rounds):
                if alone:
                    memory_rates.append(memory.rate())
                rates[0].append(ours(args.program, path, args.threads, prompt, generated, args.depth, args.kv))
                rates[1].append(llama.time(prompt, generated, args.depth))
            a, b = map(statistics.median, rates)
            name = (f"pp{prompt}" if prompt else f"tg{generated}") + (f" @ d{args.depth}" if args.depth else "")
            share = " | "
            if alone:
                read = statistics.median(memory_rates)
                share = f"{read / 1e9:.1f} | {a * llama.bytes / read:.0%}, {b * llama.bytes / read:.0%}"
            print(f"| {os.path.basename(path)} | {name} | {a:.2f} | {b:.2f} | {a / b:.2f} | {share} |", flush=True)
        llama.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+")
    parser.add_argument("-p", "--prompts", default="128,512", help="lengths of prompts")
    parser.add_argument("-n", "--generated", type=int, default=32, help="tokens to generate one by one")
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--kv", default="f16", help="type of phi3-run's cache; llama.cpp's is f16")
    parser.add_argument("--sequences", help="numbers of sequences, in place of the other tests")
    parser.add_argument("--busy", action="store_true", help="run beside a process that never sleeps")
    args = parser.parse_args()
    beside = multiprocessing.Process(target=spin, daemon=True)
    if args.busy:
        beside.start()
    print(f"{args.threads} threads{', beside a busy process' if args.busy else ''}, {args.rounds} rounds, medians")
    if args.sequences:
        several(args)
    else:
        single(args)
    if args.busy:
        beside.terminate()


if __name__ == "__main__":
    main()
