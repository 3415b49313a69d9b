//! Pictures of a prompt: prepared for the tower, and their places in the text.

use crate::text::{Message, Tokenizer};
use crate::{Cause, Error, Result};
use phi3_image::{Hd, Orientation, Picture, Pixels};
use phi3_model::{Crops, FeatureId, ImageProcessor, VisionSpec};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file of a picture that is read.
const MAX_FILE: u64 = 1 << 30;

/// How pictures are prepared for a tower: its own sizes, and what `preprocessor_config.json` at `path` says.
pub(crate) fn image_settings(vision: &VisionSpec, path: &Path) -> Result<Hd> {
    let ImageProcessor { num_crops, image_mean, image_std } = ImageProcessor::read(path)?;
    let published = Hd::default();
    Ok(Hd {
        crop: vision.image_size,
        patch: vision.patch_size,
        max_crops: num_crops.unwrap_or(published.max_crops),
        mean: image_mean.unwrap_or(published.mean),
        std: image_std.unwrap_or(published.std),
    })
}

/// Prepares pictures for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageReader {
    /// How pictures are cut and normalised.
    pub hd: Hd,
    /// Whether a picture is turned as its EXIF data say.
    pub orientation: Orientation,
}

impl ImageReader {
    /// Decodes a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] where it cannot be read, [`Error::Image`] where it is no picture.
    pub fn picture(&self, path: &Path) -> Result<Picture> {
        let hint = "name a JPEG, PNG, WebP or GIF file";
        let fail = |source: Cause| Error::File { action: "read", path: path.to_owned(), source, hint };
        let size = std::fs::metadata(path).map_err(|error| fail(error.into()))?.len();
        if size > MAX_FILE {
            return Err(fail(format!("expected at most {MAX_FILE} bytes, found {size}").into()));
        }
        let bytes = std::fs::read(path).map_err(|error| fail(error.into()))?;
        phi3_image::decode(&bytes, self.orientation).map_err(|source| Error::Image { path: path.to_owned(), source })
    }

    /// Decodes and prepares a file.
    ///
    /// # Errors
    ///
    /// Those of [`picture`](Self::picture) and [`prepare`](Self::prepare).
    pub fn read(&self, path: &Path) -> Result<Image> {
        self.prepare(path, &self.picture(path)?)
    }

    /// Prepares a picture; `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] where it has no place on a grid of crops.
    pub fn prepare(&self, name: impl Into<PathBuf>, picture: &Picture) -> Result<Image> {
        let path = name.into();
        match self.hd.pixels(picture) {
            Ok(pixels) => {
                let id = FeatureId::of(&Crops { values: &pixels.values, grid: pixels.grid });
                Ok(Image { path, id, pixels: Arc::new(pixels) })
            }
            Err(source) => Err(Error::Image { path, source }),
        }
    }
}

/// A picture, prepared for a model; [`Engine::image_reader`](crate::Engine::image_reader) makes what reads it.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    id: FeatureId,
    pixels: Arc<Pixels>,
}

impl Image {
    /// Its file or name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens that it takes in a prompt.
    pub fn tokens(&self) -> usize {
        self.pixels.tokens
    }

    /// Rows and columns of crops.
    pub fn grid(&self) -> (usize, usize) {
        self.pixels.grid
    }

    /// Equal where all values of the crops are.
    pub fn id(&self) -> FeatureId {
        self.id
    }

    pub(crate) fn crops(&self) -> Crops<'_> {
        Crops { values: &self.pixels.values, grid: self.pixels.grid }
    }
}

const TAG: (&str, &str) = ("<|image_", "|>");

/// The place of picture `number`, from 1 on, in a text.
pub fn image_tag(number: usize) -> String {
    format!("{}{number}{}", TAG.0, TAG.1)
}

/// A text between tags, and the number of the tag behind it.
fn split(text: &str) -> Vec<(&str, Option<usize>)> {
    let mut pieces = Vec::new();
    let (mut rest, mut from) = (text, 0);
    while let Some(at) = rest[from..].find(TAG.0).map(|at| from + at) {
        let behind = &rest[at + TAG.0.len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || !behind[digits..].starts_with(TAG.1) {
            from = at + TAG.0.len();
            continue;
        }
        // a number beyond all others is one of no picture
        pieces.push((&rest[..at], Some(behind[..digits].parse().unwrap_or(usize::MAX))));
        rest = &behind[digits + TAG.1.len()..];
        from = 0;
    }
    pieces.push((rest, None));
    pieces
}

/// Whether a text has a tag.
pub(crate) fn has_tag(text: &str) -> bool {
    split(text).len() > 1
}

/// Tags of pictures `first ..= last`, a line each.
pub fn image_tags(first: usize, last: usize) -> String {
    (first..=last).map(|number| image_tag(number) + "\n").collect()
}

/// The messages with tags for `count` pictures: as they are where they have tags, else in front of the last question.
pub(crate) fn tagged(messages: &[Message], count: usize) -> Vec<Message> {
    let mut messages = messages.to_vec();
    let tags = messages.iter().filter_map(Message::text).any(has_tag);
    if count == 0 || tags {
        return messages;
    }
    if let Some(question) = messages.iter_mut().rev().find(|message| message.role() == "user")
        && let Some(text) = question.text()
    {
        let text = image_tags(1, count) + text;
        *question = question.clone().with("content", text);
    }
    messages
}

/// An error unless the tags of a text are those of `count` pictures: from 1 without gaps, each at least once.
pub(crate) fn check_tags(text: &str, count: usize) -> Result<()> {
    let mut numbers: Vec<usize> = split(text).into_iter().filter_map(|(_, number)| number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.iter().copied().eq(1..=count) {
        return Ok(());
    }
    let found = match numbers.is_empty() {
        true => "none".into(),
        false => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
    };
    let expected = match count {
        0 => "no number, for there is no picture".into(),
        _ => format!("every number from 1 to {count}"),
    };
    Err(Error::ImageTags { expected, found })
}

/// What stands in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptPiece {
    /// Tokens of a text between tags.
    Tokens(Vec<u32>),
    /// A picture by its number, from 0 on.
    Image(usize),
}

/// Tokens of a text and pictures between them. As the published processor does it, what stands between tags is tokenized by
/// itself, so that `<s>` stands in front of each piece.
///
/// # Errors
///
/// The text has a character that the vocabulary cannot express.
///
/// # Source
///
/// `processing_phi3_v.py` of Phi-3-vision, `_convert_images_texts_to_inputs`.
pub fn prompt_pieces(tokenizer: &Tokenizer, text: &str) -> Result<Vec<PromptPiece>> {
    pieces(tokenizer, text, false)
}

/// The same; of a text that goes on with another one, `<s>` does not stand in front of the first piece.
pub(crate) fn pieces(tokenizer: &Tokenizer, text: &str, goes_on: bool) -> Result<Vec<PromptPiece>> {
    let mut pieces = Vec::new();
    for (i, (text, number)) in split(text).into_iter().enumerate() {
        pieces.push(PromptPiece::Tokens(tokenizer.encode(text, i > 0 || !goes_on)?));
        pieces.extend(number.map(|number| PromptPiece::Image(number.saturating_sub(1))));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_take_a_text_apart() {
        assert_eq!(split("a<|image_1|>b<|image_12|>"), [("a", Some(1)), ("b", Some(12)), ("", None)]);
        for text in ["", "<|image_|>", "<|image_1", "<|image_x|> <|image_1 |>", "<|image_<|image_|>"] {
            assert_eq!(split(text), [(text, None)], "{text}");
        }
        assert_eq!(split("<|image_<|image_3|>"), [("<|image_", Some(3)), ("", None)]);
        assert_eq!(split("<|image_99999999999999999999999|>")[0].1, Some(usize::MAX));
    }

    #[test]
    fn tags_are_of_pictures() {
        for (text, count) in [("", 0), ("<|image_1|>", 1), ("<|image_2|><|image_1|><|image_2|>", 2)] {
            check_tags(text, count).unwrap();
        }
        for (text, count, found) in [
            ("", 1, "found none"),
            ("<|image_1|>", 0, "found 1"),
            ("<|image_2|>", 1, "found 2"),
            ("<|image_1|><|image_3|>", 2, "found 1, 3"),
            ("<|image_0|><|image_1|>", 1, "found 0, 1"),
            ("<|image_1|>", 2, "from 1 to 2, found 1"),
        ] {
            let error = check_tags(text, count).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn tags_stand_in_front_of_the_last_question() {
        let messages = [Message::system("s"), Message::user("a"), Message::assistant("b"), Message::user("c")];
        let tagged_messages = tagged(&messages, 2);
        assert_eq!(tagged_messages[3].text(), Some("<|image_1|>\n<|image_2|>\nc"));
        assert_eq!(tagged_messages[..3], messages[..3]);
        let own = [Message::user("<|image_1|> a"), Message::user("b")];
        assert_eq!(tagged(&own, 1), own);
        assert_eq!(tagged(&messages, 0), messages);
    }
}
