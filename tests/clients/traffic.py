"""Many HTTP connections at once, byte by byte where needed. The standard library only."""

import asyncio
import json
import random
import re
import socket
import statistics
import time

from server import CHAT, PATIENCE, TEXT, text_of, user

WORDS = "brave fox river stone winter lantern garden quiet village morning harbor letter silver cloud music bridge".split()

# A chat whose answer ends at the model's context only, with a text for each token.
ENDLESS = {"messages": user("Tell me everything"), "ignore_eos": True, "skip_special_tokens": False}


class Exchange:
    """A request on a connection of its own, and its answer. It is closed at the end of an `async with` block."""

    def __init__(self, server, path, body=None, key=None, buffer=None):
        self.server, self.path, self.body, self.key, self.buffer = server, path, body, key or server.key, buffer

    async def __aenter__(self):
        host, port = self.server.address.rsplit(":", 1)
        self.socket = socket.socket()
        if self.buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        self.socket.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self.socket, (host, int(port)))
        self.reader, self.writer = await asyncio.open_connection(sock=self.socket)
        self.start = time.monotonic()
        if self.path:
            self.writer.write(request(self.path, self.body, self.key))
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()

    async def head(self):
        """Reads the status and the header."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return self.status

    async def lines(self):
        """Lines of the answer's body."""
        if "content-length" in self.headers:
            yield (await self.reader.readexactly(int(self.headers["content-length"]))).decode()
            return
        rest = b""
        while size := int(await self.reader.readuntil(b"\n"), 16):
            rest += (await self.reader.readexactly(size + 2))[:-2]
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.decode()

    async def text(self):
        return "\n".join([line async for line in self.lines()])

    async def events(self):
        """Chunks of a stream until `[DONE]`."""
        async for line in self.lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield json.loads(line[6:])
        raise AssertionError("the stream has no end")


def request(path, body=None, key=None, close=False):
    """The bytes of a request."""
    text = b"" if body is None else json.dumps(body).encode()
    head = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "host: localhost"]
    if text:
        head += ["content-type: application/json", f"content-length: {len(text)}"]
    if key:
        head.append(f"authorization: Bearer {key}")
    if close:
        head.append("connection: close")
    return "\r\n".join([*head, "", ""]).encode() + text


async def ask(server, path, body=None, key=None):
    """Status, header and text of an answer."""
    async with Exchange(server, path, body, key) as exchange, asyncio.timeout(PATIENCE):
        await exchange.head()
        return exchange.status, exchange.headers, await exchange.text()


async def answer(server, path, body, key=None):
    """The text of the first answer, streamed or whole."""
    async with Exchange(server, path, body, key) as exchange, asyncio.timeout(PATIENCE):
        status = await exchange.head()
        if status != 200:
            raise AssertionError(f"status {status}: {await exchange.text()}")
        if body.get("stream"):
            return text_of([chunk async for chunk in exchange.events()])
        return text_of([json.loads(await exchange.text())])


class Times:
    """When the texts of a stream came, or its tokens with log-probabilities, in seconds after its request."""

    def __init__(self):
        self.arrivals = []
        self.cached = self.prompt = self.tokens = 0

    @property
    def first(self):
        return self.arrivals[0]

    @property
    def gaps(self):
        return [later - earlier for earlier, later in zip(self.arrivals, self.arrivals[1:])]

    @property
    def median(self):
        return statistics.median(self.gaps)


async def timed(server, body, key=None, times=None):
    """Times of a streamed answer to a chat or a text."""
    times = times or Times()
    body = {"temperature": 0, "skip_special_tokens": False, **body, "stream": True, "stream_options": {"include_usage": True}}
    async with Exchange(server, CHAT if "messages" in body else TEXT, body, key) as exchange, asyncio.timeout(PATIENCE):
        status = await exchange.head()
        if status != 200:
            raise AssertionError(f"status {status}: {await exchange.text()}")
        async for chunk in exchange.events():
            assert "error" not in chunk, chunk
            if usage := chunk.get("usage"):
                times.prompt, times.tokens = usage["prompt_tokens"], usage["completion_tokens"]
                times.cached = usage["prompt_tokens_details"]["cached_tokens"]
            elif text_of([chunk]) or any(choice.get("logprobs") for choice in chunk["choices"]):
                times.arrivals.append(time.monotonic() - exchange.start)
    return times


def sentence(random_numbers, words):
    return " ".join(random_numbers.choice(WORDS) for _ in range(words))


def prompt_of(server, tokens, seed):
    """A text of nearly so many tokens, and at most as many as leave room in the model's context."""
    numbers = random.Random(seed)
    context = server.json("/v1/models")["data"][0]["max_model_len"]
    tokens = min(tokens, context - 200)
    words = sentence(numbers, tokens).split()
    count = server.json("/tokenize", {"prompt": " ".join(words)})["count"]
    return " ".join(words[: max(1, len(words) * tokens // count)])


async def fill(server):
    """Writes every page of the KV cache once: the system gives memory when it is first written."""
    sizes = re.search(r'block_size="(\d+)",num_gpu_blocks="(\d+)"', server.ask("/metrics")[2])
    left = int(sizes[1]) * int(sizes[2]) * 1.02
    numbers = random.Random(0)
    start = time.monotonic()
    while left > 0:
        # short ones, as long prompts take longer for each token
        bodies = [{"prompt": sentence(numbers, 300), "max_tokens": 1} for _ in range(8)]
        answers = await asyncio.gather(*(ask(server, TEXT, body) for body in bodies))
        left -= sum(json.loads(text)["usage"]["prompt_tokens"] for _, _, text in answers)
    print(f"the cache was filled in {time.monotonic() - start:.0f} s; memory {server.memory():.0f} MiB", flush=True)


async def sample(server, stop, pause=0.25):
    """Resident memory in MiB, sampled until an event is set."""
    values = []
    while not stop.is_set():
        values.append(server.memory())
        await wait(stop, pause)
    return values


async def wait(event, seconds):
    """Waits for an event, at most so long."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


async def health(server, stop, path="/health", pause=0.1):
    """Latencies of a path in seconds, until an event is set."""
    latencies = []
    while not stop.is_set():
        start = time.monotonic()
        status, _, _ = await ask(server, path)
        assert status == 200, status
        latencies.append(time.monotonic() - start)
        await wait(stop, pause)
    return latencies


def quarters(values):
    """Medians of the first and of the last quarter."""
    part = max(1, len(values) // 4)
    return statistics.median(values[:part]), statistics.median(values[-part:])


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


async def until_still(server, metric, step):
    """Waits until a metric has kept its value for twenty steps of so many seconds, half a second at least; its value."""
    value, since = server.metric(metric), time.monotonic()
    async with asyncio.timeout(PATIENCE):
        while time.monotonic() - since < max(20 * step, 0.5):
            await asyncio.sleep(0.02)
            if (now := server.metric(metric)) != value:
                value, since = now, time.monotonic()
    return value


async def rate(server, streams, tokens):
    """Tokens per second of streams at the same time."""
    start = time.monotonic()
    all_times = await asyncio.gather(*(timed(server, {**ENDLESS, "max_tokens": tokens}) for _ in range(streams)))
    return sum(times.tokens for times in all_times) / (time.monotonic() - start)


async def loops(count, work, seconds):
    """Runs so many loops of a coroutine function for a time; numbers of its results that are true."""
    end = time.monotonic() + seconds

    async def loop(number):
        done, tries = 0, 0
        while time.monotonic() < end:
            result = await work(number, tries)
            # what ends later was not done within the time
            done += bool(result) and time.monotonic() < end
            tries += 1
        return done

    return await asyncio.gather(*(loop(number) for number in range(count)))
