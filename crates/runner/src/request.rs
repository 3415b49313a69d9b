//! Requests to an [`Engine`]: chats, texts and token ids to continue.

use crate::encode::tokens;
use crate::engine::Engine;
use crate::engine::chats::RenderedChat;
use crate::engine::start::Prompt;
use crate::generate::{GenerateOptions, Generation};
use crate::text::Message;
use crate::vision::{Image, count_tags, image_tags, tagged};
use crate::{Error, Result};

impl Engine {
    /// Answers the last of `messages`.
    pub fn chat(&self, messages: &[Message], options: &GenerateOptions) -> Result<Generation> {
        self.chat_with_images(messages, &[], options)
    }

    /// Answers the last of `messages`. Tags ([`ImageReader::tag`](crate::ImageReader::tag)) in the messages stand for `images`; without
    /// tags, the pictures precede the last question.
    ///
    /// # Errors
    ///
    /// [`Error::NoVision`] if the model has no vision tower, [`Error::ImageTags`] if the tags do not match the pictures, and those
    /// of [`chat`](Self::chat).
    pub fn chat_with_images(
        &self,
        messages: &[Message],
        images: &[Image],
        options: &GenerateOptions,
    ) -> Result<Generation> {
        self.generate(&self.chat_prompt(messages, images)?, options)
    }

    /// The prompt of a chat, by the chat template.
    ///
    /// # Errors
    ///
    /// Those of [`chat_with_images`](Self::chat_with_images).
    pub fn chat_prompt(&self, messages: &[Message], images: &[Image]) -> Result<Prompt> {
        let text = match self.tag_for(images)? {
            Some(tag) => self.render(&tagged(tag, messages, images.len()), true)?,
            None => self.render(messages, true)?,
        };
        self.check_size(&text)?;
        let inputs = self.encode_chat(&text, images)?;
        if inputs.is_empty() {
            return Err(Error::EmptyPrompt { hint: "the chat template prints nothing for these messages" });
        }
        let chat = RenderedChat { text, inputs: Vec::new(), images: images.iter().map(Image::id).collect() };
        Ok(Prompt { inputs, chat: Some(chat) })
    }

    /// Continues a text, without a chat template.
    pub fn complete(&self, prompt: &str, options: &GenerateOptions) -> Result<Generation> {
        self.complete_with_images(prompt, &[], options)
    }

    /// Continues a text. Tags in the text stand for `images`; without tags, the pictures precede the text.
    ///
    /// # Errors
    ///
    /// Those of [`chat_with_images`](Self::chat_with_images).
    pub fn complete_with_images(
        &self,
        prompt: &str,
        images: &[Image],
        options: &GenerateOptions,
    ) -> Result<Generation> {
        self.generate(&self.text_prompt(prompt, images)?, options)
    }

    /// The prompt of a text.
    ///
    /// # Errors
    ///
    /// Those of [`complete_with_images`](Self::complete_with_images).
    pub fn text_prompt(&self, prompt: &str, images: &[Image]) -> Result<Prompt> {
        self.check_size(prompt)?;
        let inputs = match self.tag_for(images)? {
            Some(tag) if count_tags(tag, prompt) > 0 => self.encode_pieces(tag, prompt, images)?,
            Some(tag) => self.encode_pieces(tag, &(image_tags(tag, 1, images.len()) + prompt), images)?,
            None => tokens(&self.tokenizer()?.encode(prompt, true)?),
        };
        if inputs.is_empty() {
            return Err(Error::EmptyPrompt { hint: "give some text to continue" });
        }
        Ok(Prompt { inputs, chat: None })
    }

    /// Continues token ids.
    pub fn continue_ids(&self, ids: &[u32], options: &GenerateOptions) -> Result<Generation> {
        self.generate(&Prompt::from_ids(ids), options)
    }

    /// Checks a large text before tokenization: an error if it cannot fit the context even with the longest token throughout.
    fn check_size(&self, text: &str) -> Result<()> {
        const LARGE: usize = 1 << 20;
        if text.len() < LARGE {
            return Ok(());
        }
        let tokenizer = self.tokenizer()?;
        let ids = 0..tokenizer.vocab_size() as u32;
        let longest = ids.filter_map(|id| Some(tokenizer.id_to_token(id)?.len())).max().unwrap_or(1).max(1);
        Ok(phi3_model::check_length(self.spec(), text.len() / longest)?)
    }
}
