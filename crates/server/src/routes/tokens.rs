//! Texts to tokens and back, as routers and evaluation tools ask for them.

use crate::body::{Fields, found, token_ids};
use crate::error::{ApiError, ApiResult};
use crate::protocol::chat::with_param;
use crate::protocol::messages::Chat;
use crate::state::{App, Loaded};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

/// Longest text in bytes.
const MOST_BYTES: usize = 2 << 20;

/// Most token ids.
const MOST_IDS: usize = 1 << 20;

/// `POST /tokenize`: `prompt` (of vLLM) or `content` (of llama.cpp), or the `messages` of a chat.
pub(super) async fn tokenize(State(app): State<App>, mut fields: Fields) -> ApiResult<Json<Value>> {
    let model = fields.text("model")?;
    let messages: Option<Vec<Value>> = fields.optional("messages", "an array of messages")?;
    let text = match fields.text("prompt")? {
        Some(text) => Some(text),
        None => fields.text("content")?,
    };
    let add_special = fields.flag("add_special_tokens")?;
    let add_header = fields.flag("add_generation_prompt")?.unwrap_or(true);
    let with_texts = fields.flag("return_token_strs")?.unwrap_or(false);
    app.ready()?.check_name(model.as_deref())?;
    let answer = app.prepare(move |loaded| {
        let ids = match (messages, text) {
            (Some(_), Some(_)) => return Err(ApiError::field("prompt", "one of prompt and messages", "both")),
            (None, None) => {
                return Err(ApiError::field("prompt", "a string", "none").code("missing_required_parameter"));
            }
            (None, Some(text)) => {
                check_size("prompt", &text)?;
                loaded.engine.tokenizer()?.encode(&text, add_special.unwrap_or(true))
            }
            (Some(messages), None) => {
                let chat = Chat::read(messages, loaded)?;
                let named = |error: phi3_runner::Error| with_param(error.into(), "messages");
                if !chat.images.is_empty() {
                    let prompt = loaded.engine.chat_prompt(&chat.messages, &chat.images).map_err(named)?;
                    return Ok(listed(loaded, &prompt.ids(), with_texts));
                }
                let text = loaded.engine.render(&chat.messages, add_header).map_err(named)?;
                check_size("messages", &text)?;
                loaded.engine.tokenizer()?.encode_chat(&text)
            }
        };
        Ok(listed(loaded, &ids.map_err(phi3_runner::Error::from)?, with_texts))
    });
    Ok(Json(answer.await?))
}

/// Refuses a text that would keep others waiting. It is longer than any context.
fn check_size(name: &str, text: &str) -> ApiResult<()> {
    match text.len() <= MOST_BYTES {
        true => Ok(()),
        false => Err(ApiError::field(name, format_args!("at most {MOST_BYTES} bytes"), text.len())),
    }
}

fn listed(loaded: &Loaded, ids: &[u32], with_texts: bool) -> Value {
    let texts: Option<Vec<String>> =
        loaded.texts().ok().filter(|_| with_texts).map(|texts| ids.iter().map(|&id| texts.text(id)).collect());
    json!({"count": ids.len(), "max_model_len": loaded.context(), "tokens": ids, "token_strs": texts})
}

/// `POST /detokenize`
pub(super) async fn detokenize(State(app): State<App>, mut fields: Fields) -> ApiResult<Json<Value>> {
    let model = fields.text("model")?;
    const EXPECTED: &str = "an array of token ids";
    let values: Vec<Value> = fields.required("tokens", EXPECTED)?;
    let ids = token_ids(&values).ok_or_else(|| ApiError::field("tokens", EXPECTED, "other values"))?;
    if ids.len() > MOST_IDS {
        return Err(ApiError::field("tokens", format_args!("at most {MOST_IDS} ids"), ids.len()));
    }
    app.ready()?.check_name(model.as_deref())?;
    let answer = app.prepare(move |loaded| {
        let vocabulary = loaded.engine.spec().vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(ApiError::field("tokens", format_args!("ids below {vocabulary}"), found(&Value::from(*id))));
        }
        let text = loaded.engine.tokenizer()?.decode(&ids, false).map_err(phi3_runner::Error::from)?;
        // vLLM's name, and llama.cpp's
        Ok(json!({"prompt": text, "content": text}))
    });
    Ok(Json(answer.await?))
}

/// `GET /tokenizer_info`
pub(super) async fn info(State(app): State<App>) -> ApiResult<Json<Value>> {
    let loaded = app.ready()?;
    let engine = &loaded.engine;
    let tokenizer = engine.tokenizer()?;
    let template = engine.template();
    let special = |name| template.and_then(|template| template.special_token(name));
    let stops = &engine.generation_config().eos_token_id;
    let first_stop = || stops.first().and_then(|&id| tokenizer.id_to_token(id));
    Ok(Json(json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "vocab_size": tokenizer.vocab_size(),
        "model_max_length": loaded.context(),
        "bos_token": special("bos_token"),
        "eos_token": special("eos_token").map(str::to_owned).or_else(first_stop),
        "pad_token": special("pad_token").or(special("eos_token")),
        "unk_token": special("unk_token"),
        "chat_template": template.map(|template| template.source()),
    })))
}
