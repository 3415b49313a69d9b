//! Answers to requests: chats, texts, streams, log-probabilities, forms.

use crate::running::{Running, demo};
use phi3_runner::GenerateOptions;
use phi3_runner::text::Message;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn question(text: &str) -> Value {
    json!([{"role": "system", "content": "You are a poet."}, {"role": "user", "content": text}])
}

/// The fields of a request with more of them.
fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Text of the answer of a number in a stream.
fn streamed(chunks: &[Value], number: usize) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    let own = choices.filter(|choice| choice["index"] == number);
    own.filter_map(|choice| choice["delta"]["content"].as_str().or(choice["text"].as_str())).collect()
}

/// Checks an answer against the server's own description.
fn check_form(running: &Running, schema: &str, answer: &Value) {
    let document = running.get("/openapi.json").json();
    let schema = json!({"$ref": format!("#/components/schemas/{schema}"), "components": document["components"]});
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(answer).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}: {answer}");
}

#[test]
fn chats_answer_as_the_library_does() {
    let running = Running::start();
    let engine = demo().build().unwrap();
    for question_text in ["Tell me a story about a brave fox", "Who are you?", "What is 47 + 38?"] {
        let messages = [Message::system("You are a poet."), Message::user(question_text)];
        let options = GenerateOptions {
            max_tokens: Some(40),
            sampler: Some(phi3_runner::SamplerOptions::default()),
            ..GenerateOptions::default()
        };
        let alone = engine.chat(&messages, &options).unwrap().collect_all().unwrap();
        let body = json!({"model": "demo", "messages": question(question_text), "temperature": 0, "max_tokens": 40});
        let answer = running.post(CHAT, &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let whole = answer.json();
        check_form(&running, "ChatCompletion", &whole);
        let choice = &whole["choices"][0];
        assert_eq!(choice["message"]["content"], alone.text);
        let reason = if alone.summary.finish_reason == phi3_runner::FinishReason::Stop { "stop" } else { "length" };
        assert_eq!(choice["finish_reason"], reason);
        assert_eq!(whole["usage"]["completion_tokens"], alone.summary.usage.completion_tokens);
        assert_eq!(whole["usage"]["prompt_tokens"], alone.summary.usage.prompt_tokens);
        assert_eq!(whole["model"], "demo");

        let chunks =
            running.post(CHAT, &with(body, &json!({"stream": true, "stream_options": {"include_usage": true}})));
        let chunks = chunks.chunks();
        assert_eq!(streamed(&chunks, 0), alone.text);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let [.., end, last] = chunks.as_slice() else { panic!("{chunks:?}") };
        assert_eq!((&end["choices"][0]["finish_reason"], &end["usage"]), (&reason.into(), &Value::Null));
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
        // the same question again is cached but for its last token
        let cached = last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(cached + 2 >= whole["usage"]["prompt_tokens"].as_u64().unwrap(), "{last}");
        assert!(
            chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk")
        );
    }
}

#[test]
fn several_answers_and_seeds() {
    let running = Running::start();
    let body =
        json!({"messages": question("A story?"), "n": 3, "seed": 7, "temperature": 1.5, "top_p": 1, "max_tokens": 12});
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap().to_owned()).collect()
    };
    let first = texts(&running.post(CHAT, &body).json());
    assert_eq!(first.len(), 3);
    assert!(first[0] != first[1] || first[1] != first[2]);
    assert_eq!(texts(&running.post(CHAT, &body).json()), first, "a seed repeats its answers");
    let chunks = running.post(CHAT, &with(body.clone(), &json!({"stream": true}))).chunks();
    assert_eq!([0, 1, 2].map(|number| streamed(&chunks, number)).to_vec(), first);
    // the second answer is the first one of the next seed
    let second = running.post(CHAT, &with(body.clone(), &json!({"n": 1, "seed": 8})));
    assert_eq!(texts(&second.json()), first[1..2]);
    let negative = with(body, &json!({"seed": -3, "n": null}));
    assert_eq!(texts(&running.post(CHAT, &negative).json()), texts(&running.post(CHAT, &negative).json()));
}

#[test]
fn stop_strings_end_answers() {
    let running = Running::start();
    let body = json!({"messages": question("Tell me a story about a brave fox"), "temperature": 0, "max_tokens": 60});
    let whole = running.post(CHAT, &body).json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let word = whole.split_whitespace().nth(3).unwrap();
    for stop in [json!(word), json!([word]), json!(["never there", word])] {
        let body = with(body.clone(), &json!({"stop": stop}));
        let answer = running.post(CHAT, &body).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(
            (text, &answer["choices"][0]["finish_reason"]),
            (&whole[..whole.find(word).unwrap()], &"stop".into())
        );
        assert_eq!(streamed(&running.post(CHAT, &with(body, &json!({"stream": true}))).chunks(), 0), text);
    }
}

#[test]
fn log_probabilities_of_chats() {
    let running = Running::start();
    let body = json!({
        "messages": question("Hello?"), "temperature": 0, "max_tokens": 24, "logprobs": true, "top_logprobs": 3,
    });
    let answer = running.post(CHAT, &body).json();
    check_form(&running, "ChatCompletion", &answer);
    let choice = &answer["choices"][0];
    let tokens = choice["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token["bytes"].as_array().unwrap())
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    // the tokenizer drops the space in front of an answer
    assert_eq!(
        String::from_utf8(bytes).unwrap().trim_start(),
        choice["message"]["content"].as_str().unwrap().trim_start()
    );
    for token in tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"], &top[0]["logprob"]), (3, &token["token"], &token["logprob"]));
        assert!(top.is_sorted_by(|a, b| a["logprob"].as_f64() >= b["logprob"].as_f64()));
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
    let chunks = running.post(CHAT, &with(body.clone(), &json!({"stream": true}))).chunks();
    let streamed: Vec<&Value> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array()).flatten().collect();
    assert_eq!(streamed, tokens.iter().collect::<Vec<_>>());
    let none = with(body, &json!({"logprobs": false, "top_logprobs": null}));
    assert_eq!(running.post(CHAT, &none).json()["choices"][0]["logprobs"], Value::Null);
}

/// What lm-evaluation-harness asks: log-likelihoods of given texts, as token ids.
#[test]
fn log_likelihoods_of_prompts() {
    let running = Running::start();
    let tokens = |text: &str| running.post("/tokenize", &json!({"prompt": text})).json()["tokens"].clone();
    let prompts = json!([tokens("The fox is brave"), tokens("Once upon a time there was")]);
    let body = json!({
        "model": "phi", "prompt": prompts, "echo": true, "max_tokens": 1, "logprobs": 1, "temperature": 0, "seed": 1234,
    });
    let answer = running.post(TEXT, &body).json();
    check_form(&running, "Completion", &answer);
    for (number, prompt) in prompts.as_array().unwrap().iter().enumerate() {
        let choice = &answer["choices"][number];
        let scores = &choice["logprobs"];
        let count = prompt.as_array().unwrap().len() + 1;
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let length = scores[name].as_array().unwrap().len();
            assert_eq!(length, count, "{name}: {choice}");
        }
        assert_eq!((&scores["token_logprobs"][0], &scores["top_logprobs"][0]), (&Value::Null, &Value::Null));
        for (score, top) in
            scores["token_logprobs"].as_array().unwrap().iter().zip(scores["top_logprobs"].as_array().unwrap()).skip(1)
        {
            let best = top.as_object().unwrap().values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max);
            assert!(score.as_f64().unwrap() <= best && best <= 0.0);
        }
        let text =
            running.post("/detokenize", &json!({"tokens": prompt})).json()["prompt"].as_str().unwrap().to_owned();
        assert!(choice["text"].as_str().unwrap().starts_with(&text), "{choice}");
    }
    // a stop token has an entry, as tools take the last one for the new token
    let ended = "<|user|> What is 47 + 38?<|end|><|assistant|> 47 + 38 = 85.";
    let ended = with(body.clone(), &json!({"prompt": ended, "add_special_tokens": false}));
    let ended = running.post(TEXT, &ended).json();
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    let entries = ended["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().len();
    assert_eq!(ended["usage"]["total_tokens"], entries);
    // alone, and in a stream, the same
    let one = with(body.clone(), &json!({"prompt": prompts[1]}));
    assert_eq!(running.post(TEXT, &one).json()["choices"][0]["logprobs"], answer["choices"][1]["logprobs"]);
    let chunks = running.post(TEXT, &with(body, &json!({"stream": true}))).chunks();
    for number in [0, 1] {
        let own = || {
            chunks
                .iter()
                .flat_map(|chunk| chunk["choices"].as_array().unwrap())
                .filter(|choice| choice["index"] == number)
        };
        let scores: Vec<&Value> =
            own().filter_map(|choice| choice["logprobs"]["token_logprobs"].as_array()).flatten().collect();
        let wanted: Vec<&Value> =
            answer["choices"][number]["logprobs"]["token_logprobs"].as_array().unwrap().iter().collect();
        assert_eq!(scores, wanted);
        assert_eq!(streamed(&chunks, number), answer["choices"][number]["text"].as_str().unwrap());
    }
}

#[test]
fn texts_are_continued() {
    let running = Running::start();
    let body = json!({"prompt": ["Once", "The brave"], "n": 2, "temperature": 0, "max_tokens": 8, "echo": true});
    let answer = running.post(TEXT, &body).json();
    check_form(&running, "Completion", &answer);
    let choices = answer["choices"].as_array().unwrap();
    let texts: Vec<&str> = choices.iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert!(texts[0].starts_with("Once") && texts[2].starts_with("The brave") && texts[0] == texts[1]);
    assert_eq!(choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // the answer goes on in the text of the prompt
    let whole =
        running.post(TEXT, &json!({"prompt": "Once upon", "temperature": 0, "max_tokens": 3, "echo": true})).json();
    assert_eq!(whole["choices"][0]["text"], "Once upon a time,");
    let chunks = running.post(TEXT, &with(body.clone(), &json!({"stream": true}))).chunks();
    assert!((0..4).all(|number| streamed(&chunks, number) == texts[number]));
    // the default is 16 tokens; none is a valid number
    let count = |more: Value| {
        let body = with(json!({"prompt": "Once", "ignore_eos": true, "temperature": 0}), &more);
        running.post(TEXT, &body).json()["usage"]["completion_tokens"].as_u64().unwrap()
    };
    assert_eq!([count(json!({})), count(json!({"max_tokens": 0})), count(json!({"max_tokens": 3}))], [16, 0, 3]);
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let running = Running::start();
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["city", "size"],
        "properties": {"city": {"enum": ["Rome", "Oslo"]}, "size": {"type": "integer", "minimum": 1, "maximum": 99}},
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": schema}});
    for seed in 0..4 {
        let body =
            json!({"messages": question("A city?"), "response_format": format, "seed": seed, "temperature": 1.2});
        let answer = running.post(CHAT, &body).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let city: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert!(jsonschema::is_valid(&schema, &city), "{city}");
    }
    let answer = |form: Value| {
        let body = with(json!({"messages": question("?"), "max_tokens": 30, "temperature": 0}), &form);
        let answer = running.post(CHAT, &body).json();
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    assert!(answer(json!({"response_format": {"type": "json_object"}})).starts_with('{'));
    let choice = answer(json!({"structured_outputs": {"choice": ["to be (1)", "not. to be"]}}));
    assert!(["to be (1)", "not. to be"].contains(&choice.as_str()), "{choice}");
    let number = answer(json!({"structured_outputs": {"regex": "[0-9]{3}-[0-9]{2}"}}));
    assert!(number.len() == 6 && number.as_bytes()[3] == b'-', "{number}");
    assert_eq!(answer(json!({"structured_outputs": {"grammar": "start: \"ab\" \"c\""}})), "abc");
    for (form, named) in [
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"uniqueItems": true, "type": "array"}}}}),
            "uniqueItems",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}}}),
            "strange",
        ),
        (json!({"structured_outputs": {"regex": "(?=x)"}}), "regular expression"),
        (json!({"structured_outputs": {"grammar": "start: nowhere"}}), "nowhere"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"structured_outputs": {}}), "structured_outputs"),
    ] {
        for stream in [false, true] {
            let refused = running.post(CHAT, &with(json!({"messages": question("?"), "stream": stream}), &form));
            assert_eq!(refused.status, 400, "{form}");
            assert!(refused.json()["error"]["message"].as_str().unwrap().contains(named), "{}", refused.text);
        }
    }
}

#[test]
fn messages_have_parts_and_roles() {
    let running = Running::start();
    let answer = |messages: Value| {
        let answer = running.post(CHAT, &json!({"messages": messages, "temperature": 0, "max_tokens": 16}));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    let plain = answer(question("Hello\nthere"));
    let parts = json!([
        {"role": "developer", "content": [{"type": "text", "text": "You are a poet."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]},
    ]);
    assert_eq!(answer(parts), plain);
    let dialogue = json!([
        {"role": "user", "content": "Hi", "name": null}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"},
    ]);
    answer(dialogue);
}
