//! Arguments of `serve`.

use super::values::{bytes, positive, seconds};
use super::{ModelArgs, TemplateArgs};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// OpenAI's interface: /v1/chat/completions, /v1/completions, /v1/models; and /health, /metrics, /openapi.json.
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) template: TemplateArgs,
    /// Address to listen on; 0.0.0.0 and :: are all of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port; 0 takes a free one, which is printed
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// Name of the model for requests; may be given several times [default: the name of the model's file or folder]
    #[arg(long, value_name = "NAME", alias = "alias")]
    pub(crate) served_model_name: Vec<String>,
    /// File of API keys, one a line; requests have to name one of them [default: none is asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Origin of web pages that may ask, such as http://localhost:3000, or * for all; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// Further name of this machine in requests, while the server listens on a loopback address; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
    /// Requests that are computed at the same time, at most [default: 64]
    #[arg(long, value_name = "N", value_parser = positive, alias = "max-num-seqs")]
    pub(crate) max_running: Option<usize>,
    /// Requests that wait, at most; others are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) max_queue: usize,
    /// Prompt tokens of requests that wait, at most
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub(crate) max_queue_tokens: usize,
    /// Longest pass while answers are computed, in multiples of one without prompts: 2 keeps answers flowing, 8 favours throughput
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0, value_parser = factor)]
    pub(crate) max_stall: f64,
    /// Size of a request's body, at most, in bytes, with K, M or G
    #[arg(long, value_name = "BYTES", default_value = "32M", value_parser = bytes)]
    pub(crate) max_body: u64,
    /// Answers of one request, at most: prompts times n
    #[arg(long, value_name = "N", default_value = "128", value_parser = positive)]
    pub(crate) max_answers: usize,
    /// Open connections, at most
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive)]
    pub(crate) max_connections: usize,
    /// Time of a request, at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub(crate) request_timeout: Duration,
    /// Time in which a client reads nothing of its answer, at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) write_timeout: Duration,
    /// Time in which a client sends nothing of its request, at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) read_timeout: Duration,
    /// Time for open requests after Ctrl-C or SIGTERM, at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) drain_timeout: Duration,
    /// Print a line for each request
    #[arg(long)]
    pub(crate) log_requests: bool,
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "expected a number")?;
    match factor.is_finite() && factor >= 1.0 {
        true => Ok(factor),
        false => Err("expected a number of at least 1".into()),
    }
}
