//! Texts to tokens and back, as routers and evaluation tools ask for them.

use crate::body::{Fields, found};
use crate::error::{ApiError, ApiResult};
use crate::protocol::messages::Chat;
use crate::state::{App, Loaded};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

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
            (None, Some(text)) => loaded.engine.tokenizer()?.encode(&text, add_special.unwrap_or(true)),
            (Some(messages), None) => {
                let chat = Chat::read(messages, loaded)?;
                if !chat.images.is_empty() {
                    return Ok(listed(
                        loaded,
                        &loaded.engine.chat_prompt(&chat.messages, &chat.images)?.ids(),
                        with_texts,
                    ));
                }
                let text = loaded.engine.render(&chat.messages, add_header)?;
                loaded.engine.tokenizer()?.encode_chat(&text)
            }
        };
        Ok(listed(loaded, &ids.map_err(phi3_runner::Error::from)?, with_texts))
    });
    Ok(Json(answer.await?))
}

fn listed(loaded: &Loaded, ids: &[u32], with_texts: bool) -> Value {
    let texts: Option<Vec<String>> =
        loaded.texts().ok().filter(|_| with_texts).map(|texts| ids.iter().map(|&id| texts.text(id)).collect());
    json!({"count": ids.len(), "max_model_len": loaded.context(), "tokens": ids, "token_strs": texts})
}

/// `POST /detokenize`
pub(super) async fn detokenize(State(app): State<App>, mut fields: Fields) -> ApiResult<Json<Value>> {
    let model = fields.text("model")?;
    let ids: Vec<u32> = fields.required("tokens", "an array of token ids")?;
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
