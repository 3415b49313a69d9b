//! Chats of earlier requests: a longer chat goes on from the same ids.

use phi3_model::{FeatureId, Features, Input};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chats that are remembered.
const MOST_CHATS: usize = 64;

/// Pictures whose features are remembered.
const MOST_PICTURES: usize = 16;

/// A chat as it was given to the model.
#[derive(Clone)]
pub(crate) struct RenderedChat {
    /// Text of the template, then of the answer.
    pub(crate) text: String,
    /// Its tokens and rows of picture features.
    pub(crate) inputs: Vec<Input>,
    /// Ids of its pictures, in the order of their numbers.
    pub(crate) images: Vec<FeatureId>,
}

/// The last chats and pictures.
#[derive(Default)]
pub(crate) struct Chats {
    chats: Mutex<VecDeque<Arc<RenderedChat>>>,
    pictures: Mutex<VecDeque<Arc<Features>>>,
}

impl Chats {
    /// Remembers a chat, in place of the ones that it goes on from.
    pub(crate) fn remember(&self, chat: RenderedChat) {
        let mut chats = locked(&self.chats);
        chats.retain(|past| !chat.text.starts_with(&past.text));
        if chats.len() == MOST_CHATS {
            chats.pop_front();
        }
        chats.push_back(Arc::new(chat));
    }

    /// The longest chat that a text with these pictures goes on from.
    pub(crate) fn before(&self, text: &str, images: &[FeatureId]) -> Option<Arc<RenderedChat>> {
        let chats = locked(&self.chats);
        let fits = |chat: &&Arc<RenderedChat>| text.starts_with(&chat.text) && images.starts_with(&chat.images);
        chats.iter().filter(fits).max_by_key(|chat| chat.text.len()).cloned()
    }

    /// Features of a picture, if they are remembered.
    pub(crate) fn picture(&self, id: FeatureId) -> Option<Arc<Features>> {
        locked(&self.pictures).iter().find(|features| features.id() == id).cloned()
    }

    /// Remembers the features of a picture.
    pub(crate) fn remember_picture(&self, features: Arc<Features>) {
        let mut pictures = locked(&self.pictures);
        if pictures.len() == MOST_PICTURES {
            pictures.pop_front();
        }
        pictures.push_back(features);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
