//! The tokens that a tokenizer adds around a text: the field `post_processor` of a `tokenizer.json`.

use serde_json::{Map, Value, json};

/// The ids that a post-processor adds before a text and after it.
pub(super) fn around(processor: &Value) -> (Vec<u32>, Vec<u32>) {
    let steps = processor["processors"].as_array().map_or(std::slice::from_ref(processor), Vec::as_slice);
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for step in steps.iter().filter(|step| step["type"] == "TemplateProcessing") {
        let (mut before, mut behind, mut seen) = (Vec::new(), Vec::new(), false);
        for piece in step["single"].as_array().into_iter().flatten() {
            seen |= piece["Sequence"].is_object();
            let name = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
            let ids = step["special_tokens"][name]["ids"].as_array().into_iter().flatten();
            let ids = ids.filter_map(|id| u32::try_from(id.as_u64()?).ok());
            if seen { behind.extend(ids) } else { before.extend(ids) }
        }
        // each step puts its ids around those of the steps before
        first.splice(0..0, before);
        last.extend(behind);
    }
    (first, last)
}

/// A post-processor that adds a token before a text and one after it.
pub(super) fn processor(first: Option<(u32, &str)>, last: Option<(u32, &str)>) -> Value {
    let special =
        |token: Option<(u32, &str)>| token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": 0}}));
    let sequence = |id: &str| Some(json!({"Sequence": {"id": id, "type_id": 0}}));
    let single: Vec<Value> = [special(first), sequence("A"), special(last)].into_iter().flatten().collect();
    let pair: Vec<Value> =
        [special(first), sequence("A"), sequence("B"), special(last)].into_iter().flatten().collect();
    let tokens: Map<String, Value> = first
        .into_iter()
        .chain(last)
        .map(|(id, token)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_around_is_found_again() {
        let (first, last) = ((1, "<s>"), (2, "</s>"));
        assert_eq!(around(&processor(Some(first), Some(last))), (vec![1], vec![2]));
        assert_eq!(around(&processor(None, Some(last))), (vec![], vec![2]));
        let bytes = json!({"type": "ByteLevel", "trim_offsets": true});
        let sequence = json!({"type": "Sequence", "processors": [bytes, processor(Some(first), None)]});
        assert_eq!(around(&sequence), (vec![1], vec![]));
        for none in [Value::Null, bytes, processor(None, None)] {
            assert_eq!(around(&none), (vec![], vec![]));
        }
    }
}
