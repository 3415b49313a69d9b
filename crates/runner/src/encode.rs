//! Conversion of texts and pictures to inputs of the decoder.

use crate::Result;
use crate::engine::{Engine, RenderedChat};
use crate::vision::{Image, PromptPiece, check_tags, pieces};
use phi3_model::{Features, ImageTag, Input};
use std::sync::Arc;

impl Engine {
    /// Returns the tag of pictures in a text; `None` if tags in it are plain text. That is the case if the model has no vision
    /// tower, and for tags without numbers if there are no pictures.
    pub(crate) fn tag_for(&self, images: &[Image]) -> Result<Option<ImageTag>> {
        match self.image_reader() {
            Err(error) if !images.is_empty() => Err(error),
            Err(_) => Ok(None),
            Ok(reader) => Ok(Some(reader.tag()).filter(|tag| !images.is_empty() || *tag == ImageTag::Numbered)),
        }
    }

    /// Returns the inputs of a rendered chat. If its text continues that of the last chat with a special token, and its pictures
    /// begin with those of the last chat, the ids of the last chat are kept as the model produced them. Their KV cache then stays
    /// valid.
    pub(crate) fn encode_chat(&mut self, text: &str, images: &[Image]) -> Result<Vec<Input>> {
        let tag = self.tag_for(images)?;
        let tokenizer = self.tokenizer()?;
        if let Some(RenderedChat { text: past, inputs, images: seen }) = &self.last_chat
            && let Some(rest) = text.strip_prefix(past.as_str())
            && seen.len() <= images.len()
            && seen.iter().zip(images).all(|(seen, image)| *seen == image.id())
        {
            let ids = tokenizer.encode(rest, false)?;
            if ids.first().is_some_and(|&id| tokenizer.is_special(id)) {
                let inputs = inputs.clone();
                return match tag {
                    Some(tag) => {
                        check_tags(tag, text, images.len())?;
                        let past = past.clone();
                        self.encode_rest(tag, (&past, rest), images, inputs)
                    }
                    None => Ok([inputs, tokens(&ids)].concat()),
                };
            }
        }
        match tag {
            Some(tag) => self.encode_pieces(tag, text, images),
            None => Ok(tokens(&tokenizer.encode_chat(text)?)),
        }
    }

    /// Returns the inputs of a text with picture tags.
    pub(crate) fn encode_pieces(&mut self, tag: ImageTag, text: &str, images: &[Image]) -> Result<Vec<Input>> {
        check_tags(tag, text, images.len())?;
        self.encode_rest(tag, ("", text), images, Vec::new())
    }

    /// Appends the inputs of `text` to `inputs`, the inputs of the text `before` it.
    fn encode_rest(
        &mut self,
        tag: ImageTag,
        (before, text): (&str, &str),
        images: &[Image],
        mut inputs: Vec<Input>,
    ) -> Result<Vec<Input>> {
        let pieces = pieces(self.tokenizer()?, tag, text, before)?;
        let length = |piece: &PromptPiece| match piece {
            PromptPiece::Tokens(ids) => ids.len(),
            PromptPiece::Image(number) => images.get(*number).map_or(0, Image::tokens),
        };
        // checked before the vision tower runs
        phi3_model::check_length(self.spec(), inputs.len() + pieces.iter().map(length).sum::<usize>())?;
        self.features.retain(|features| images.iter().any(|image| image.id() == features.id()));
        for piece in &pieces {
            match piece {
                PromptPiece::Tokens(ids) => inputs.extend(ids.iter().map(Input::from)),
                PromptPiece::Image(number) => {
                    let Some(image) = images.get(*number) else { continue };
                    inputs.extend(self.features_of(image)?.inputs());
                }
            }
        }
        Ok(inputs)
    }

    /// Returns the features of a picture; those of an equal picture of the last request are reused.
    fn features_of(&mut self, image: &Image) -> Result<Arc<Features>> {
        if let Some(features) = self.features.iter().find(|features| features.id() == image.id()) {
            return Ok(features.clone());
        }
        // an earlier generation may have been dropped before its end
        let _ = self.discard();
        let features = self.model.encode_image(&image.input(), None).map_err(|error| self.explain(error))?;
        self.features.push(features.clone());
        Ok(features)
    }
}

/// Tokens as inputs.
pub(crate) fn tokens(ids: &[u32]) -> Vec<Input> {
    ids.iter().map(Input::from).collect()
}
