//! Conversion of texts and pictures to inputs of the decoder.

use crate::Result;
use crate::engine::Engine;
use crate::vision::{Image, PromptPiece, check_tags, pieces};
use phi3_model::{FeatureId, Features, ImageTag, Input};
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

    /// Returns the inputs of a rendered chat. If its text continues that of an earlier chat with a special token, and its pictures
    /// begin with those of that chat, the ids of that chat are kept as the model produced them. Their KV cache then stays valid.
    pub(crate) fn encode_chat(&self, text: &str, images: &[Image]) -> Result<Vec<Input>> {
        let tag = self.tag_for(images)?;
        let tokenizer = self.tokenizer()?;
        let ids: Vec<FeatureId> = images.iter().map(Image::id).collect();
        if let Some(past) = self.inner.chats.before(text, &ids) {
            let rest = &text[past.text.len()..];
            let ids = tokenizer.encode(rest, false)?;
            if ids.first().is_some_and(|&id| tokenizer.is_special(id)) {
                let inputs = past.inputs.clone();
                return match tag {
                    Some(tag) => {
                        check_tags(tag, text, images.len())?;
                        self.encode_rest(tag, (&past.text, rest), images, inputs)
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
    pub(crate) fn encode_pieces(&self, tag: ImageTag, text: &str, images: &[Image]) -> Result<Vec<Input>> {
        check_tags(tag, text, images.len())?;
        self.encode_rest(tag, ("", text), images, Vec::new())
    }

    /// Appends the inputs of `text` to `inputs`, the inputs of the text `before` it.
    fn encode_rest(
        &self,
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

    /// Features of a picture: remembered ones of an earlier request, or computed ones.
    fn features_of(&self, image: &Image) -> Result<Arc<Features>> {
        if let Some(features) = self.inner.chats.picture(image.id()) {
            return Ok(features);
        }
        let features = self.encode_image(image)?;
        self.inner.chats.remember_picture(features.clone());
        Ok(features)
    }
}

/// Tokens as inputs.
pub(crate) fn tokens(ids: &[u32]) -> Vec<Input> {
    ids.iter().map(Input::from).collect()
}
