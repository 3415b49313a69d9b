//! Added tokens, which are found in the raw text: those of `tokenizer.json` and of the files beside it, each with its id.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use tokenizers::{AddedToken, PreTokenizerWrapper};

use super::companions::{Companions, Wanted};
use super::error::{Error, Result};
use super::guarded::guarded;
use super::outline::{HINT, Outline};

/// A tokenizer of the library with all its added tokens.
pub(super) struct Opened {
    pub(super) tokenizer: tokenizers::Tokenizer,
    pub(super) special: HashSet<u32>,
    pub(super) notes: Vec<String>,
}

/// Opens the bytes of a `tokenizer.json` and adds the tokens of the files beside it.
pub(super) fn open(file: &str, bytes: &[u8], outline: &Outline, companions: Companions) -> Result<Opened> {
    let mut tokenizer = parse(file, bytes)?;
    let gaps = gaps_within(file, outline, &tokenizer)?;
    let mut rewritten = None;
    if !gaps.is_empty() {
        let bytes = with_vocabulary(file, bytes, &gaps)?;
        tokenizer = parse(file, &bytes)?;
        if let Some((token, id)) = gaps.iter().find(|(token, id)| tokenizer.token_to_id(token) != Some(*id)) {
            return Err(no_room(file, token, *id));
        }
        rewritten = Some(bytes);
    }
    let mut plan = Plan::of(&tokenizer, &companions.wanted);
    let notes = std::mem::take(&mut plan.notes);
    // the library accepts a given id for tokens of the vocabulary only; a filled gap may reveal another one
    while let Some((token, id)) = plan.gaps.first().cloned() {
        let known = tokenizer.get_vocab(false);
        let own = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let own = own.iter().map(|(id, token)| (token.content.clone(), *id));
        // a larger vocabulary would change the ids of the added tokens after it
        let tokens: Vec<_> = own.filter(|(token, _)| !known.contains_key(token)).chain(plan.gaps).collect();
        let bytes = with_vocabulary(file, rewritten.as_deref().unwrap_or(bytes), &tokens)?;
        tokenizer = parse(file, &bytes)?;
        if tokenizer.token_to_id(&token) != Some(id) {
            return Err(no_room(file, &token, id));
        }
        rewritten = Some(bytes);
        plan = Plan::of(&tokenizer, &companions.wanted);
    }
    plan.notes = notes;
    let mut special: HashSet<u32> = specials(&tokenizer);
    guarded(|| tokenizer.add_tokens(plan.add)).map_err(|reason| malformed(file, reason))?;
    special.extend(specials(&tokenizer));
    if let Some(prefix) = companions.prefix_space
        && let Some(PreTokenizerWrapper::ByteLevel(bytes)) = tokenizer.get_pre_tokenizer()
    {
        let mut bytes = *bytes;
        bytes.add_prefix_space = prefix;
        tokenizer.with_pre_tokenizer(Some(bytes));
    }
    tokenizer.set_encode_special_tokens(companions.split_special_tokens);
    let lost = companions.unread.iter().filter(|(_, token)| tokenizer.token_to_id(token).is_none());
    let lost = lost.map(|(from, token)| {
        format!("{from}: {token:?} is not added: added_tokens_decoder of tokenizer_config.json does not have it")
    });
    let notes = companions.notes.into_iter().chain(plan.notes).chain(lost).collect();
    Ok(Opened { tokenizer, special, notes })
}

fn malformed(file: &str, reason: String) -> Error {
    Error::Malformed { file: file.into(), reason, hint: HINT }
}

fn parse(file: &str, bytes: &[u8]) -> Result<tokenizers::Tokenizer> {
    guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|reason| malformed(file, reason))
}

fn specials(tokenizer: &tokenizers::Tokenizer) -> HashSet<u32> {
    let tokens = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    tokens.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect()
}

fn no_room(file: &str, token: &str, id: u32) -> Error {
    Error::Field {
        file: file.into(),
        field: "added_tokens".into(),
        expected: format!("an id that {token:?} can have"),
        found: id.to_string(),
        hint: HINT,
    }
}

/// The file's own added tokens whose ids the library would change, as they do not follow the vocabulary.
fn gaps_within(file: &str, outline: &Outline, tokenizer: &tokenizers::Tokenizer) -> Result<Vec<(String, u32)>> {
    let has_its_id = |token: &super::outline::AddedToken| tokenizer.token_to_id(&token.content) == Some(token.id);
    if outline.added_tokens.iter().all(has_its_id) {
        return Ok(Vec::new());
    }
    let known = tokenizer.get_vocab(false);
    let by_id: HashMap<u32, &str> = known.iter().map(|(token, id)| (*id, token.as_str())).collect();
    let (mut gaps, mut seen) = (Vec::new(), HashMap::new());
    for (i, token) in outline.added_tokens.iter().enumerate() {
        let content = token.content.as_str();
        let bad = |expected: String| Error::Field {
            file: file.into(),
            field: format!("added_tokens[{i}].id"),
            expected,
            found: token.id.to_string(),
            hint: "every token has one id, and every id one token",
        };
        if let Some(id) = known.get(content).filter(|id| **id != token.id) {
            return Err(bad(format!("{id} for {content:?}, as in model.vocab")));
        }
        if let Some(other) = by_id.get(&token.id).filter(|other| **other != content) {
            return Err(bad(format!("an id that {content:?} can have, not that of {other:?}")));
        }
        if let Some(other) = seen.insert(token.id, content).filter(|other| *other != content) {
            return Err(bad(format!("an id that {content:?} can have, not that of {other:?}")));
        }
        if !known.contains_key(content) {
            gaps.push((content.to_owned(), token.id));
        }
    }
    Ok(gaps)
}

/// The bytes of a `tokenizer.json` with more tokens in its vocabulary, which no merge makes.
fn with_vocabulary(file: &str, bytes: &[u8], tokens: &[(String, u32)]) -> Result<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(bytes).map_err(|error| malformed(file, error.to_string()))?;
    let Some(vocabulary) = json["model"]["vocab"].as_object_mut() else {
        return Err(tokens.first().map_or_else(
            || malformed(file, "model.vocab is not an object".into()),
            |(token, id)| no_room(file, token, *id),
        ));
    };
    vocabulary.extend(tokens.iter().map(|(token, id)| (token.clone(), Value::from(*id))));
    serde_json::to_vec(&json).map_err(|error| malformed(file, error.to_string()))
}

/// Changes by the files beside `tokenizer.json`.
#[derive(Default)]
struct Plan {
    /// Tokens to add to the library's tokenizer, in this order.
    add: Vec<AddedToken>,
    /// Tokens whose ids leave a gap.
    gaps: Vec<(String, u32)>,
    notes: Vec<String>,
}

impl Plan {
    fn of(tokenizer: &tokenizers::Tokenizer, wanted: &[Wanted]) -> Self {
        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let mut next = next_id(tokenizer);
        let mut new: HashMap<&str, u32> = HashMap::new();
        let mut plan = Self::default();
        for Wanted { token, id: given, wins, from } in wanted {
            let content = token.content.as_str();
            let id = new.get(content).copied().or_else(|| tokenizer.token_to_id(content));
            if let Some(id) = id {
                if let Some(given) = given.filter(|given| *given != id) {
                    plan.notes.push(format!("{from}: {content:?} has the id {id} in the tokenizer, not {given}"));
                }
                let there = new.contains_key(content) || added.get(&id).is_some_and(|old| old.content == *content);
                if (*wins || !there) && added.get(&id) != Some(token) {
                    plan.add.push(token.clone());
                }
                continue;
            }
            let taken = |id: u32| {
                let earlier = new.iter().find(|(_, other)| **other == id).map(|(token, _)| (*token).to_owned());
                earlier.or_else(|| tokenizer.id_to_token(id))
            };
            match given {
                Some(given) if taken(*given).is_some() => {
                    let other = taken(*given).unwrap_or_default();
                    plan.notes.push(format!(
                        "{from}: {content:?} cannot have the id {given}, which is {other:?} in the tokenizer; it has {next}"
                    ));
                }
                Some(given) if *given != next => {
                    plan.notes.push(format!(
                        "{from}: the id {given} of {content:?} does not follow the vocabulary, where {next} is next; it is used"
                    ));
                    plan.gaps.push((content.to_owned(), *given));
                    next = next.max(given.saturating_add(1));
                    new.insert(content, *given);
                    continue;
                }
                _ => {}
            }
            plan.add.push(token.clone());
            new.insert(content, next);
            next = next.saturating_add(1);
        }
        plan
    }
}

/// The id that the library gives to the next token.
fn next_id(tokenizer: &tokenizers::Tokenizer) -> u32 {
    let size = tokenizer.get_vocab_size(false) as u32;
    let last = tokenizer.get_added_vocabulary().get_added_tokens_decoder().keys().max();
    last.map_or(size, |last| if *last >= size { last.saturating_add(1) } else { size })
}
