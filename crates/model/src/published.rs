//! Names and shapes of a published checkpoint's tensors, for writing one.

use crate::ModelSpec;
use crate::table::{Naming, Slot, tensors};
use phi3_tensor::Role;

/// A tensor of a published checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The model tensor of which it holds weights or the bias.
    pub slot: Slot,
}

/// Every tensor of a checkpoint of `spec`, under the names of `naming`.
pub fn published_tensors(spec: &ModelSpec, naming: Naming) -> Vec<PublishedTensor> {
    let mut list = Vec::new();
    for tensor in tensors(spec) {
        let slot = tensor.slot;
        let sources = slot.published(naming).sources;
        let prefix = slot.prefix(false);
        let (total, cols) = (tensor.shape[0], tensor.shape.get(1).copied());
        let (q, kv) = (spec.heads.q_dim(), spec.heads.kv_dim());
        let experts = match tensor.role {
            Role::Experts { count, .. } => count,
            _ => 1,
        };
        let rows = match (tensor.role, sources.len()) {
            (Role::Qkv(_), 3) => vec![q, kv, kv],
            (_, count) => vec![total / experts / count; count],
        };
        for expert in 0..experts {
            for (source, &rows) in sources.iter().zip(&rows) {
                let stem = format!("{prefix}{}", source.replace('#', &expert.to_string()));
                let shape = [rows].into_iter().chain(cols).collect();
                list.push(PublishedTensor { name: format!("{stem}.weight"), shape, slot });
                if tensor.bias {
                    list.push(PublishedTensor { name: format!("{stem}.bias"), shape: vec![rows], slot });
                }
            }
        }
    }
    list
}
