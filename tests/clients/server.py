"""A server that runs for a test, and the little HTTP that tests need. The standard library only.

    python tests/clients/server.py PROGRAM [OPTION…] -- COMMAND…

runs a command while `PROGRAM serve OPTION…` runs; SERVER_URL has its address.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

# Most time of anything that has to come to pass, in seconds.
PATIENCE = 120


class Server:
    """`phi3-run serve` on a free port, until the end of a `with` block: SIGTERM, and the exit code 0."""

    def __init__(self, program, *options, key=None):
        self.key = key
        words = [program, "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines = []
        ready = threading.Event()

        def read():
            for line in self.process.stderr:
                self.lines.append(line.rstrip())
                if line.startswith("serving"):
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        ready.wait(PATIENCE)
        serving = [line for line in self.lines if line.startswith("serving")]
        if not serving:
            self.process.kill()
            raise RuntimeError("the server did not start: " + "\n".join(self.lines))
        self.url = serving[0].split()[1]
        self.address = urllib.parse.urlsplit(self.url).netloc
        while self.ask("/health")[0] != 200:
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            code = self.stop()
            # a failed check is the better message
            assert kind or code == 0, f"exit code {code}: {self.lines[-5:]}"

    def stop(self):
        """Ends the server; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "none: it did not end"

    def connect(self, timeout=PATIENCE):
        return http.client.HTTPConnection(self.address, timeout=timeout)

    def ask(self, path, body=None, key=None, timeout=PATIENCE):
        """Status, header and text of an answer."""
        with contextlib.closing(self.connect(timeout)) as connection:
            answer = send(connection, path, body, key or self.key)
            return answer.status, answer.headers, answer.read().decode()

    def json(self, path, body=None, key=None):
        """An answer with status 200."""
        status, _, text = self.ask(path, body, key)
        assert status == 200, f"{path}: {status} {text}"
        return json.loads(text)

    def metric(self, name):
        """A value of the metrics; 0 if it is not there."""
        pattern = rf"^{re.escape(name)}\{{[^}}]*\}} (\S+)$"
        found = re.search(pattern, self.ask("/metrics")[2], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def gauges(self):
        """Requests that run and wait, and the share of the cache in use."""
        return [self.metric("vllm:" + name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]

    def wait_until_idle(self):
        """Seconds until no request runs or waits."""
        start = time.monotonic()
        while any(self.gauges()):
            assert time.monotonic() - start < PATIENCE, f"requests do not end: {self.gauges()}"
            time.sleep(0.02)
        return time.monotonic() - start

    def memory(self):
        """Resident memory in MiB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def send(connection, path, body=None, key=None):
    """Sends a request on a connection; the answer, whose text is not read yet."""
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    text = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", path, text, headers)
    return connection.getresponse()


def events(answer):
    """Chunks of a stream until `[DONE]`."""
    for line in answer:
        line = line.decode().strip()
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line[6:])
    raise AssertionError("the stream has no end")


def text_of(chunks):
    """Text of the first answer in the chunks of a stream, or in a whole answer."""
    parts = []
    for chunk in chunks:
        if "error" in chunk:
            raise AssertionError(chunk["error"])
        for choice in chunk["choices"]:
            if choice["index"] == 0:
                message = choice.get("delta") or choice.get("message") or choice
                parts.append(message.get("content") or message.get("text") or "")
    return "".join(parts)


def user(text):
    """The messages of a question."""
    return [{"role": "user", "content": text}]


def option(program, name):
    """Whether the program knows an option of `serve`."""
    done = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, check=True)
    return re.search(rf"^\s+(-\w, )?{name}\b", done.stdout, re.MULTILINE) is not None


def default_program():
    """The program of a build without optimization."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
    return os.path.join(target, "debug", "phi3-run.exe" if os.name == "nt" else "phi3-run")


def main():
    program, *words = sys.argv[1:]
    at = words.index("--")
    with Server(program, *words[:at]) as server:
        code = subprocess.call(words[at + 1 :], env={**os.environ, "SERVER_URL": server.url})
    raise SystemExit(code)


if __name__ == "__main__":
    main()
