//! Pictures of a prompt: their preparation for the vision tower, and their tags in the text.

use crate::text::{Message, Tokenizer};
use crate::{Cause, Error, Result};
use phi3_image::{Hd, Naflex, Orientation, Picture, Pixels, Preparation};
use phi3_model::{FeatureId, ImageProcessor, ImageTag, PictureSpec, TowerInput, VisionSpec};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest size of a picture's file, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// Returns the image preprocessing of a vision tower: the tower's sizes, and the values of the `preprocessor_config.json` at
/// `path`. Values that it lacks are the published ones.
pub(crate) fn image_settings(vision: &VisionSpec, path: &Path) -> Result<Preparation> {
    let ImageProcessor { num_crops, image_mean, image_std } = ImageProcessor::read(path, vision)?;
    Ok(match vision.picture {
        PictureSpec::Crops { size } => {
            let published = Hd::default();
            Preparation::Hd(Hd {
                crop: size,
                patch: vision.patch_size,
                max_crops: num_crops.unwrap_or(published.max_crops),
                mean: image_mean.unwrap_or(published.mean),
                std: image_std.unwrap_or(published.std),
            })
        }
        PictureSpec::Whole { min_patches, max_patches, .. } => {
            let published = Naflex::default();
            Preparation::Naflex(Naflex {
                patch: vision.patch_size,
                min_patches,
                max_patches,
                mean: image_mean.unwrap_or(published.mean),
                std: image_std.unwrap_or(published.std),
            })
        }
    })
}

/// Image preprocessing of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageReader {
    /// How pictures are resized, cut and normalized.
    pub preparation: Preparation,
    /// Whether the orientation in a picture's EXIF data is applied.
    pub orientation: Orientation,
    /// Tag of a picture in a text.
    pub(crate) tag: ImageTag,
}

impl ImageReader {
    /// Tag of a picture in a text for this model.
    pub fn tag(&self) -> ImageTag {
        self.tag
    }

    /// Decodes a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the file cannot be read, [`Error::Image`] if it is not a picture.
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
    /// [`Error::Image`] if the picture does not fit a grid of crops or patches.
    pub fn prepare(&self, name: impl Into<PathBuf>, picture: &Picture) -> Result<Image> {
        let path = name.into();
        match self.preparation.pixels(picture) {
            Ok(pixels) => {
                let id = FeatureId::of(&TowerInput { values: &pixels.values, grid: pixels.grid });
                Ok(Image { path, id, pixels: Arc::new(pixels) })
            }
            Err(source) => Err(Error::Image { path, source }),
        }
    }
}

/// A picture, prepared for a model. [`Engine::image_reader`](crate::Engine::image_reader) returns its reader.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    id: FeatureId,
    pixels: Arc<Pixels>,
}

impl Image {
    /// The picture's file or name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the picture's tokens in a prompt.
    pub fn tokens(&self) -> usize {
        self.pixels.tokens
    }

    /// Rows and columns of crops or patches.
    pub fn grid(&self) -> (usize, usize) {
        self.pixels.grid
    }

    /// Id of the prepared picture: equal for equal values and grids.
    pub fn id(&self) -> FeatureId {
        self.id
    }

    pub(crate) fn input(&self) -> TowerInput<'_> {
        TowerInput { values: &self.pixels.values, grid: self.pixels.grid }
    }
}

/// The parts of a numbered tag before and after its number.
const NUMBERED: (&str, &str) = ("<|image_", "|>");

/// The tag without a number, of the next picture in order.
const NEXT: &str = "<image>";

/// Replacement of [`NEXT`] in answers, where it is text. [`pieces`] reverses it before tokenization.
const NO_TAG: &str = "<\u{fdd0}image>";

/// The tag of picture `number` in a text; numbers start at 1.
pub fn image_tag(tag: ImageTag, number: usize) -> String {
    match tag {
        ImageTag::Numbered => format!("{}{number}{}", NUMBERED.0, NUMBERED.1),
        ImageTag::InOrder => NEXT.into(),
    }
}

/// Splits a text at its tags: every part with the number of the tag after it, `None` for the last part. `before` is the number of
/// pictures before the text.
fn split(tag: ImageTag, text: &str, before: usize) -> Vec<(&str, Option<usize>)> {
    let mut pieces = Vec::new();
    let (mut rest, mut from) = (text, 0);
    let mark = match tag {
        ImageTag::Numbered => NUMBERED.0,
        ImageTag::InOrder => NEXT,
    };
    while let Some(at) = rest[from..].find(mark).map(|at| from + at) {
        let behind = &rest[at + mark.len()..];
        let (number, length) = match tag {
            ImageTag::InOrder => (before + pieces.len() + 1, 0),
            ImageTag::Numbered => {
                let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
                if digits == 0 || !behind[digits..].starts_with(NUMBERED.1) {
                    from = at + mark.len();
                    continue;
                }
                // a number that overflows is the number of no picture
                (behind[..digits].parse().unwrap_or(usize::MAX), digits + NUMBERED.1.len())
            }
        };
        pieces.push((&rest[..at], Some(number)));
        rest = &behind[length..];
        from = 0;
    }
    pieces.push((rest, None));
    pieces
}

/// Number of tags in a text.
pub(crate) fn count_tags(tag: ImageTag, text: &str) -> usize {
    split(tag, text, 0).len() - 1
}

/// Tags of pictures `first ..= last`, a line each.
pub fn image_tags(tag: ImageTag, first: usize, last: usize) -> String {
    (first..=last).map(|number| image_tag(tag, number) + "\n").collect()
}

/// Those tags of pictures `first ..= last` that a text does not contain, a line each.
pub fn missing_tags(tag: ImageTag, text: &str, first: usize, last: usize) -> String {
    match tag {
        ImageTag::Numbered => {
            let tags = (first..=last).map(|number| image_tag(tag, number)).filter(|tag| !text.contains(tag));
            tags.map(|tag| tag + "\n").collect()
        }
        ImageTag::InOrder => image_tags(tag, first + count_tags(tag, text), last),
    }
}

/// Number of leading pictures, of `count`, whose tags are in the messages. Tags in answers do not count.
pub fn shown_images(tag: ImageTag, messages: &[Message], count: usize) -> usize {
    let texts = || messages.iter().filter(|message| message.role() != "assistant").filter_map(Message::text);
    match tag {
        ImageTag::Numbered => {
            (1..=count).take_while(|&number| texts().any(|text| text.contains(&image_tag(tag, number)))).count()
        }
        ImageTag::InOrder => texts().map(|text| count_tags(tag, text)).sum::<usize>().min(count),
    }
}

/// Returns the messages with tags for `count` pictures. If no message has a tag, the tags are put before the last question. Tags
/// without numbers are text in answers, where [`NO_TAG`] replaces them.
pub(crate) fn tagged(tag: ImageTag, messages: &[Message], count: usize) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if count == 0 {
        return messages;
    }
    if tag == ImageTag::InOrder {
        for message in messages.iter_mut().filter(|message| message.role() == "assistant") {
            if let Some(text) = message.text().filter(|text| text.contains(NEXT)).map(|text| text.replace(NEXT, NO_TAG))
            {
                *message = message.clone().with("content", text);
            }
        }
    }
    let tags = messages.iter().filter_map(Message::text).any(|text| count_tags(tag, text) > 0);
    if tags {
        return messages;
    }
    if let Some(question) = messages.iter_mut().rev().find(|message| message.role() == "user")
        && let Some(text) = question.text()
    {
        let text = image_tags(tag, 1, count) + text;
        *question = question.clone().with("content", text);
    }
    messages
}

/// Checks that a text has the tags of `count` pictures: each at least once, and no other tag.
pub(crate) fn check_tags(tag: ImageTag, text: &str, count: usize) -> Result<()> {
    let mut numbers: Vec<usize> = split(tag, text, 0).into_iter().filter_map(|(_, number)| number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.iter().copied().eq(1..=count) {
        return Ok(());
    }
    let (expected, found, hint) = match tag {
        ImageTag::InOrder => {
            let hint = "write a tag for each picture, or no tags";
            (format!("one for each picture ({count})"), numbers.len().to_string(), hint)
        }
        ImageTag::Numbered => {
            let expected = match count {
                0 => "no number, as there is no picture".into(),
                _ => format!("every number from 1 to {count}"),
            };
            let found = match numbers.is_empty() {
                true => "none".into(),
                false => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            };
            (expected, found, "number pictures from 1 and use each, or write no tags")
        }
    };
    let tag = match tag {
        ImageTag::InOrder => NEXT,
        ImageTag::Numbered => "<|image_N|>",
    };
    Err(Error::ImageTags { tag, expected, found, hint })
}

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptPiece {
    /// Tokens of a text between tags.
    Tokens(Vec<u32>),
    /// A picture by its number, from 0 on.
    Image(usize),
}

/// Returns the tokens of a text and the pictures between them. The text between tags is tokenized by itself, as in the published
/// processors. With numbered tags, `<s>` begins every piece of text; with others, the first piece only.
///
/// # Errors
///
/// The text has a character that the vocabulary cannot express.
///
/// # Source
///
/// `processing_phi3_v.py` of Phi-3-vision, `_convert_images_texts_to_inputs`; `processing_phi4_visionr.py` of
/// Phi-4-reasoning-vision, `tokenizer_image_token`.
pub fn prompt_pieces(tokenizer: &Tokenizer, tag: ImageTag, text: &str) -> Result<Vec<PromptPiece>> {
    pieces(tokenizer, tag, text, "")
}

/// Returns the pieces of a text that continues the text `before` it. `<s>` begins the first piece only if `before` is empty.
pub(crate) fn pieces(tokenizer: &Tokenizer, tag: ImageTag, text: &str, before: &str) -> Result<Vec<PromptPiece>> {
    let mut pieces = Vec::new();
    for (i, (text, number)) in split(tag, text, count_tags(tag, before)).into_iter().enumerate() {
        let first = i == 0 && before.is_empty();
        let begins = first || i > 0 && tag == ImageTag::Numbered;
        pieces.push(PromptPiece::Tokens(tokenizer.encode(&text.replace(NO_TAG, NEXT), begins)?));
        pieces.extend(number.map(|number| PromptPiece::Image(number.saturating_sub(1))));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    use ImageTag::{InOrder, Numbered};

    #[test]
    fn tags_take_a_text_apart() {
        let split = |text| split(Numbered, text, 0);
        assert_eq!(split("a<|image_1|>b<|image_12|>"), [("a", Some(1)), ("b", Some(12)), ("", None)]);
        for text in ["", "<|image_|>", "<|image_1", "<|image_x|> <|image_1 |>", "<|image_<|image_|>", "<image>"] {
            assert_eq!(split(text), [(text, None)], "{text}");
        }
        assert_eq!(split("<|image_<|image_3|>"), [("<|image_", Some(3)), ("", None)]);
        assert_eq!(split("<|image_99999999999999999999999|>")[0].1, Some(usize::MAX));
    }

    #[test]
    fn tags_without_numbers_are_of_the_next_picture() {
        assert_eq!(split(InOrder, "a<image>b<image>", 0), [("a", Some(1)), ("b", Some(2)), ("", None)]);
        assert_eq!(split(InOrder, "<image><image >c", 3), [("", Some(4)), ("<image >c", None)]);
        assert_eq!(split(InOrder, "<|image_1|>", 0), [("<|image_1|>", None)]);
        assert_eq!(missing_tags(InOrder, "who? <image>", 3, 5), "<image>\n<image>\n");
        assert_eq!(missing_tags(InOrder, "<image><image>", 1, 1), "");
        assert_eq!(missing_tags(Numbered, "<|image_3|> who?", 2, 4), "<|image_2|>\n<|image_4|>\n");
    }

    #[test]
    fn tags_are_of_pictures() {
        for (text, count) in [("", 0), ("<|image_1|>", 1), ("<|image_2|><|image_1|><|image_2|>", 2)] {
            check_tags(Numbered, text, count).unwrap();
        }
        check_tags(InOrder, "<image> <image>", 2).unwrap();
        for (tag, text, count, found) in [
            (Numbered, "", 1, "found none"),
            (Numbered, "<|image_1|>", 0, "found 1"),
            (Numbered, "<|image_2|>", 1, "found 2"),
            (Numbered, "<|image_1|><|image_3|>", 2, "found 1, 3"),
            (Numbered, "<|image_0|><|image_1|>", 1, "found 0, 1"),
            (Numbered, "<|image_1|>", 2, "from 1 to 2, found 1"),
            (InOrder, "<image>", 2, "<image> of the text: expected one for each picture (2), found 1"),
            (InOrder, "<image><image>", 1, "picture (1), found 2"),
        ] {
            let error = check_tags(tag, text, count).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn tags_stand_in_front_of_the_last_question() {
        let messages = [Message::system("s"), Message::user("a"), Message::assistant("b"), Message::user("c")];
        let tagged_messages = tagged(Numbered, &messages, 2);
        assert_eq!(tagged_messages[3].text(), Some("<|image_1|>\n<|image_2|>\nc"));
        assert_eq!(tagged_messages[..3], messages[..3]);
        assert_eq!(tagged(InOrder, &messages, 2)[3].text(), Some("<image>\n<image>\nc"));
        let own = [Message::user("<|image_1|> a"), Message::user("b")];
        assert_eq!(tagged(Numbered, &own, 1), own);
        assert_eq!(tagged(Numbered, &messages, 0), messages);
    }

    /// A tag without a number is text in an answer.
    #[test]
    fn a_tag_in_an_answer_is_text() {
        let messages = [Message::user("<image> svg?"), Message::assistant("<image> it is"), Message::user("why?")];
        let tagged_messages = tagged(InOrder, &messages, 1);
        assert_eq!(tagged_messages[0], messages[0]);
        assert_eq!(tagged_messages[1].text(), Some("<\u{fdd0}image> it is"));
        assert_eq!(shown_images(InOrder, &messages, 3), 1);
        assert_eq!(shown_images(Numbered, &messages, 3), 0);
        assert_eq!(tagged(InOrder, &messages, 0), messages);
    }
}
