//! Chat templates compared with the output of transformers.

use std::collections::HashMap;

use phi3_runner::text::{ChatTemplate, Message};
use serde::Deserialize;

use super::data::{PHI_3, json, path, vectors};

#[derive(Deserialize)]
struct ChatVector {
    template: String,
    bos_token: String,
    eos_token: String,
    add_generation_prompt: bool,
    messages: Vec<Message>,
    rendered: String,
    ids: Option<Vec<u32>>,
}

#[test]
fn all_vectors() {
    let templates: HashMap<String, String> = json("tokenizer/phi-3/chat_templates.json");
    let vectors: Vec<ChatVector> = vectors("tokenizer/phi-3/chat-vectors.json");
    assert!(vectors.len() > 10);
    for v in vectors {
        let source = &templates[&v.template];
        let template = ChatTemplate::from_source(&v.template, source, &v.bos_token, &v.eos_token).unwrap();
        let rendered = template.render(&v.messages, v.add_generation_prompt).unwrap();
        assert_eq!(rendered, v.rendered, "{}", v.template);
        if let Some(ids) = v.ids {
            assert_eq!(PHI_3.encode(&rendered, false).unwrap(), ids, "{rendered:?}");
        }
    }
}

#[test]
fn templates_of_checkpoints() {
    let folder = ChatTemplate::from_checkpoint(path("tokenizer/phi-3")).unwrap();
    let messages = [Message::system(""), Message::user("Hi")];
    assert_eq!(folder.render(&messages, false).unwrap(), "<|system|>\n<|end|>\n<|user|>\nHi<|end|>\n<|endoftext|>");
    let text = std::fs::read_to_string(path("tokenizer/phi-3/tokenizer_config.phi-3.5.json")).unwrap();
    let phi_3_5 = ChatTemplate::from_config("phi-3.5", &text).unwrap();
    assert_eq!(phi_3_5.render(&messages, true).unwrap(), "<|user|>\nHi<|end|>\n<|assistant|>\n");
    let vision = ChatTemplate::from_checkpoint(path("tokenizer/phi-3-vision")).unwrap();
    assert_eq!(vision.render(&messages[1..], true).unwrap(), "<|user|>\nHi<|end|>\n<|assistant|>\n");
    let demo = ChatTemplate::from_config("demo", phi3_demo::TOKENIZER_CONFIG).unwrap();
    assert_eq!(demo.render(&messages, true).unwrap(), "<|user|>\nHi<|end|>\n<|assistant|>\n");
}
