"""Checks the server with OpenAI's client for Python.

    pip install -r tests/clients/requirements.txt
    python tests/clients/openai_client.py --program target/debug/phi3-run

Prints a line for each check. The exit code is 1 if one failed.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import tempfile
import time
import traceback
from typing import Literal

import openai
import pydantic

from server import Server, default_program, user

MODEL = "demo"
KEY = "a-key-of-the-test"
STORY = user("Tell me a story about a brave fox")
# An answer that does not end by itself for a long time.
ENDLESS = {"model": MODEL, "messages": user("Tell me everything"), "extra_body": {"ignore_eos": True}, "n": 8, "stream": True}

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Car(pydantic.BaseModel):
    color: Literal["red", "blue"]
    doors: int = pydantic.Field(ge=2, le=5)
    tags: list[Literal["new", "used"]] = pydantic.Field(min_length=1, max_length=2)


def refused(kind, status, call, **fields):
    """The error of a call, which has to be of a kind."""
    try:
        call()
    except kind as error:
        found = {"status": error.status_code, **{name: getattr(error, name) for name in fields}}
        assert found == {"status": status, **fields}, f"{found}: {error}"
        assert error.message and error.type and error.request_id, vars(error)
        return error
    raise AssertionError(f"expected {kind.__name__}")


def joined(stream, number=0):
    choices = [choice for chunk in stream for choice in chunk.choices if choice.index == number]
    return "".join(choice.delta.content or "" for choice in choices)


@check
def models(client, _):
    names = [model.id for model in client.models.list()]
    assert names == [MODEL], names
    one = client.models.retrieve(MODEL)
    assert (one.id, one.object) == (MODEL, "model") and one.model_extra["max_model_len"] > 0
    refused(openai.NotFoundError, 404, lambda: client.models.retrieve("gpt-4"), param="model", code="model_not_found")


@check
def chats(client, _):
    answer = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_completion_tokens=24)
    choice, usage = answer.choices[0], answer.usage
    assert choice.message.role == "assistant" and choice.message.content and choice.message.refusal is None
    assert choice.finish_reason in ("stop", "length") and answer.model == MODEL and answer.object == "chat.completion"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.completion_tokens <= 24
    again = client.chat.completions.create(model=MODEL, messages=STORY, temperature=0, max_tokens=24)
    assert again.choices[0].message.content == choice.message.content
    assert again.usage.prompt_tokens_details.cached_tokens + 2 >= usage.prompt_tokens
    assert again.id != answer.id and abs(answer.created - time.time()) < 300


@check
def streams(client, _):
    request = {"model": MODEL, "messages": STORY, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True))
    assert joined(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant" and len({chunk.id for chunk in chunks}) == 1
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
    assert ends == [whole.choices[0].finish_reason] and all(chunk.usage is None for chunk in chunks)
    *most, last = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in most)
    ending = {**request, "max_tokens": 300, "stop": whole.choices[0].message.content[-4:]}
    with client.chat.completions.stream(**ending) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    assert whole.choices[0].message.content.startswith(final.choices[0].message.content)


@check
def several_answers_stop_and_seed(client, _):
    request = {"model": MODEL, "messages": STORY, "temperature": 1.5, "seed": 7, "max_tokens": 12, "n": 3}
    texts = [choice.message.content for choice in client.chat.completions.create(**request).choices]
    assert len(texts) == 3 and len(set(texts)) > 1, texts
    chunks = list(client.chat.completions.create(**request, stream=True))
    assert [joined(chunks, number) for number in range(3)] == texts
    plain = {"model": MODEL, "messages": STORY, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**plain).choices[0].message.content
    word = whole.split()[3]
    cut = client.chat.completions.create(**plain, stop=["never there", word]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (whole[: whole.index(word)], "stop")


@check
def log_probabilities_of_chats(client, _):
    request = {"model": MODEL, "messages": STORY, "temperature": 0, "max_tokens": 12, "logprobs": True, "top_logprobs": 3}
    choice = client.chat.completions.create(**request).choices[0]
    tokens = choice.logprobs.content
    text = b"".join(bytes(token.bytes) for token in tokens).decode()
    assert text.strip() == choice.message.content.strip(), text
    for token in tokens:
        best = token.top_logprobs[0]
        assert len(token.top_logprobs) == 3 and (best.token, best.logprob) == (token.token, token.logprob)
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) < 1.001
    chunks = client.chat.completions.create(**request, stream=True)
    parts = [part for chunk in chunks if chunk.choices[0].logprobs for part in chunk.choices[0].logprobs.content]
    assert parts == tokens


@check
def forms_of_answers(client, _):
    size = {"type": "integer", "minimum": 1, "maximum": 9}
    schema = {"type": "object", "additionalProperties": False, "required": ["size"], "properties": {"size": size}}
    form = {"type": "json_schema", "json_schema": {"name": "size", "strict": True, "schema": schema}}
    request = {"model": MODEL, "messages": user("How large?"), "temperature": 1.2, "seed": 3}
    answer = client.chat.completions.create(**request, response_format=form)
    assert 1 <= json.loads(answer.choices[0].message.content)["size"] <= 9
    for seed in range(3):
        parsed = client.chat.completions.parse(**{**request, "seed": seed}, response_format=Car)
        assert isinstance(parsed.choices[0].message.parsed, Car), parsed
    with client.chat.completions.stream(**request, response_format=Car) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Car)
    with contextlib.suppress(openai.LengthFinishReasonError):
        client.chat.completions.parse(**request, response_format=Car, max_tokens=2)
        raise AssertionError("a cut answer was parsed")
    chosen = client.chat.completions.create(**request, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    assert chosen.choices[0].message.content in ("yes", "no")
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strange"}}}
    refused(openai.BadRequestError, 400, lambda: client.chat.completions.create(**request, response_format=bad), code="invalid_grammar")


@check
def texts_and_tokens(client, server):
    request = {"model": MODEL, "temperature": 0, "max_tokens": 8}
    text = "Once upon a time"
    one = client.completions.create(**request, prompt=text, echo=True, logprobs=2)
    choice, scores = one.choices[0], one.choices[0].logprobs
    assert choice.text.startswith(text) and one.object == "text_completion"
    count = one.usage.prompt_tokens + one.usage.completion_tokens
    lengths = {len(getattr(scores, name)) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
    assert lengths == {count} and scores.token_logprobs[0] is None
    assert all(score <= 0 for score in scores.token_logprobs[1:])
    ids = server.json("/tokenize", {"prompt": text})["tokens"]
    for prompt in (ids, [ids], [text]):
        same = client.completions.create(**request, prompt=prompt, echo=True, logprobs=2).choices[0]
        assert same.logprobs.token_logprobs == scores.token_logprobs, prompt
    pairs = client.completions.create(**request, prompt=[ids, "The brave"], n=2)
    texts = [choice.text for choice in pairs.choices]
    assert [choice.index for choice in pairs.choices] == [0, 1, 2, 3] and texts[0] == texts[1] and texts[2] == texts[3]
    chunks = list(client.completions.create(**request, prompt=text, echo=True, logprobs=2, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text
    parts = [chunk.choices[0].logprobs.token_logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert sum(parts, []) == scores.token_logprobs


@check
def clients_that_leave(client, server):
    stream = client.chat.completions.create(**ENDLESS)
    for _ in range(12):
        next(stream)
    assert server.metric("vllm:num_requests_running") > 0
    stream.close()
    server.wait_until_idle()
    # the connection of a timeout is closed too
    with contextlib.suppress(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**{**ENDLESS, "stream": False})
        raise AssertionError("the answer came within the time")
    server.wait_until_idle()


@check
def errors_of_requests(client, _):
    def create(**fields):
        return lambda: client.chat.completions.create(**{"model": MODEL, "messages": STORY, **fields})

    refused(openai.BadRequestError, 400, create(temperature=-1), param="temperature", code="invalid_value")
    refused(openai.BadRequestError, 400, create(n=0), param="n")
    refused(openai.BadRequestError, 400, create(messages=[]), param="messages")
    refused(openai.BadRequestError, 400, create(temperature=-1, stream=True), param="temperature")
    refused(openai.BadRequestError, 400, create(messages=user("word " * 9000)), param="messages", code="context_length_exceeded")
    refused(openai.BadRequestError, 400, create(tools=[{"type": "function", "function": {"name": "f"}}]), param="tools")
    refused(openai.NotFoundError, 404, create(model="gpt-4"), param="model", code="model_not_found")
    refused(openai.NotFoundError, 404, lambda: client.embeddings.create(model=MODEL, input="x"), code="unknown_path")


@check
def headers(client, _):
    create = client.chat.completions.with_raw_response.create
    raw = create(model=MODEL, messages=STORY, max_tokens=2, user="me", extra_headers={"x-request-id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1" and raw.headers["x-ignored-fields"] == "user", dict(raw.headers)
    assert raw.parse().choices and raw.parse()._request_id == "mine-1"
    ids = {client.chat.completions.create(model=MODEL, messages=STORY, max_tokens=1)._request_id for _ in range(2)}
    assert len(ids) == 2 and None not in ids


@check
def asynchronous(_, server):
    async def run():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            request = {"model": MODEL, "temperature": 0, "max_tokens": 16}
            ask = [client.chat.completions.create(**request, messages=user(f"What is {n} + {n}?")) for n in range(8)]
            answers = await asyncio.gather(*ask)
            for number, answer in enumerate(answers):
                question = user(f"What is {number} + {number}?")
                chunks = await client.chat.completions.create(**request, messages=question, stream=True)
                parts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
                assert "".join(parts) == answer.choices[0].message.content
            stream = await client.chat.completions.create(**ENDLESS)
            await anext(stream)
            await stream.close()
            task = asyncio.create_task(client.chat.completions.create(**{**ENDLESS, "stream": False}))
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    server.wait_until_idle()


@check
def limits_keys_and_errors_in_streams(_, other):
    """A server that refuses: it has a key, room for one request, and little time."""
    with tempfile.TemporaryDirectory() as folder:
        keys = os.path.join(folder, "keys")
        with open(keys, "w") as file:
            file.write(KEY + "\n")
        limits = ["--max-running", 1, "--max-queue", 1, "--request-timeout", 3]
        with Server(other.process.args[0], "--served-model-name", MODEL, "--api-key-file", keys, *limits) as server:
            client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)
            wrong = client.with_options(api_key="another")
            refused(openai.AuthenticationError, 401, lambda: list(wrong.models.list()), code="invalid_api_key")
            assert [model.id for model in client.models.list()] == [MODEL]
            one = {**ENDLESS, "n": 1}
            held = client.chat.completions.create(**one)
            # the role, and a token: the request runs
            assert next(held) and next(held)
            queued = client.chat.completions.create(**one)
            error = refused(openai.RateLimitError, 429, lambda: client.chat.completions.create(**one), code="queue_full")
            assert int(error.response.headers["retry-after"]) >= 1
            held.close()
            # the second one now runs, and its time ends
            try:
                assert list(queued), "no chunk came"
                raise AssertionError("expected an error in the stream")
            except openai.APIError as error:
                assert error.body["type"] == "timeout_error", error.body
            server.wait_until_idle()
            # a client that tries again gets its answer
            held = [client.chat.completions.create(**one)]
            assert next(held[0]) and next(held[0])
            held.append(client.chat.completions.create(**one))
            assert client.with_options(max_retries=5).chat.completions.create(model=MODEL, messages=STORY, max_tokens=1).choices


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=default_program())
    program = parser.parse_args().program
    failed = 0
    with Server(program, "--served-model-name", MODEL) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        for one in CHECKS:
            try:
                one(client, server)
                print(f"ok      {one.__name__}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {one.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
