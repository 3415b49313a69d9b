#!/usr/bin/env python3
"""Times phi3-run beside other engines on the same GGUF files, in turns, and prints a table of ratios.

    cargo build --release
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON \
        -DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON" pip install llama-cpp-python
    python3 benches/side_by_side.py target/release/phi3-run model-q4_0.gguf model-q4_k_m.gguf

The other engines are llama.cpp by its Python package, unless --no-llama is given, and every --llama-bench NAME=COMMAND: llama.cpp's program of
that name or ik_llama.cpp's, with arguments such as -rtr 1. numpy is needed too. Each run is a process of its own that warms up first and times
a test once. In a round every engine has a run; a pair is phi3-run's and another engine's of a round.

On Linux a run counts only if other processes took at most 0.15 of a core meanwhile: the busy time of all cores less the run's own. A run of
decoding also needs the same memory bandwidth before and after it, within 12 %. Rounds go on until every engine has --pairs pairs, at most
--rounds.

With --busy a process that never sleeps runs beside all of them. With --depth N tokens are generated after N others; of the programs,
ik_llama.cpp's only has that test. With --sequences 1,2,4,8 as many sequences get tokens in each pass, after 16 tokens of prompt, beside
llama.cpp's package; the gain is the rate by that of the first number.

A decoded token reads the file's weights, so memory bandwidth limits the decode rate. Without --depth, the share of it that each engine reads is
printed. The whole file counts as read, with all of the embedding, of which a token reads one row: 3 % of Phi-3-mini.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import shlex
import statistics
import subprocess
import time

# Cores that other processes may take during a run.
MOST_OTHERS = 0.15

# Largest ratio of the memory bandwidth after a run to that before, or the reverse.
MOST_CHANGE = 1.12


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


class Phi3Run:
    name = "phi3-run"

    def __init__(self, program, threads, kv, level):
        self.command = [program, "bench", "--device", "cpu", "-t", str(threads), "--kv", kv, "-r", "1", "-o", "json"]
        self.command += ["--level", level] if level else []

    def bench(self, path, test):
        return json.loads(subprocess.run([*self.command, "-m", path, *test], check=True, capture_output=True).stdout)

    def time(self, path, prompt, generated, depth):
        return self.bench(path, ["-p", str(prompt), "-n", str(generated), "-d", str(depth)])[0]["avg_ts"]


class LlamaBench:
    """A program with the arguments and the output of llama.cpp's llama-bench."""

    def __init__(self, name, command, threads):
        self.name, self.command = name, [*shlex.split(command), "-t", str(threads), "-r", "1", "-o", "json"]

    def time(self, path, prompt, generated, depth):
        test = ["-p", str(prompt), "-n", str(generated)]
        if depth:
            # ik_llama.cpp has no depth
            test = ["-p", "0", "-n", "0", "-gp", f"{depth},{generated}"]
        out = subprocess.run([*self.command, "-m", path, *test], check=True, capture_output=True, text=True).stdout
        return json.loads(out[out.index("[") :])[0]["avg_ts"]


class LlamaPackage:
    name = "llama.cpp"

    def __init__(self, threads):
        self.threads = threads

    def time(self, path, prompt, generated, depth):
        context = multiprocessing.get_context("spawn")
        rates = context.SimpleQueue()
        run = context.Process(target=time_package, args=(rates, path, self.threads, prompt, generated, depth))
        run.start()
        run.join()
        if run.exitcode:
            raise SystemExit(f"llama.cpp failed with {path}")
        return rates.get()


def time_package(rates, path, threads, prompt, generated, depth):
    llama = Llama(path, threads, depth + prompt + generated)
    llama.time(prompt, min(generated, 1), depth)
    rates.put(llama.time(prompt, generated, depth))


def busy_seconds():
    """Time of all cores that was not idle, also what a hypervisor gave to others; known on Linux only."""
    if not os.path.exists("/proc/stat"):
        return None
    with open("/proc/stat") as file:
        user, nice, system, _, _, interrupts, soft, stolen = map(int, file.readline().split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """Time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def undisturbed(run, beside):
    """The result of a run, or None if other processes took part of the cores that the `beside` known ones do not account for."""
    since, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    result = run()
    if busy is None:
        return result
    others = (busy_seconds() - busy - (own_seconds() - own)) / (time.monotonic() - since)
    return result if abs(others - beside) <= MOST_OTHERS else None


def several(args, ours):
    """Sequences that get their tokens together."""
    counts, prompt = [int(n) for n in args.sequences.split(",")], 16
    print("| model | sequences | phi3-run t/s | llama.cpp t/s | ratio | gain |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for path in args.models:
        llama = Llama(path, args.threads, prompt + args.generated, max(counts))
        first = None
        for count in counts:
            rates = [], []
            test = ["-np", str(count), "-p", str(prompt), "-n", str(args.generated)]
            for _ in range(args.pairs):
                rates[0].append(ours.bench(path, test)["speed_tg"])
                rates[1].append(llama.time_sequences(count, prompt, args.generated))
            a, b = map(statistics.median, rates)
            first = first or (a, b)
            gain = f"{a / first[0]:.2f}, {b / first[1]:.2f}"
            print(f"| {os.path.basename(path)} | {count} | {a:.2f} | {b:.2f} | {a / b:.2f} | {gain} |", flush=True)
        llama.close()


class Pairs:
    """Rates of phi3-run and of another engine, in the rounds in which both counted; with the memory bandwidth of decoding."""

    def __init__(self):
        self.rates, self.memory = [], []

    def row(self, size):
        if not self.rates:
            return "0 | | | | | "
        ours, peers = map(statistics.median, zip(*self.rates))
        ratios = sorted(a / b for a, b in self.rates)
        text = f"{len(ratios)} | {ours:.2f} | {peers:.2f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        if not self.memory:
            return f"{text} | | "
        memory = statistics.median(self.memory)
        return f"{text} | {memory / 1e9:.1f} | {ours * size / memory:.0%}, {peers * size / memory:.0%}"


def single(args, ours, peers):
    """One sequence: prompts, and tokens one by one."""
    tests = [(0, args.generated)] if args.generated else []
    tests += [(int(n), 0) for n in args.prompts.split(",") if int(n) > 0]
    memory = Memory(args.threads)
    beside = 1 if args.busy else 0
    print("| model | test | beside | pairs | phi3-run t/s | its t/s | ratio | memory GB/s | of it |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- | ---: | --- |")
    for path in args.models:
        for prompt, generated in tests:
            if args.depth and prompt:
                continue
            bound = generated and not args.depth and not args.busy

            def run(engine):
                """Rate and memory bandwidth, or None if something else disturbed them."""
                before = memory.rate() if bound else 1
                rate = undisturbed(lambda: engine.time(path, prompt, generated, args.depth), beside)
                after = memory.rate() if bound else 1
                steady = max(before, after) <= MOST_CHANGE * min(before, after)
                return (rate, (before + after) / 2) if rate and steady else None

            pairs = {peer.name: Pairs() for peer in peers}
            for _ in range(args.rounds):
                mine = run(ours)
                if not mine:
                    continue
                for peer in peers:
                    if len(pairs[peer.name].rates) == args.pairs:
                        continue
                    its = run(peer)
                    # decoding depends on the bandwidth, which must be the same for both
                    if its and max(mine[1], its[1]) <= MOST_CHANGE * min(mine[1], its[1]):
                        pairs[peer.name].rates.append((mine[0], its[0]))
                        if bound:
                            pairs[peer.name].memory.append((mine[1] + its[1]) / 2)
                if all(len(of.rates) == args.pairs for of in pairs.values()):
                    break
            name = (f"pp{prompt}" if prompt else f"tg{generated}") + (f" @ d{args.depth}" if args.depth else "")
            for peer, of in pairs.items():
                print(f"| {os.path.basename(path)} | {name} | {peer} | {of.row(os.path.getsize(path))} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+")
    parser.add_argument("-p", "--prompts", default="128,512", help="lengths of prompts")
    parser.add_argument("-n", "--generated", type=int, default=32, help="tokens to generate one by one")
    parser.add_argument("-r", "--pairs", type=int, default=5, help="pairs that are wanted of each engine")
    parser.add_argument("--rounds", type=int, default=15, help="most rounds of a test")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--kv", default="f16", help="type of phi3-run's cache; llama.cpp's is f16")
    parser.add_argument("--level", help="instruction set of phi3-run, such as amx")
    parser.add_argument("--sequences", help="numbers of sequences, in place of the other tests")
    parser.add_argument("--busy", action="store_true", help="run beside a process that never sleeps")
    parser.add_argument("--llama-bench", action="append", default=[], metavar="NAME=COMMAND", help="another engine")
    parser.add_argument("--no-llama", action="store_true", help="leave llama.cpp's package out")
    args = parser.parse_args()
    ours = Phi3Run(args.program, args.threads, args.kv, args.level)
    peers = [] if args.no_llama else [LlamaPackage(args.threads)]
    peers += [LlamaBench(*one.split("=", 1), args.threads) for one in args.llama_bench]
    if not peers or (args.sequences and args.no_llama):
        parser.error("no engine to measure beside phi3-run")
    beside = multiprocessing.Process(target=spin, daemon=True)
    if args.busy:
        beside.start()
    print(f"{args.threads} threads{', beside a busy process' if args.busy else ''}, {args.pairs} pairs, medians")
    if args.sequences:
        several(args, ours)
    else:
        single(args, ours, peers)
    if args.busy:
        beside.terminate()


if __name__ == "__main__":
    main()
