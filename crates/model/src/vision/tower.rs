//! The tower on a backend: crops to features.

use super::{Crops, FeatureId, Features, VisionSpec, VisionTensor, merge, table};
use crate::{Checkpoint, Probe, Result};
use phi3_tensor::{Activation, Backend, Batch, Epilogue, KvType, Mask, Norm, PAGE};
use std::ops::Range;

/// Rows of a pass, about: as many crops as they hold, at least one.
const ROWS: usize = 2048;

/// A LayerNorm's vectors.
struct LayerNorm<B: Backend> {
    weight: B::Vector,
    bias: B::Vector,
    eps: f32,
}

impl<B: Backend> LayerNorm<B> {
    fn norm(&self) -> Norm<'_, B> {
        Norm::Layer { weight: &self.weight, bias: &self.bias, eps: self.eps }
    }
}

/// One layer's weights.
struct Layer<B: Backend> {
    norm1: LayerNorm<B>,
    qkv: B::Matrix,
    out: B::Matrix,
    norm2: LayerNorm<B>,
    fc1: B::Matrix,
    fc2: B::Matrix,
}

/// A pass's activations.
struct Scratch<B: Backend> {
    /// Pixels of patches, `[rows, patch_pixels]`.
    pixels: B::Rows,
    /// Embedded patches in front of the first norm, `[rows, hidden_size]`.
    embedded: B::Rows,
    /// The residual stream, `[rows, hidden_size]`.
    x: B::Rows,
    /// Queries, `[rows, hidden_size]`.
    q: B::Rows,
    /// What the heads return, `[rows, hidden_size]`.
    attn_out: B::Rows,
    /// Between the projections of the feed-forward, `[rows, inner]`.
    mlp_hidden: B::Rows,
    /// Merged patches, `[rows, 4 * hidden_size]`.
    merged: B::Rows,
    /// Between the projections to the decoder, and behind them, `[rows, width]`.
    between: B::Rows,
    projected: B::Rows,
    /// Keys and values of one layer, which every layer writes anew.
    cache: B::Cache,
}

/// A tower and the projection behind it.
pub(crate) struct Tower<B: Backend> {
    spec: VisionSpec,
    /// The decoder's.
    width: usize,
    patch_embedding: B::Matrix,
    /// What is added to the patches, `[positions, hidden_size]`: position embeddings, and in row 0 the class embedding too.
    positions: Vec<f32>,
    pre_norm: LayerNorm<B>,
    layers: Vec<Layer<B>>,
    projection: [B::Matrix; 2],
    /// Separators behind rows, and between picture and global view, `[4 * hidden_size]`.
    sub_gn: Vec<f32>,
    glb_gn: Vec<f32>,
    /// Made for the first picture.
    scratch: Option<Scratch<B>>,
    batch: Batch,
}

/// Crops of a pass.
fn crops_of_a_pass(spec: &VisionSpec) -> usize {
    (ROWS / spec.positions()).max(1)
}

/// Bytes of activations, once there is a picture.
pub(crate) fn scratch_bytes(spec: &VisionSpec, width: usize) -> u64 {
    let rows = crops_of_a_pass(spec) * spec.positions();
    let row = spec.patch_pixels() + 10 * spec.hidden_size + spec.inner + spec.merged() + 2 * width;
    4 * (rows * row) as u64
}

/// Brings weights over, and counts.
struct Loader<'a, B: Backend> {
    backend: &'a mut B,
    checkpoint: &'a Checkpoint,
    eps: f32,
    done: &'a mut u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<B: Backend> Loader<'_, B> {
    fn matrix(&mut self, tensor: &VisionTensor) -> Result<B::Matrix> {
        let weight = self.checkpoint.vision_matrix(tensor)?;
        let footprint = self.backend.footprint(&weight.name, weight.dtype, weight.rows, weight.cols, tensor.role)?;
        let matrix = self.backend.matrix(&weight, tensor.role)?;
        // the device has its own copy now
        if !footprint.in_place {
            weight.release();
        }
        *self.done += weight.size() as u64;
        (self.progress)(*self.done);
        Ok(matrix)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<LayerNorm<B>> {
        let mut vector = |kind: &str| {
            let name = format!("{name}.{kind}");
            let values = self.checkpoint.vision_values(&name, &[width])?;
            Ok::<_, crate::Error>(self.backend.vector(&name, &values)?)
        };
        Ok(LayerNorm { weight: vector("weight")?, bias: vector("bias")?, eps: self.eps })
    }
}

impl<B: Backend> Tower<B> {
    /// Brings a tower to a device. `done` and `progress` count bytes of weights.
    pub(crate) fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        spec: &VisionSpec,
        width: usize,
        done: &mut u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut loader = Loader { backend, checkpoint, eps: spec.eps, done, progress };
        let hidden = spec.hidden_size;
        let mut layers = Vec::new();
        for i in 0..spec.layers {
            let [qkv, out, fc1, fc2] = table::layer(spec, i);
            layers.push(Layer {
                norm1: loader.norm(&table::of_layer(i, "layer_norm1"), hidden)?,
                qkv: loader.matrix(&qkv)?,
                out: loader.matrix(&out)?,
                norm2: loader.norm(&table::of_layer(i, "layer_norm2"), hidden)?,
                fc1: loader.matrix(&fc1)?,
                fc2: loader.matrix(&fc2)?,
            });
        }
        let [first, second] = table::projection(spec, width);
        let name = table::tower("embeddings.position_embedding.weight");
        let mut positions = checkpoint.vision_values(&name, &[spec.positions(), hidden])?;
        let class = checkpoint.vision_values(&table::tower("embeddings.class_embedding"), &[hidden])?;
        positions.iter_mut().zip(class).for_each(|(position, class)| *position += class);
        Ok(Self {
            patch_embedding: loader.matrix(&table::patch_embedding(spec))?,
            // the name is spelt so
            pre_norm: loader.norm(&table::tower("pre_layrnorm"), hidden)?,
            projection: [loader.matrix(&first)?, loader.matrix(&second)?],
            sub_gn: checkpoint.vision_values(&format!("{}sub_GN", table::ROOT), &[1, 1, 1, spec.merged()])?,
            glb_gn: checkpoint.vision_values(&format!("{}glb_GN", table::ROOT), &[1, 1, spec.merged()])?,
            positions,
            layers,
            width,
            spec: spec.clone(),
            scratch: None,
            batch: Batch::default(),
        })
    }

    /// Features of a picture. `probe` is shown `clip_features`, `[1 + crops, patches, hidden_size]`, and `projected`.
    pub(crate) fn encode(
        &mut self,
        backend: &mut B,
        crops: &Crops<'_>,
        probe: Option<&mut Probe<'_>>,
    ) -> Result<Features> {
        crops.check(&self.spec)?;
        self.make_scratch(backend)?;
        let mut patches = Vec::with_capacity(crops.count() * self.spec.patches() * self.spec.hidden_size);
        let most = crops_of_a_pass(&self.spec);
        for first in (0..crops.count()).step_by(most) {
            self.tower(backend, crops, first..(first + most).min(crops.count()), &mut patches)?;
        }
        let merged = merge::merge(&self.spec, &patches, crops.grid, &self.sub_gn, &self.glb_gn);
        let mut projected = Vec::with_capacity(merged.len() / self.spec.merged() * self.width);
        for part in merged.chunks(most * self.spec.positions() * self.spec.merged()) {
            self.project(backend, part, &mut projected)?;
        }
        if let Some(probe) = probe {
            probe("clip_features", &patches);
            probe("projected", &projected);
        }
        Ok(Features::new(FeatureId::of(crops), self.width, projected))
    }

    fn make_scratch(&mut self, backend: &mut B) -> Result<()> {
        if self.scratch.is_some() {
            return Ok(());
        }
        let spec = &self.spec;
        let rows = crops_of_a_pass(spec) * spec.positions();
        let mut cache = backend.cache(1, spec.heads, KvType::F32)?;
        let pages = crops_of_a_pass(spec) * spec.positions().div_ceil(PAGE);
        backend.reserve(&mut cache, pages)?;
        self.scratch = Some(Scratch {
            pixels: backend.rows("patches", rows, spec.patch_pixels())?,
            embedded: backend.rows("embedded patches", rows, spec.hidden_size)?,
            x: backend.rows("vision x", rows, spec.hidden_size)?,
            q: backend.rows("vision q", rows, spec.hidden_size)?,
            attn_out: backend.rows("vision attn_out", rows, spec.hidden_size)?,
            mlp_hidden: backend.rows("vision mlp_hidden", rows, spec.inner)?,
            merged: backend.rows("merged patches", rows, spec.merged())?,
            between: backend.rows("vision projection", rows, self.width)?,
            projected: backend.rows("image features", rows, self.width)?,
            cache,
        });
        Ok(())
    }

    /// The output of the last layer that is computed, for some crops: their patches, without the class token.
    fn tower(&mut self, backend: &mut B, crops: &Crops<'_>, which: Range<usize>, patches: &mut Vec<f32>) -> Result<()> {
        let Self { spec, scratch, batch, layers, .. } = self;
        let Some(s) = scratch else { return Ok(()) };
        let (count, positions, hidden) = (which.len(), spec.positions(), spec.hidden_size);
        lay_out(batch, count, positions)?;
        let pixels = pixels(spec, crops, which);
        let scale = 1.0 / (spec.heads.head_dim as f32).sqrt();

        backend.begin(batch)?;
        backend.write(&mut s.pixels, 0, &pixels)?;
        backend.write(&mut s.embedded, 0, &self.positions.repeat(count))?;
        backend.project(&s.pixels, None, &self.patch_embedding, Epilogue::ACCUMULATE, &mut s.embedded)?;
        backend.norm(&s.embedded, self.pre_norm.norm(), &mut s.x)?;
        for layer in layers.iter() {
            backend.project_qkv(&s.x, Some(layer.norm1.norm()), &[&layer.qkv], &mut s.q, &mut s.cache, 0)?;
            backend.attention(&s.q, &s.cache, 0, Mask::Full, scale, &mut s.attn_out)?;
            backend.project(&s.attn_out, None, &layer.out, Epilogue::ACCUMULATE, &mut s.x)?;
            let up = Epilogue::of(spec.activation);
            backend.project(&s.x, Some(layer.norm2.norm()), &layer.fc1, up, &mut s.mlp_hidden)?;
            backend.project(&s.mlp_hidden, None, &layer.fc2, Epilogue::ACCUMULATE, &mut s.x)?;
        }
        let mut rows = vec![0.0; count * positions * hidden];
        backend.read(&s.x, &mut rows)?;
        rows.chunks_exact(positions * hidden).for_each(|crop| patches.extend_from_slice(&crop[hidden..]));
        Ok(())
    }

    /// Merged patches to the decoder's width.
    fn project(&mut self, backend: &mut B, merged: &[f32], projected: &mut Vec<f32>) -> Result<()> {
        let Self { spec, scratch, batch, projection: [first, second], width, .. } = self;
        let Some(s) = scratch else { return Ok(()) };
        let rows = merged.len() / spec.merged();
        lay_out(batch, 1, rows)?;
        backend.begin(batch)?;
        backend.write(&mut s.merged, 0, merged)?;
        backend.project(&s.merged, None, first, Epilogue::of(Activation::GeluErf), &mut s.between)?;
        backend.project(&s.between, None, second, Epilogue::OVERWRITE, &mut s.projected)?;
        let at = projected.len();
        projected.resize(at + rows * *width, 0.0);
        Ok(backend.read(&s.projected, &mut projected[at..])?)
    }
}

/// So many segments of so many rows each; every segment has pages of its own.
fn lay_out(batch: &mut Batch, segments: usize, rows: usize) -> Result<()> {
    batch.clear();
    let (tokens, each) = (vec![0; rows], rows.div_ceil(PAGE) as u32);
    for segment in 0..segments as u32 {
        let pages: Vec<u32> = (segment * each..(segment + 1) * each).collect();
        batch.push(&tokens, 0, &pages)?;
    }
    Ok(())
}

/// Pixels of the patches of some crops, `[crops, 1 + patches, patch_pixels]`; a class token has none, that is zeros.
fn pixels(spec: &VisionSpec, crops: &Crops<'_>, which: Range<usize>) -> Vec<f32> {
    let (size, patch) = (spec.image_size, spec.patch_size);
    let grid = size / patch;
    let mut out = Vec::with_capacity(which.len() * spec.positions() * spec.patch_pixels());
    for crop in crops.values.chunks_exact(3 * size * size).skip(which.start).take(which.len()) {
        out.resize(out.len() + spec.patch_pixels(), 0.0);
        for place in 0..grid * grid {
            let (top, left) = (place / grid * patch, place % grid * patch);
            for line in (0..3).flat_map(|channel| (0..patch).map(move |line| channel * size + top + line)) {
                out.extend_from_slice(&crop[line * size + left..][..patch]);
            }
        }
    }
    out
}
