"""Loads a server for some minutes: 32 clients that ask, beside clients that leave, send rubbish, or stop reading.

    python tests/clients/load.py --minutes 5 --program target/release/phi3-run

Each question was asked alone before; at the end no answer was another one, no status was 5xx, nothing runs or waits, and memory has not
grown. The standard library only.
"""

import argparse
import asyncio
import collections
import json
import random
import time

from server import CHAT, PATIENCE, TEXT, Server, default_program, text_of, user
from traffic import Exchange, answer, ask, fill, health, quarters, request, sample, sentence, wait

CLIENTS, LEAVING, RUBBISH, SILENT = 32, 8, 4, 4

# Seconds after which the server lets go of a client that does not read.
WRITE_TIMEOUT = 5

NUMBER = {"type": "integer", "minimum": 0, "maximum": 99}
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["n"], "properties": {"n": NUMBER}}


def questions(numbers, count):
    """Paths and bodies of requests whose answers are always the same."""
    for number in range(count):
        chat = numbers.random() < 0.6
        text = sentence(numbers, int(2 ** numbers.uniform(0, 8)))
        body = {"messages": user(text)} if chat else {"prompt": text}
        body["max_tokens"] = int(2 ** numbers.uniform(0, 6))
        # a seed repeats its answer as greedy sampling does
        body["temperature"] = numbers.choice([0, 0, 1])
        body["seed"] = number
        kind = numbers.randrange(6)
        if kind == 0:
            body["ignore_eos"] = True
        elif kind == 1:
            body["stop"] = [" the", "."]
        elif kind == 2:
            body["logprobs"] = True if chat else 3
        elif kind == 3:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        elif kind == 4:
            body["n"] = 2
        yield CHAT if chat else TEXT, body


class Load:
    def __init__(self, server, seed):
        self.server = server
        self.numbers = random.Random(seed)
        self.stop = asyncio.Event()
        self.counts = collections.Counter()
        self.faults = []

    def fault(self, text):
        self.faults.append(text)
        print(f"FAULT   {text[:300]}", flush=True)

    def status(self, status, what):
        self.counts[f"status {status}"] += 1
        if status >= 500:
            self.fault(f"{what}: status {status}")

    async def repeat(self, client):
        """Runs a client again and again."""
        while not self.stop.is_set():
            try:
                await client()
            except (OSError, EOFError, TimeoutError, AssertionError) as error:
                self.fault(f"{client.__name__}: {error!r}")
                await wait(self.stop, 1)

    async def prepare(self, count):
        self.known = []
        for path, body in questions(self.numbers, count):
            self.known.append((path, body, await answer(self.server, path, body)))

    async def asking(self):
        path, body, expected = self.numbers.choice(self.known)
        stream = self.numbers.random() < 0.5
        body = {**body, "stream": stream}
        async with Exchange(self.server, path, body) as exchange, asyncio.timeout(PATIENCE):
            status = await exchange.head()
            self.status(status, f"{path} {body}")
            if status != 200:
                text = await exchange.text()
                if status != 429:
                    self.fault(f"{path} {body}: {status} {text}")
                return await wait(self.stop, 0.5)
            chunks = [chunk async for chunk in exchange.events()] if stream else [json.loads(await exchange.text())]
            found = text_of(chunks)
        self.counts["answers"] += 1
        if found != expected:
            self.fault(f"another answer to {path} {body}: {found!r}, alone {expected!r}")

    async def leaving(self):
        numbers = self.numbers
        body = {"messages": user(sentence(numbers, numbers.randint(1, 400))), "ignore_eos": True, "n": numbers.randint(1, 4)}
        body["stream"] = self.numbers.random() < 0.5
        async with Exchange(self.server, CHAT, body):
            await asyncio.sleep(self.numbers.expovariate(2))
        self.counts["left"] += 1

    async def rubbish(self):
        numbers = self.numbers
        good = request(TEXT, {"prompt": "x", "max_tokens": 1}, close=True)
        post = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        kinds = [
            lambda: numbers.randbytes(numbers.randint(1, 2000)),
            lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + numbers.randbytes(500),
            lambda: good[: numbers.randrange(1, len(good))],
            lambda: b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000,
            lambda: post + b"content-length: -1\r\n\r\n",
            lambda: post + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            lambda: request(TEXT, "[" * 10_000, close=True),
            lambda: request(CHAT, {"messages": [[]], "n": numbers.choice([-1, 10**9, "x", None, {}])}, close=True),
            lambda: good.replace(b'"x"', numbers.choice([b'"\xff\xfe"', b"3", b"}", b'"\\ud800"', b"[[]]"])),
            lambda: good.replace(b'"max_tokens": 1', b'"max_tokens": -7'),
        ]
        bytes_sent = numbers.choice(kinds)()
        async with Exchange(self.server, None) as exchange:
            exchange.writer.write(bytes_sent)
            try:
                async with asyncio.timeout(2):
                    status = await exchange.head()
                self.status(status, f"rubbish {bytes_sent[:100]!r}")
                if status == 200 and bytes_sent[:4] != good[:4]:
                    self.fault(f"rubbish was accepted: {bytes_sent[:200]!r}")
            except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
                # the connection was closed, or the server waits for the rest
                self.counts["rubbish without an answer"] += 1
        await wait(self.stop, 0.05)

    async def silent(self):
        body = {"messages": user(sentence(self.numbers, 5)), "ignore_eos": True, "n": 4, "stream": True}
        body |= {"logprobs": True, "top_logprobs": 20}
        async with Exchange(self.server, CHAT, body, buffer=4096) as exchange:
            exchange.writer.transport.pause_reading()
            await wait(self.stop, 3 * WRITE_TIMEOUT)
        self.counts["silent"] += 1


async def run(server, options):
    load = Load(server, options.seed)
    start = time.monotonic()
    await load.prepare(options.questions)
    print(f"{len(load.known)} questions alone in {time.monotonic() - start:.1f} s; memory {server.memory():.0f} MiB", flush=True)
    if options.fill:
        await fill(server)
    kinds = [(load.asking, CLIENTS), (load.leaving, LEAVING), (load.rubbish, RUBBISH), (load.silent, SILENT)]
    clients = [asyncio.create_task(load.repeat(client)) for client, count in kinds for _ in range(count)]
    # caches and buffers fill up first
    await asyncio.sleep(options.minutes * 60 * 0.1)
    stop = load.stop
    watches = [sample(server, stop), health(server, stop), health(server, stop, "/metrics", 1)]
    watches = [asyncio.create_task(watch) for watch in watches]
    await asyncio.sleep(options.minutes * 60)
    load.stop.set()
    await asyncio.gather(*clients)
    memory, latencies, of_metrics = await asyncio.gather(*watches)
    idle = server.wait_until_idle()
    print(f"counts  {dict(sorted(load.counts.items()))}")
    print(f"idle    after {idle:.2f} s; {server.metric('vllm:num_preemptions_total'):.0f} preemptions")
    for path, body, expected in load.numbers.sample(load.known, min(8, len(load.known))):
        if await answer(server, path, body) != expected:
            load.fault(f"another answer after the load: {path} {body}")
    for name, values in (("health", latencies), ("metrics", of_metrics)):
        print(f"{name:8}worst {max(values) * 1e3:.0f} ms, median {sorted(values)[len(values) // 2] * 1e3:.1f} ms")
    first, last = quarters(memory)
    print(f"memory  {first:.1f} MiB in the first quarter, {last:.1f} in the last: {last / first:.3f} (at most {options.growth})")
    if last > first * options.growth:
        load.fault("memory has grown")
    status, _, _ = await ask(server, "/health")
    load.status(status, "/health")
    if not load.counts["answers"]:
        load.fault("there was no answer")
    return load


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=default_program())
    parser.add_argument("--model", help="default: the demo model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--growth", type=float, default=1.1, help="most growth of memory")
    fill_help = "fill the KV cache first, so that memory is flat"
    parser.add_argument("--fill", action=argparse.BooleanOptionalAction, default=True, help=fill_help)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("more", nargs="*", help="further arguments of `phi3-run serve`, after --")
    options = parser.parse_args()
    words = ["--device", options.device, "--write-timeout", WRITE_TIMEOUT, *options.more]
    words += ["--model", options.model] if options.model else []
    with Server(options.program, *words) as server:
        load = asyncio.run(run(server, options))
    print(f"{load.counts['answers']} answers passed, {len(load.faults)} failed")
    raise SystemExit(len(load.faults) > 0)


if __name__ == "__main__":
    main()
