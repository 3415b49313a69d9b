//! Ranking of texts by BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond").

use std::collections::{BTreeMap, BTreeSet};

/// Saturation of a word's count in a text.
const K1: f64 = 1.2;

/// Share of a text's length in its score, from 0 to 1.
const B: f64 = 0.75;

/// Words that are in most texts. They are not indexed, so that a question without any other word finds nothing.
const STOP_WORDS: [&str; 52] = [
    "a", "about", "all", "an", "and", "any", "are", "as", "at", "be", "but", "by", "can", "do", "does", "for", "from",
    "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "many", "me", "much", "my", "not", "of", "on",
    "or", "so", "than", "that", "the", "there", "this", "to", "was", "what", "when", "where", "which", "who", "why",
    "with", "you", "your",
];

/// Index of texts, which are numbered from 0.
pub(crate) struct Index {
    /// For each word, the texts that contain it.
    postings: BTreeMap<String, Vec<Posting>>,
    /// Number of words of each text.
    lengths: Vec<usize>,
}

/// A text that contains a word.
struct Posting {
    text: usize,
    count: usize,
}

impl Index {
    pub(crate) fn new(texts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut index = Self { postings: BTreeMap::new(), lengths: Vec::new() };
        for (text, content) in texts.into_iter().enumerate() {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for word in words(content.as_ref()) {
                *counts.entry(word).or_default() += 1;
            }
            index.lengths.push(counts.values().sum());
            for (word, count) in counts {
                index.postings.entry(word).or_default().push(Posting { text, count });
            }
        }
        index
    }

    /// The texts that share a word with the question, the best first.
    pub(crate) fn search(&self, question: &str) -> Vec<usize> {
        let texts = self.lengths.len() as f64;
        let average = self.lengths.iter().sum::<usize>() as f64 / texts.max(1.0);
        let mut scores: BTreeMap<usize, f64> = BTreeMap::new();
        for word in words(question).collect::<BTreeSet<_>>() {
            let Some(postings) = self.postings.get(&word) else { continue };
            let containing = postings.len() as f64;
            // a rare word counts more than a frequent one
            let weight = (1.0 + (texts - containing + 0.5) / (containing + 0.5)).ln();
            for posting in postings {
                let count = posting.count as f64;
                let length = self.lengths[posting.text] as f64 / average;
                let score = weight * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length));
                *scores.entry(posting.text).or_default() += score;
            }
        }
        let mut ranked: Vec<(usize, f64)> = scores.into_iter().collect();
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        ranked.into_iter().map(|(text, _)| text).collect()
    }
}

/// Words of a text: runs of letters and digits, in lower case and without a plural's s. Languages that are written without spaces
/// need another division.
fn words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty());
    runs.map(str::to_lowercase).filter(|word| !STOP_WORDS.contains(&word.as_str())).map(singular)
}

fn singular(mut word: String) -> String {
    if word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_on_a_small_corpus() {
        let index = Index::new([
            "The cache has pages. A page of the cache has sixteen positions.",
            "Tokens are sampled on the device.",
            "The page table counts references; the scheduler, the engine and many more things are described elsewhere.",
            "",
        ]);
        // "page" twice in a short text, then once in a long one
        assert_eq!(index.search("How large is a page?"), [0, 2]);
        // the rare word "sampled" outweighs nothing else in text 1
        assert_eq!(index.search("Which tokens are sampled?"), [1]);
        // more words of the question come first
        assert_eq!(index.search("page references"), [2, 0]);
    }

    #[test]
    fn a_rare_word_counts_more() {
        let index = Index::new(["kernel one", "kernel two", "kernel three", "shader four"]);
        assert_eq!(index.search("kernel shader")[0], 3);
    }

    #[test]
    fn equal_scores_keep_the_order_of_the_texts() {
        let index = Index::new(["blue sky", "blue sky", "blue sky"]);
        assert_eq!(index.search("blue"), [0, 1, 2]);
    }

    #[test]
    fn case_plural_and_punctuation_do_not_matter() {
        let index = Index::new(["max_position_embeddings: PAGES", "Größe des Fensters"]);
        assert_eq!(index.search("Position, page?"), [0]);
        assert_eq!(index.search("größe"), [1]);
    }

    #[test]
    fn nothing_found() {
        let index = Index::new(["what is this about", "pages of the cache"]);
        assert!(index.search("What is this about?").is_empty());
        assert!(index.search("elephants").is_empty());
        assert!(index.search("").is_empty());
        assert!(Index::new([""; 0]).search("page").is_empty());
        assert!(Index::new(["", "?"]).search("page").is_empty());
    }
}
