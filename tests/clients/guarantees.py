"""Measures what the server guarantees under load; each figure is printed with its bound.

    python tests/clients/guarantees.py --program target/release/phi3-run [--model FOLDER] [--only no_stall drain …]

Figures of time mean something on a quiet machine only, so a miss is an error with --strict; what does not depend on time always is one.
The standard library only.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import tempfile
import time

from server import CHAT, TEXT, Server, default_program, option
from traffic import ENDLESS, Exchange, Times, answer, ask, fill, health, loops, prompt_of, quarters, rate, sample, sentence
from traffic import timed, until, until_still

# Seconds after which the server lets go of a client that does not read.
WRITE_TIMEOUT = 20

GUARANTEES = []


def guarantee(function):
    GUARANTEES.append(function)
    return function


class Report:
    def __init__(self):
        self.missed, self.failed, self.passed = 0, 0, 0

    def line(self, name, text, holds, bound=""):
        self.passed += holds
        print(f"{'ok' if holds else 'MISSED':8}{name:46}{text:>12}{bound}", flush=True)

    def at_most(self, name, value, bound):
        self.line(name, f"{value:.3f}", value <= bound, f"   at most {bound}")
        self.missed += value > bound

    def at_least(self, name, value, bound):
        self.line(name, f"{value:.3f}", value >= bound, f"   at least {bound}")
        self.missed += value < bound

    def holds(self, name, condition):
        self.line(name, "yes" if condition else "no", bool(condition))
        self.failed += not condition

    def note(self, name, text):
        print(f"        {name:46}{text:>12}", flush=True)


@guarantee
async def no_stall(start, report, options):
    with start() as server:
        prompts = [prompt_of(server, options.long, seed) for seed in range(3)]
        # with log-probabilities each token has an event, also one that ends in the middle of a letter
        endless = {**ENDLESS, "logprobs": True}
        alone = await timed(server, {**endless, "max_tokens": 300})
        report.note("longest gap of a lone reader ÷ median", f"{max(alone.gaps) / alone.median:.3f}")
        for prompt in prompts:
            reader = Times()
            task = asyncio.create_task(timed(server, endless, times=reader))
            await until(lambda: len(reader.arrivals) > 20)
            beside = await timed(server, {"prompt": prompt, "max_tokens": 1})
            gaps = reader.gaps[20:]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            report.note("prompt; time; tokens of the reader meanwhile", f"{beside.prompt}; {beside.first:.2f} s; {len(gaps)}")
            report.note("median gap beside it ÷ alone", f"{statistics.median(gaps) / alone.median:.3f}")
            report.at_most("longest gap beside it ÷ median alone", max(gaps) / alone.median, 3)


@guarantee
async def prefix_cache(start, report, options):
    with start() as server:
        await timed(server, {"prompt": prompt_of(server, 100, 99), "max_tokens": 2})
        ratios, shares = [], []
        for seed in range(5):
            body = {"prompt": prompt_of(server, 1000, seed), "max_tokens": 4, "ignore_eos": True}
            first, second = await timed(server, body), await timed(server, body)
            ratios.append(second.first / first.first)
            shares.append(second.cached / second.prompt)
        report.note("tokens of a prompt", f"{first.prompt}")
        report.at_most("time to the first token, second ÷ first", statistics.median(ratios), 0.15)
        report.holds("98 % of the second prompt were cached", min(shares) >= 0.98)


@guarantee
async def same_answer(start, report, options):
    small = ["--cache-memory", options.small_cache] if option(options.program, "--cache-memory") else []
    with start(*small) as server:
        fields = {"max_tokens": 48, "temperature": 0, "ignore_eos": True, "logprobs": 1}
        bodies = [{"prompt": prompt_of(server, 150, seed), **fields} for seed in range(32)]

        async def choice(body):
            return json.loads((await ask(server, TEXT, body))[2])["choices"]

        alone = [await choice(body) for body in bodies]
        together = await asyncio.gather(*(choice(body) for body in bodies))
        report.note("requests that were paused", f"{server.metric('vllm:num_preemptions_total'):.0f}")
        texts = [[one[0]["text"] for one in all_choices] for all_choices in (alone, together)]
        report.holds("32 answers at once are those alone", texts[0] == texts[1])
        report.holds("so are their log-probabilities, bit by bit", alone == list(together))


@guarantee
async def fairness(start, report, options):
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys")
        with open(keys, "w") as file:
            file.write("key-a\nkey-b\n")
        with start("--api-key-file", keys) as server:
            server.key = "key-b"
            numbers = random.Random(5)
            fresh = lambda words, most: {"prompt": sentence(numbers, words), "max_tokens": most, "ignore_eos": True}
            firsts = lambda count: [timed(server, fresh(50, 16), "key-b") for _ in range(count)]
            alone = [(await one).first for one in firsts(9)]
            crowd = asyncio.create_task(loops(31, lambda *_: timed(server, fresh(50, 64), "key-a"), options.seconds))
            await asyncio.sleep(options.seconds / 4)
            beside = []
            while not crowd.done():
                beside.append((await timed(server, fresh(50, 16), "key-b")).first)
            await crowd
            ratio = statistics.median(beside[:-1] or beside) / statistics.median(alone)
            report.at_most("time to the first token beside 31 ÷ alone", ratio, 3)
            # both have more to ask than is answered
            prompts = lambda number, _: timed(server, fresh(120, 1), "key-a" if number < 31 else "key-b")
            done = await loops(39, prompts, options.seconds)
            a, b = sum(done[:31]), sum(done[31:])
            report.note("prompts of 31 connections and of 8", f"{a} and {b}")
            report.at_least("Jain's index over two keys", (a + b) ** 2 / (2 * (a * a + b * b) or 1), 0.9)


@guarantee
async def overload(start, report, options):
    with start("--max-running", 8, "--max-queue", 16) as server:
        numbers = random.Random(6)
        body = lambda: {"prompt": sentence(numbers, 40), "max_tokens": 24, "ignore_eos": True}

        async def try_one(*_):
            began = time.monotonic()
            async with Exchange(server, TEXT, body()) as exchange:
                if await exchange.head() == 429:
                    refused.append(time.monotonic() - began)
                    return False
                assert exchange.status == 200, exchange.status
                await exchange.text()
                return True

        await fill(server)
        refused, stop = [], asyncio.Event()
        best = sum(await loops(12, try_one, options.seconds)) / options.seconds
        offered, began, end = [], time.monotonic(), time.monotonic() + options.seconds
        memory = asyncio.create_task(sample(server, stop))
        while (now := time.monotonic()) < end:
            while len(offered) < (now - began) * best * 4:
                offered.append(asyncio.create_task(try_one()))
            await asyncio.sleep(0.005)
        done = sum(task.done() and task.result() for task in offered) / options.seconds
        stop.set()
        await asyncio.gather(*offered)
        first, last = quarters(await memory)
        report.note("requests offered, refused; best rate", f"{len(offered)}, {len(refused)}; {best:.1f}/s")
        report.at_least("answers of four times the load ÷ best", done / best, 0.9)
        if refused:
            report.at_most("ms to a refusal, 95 of 100", sorted(refused)[int(len(refused) * 0.95)] * 1e3, 50)
        report.at_most("memory, last quarter ÷ first", last / first, 1.02)


@guarantee
async def cancellation(start, report, options):
    with start() as server:
        step = (await timed(server, {**ENDLESS, "max_tokens": 100})).median
        numbers = random.Random(7)

        async def leave():
            body = {**ENDLESS, "stream": numbers.random() < 0.5}
            async with Exchange(server, CHAT, body):
                await asyncio.sleep(numbers.random() * 2)

        await asyncio.gather(*(leave() for _ in range(200)))
        seconds = server.wait_until_idle()
        report.note("steps of a lone answer until idle", f"{seconds / step:.1f}")
        report.at_most("seconds until nothing runs, waits or is held", seconds, 0.5)


@guarantee
async def slow_readers(start, report, options):
    with start("--write-timeout", WRITE_TIMEOUT) as server:
        alone = await rate(server, 8, 200)
        async with contextlib.AsyncExitStack() as stack:
            before = server.metric("vllm:generation_tokens_total")
            for _ in range(8):
                body = {**ENDLESS, "stream": True, "logprobs": True, "top_logprobs": 20}
                exchange = await stack.enter_async_context(Exchange(server, CHAT, body, buffer=4096))
                exchange.writer.transport.pause_reading()
            held = await until_still(server, "vllm:generation_tokens_total", 8 / alone)
            report.at_most("tokens taken for each client that does not read", (held - before) / 8, 100)
            report.at_least("rate of 8 beside 8 that do not read ÷ alone", await rate(server, 8, 200) / alone, 0.9)
            began = time.monotonic()
            while server.metric("vllm:num_requests_running") and time.monotonic() - began < 12 * WRITE_TIMEOUT:
                await asyncio.sleep(0.1)
            report.holds("those that do not read were let go", server.metric("vllm:num_requests_running") == 0)


@guarantee
async def liveness(start, report, options):
    with start() as server:
        prompts = [prompt_of(server, 1 << 20, seed) for seed in range(16)]
        stop = asyncio.Event()
        watches = [asyncio.create_task(health(server, stop, path, 0.05)) for path in ("/health", "/metrics")]
        read = lambda number, tries: timed(server, {"prompt": f"{number} {prompts[tries % 16]}", "max_tokens": 1})
        await loops(2, read, options.seconds)
        stop.set()
        for name, watch in zip(("/health", "/metrics"), watches):
            report.at_most(f"worst ms of {name} during long prompts", max(await watch) * 1e3, 50)


@guarantee
async def drain(start, report, options):
    with start() as server:
        tasks = [asyncio.create_task(timed(server, {**ENDLESS, "max_tokens": 400})) for _ in range(8)]
        while server.metric("vllm:num_requests_running") < 8:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: server.ask("/health")[0] == 503 or server.process.poll() is not None)
        status, headers, text = await ask(server, CHAT, ENDLESS)
        report.holds("new requests have 503, draining, retry-after", status == 503 and "draining" in text and "retry-after" in headers)
        answers = await asyncio.gather(*tasks)
        report.holds("open answers were completed", all(times.tokens == 400 for times in answers))
        code = await asyncio.to_thread(server.process.wait, 30)
        report.holds("exit code 0", code == 0)


@guarantee
async def crash_only(start, report, options):
    body = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0}
    with start() as server:
        before = await answer(server, TEXT, body)
        tasks = [asyncio.create_task(timed(server, ENDLESS)) for _ in range(8)]
        await asyncio.sleep(1)
        server.process.kill()
        server.process.wait()
        async with asyncio.timeout(5):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        report.holds("clients notice", all(isinstance(end, (OSError, EOFError)) for end in ends))
    began = time.monotonic()
    with start() as server:
        report.note("seconds until it serves again", f"{time.monotonic() - began:.2f}")
        report.holds("it answers as before", await answer(server, TEXT, body) == before)


@guarantee
async def batching(start, report, options):
    with start() as server:
        await rate(server, 8, 20)
        one, eight = [statistics.median([await rate(server, streams, 100) for _ in range(3)]) for streams in (1, 8)]
        report.note("tokens per second of 1 and of 8", f"{one:.1f}, {eight:.1f}")
        report.at_least("8 streams ÷ 1", eight / one, 2.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=default_program())
    parser.add_argument("--model", help="default: the demo model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=[one.__name__ for one in GUARANTEES])
    parser.add_argument("--seconds", type=float, default=10, help="time of each part under load")
    parser.add_argument("--long", type=int, default=2000, help="tokens of the prompt beside a reader")
    parser.add_argument("--small-cache", default="4M", help="memory of the KV cache that makes requests pause")
    parser.add_argument("--strict", action="store_true", help="a missed figure is an error")
    options = parser.parse_args()
    words = ["--device", options.device, *(["--model", options.model] if options.model else [])]
    report = Report()
    for one in GUARANTEES:
        if options.only and one.__name__ not in options.only:
            continue
        print(f"== {one.__name__}", flush=True)
        try:
            asyncio.run(one(lambda *more: Server(options.program, *words, *more), report, options))
        except Exception as error:
            report.holds(f"{one.__name__}: {error!r}", False)
    failed = report.failed + (report.missed if options.strict else 0)
    print(f"{report.passed} passed, {failed} failed")
    if report.missed and not options.strict:
        print(f"{report.missed} figures missed their bound; --strict makes that an error")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
