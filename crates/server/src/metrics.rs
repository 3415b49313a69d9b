//! Metrics in Prometheus' text format, by vLLM's names.

use phi3_runner::scheduler::SchedulerStats;
use phi3_runner::{FinishReason, Summary};
use phi3_tensor::PAGE;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    TextEncoder,
};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seconds of short times: between tokens.
const SHORT: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

/// Seconds of long times: of whole requests and prompts.
const LONG: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0];

/// Numbers of tokens.
const TOKENS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 20e3, 50e3, 100e3, 200e3];

/// The label of all metrics.
const MODEL: &str = "model_name";

/// Counters and histograms of the server.
pub(crate) struct Metrics {
    registry: Registry,
    /// Held while the scheduler's figures are taken.
    refreshing: Mutex<()>,
    prompt_tokens: IntCounterVec,
    generation_tokens: IntCounterVec,
    requests: IntCounterVec,
    preemptions: IntCounterVec,
    prefix_queries: IntCounterVec,
    prefix_hits: IntCounterVec,
    waiting: GaugeVec,
    running: GaugeVec,
    cache_usage: GaugeVec,
    cache_config: GaugeVec,
    first_token: HistogramVec,
    inter_token: HistogramVec,
    per_token: HistogramVec,
    end_to_end: HistogramVec,
    queue: HistogramVec,
    inference: HistogramVec,
    prefill: HistogramVec,
    decode: HistogramVec,
    request_prompt: HistogramVec,
    request_generation: HistogramVec,
    request_most: HistogramVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(registry.clone());
        let counter = |name, help| make.counter(name, help, &[MODEL]);
        let gauge = |name, help| make.gauge(name, help, &[MODEL]);
        let histogram = |name, help, buckets| make.histogram(name, help, buckets);
        Self {
            prompt_tokens: counter("prompt_tokens_total", "Tokens of prompts."),
            generation_tokens: counter("generation_tokens_total", "New tokens."),
            requests: make.counter("request_success_total", "Answers that have ended.", &[MODEL, "finished_reason"]),
            preemptions: counter("num_preemptions_total", "Times that a running request was paused."),
            prefix_queries: counter("prefix_cache_queries_total", "Tokens that were looked up in the prefix cache."),
            prefix_hits: counter("prefix_cache_hits_total", "Tokens that were found in the prefix cache."),
            waiting: gauge("num_requests_waiting", "Requests that wait."),
            running: gauge("num_requests_running", "Requests that are computed."),
            cache_usage: gauge("kv_cache_usage_perc", "Share of the KV cache in use, from 0 to 1."),
            cache_config: make.gauge("cache_config_info", "Pages of the KV cache.", &["block_size", "num_gpu_blocks"]),
            first_token: histogram("time_to_first_token_seconds", "From the request to its first token.", LONG),
            inter_token: histogram("inter_token_latency_seconds", "From a token to the next.", SHORT),
            per_token: histogram(
                "request_time_per_output_token_seconds",
                "Mean time of a token after the first.",
                SHORT,
            ),
            end_to_end: histogram("e2e_request_latency_seconds", "From the request to the end of its answer.", LONG),
            queue: histogram("request_queue_time_seconds", "From the request to the first pass with rows of it.", LONG),
            inference: histogram(
                "request_inference_time_seconds",
                "From the first pass to the end of the answer.",
                LONG,
            ),
            prefill: histogram("request_prefill_time_seconds", "From the first pass to the first token.", LONG),
            decode: histogram("request_decode_time_seconds", "From the first token to the last.", LONG),
            request_prompt: histogram("request_prompt_tokens", "Tokens of a prompt.", TOKENS),
            request_generation: histogram("request_generation_tokens", "New tokens of an answer.", TOKENS),
            request_most: histogram(
                "request_max_num_generation_tokens",
                "Most new tokens that a request asked for.",
                TOKENS,
            ),
            registry,
            refreshing: Mutex::new(()),
        }
    }

    /// What is recorded of one answer.
    pub(crate) fn recorder(&self, model: &str, arrived: Instant) -> Recorder {
        let [generation, prompt] =
            [&self.generation_tokens, &self.prompt_tokens].map(|counter| counter.with_label_values(&[model]));
        let histogram = |histogram: &HistogramVec| histogram.with_label_values(&[model]);
        let ended = |reason| self.requests.with_label_values(&[model, reason]);
        Recorder {
            arrived,
            last_token: None,
            done: false,
            prompt,
            generation,
            stop: ended("stop"),
            length: ended("length"),
            abort: ended("abort"),
            first_token: histogram(&self.first_token),
            inter_token: histogram(&self.inter_token),
            per_token: histogram(&self.per_token),
            end_to_end: histogram(&self.end_to_end),
            queue: histogram(&self.queue),
            inference: histogram(&self.inference),
            prefill: histogram(&self.prefill),
            decode: histogram(&self.decode),
            request_prompt: histogram(&self.request_prompt),
            request_generation: histogram(&self.request_generation),
        }
    }

    /// Records the limit of new tokens that a request names.
    pub(crate) fn asked_for(&self, model: &str, tokens: usize) {
        self.request_most.with_label_values(&[model]).observe(tokens as f64);
    }

    /// All metrics as text, with the figures of a loaded model's scheduler.
    pub(crate) fn text(&self, model: Option<(&str, SchedulerStats)>) -> String {
        if let Some((name, stats)) = model {
            self.refresh(name, &stats);
        }
        let mut text = Vec::new();
        // writing to memory cannot fail, and no name is invalid
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// Takes the figures of the scheduler.
    fn refresh(&self, model: &str, stats: &SchedulerStats) {
        let _refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let set = |gauge: &GaugeVec, value: f64| gauge.with_label_values(&[model]).set(value);
        set(&self.waiting, stats.waiting as f64);
        set(&self.running, stats.running as f64);
        set(&self.cache_usage, stats.used_pages);
        let raise = |counter: &IntCounterVec, value: u64| {
            let counter = counter.with_label_values(&[model]);
            counter.inc_by(value.saturating_sub(counter.get()));
        };
        raise(&self.preemptions, stats.preemptions);
        raise(&self.prefix_queries, stats.prefix_queries);
        raise(&self.prefix_hits, stats.prefix_hits);
        self.cache_config.reset();
        let config: Gauge = self.cache_config.with_label_values(&[&PAGE.to_string(), &stats.pages.to_string()]);
        config.set(1.0);
    }
}

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let made = IntCounterVec::new(Opts::new(format!("vllm:{name}"), help), labels);
        self.registered(made)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let made = GaugeVec::new(Opts::new(format!("vllm:{name}"), help), labels);
        self.registered(made)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(format!("vllm:{name}"), help).buckets(buckets.to_vec());
        self.registered(HistogramVec::new(options, &[MODEL]))
    }

    fn registered<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let registered = made.and_then(|metric| self.0.register(Box::new(metric.clone())).map(|()| metric));
        registered.expect("names of metrics are valid and differ")
    }
}

/// Records one answer. An answer that is dropped before its end is aborted.
pub(crate) struct Recorder {
    arrived: Instant,
    last_token: Option<Instant>,
    done: bool,
    prompt: IntCounter,
    generation: IntCounter,
    stop: IntCounter,
    length: IntCounter,
    abort: IntCounter,
    first_token: Histogram,
    inter_token: Histogram,
    per_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    inference: Histogram,
    prefill: Histogram,
    decode: Histogram,
    request_prompt: Histogram,
    request_generation: Histogram,
}

impl Recorder {
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        self.generation.inc();
        match self.last_token {
            None => self.first_token.observe((now - self.arrived).as_secs_f64()),
            Some(last) => self.inter_token.observe((now - last).as_secs_f64()),
        }
        self.last_token = Some(now);
    }

    pub(crate) fn done(&mut self, summary: &Summary) {
        self.done = true;
        let (usage, timings) = (&summary.usage, &summary.timings);
        let end_to_end = self.arrived.elapsed();
        let [first, prefill, decode] =
            [timings.first_token_ms, timings.prompt_ms, timings.decode_ms].map(|ms| ms / 1e3);
        self.prompt.inc_by(usage.prompt_tokens as u64);
        match summary.finish_reason {
            FinishReason::Stop => self.stop.inc(),
            FinishReason::Length => self.length.inc(),
            FinishReason::Interrupted => self.abort.inc(),
        }
        self.end_to_end.observe(end_to_end.as_secs_f64());
        self.queue.observe((first - prefill).max(0.0));
        self.prefill.observe(prefill);
        self.decode.observe(decode);
        self.inference.observe(prefill + decode);
        if usage.completion_tokens > 1 {
            self.per_token.observe(decode / (usage.completion_tokens - 1) as f64);
        }
        self.request_prompt.observe(usage.prompt_tokens as f64);
        self.request_generation.observe(usage.completion_tokens as f64);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.done {
            self.abort.inc();
        }
    }
}
