//! From texts and pictures to what the decoder is fed.

use crate::Result;
use crate::engine::{Engine, RenderedChat};
use crate::vision::{Image, PromptPiece, check_tags, pieces};
use phi3_model::{Features, ImageTag, Input};
use std::sync::Arc;

impl Engine {
    /// What stands for pictures in a text; `None` where a text is text only. Tags without numbers are text where there are no pictures.
    pub(crate) fn tag_for(&self, images: &[Image]) -> Result<Option<ImageTag>> {
        match self.image_reader() {
            Err(error) if !images.is_empty() => Err(error),
            Err(_) => Ok(None),
            Ok(reader) => Ok(Some(reader.tag()).filter(|tag| !images.is_empty() || *tag == ImageTag::Numbered)),
        }
    }

    /// The inputs of a rendered chat. Where it goes on from the last one at a token that stands for itself, the ids of that
    /// one are kept as the model produced them, so that its cache stays valid.
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

    /// The inputs of a text with tags.
    pub(crate) fn encode_pieces(&mut self, tag: ImageTag, text: &str, images: &[Image]) -> Result<Vec<Input>> {
        check_tags(tag, text, images.len())?;
        self.encode_rest(tag, ("", text), images, Vec::new())
    }

    /// Adds those of a text to what it goes on from: another text, and its inputs.
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
        // before the tower works for nothing
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

    /// Features of a picture, those of the request before where they are the same.
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
