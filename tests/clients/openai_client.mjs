// Checks the server with OpenAI's client for JavaScript.
//
//     mkdir -p target/clients && cp tests/clients/package.json target/clients && npm install --prefix target/clients
//     node tests/clients/openai_client.mjs --program target/debug/phi3-run --modules target/clients
//
// Prints a line for each check. The exit code is 1 if one failed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({
  options: { program: { type: "string", default: "target/debug/phi3-run" }, modules: { type: "string", default: "target/clients" } },
});
// packages lie in the target folder, not beside this file
const { resolve: find } = createRequire(resolve(options.modules, "package.json"));
const load = (name) => import(pathToFileURL(find(name)));
const { default: OpenAI } = await load("openai");
const { zodResponseFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const MODEL = "demo";
const KEY = "a-key-of-the-test";
const user = (content) => [{ role: "user", content }];
const STORY = { model: MODEL, messages: user("Tell me a story about a brave fox"), temperature: 0, max_tokens: 24 };
// An answer that does not end by itself for a long time.
const ENDLESS = { model: MODEL, messages: user("Tell me everything"), ignore_eos: true, n: 8, stream: true };

/** Starts a server; it ends by SIGTERM, with the exit code 0. */
async function serve(...more) {
  const words = ["serve", "--port", "0", "--served-model-name", MODEL, ...more];
  const child = spawn(options.program, words, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  const lines = [];
  const url = await new Promise((done, fail) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      lines.push(line);
      if (line.startsWith("serving")) done(line.split(/\s+/)[1]);
    });
    ended.then(() => fail(new Error(`the server did not start: ${lines.join("\n")}`)));
  });
  while (!(await fetch(`${url}/health`)).ok) await sleep(20);
  const gauge = async (name) => {
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(text.match(new RegExp(`^vllm:${name}\\{.*\\} (\\S+)$`, "m"))?.[1] ?? 0);
  };
  const idle = async () => {
    for (let tries = 0; ; tries += 1) {
      const gauges = await Promise.all(["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"].map(gauge));
      if (gauges.every((value) => value === 0)) return;
      assert.ok(tries < 2000, `requests do not end: ${gauges}`);
      await sleep(20);
    }
  };
  const stop = async () => {
    child.kill("SIGTERM");
    const [code] = await ended;
    assert.equal(code, 0, lines.join("\n"));
  };
  const client = (apiKey, maxRetries = 0) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries });
  return { gauge, idle, stop, client };
}

/** The error of a call, which has to be of a kind. */
async function refused(kind, status, call, fields) {
  const error = await call().then(() => assert.fail(`expected ${kind.name}`), (error) => error);
  assert.ok(error instanceof kind, String(error));
  const found = Object.fromEntries(Object.keys(fields).map((name) => [name, error[name]]));
  assert.deepEqual({ status: error.status, ...found }, { status, ...fields });
  assert.ok(error.message && error.type && error.requestID, String(error));
  return error;
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks, number = 0) =>
  chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === number).map((choice) => choice.delta.content ?? "").join("");

const checks = {
  async models({ client }) {
    const names = [];
    for await (const model of await client.models.list()) names.push(model.id);
    assert.deepEqual(names, [MODEL]);
    assert.equal((await client.models.retrieve(MODEL)).object, "model");
    await refused(OpenAI.NotFoundError, 404, () => client.models.retrieve("gpt-4"), { param: "model", code: "model_not_found" });
  },

  async chatsAndStreams({ client }) {
    const whole = await client.chat.completions.create(STORY);
    const { message, finish_reason } = whole.choices[0];
    assert.ok(message.content && ["stop", "length"].includes(finish_reason) && whole._request_id);
    assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
    const chunks = await collect(await client.chat.completions.create({ ...STORY, stream: true, stream_options: { include_usage: true } }));
    assert.equal(textOf(chunks), message.content);
    const last = chunks.at(-1);
    assert.deepEqual(last.choices, []);
    assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
    const runner = client.chat.completions.stream(STORY);
    assert.equal(await runner.finalContent(), message.content);
  },

  async severalAnswersAndSeeds({ client }) {
    const request = { ...STORY, temperature: 1.5, seed: 7, n: 3, max_tokens: 12 };
    const texts = (await client.chat.completions.create(request)).choices.map((choice) => choice.message.content);
    assert.equal(texts.length, 3);
    const chunks = await collect(await client.chat.completions.create({ ...request, stream: true }));
    assert.deepEqual([0, 1, 2].map((number) => textOf(chunks, number)), texts);
  },

  async logProbabilities({ client }) {
    const request = { ...STORY, logprobs: true, top_logprobs: 2 };
    const { message, logprobs } = (await client.chat.completions.create(request)).choices[0];
    const bytes = logprobs.content.flatMap((token) => token.bytes);
    assert.equal(Buffer.from(bytes).toString().trim(), message.content.trim());
    assert.ok(logprobs.content.every((token) => token.top_logprobs.length === 2 && token.logprob <= 0));
    const prompt = { model: MODEL, prompt: "Once upon a time", echo: true, logprobs: 1, max_tokens: 4, temperature: 0 };
    const choice = (await client.completions.create(prompt)).choices[0];
    assert.ok(choice.text.startsWith(prompt.prompt));
    assert.equal(choice.logprobs.token_logprobs[0], null);
    assert.equal(choice.logprobs.tokens.length, choice.logprobs.top_logprobs.length);
  },

  async formsOfAnswers({ client }) {
    const City = z.object({ city: z.enum(["Rome", "Oslo"]), size: z.int().min(1).max(99) });
    const request = { model: MODEL, messages: user("A city?"), temperature: 1.2, seed: 3 };
    const parsed = await client.chat.completions.parse({ ...request, response_format: zodResponseFormat(City, "city") });
    City.parse(parsed.choices[0].message.parsed);
    const schema = { type: "object", additionalProperties: false, required: ["ok"], properties: { ok: { type: "boolean" } } };
    const format = { type: "json_schema", json_schema: { name: "ok", strict: true, schema } };
    const plain = await client.chat.completions.create({ ...request, response_format: format });
    assert.equal(typeof JSON.parse(plain.choices[0].message.content).ok, "boolean");
  },

  async clientsThatLeave({ client, server }) {
    const abort = new AbortController();
    const stream = await client.chat.completions.create(ENDLESS, { signal: abort.signal });
    let count = 0;
    for await (const _ of stream) {
      if ((count += 1) === 12) {
        assert.ok((await server.gauge("num_requests_running")) > 0);
        abort.abort();
      }
    }
    await server.idle();
    for await (const _ of await client.chat.completions.create(ENDLESS)) break;
    await server.idle();
    const late = client.chat.completions.create({ ...ENDLESS, stream: false }, { timeout: 300 });
    await assert.rejects(late, OpenAI.APIConnectionTimeoutError);
    await server.idle();
  },

  async errorsOfRequests({ client }) {
    const create = (fields) => () => client.chat.completions.create({ ...STORY, ...fields });
    await refused(OpenAI.BadRequestError, 400, create({ temperature: -1 }), { param: "temperature", code: "invalid_value" });
    await refused(OpenAI.BadRequestError, 400, create({ messages: [], stream: true }), { param: "messages" });
    await refused(OpenAI.NotFoundError, 404, create({ model: "gpt-4" }), { param: "model", code: "model_not_found" });
  },

  async keysLimitsAndErrorsInStreams() {
    const folder = mkdtempSync(join(tmpdir(), "clients-"));
    writeFileSync(join(folder, "keys"), `${KEY}\n`);
    const limits = ["--max-running", "1", "--max-queue", "1", "--request-timeout", "3"];
    const server = await serve("--api-key-file", join(folder, "keys"), ...limits);
    try {
      await refused(OpenAI.AuthenticationError, 401, () => server.client("another").models.list(), { code: "invalid_api_key" });
      const client = server.client(KEY);
      const one = { ...ENDLESS, n: 1 };
      const held = (await client.chat.completions.create(one))[Symbol.asyncIterator]();
      // the role, and a token: the request runs
      await held.next();
      await held.next();
      const queued = await client.chat.completions.create(one);
      const error = await refused(OpenAI.RateLimitError, 429, () => client.chat.completions.create(one), { code: "queue_full" });
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
      await held.return();
      await assert.rejects(collect(queued), (error) => error instanceof OpenAI.APIError && error.type === "timeout_error");
      await server.idle();
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true });
    }
  },
};

const server = await serve();
const client = server.client("none");
let failed = 0;
for (const [name, run] of Object.entries(checks)) {
  try {
    await run({ client, server });
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}
await server.stop();
console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
