//! Names of tensors that differ between towers.

/// Names and prefixes of tensors that differ between towers. All other names are the same.
#[derive(Debug, PartialEq)]
pub(crate) struct TowerNames {
    /// Prefix of the tower's names.
    pub(super) tower: &'static str,
    /// Both layers of the projection.
    pub(super) projection: [&'static str; 2],
    /// Separators after rows, and between picture and global view.
    pub(super) separators: [&'static str; 2],
}

/// Of `Phi3VForCausalLM`.
pub(crate) const CLIP: TowerNames = TowerNames {
    tower: "model.vision_embed_tokens.img_processor.vision_model.",
    projection: ["model.vision_embed_tokens.img_projection.0", "model.vision_embed_tokens.img_projection.2"],
    separators: ["model.vision_embed_tokens.sub_GN", "model.vision_embed_tokens.glb_GN"],
};

/// Of `Phi4ForCausalLMV`, which has no separators.
pub(crate) const SIGLIP: TowerNames = TowerNames {
    tower: "model.vision_tower.vision_tower.vision_model.",
    projection: ["model.mm_projector.0", "model.mm_projector.2"],
    separators: ["", ""],
};
