//! Fields that requests for chats and for texts share.

use super::grammar;
use crate::body::Fields;
use crate::error::{ApiError, ApiResult};
use phi3_runner::{GenerateOptions, SamplerOptions};
use serde_json::{Map, Value};

/// Events that wait for a client that does not read, before nothing more is computed for it. Buffers of its connection hold some dozens
/// more.
const MAX_UNREAD: usize = 16;

/// Most strings that end an answer.
const MOST_STOPS: usize = 64;

/// Most bytes of these strings: each new token is compared with all of them.
const MOST_STOP_BYTES: usize = 16 << 10;

/// Fields of a request, chat or text.
pub(crate) struct Common {
    pub(crate) model: Option<String>,
    /// Answers to each prompt.
    pub(crate) n: usize,
    pub(crate) stream: bool,
    /// Whether a stream ends with the token counts.
    pub(crate) include_usage: bool,
    /// Options of an answer; `sampler` is absent.
    pub(crate) options: GenerateOptions,
    sampling: Sampling,
}

/// Sampling options that the request names.
struct Sampling {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    top_n_sigma: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Vec<(u32, f32)>,
    seed: Option<i64>,
}

impl Common {
    pub(crate) fn read(fields: &mut Fields, most_answers: usize) -> ApiResult<Self> {
        let most = i64::try_from(most_answers).unwrap_or(i64::MAX);
        let stream_options: Option<Map<String, Value>> = fields.optional("stream_options", "an object")?;
        let include_usage = match stream_options.as_ref().and_then(|options| options.get("include_usage")) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(include)) => *include,
            Some(other) => {
                return Err(ApiError::field(
                    "stream_options.include_usage",
                    "true or false",
                    crate::body::found(other),
                ));
            }
        };
        let skip_special = fields.flag("skip_special_tokens")?.unwrap_or(true);
        Ok(Self {
            model: fields.text("model")?,
            n: fields.integer("n", 1, most)?.unwrap_or(1) as usize,
            stream: fields.flag("stream")?.unwrap_or(false),
            include_usage,
            options: GenerateOptions {
                ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
                raw: !skip_special,
                stop: stops(fields)?,
                grammar: grammar::read(fields)?,
                cache_salt: fields.text("cache_salt")?,
                max_unread: Some(MAX_UNREAD),
                ..GenerateOptions::default()
            },
            sampling: Sampling {
                temperature: fields.number("temperature")?,
                // 0 leaves the likeliest token, as a tiny probability does
                top_p: fields.number("top_p")?.map(|p| if p == 0.0 { f32::MIN_POSITIVE } else { p }),
                top_k: fields.integer("top_k", -1, i64::MAX)?.map(|k| usize::try_from(k).unwrap_or(0)),
                min_p: fields.number("min_p")?,
                typical_p: fields.number("typical_p")?,
                top_n_sigma: fields.number("top_n_sigma")?,
                repetition_penalty: fields.number("repetition_penalty")?,
                presence_penalty: fields.number("presence_penalty")?,
                frequency_penalty: fields.number("frequency_penalty")?,
                logit_bias: logit_bias(fields)?,
                seed: fields.integer("seed", i64::MIN, i64::MAX)?,
            },
        })
    }

    /// The options of each of the `n` answers: seeds differ.
    ///
    /// # Errors
    ///
    /// A value is out of its range.
    pub(crate) fn each(&self, own: &SamplerOptions) -> ApiResult<Vec<GenerateOptions>> {
        let asked = &self.sampling;
        let sampler = SamplerOptions {
            temperature: asked.temperature.unwrap_or(own.temperature),
            top_p: asked.top_p.unwrap_or(own.top_p),
            top_k: asked.top_k.unwrap_or(own.top_k),
            min_p: asked.min_p.unwrap_or(own.min_p),
            typical_p: asked.typical_p.unwrap_or(own.typical_p),
            top_n_sigma: asked.top_n_sigma.unwrap_or(own.top_n_sigma),
            repetition_penalty: asked.repetition_penalty.unwrap_or(own.repetition_penalty),
            presence_penalty: asked.presence_penalty.unwrap_or(own.presence_penalty),
            frequency_penalty: asked.frequency_penalty.unwrap_or(own.frequency_penalty),
            logit_bias: asked.logit_bias.clone(),
            seed: asked.seed.map_or(own.seed, i64::cast_unsigned),
            ..own.clone()
        };
        sampler.check().map_err(phi3_runner::Error::from)?;
        let numbered = |number: usize| {
            let sampler = SamplerOptions { seed: sampler.seed.wrapping_add(number as u64), ..sampler.clone() };
            GenerateOptions { sampler: Some(sampler), ..self.options.clone() }
        };
        Ok((0..self.n).map(numbered).collect())
    }
}

/// Refuses fields that ask for what the server does not do, where leaving them out would change the answer.
pub(crate) fn refuse_unsupported(fields: &mut Fields) -> ApiResult<()> {
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let without_tools = fields.value("tool_choice") == Some(Value::from("none"));
    for name in ["tools", "functions"] {
        let asked = fields.value(name).is_some_and(|value| !is_empty(&value));
        if asked && !without_tools {
            let message = "tools are not supported; hint: describe them in the system message, or use response_format";
            return Err(ApiError::unsupported(name, message));
        }
    }
    let modalities: Option<Vec<String>> = fields.optional("modalities", "an array of strings")?;
    if modalities.is_some_and(|kinds| kinds.iter().any(|kind| kind != "text")) {
        return Err(ApiError::unsupported("modalities", "expected [\"text\"]: answers are text"));
    }
    for (name, message) in [
        ("audio", "answers are text"),
        ("web_search_options", "the server does not search the web"),
        ("suffix", "the model has no tokens to fill in the middle of a text"),
    ] {
        if fields.value(name).is_some_and(|value| !is_empty(&value)) {
            return Err(ApiError::unsupported(name, message));
        }
    }
    Ok(())
}

/// Strings that end the answer: one, or several.
fn stops(fields: &mut Fields) -> ApiResult<Vec<String>> {
    const EXPECTED: &str = "a string or an array of strings";
    let stops = match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(value @ Value::Array(_)) => {
            let found = crate::body::found(&value);
            serde_json::from_value(value).map_err(|_| ApiError::field("stop", EXPECTED, found))?
        }
        Some(other) => return Err(ApiError::field("stop", EXPECTED, crate::body::found(&other))),
    };
    let bytes: usize = stops.iter().map(String::len).sum();
    if stops.len() > MOST_STOPS {
        return Err(ApiError::field("stop", format_args!("at most {MOST_STOPS} strings"), stops.len()));
    }
    match bytes <= MOST_STOP_BYTES {
        true => Ok(stops),
        false => Err(ApiError::field("stop", format_args!("at most {MOST_STOP_BYTES} bytes"), bytes)),
    }
}

/// Biases by token ids, which are strings in JSON.
fn logit_bias(fields: &mut Fields) -> ApiResult<Vec<(u32, f32)>> {
    const EXPECTED: &str = "an object of token ids and numbers, such as {\"15043\": -100}";
    let biases: Option<Map<String, Value>> = fields.optional("logit_bias", EXPECTED)?;
    let parse = |(token, bias): (String, Value)| {
        let parsed = token.parse().ok().zip(bias.as_f64().map(|bias| bias as f32).filter(|bias| bias.is_finite()));
        parsed.ok_or_else(|| {
            ApiError::field("logit_bias", EXPECTED, format_args!("{token:?}: {}", crate::body::found(&bias)))
        })
    };
    biases.into_iter().flatten().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a request go before the model's; those that are off are off.
    #[test]
    fn requests_go_before_the_model() {
        let own = SamplerOptions { temperature: 0.8, top_k: 40, top_p: 0.9, ..SamplerOptions::default() };
        let sampler = |text: &str| {
            let common = Common::read(&mut Fields::parse(text.as_bytes()).unwrap(), 8).unwrap();
            common.each(&own).unwrap().remove(0).sampler.unwrap()
        };
        assert_eq!(sampler(r#"{"top_p": null}"#), own);
        assert_eq!(
            sampler(r#"{"temperature": 0, "top_k": 3}"#),
            SamplerOptions { temperature: 0.0, top_k: 3, ..own.clone() }
        );
        for off in ["-1", "0", "-1.0"] {
            assert_eq!(sampler(&format!(r#"{{"top_k": {off}}}"#)).top_k, 0);
        }
        assert!(sampler(r#"{"top_p": 0}"#).top_p > 0.0);
    }
}
