//! The tower on a backend: pictures to features.

use super::{
    FeatureId, Features, PictureSpec, TowerInput, VisionSpec, VisionTensor, VisionValues, merge, positions, table,
};
use crate::{Checkpoint, Probe, Result};
use phi3_tensor::{Activation, Backend, Batch, Epilogue, KvType, Mask, Norm, PAGE};
use std::borrow::Cow;
use std::ops::Range;

/// Approximate number of rows of a pass: as many whole sequences as fit, at least one.
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
    /// Values of patches, `[rows, patch_values]`.
    patches: B::Rows,
    /// Embedded patches before the norm, if there is a norm before the first layer, `[rows, hidden_size]`.
    embedded: B::Rows,
    /// The residual stream, `[rows, hidden_size]`.
    x: B::Rows,
    /// Queries, `[rows, hidden_size]`.
    q: B::Rows,
    /// Output of the heads, `[rows, hidden_size]`.
    attn_out: B::Rows,
    /// Activations between the projections of the feed-forward, `[rows, inner]`.
    mlp_hidden: B::Rows,
    /// Features of tokens, `[rows, token_width]`.
    tokens: B::Rows,
    /// Outputs of the two layers of the projection to the decoder, `[rows, width]`.
    between: B::Rows,
    projected: B::Rows,
    /// Keys and values of one layer; every layer overwrites them.
    cache: B::Cache,
}

/// A tower and the projection after it.
pub(crate) struct Tower<B: Backend> {
    spec: VisionSpec,
    /// Width of the decoder.
    width: usize,
    patch_embedding: B::Matrix,
    /// The table of positions `[positions, hidden_size]`; the embedding of a class token is added to row 0.
    positions: Vec<f32>,
    pre_norm: Option<LayerNorm<B>>,
    layers: Vec<Layer<B>>,
    projection: [B::Matrix; 2],
    /// Separators after rows, and between picture and global view, `[token_width]`; empty if there are none.
    separators: [Vec<f32>; 2],
    /// Allocated at the first picture.
    scratch: Option<Scratch<B>>,
    batch: Batch,
}

/// Number of sequences of a pass, for sequences of `length` positions.
fn sequences_of_a_pass(length: usize) -> usize {
    (ROWS / length).max(1)
}

/// Rows of the largest pass.
fn most_rows(spec: &VisionSpec) -> usize {
    match spec.picture {
        PictureSpec::Crops { .. } => sequences_of_a_pass(spec.longest()) * spec.longest(),
        PictureSpec::Whole { .. } => spec.longest(),
    }
}

/// Bytes of activations, which are allocated at the first picture.
pub(crate) fn scratch_bytes(spec: &VisionSpec, width: usize) -> u64 {
    let row = spec.patch_values() + 10 * spec.hidden_size + spec.inner + spec.token_width() + 2 * width;
    4 * (most_rows(spec) * row) as u64
}

/// Loads weights onto a device, and counts their bytes.
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

    fn norm(&mut self, [weight, bias]: [VisionValues; 2]) -> Result<LayerNorm<B>> {
        let mut vector = |(name, shape): &VisionValues| {
            let values = self.checkpoint.vision_values(name, shape)?;
            Ok::<_, crate::Error>(self.backend.vector(name, &values)?)
        };
        Ok(LayerNorm { weight: vector(&weight)?, bias: vector(&bias)?, eps: self.eps })
    }
}

impl<B: Backend> Tower<B> {
    /// Loads a tower onto a device. `done` is increased by the bytes of each matrix, and `progress` is called with the sum.
    pub(crate) fn load(
        backend: &mut B,
        checkpoint: &Checkpoint,
        spec: &VisionSpec,
        width: usize,
        done: &mut u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut loader = Loader { backend, checkpoint, eps: spec.eps, done, progress };
        let mut layers = Vec::new();
        for i in 0..spec.layers {
            let [qkv, out, fc1, fc2] = table::layer(spec, i);
            let [norm1, norm2] = table::norms(spec, i);
            layers.push(Layer {
                norm1: loader.norm(norm1)?,
                qkv: loader.matrix(&qkv)?,
                out: loader.matrix(&out)?,
                norm2: loader.norm(norm2)?,
                fc1: loader.matrix(&fc1)?,
                fc2: loader.matrix(&fc2)?,
            });
        }
        let [first, second] = table::projection(spec, width);
        let values = |(name, shape): &VisionValues| checkpoint.vision_values(name, shape);
        let mut positions = values(&table::positions(spec))?;
        if let Some(class) = table::class(spec) {
            positions.iter_mut().zip(values(&class)?).for_each(|(position, class)| *position += class);
        }
        let separators = match table::separators(spec) {
            Some([sub, glb]) => [values(&sub)?, values(&glb)?],
            None => [Vec::new(), Vec::new()],
        };
        let pre_norm = spec.pre_norm.then(|| table::norm(spec, table::PRE_NORM));
        Ok(Self {
            patch_embedding: loader.matrix(&table::patch_embedding(spec))?,
            pre_norm: pre_norm.map(|tensors| loader.norm(tensors)).transpose()?,
            projection: [loader.matrix(&first)?, loader.matrix(&second)?],
            separators,
            positions,
            layers,
            width,
            spec: spec.clone(),
            scratch: None,
            batch: Batch::default(),
        })
    }

    /// Features of a picture. `probe` is called with `positions`, if their table is resized, with `tower_features`,
    /// `[patches of all sequences, hidden_size]`, and with `projected`.
    pub(crate) fn encode(
        &mut self,
        backend: &mut B,
        input: &TowerInput<'_>,
        mut probe: Option<&mut Probe<'_>>,
    ) -> Result<Features> {
        input.check(&self.spec)?;
        self.make_scratch(backend)?;
        let grid = input.grid;
        let (sequences, length) = (self.spec.sequences(grid), self.spec.length(grid));
        let positions = match self.spec.picture {
            PictureSpec::Crops { .. } => self.positions.clone(),
            PictureSpec::Whole { table, .. } => {
                let resized = positions::resized(&self.positions, table, self.spec.hidden_size, grid);
                if let Some(probe) = &mut probe {
                    probe("positions", &resized);
                }
                resized
            }
        };
        let mut patches = Vec::with_capacity(sequences * length * self.spec.hidden_size);
        let most = sequences_of_a_pass(length);
        for first in (0..sequences).step_by(most) {
            let which = first..(first + most).min(sequences);
            self.tower(backend, input, which, &positions, &mut patches)?;
        }
        if let Some(probe) = &mut probe {
            probe("tower_features", &patches);
        }
        let spec = &self.spec;
        let tokens = match spec.picture {
            PictureSpec::Crops { .. } => merge::merge(spec, &patches, grid, &self.separators[0], &self.separators[1]),
            PictureSpec::Whole { .. } => patches,
        };
        let (width, rows) = (spec.token_width(), most_rows(spec));
        let mut projected = Vec::with_capacity(tokens.len() / width * self.width);
        for part in tokens.chunks(rows * width) {
            self.project(backend, part, &mut projected)?;
        }
        if let Some(probe) = probe {
            probe("projected", &projected);
        }
        Ok(Features::new(FeatureId::of(input), self.width, projected))
    }

    fn make_scratch(&mut self, backend: &mut B) -> Result<()> {
        if self.scratch.is_some() {
            return Ok(());
        }
        let (spec, rows) = (&self.spec, most_rows(&self.spec));
        let mut cache = backend.cache(1, spec.heads, KvType::F32)?;
        let sequences = rows / spec.longest();
        backend.reserve(&mut cache, sequences * spec.longest().div_ceil(PAGE))?;
        self.scratch = Some(Scratch {
            patches: backend.rows("patches", rows, spec.patch_values())?,
            embedded: backend.rows("embedded patches", rows, spec.hidden_size)?,
            x: backend.rows("vision x", rows, spec.hidden_size)?,
            q: backend.rows("vision q", rows, spec.hidden_size)?,
            attn_out: backend.rows("vision attn_out", rows, spec.hidden_size)?,
            mlp_hidden: backend.rows("vision mlp_hidden", rows, spec.inner)?,
            tokens: backend.rows("features of tokens", rows, spec.token_width())?,
            between: backend.rows("vision projection", rows, self.width)?,
            projected: backend.rows("image features", rows, self.width)?,
            cache,
        });
        Ok(())
    }

    /// Appends to `patches` the output of the last computed layer for the sequences `which`, without class tokens.
    fn tower(
        &mut self,
        backend: &mut B,
        input: &TowerInput<'_>,
        which: Range<usize>,
        positions: &[f32],
        patches: &mut Vec<f32>,
    ) -> Result<()> {
        let Self { spec, scratch, batch, layers, .. } = self;
        let Some(s) = scratch else { return Ok(()) };
        let (count, length, hidden) = (which.len(), spec.length(input.grid), spec.hidden_size);
        lay_out(batch, count, length)?;
        let values = match spec.picture {
            PictureSpec::Crops { size } => Cow::Owned(patches_of_crops(spec, size, input.values, which)),
            PictureSpec::Whole { .. } => Cow::Borrowed(input.values),
        };
        let scale = 1.0 / (spec.heads.head_dim as f32).sqrt();

        backend.begin(batch)?;
        backend.write(&mut s.patches, 0, &values)?;
        let embedded = if self.pre_norm.is_some() { &mut s.embedded } else { &mut s.x };
        backend.write(embedded, 0, &positions.repeat(count))?;
        backend.project(&s.patches, None, &self.patch_embedding, Epilogue::ACCUMULATE, embedded)?;
        if let Some(norm) = &self.pre_norm {
            backend.norm(&s.embedded, norm.norm(), &mut s.x)?;
        }
        for layer in layers.iter() {
            backend.project_qkv(&s.x, Some(layer.norm1.norm()), &[&layer.qkv], &mut s.q, &mut s.cache, 0)?;
            backend.attention(&s.q, &s.cache, 0, Mask::Full, scale, &mut s.attn_out)?;
            backend.project(&s.attn_out, None, &layer.out, Epilogue::ACCUMULATE, &mut s.x)?;
            let up = Epilogue::of(spec.activation);
            backend.project(&s.x, Some(layer.norm2.norm()), &layer.fc1, up, &mut s.mlp_hidden)?;
            backend.project(&s.mlp_hidden, None, &layer.fc2, Epilogue::ACCUMULATE, &mut s.x)?;
        }
        let mut rows = vec![0.0; count * length * hidden];
        backend.read(&s.x, &mut rows)?;
        let skipped = if spec.class_token() { hidden } else { 0 };
        rows.chunks_exact(length * hidden).for_each(|sequence| patches.extend_from_slice(&sequence[skipped..]));
        Ok(())
    }

    /// Projects features of tokens to the decoder's width, and appends them to `projected`.
    fn project(&mut self, backend: &mut B, tokens: &[f32], projected: &mut Vec<f32>) -> Result<()> {
        let Self { spec, scratch, batch, projection: [first, second], width, .. } = self;
        let Some(s) = scratch else { return Ok(()) };
        let rows = tokens.len() / spec.token_width();
        lay_out(batch, 1, rows)?;
        backend.begin(batch)?;
        backend.write(&mut s.tokens, 0, tokens)?;
        backend.project(&s.tokens, None, first, Epilogue::of(Activation::GeluErf), &mut s.between)?;
        backend.project(&s.between, None, second, Epilogue::OVERWRITE, &mut s.projected)?;
        let at = projected.len();
        projected.resize(at + rows * *width, 0.0);
        Ok(backend.read(&s.projected, &mut projected[at..])?)
    }
}

/// Fills a batch with `segments` segments of `rows` rows each. Every segment has its own pages.
fn lay_out(batch: &mut Batch, segments: usize, rows: usize) -> Result<()> {
    batch.clear();
    let (tokens, each) = (vec![0; rows], rows.div_ceil(PAGE) as u32);
    for segment in 0..segments as u32 {
        let pages: Vec<u32> = (segment * each..(segment + 1) * each).collect();
        batch.push(&tokens, 0, &pages)?;
    }
    Ok(())
}

/// Values of the patches of the crops `which`, `[crops, 1 + patches, patch_values]`. The values of a class token are zeros.
fn patches_of_crops(spec: &VisionSpec, size: usize, values: &[f32], which: Range<usize>) -> Vec<f32> {
    let patch = spec.patch_size;
    let grid = size / patch;
    let mut out = Vec::with_capacity(which.len() * spec.positions() * spec.patch_values());
    for crop in values.chunks_exact(3 * size * size).skip(which.start).take(which.len()) {
        out.resize(out.len() + spec.patch_values(), 0.0);
        for place in 0..grid * grid {
            let (top, left) = (place / grid * patch, place % grid * patch);
            for line in (0..3).flat_map(|channel| (0..patch).map(move |line| channel * size + top + line)) {
                out.extend_from_slice(&crop[line * size + left..][..patch]);
            }
        }
    }
    out
}
