//! The decoder: one text for every model of the family and every machine.

mod inputs;
mod load;
mod prepare;

use crate::pages::PageId;
use crate::reserve::reserve_pages;
use crate::table::Slot;
use crate::vision::Tower;
use crate::{Block, Checkpoint, Error, Features, Input, ModelSpec, QuantScheme, Result, RopeSet, TowerInput};
use inputs::FeatureRows;
pub use inputs::{check_inputs, check_length};
use load::{Loader, NormWeights};
use phi3_tensor::{
    Activation, Backend, Batch, DeviceInfo, Epilogue, KvType, Phase, Readback, Router, Sampled, Samples, TOP_EXPERTS,
};
use std::ops::Range;
use std::sync::Arc;

/// One layer's weights, under the names that Phi-3 has for them.
struct Layer<B: Backend> {
    input_layernorm: NormWeights<B>,
    /// Several parts where the file's tensors are of several types.
    qkv_proj: Vec<B::Matrix>,
    o_proj: B::Matrix,
    /// Absent in a parallel block.
    post_attention_layernorm: Option<NormWeights<B>>,
    mlp: MlpWeights<B>,
}

/// A feed-forward's weights.
enum MlpWeights<B: Backend> {
    Dense { activation: Activation, up: B::Matrix, down: B::Matrix },
    Experts { choice: Router, activation: Activation, router: B::Matrix, up: B::Matrix, down: B::Matrix },
}

/// A pass's activations, `[rows, …]`, made once.
struct Activations<B: Backend> {
    /// The residual stream, `[rows, hidden_size]`.
    x: B::Rows,
    /// What both branches of a parallel block take, and what router and experts take, `[rows, hidden_size]`; of no rows where a
    /// model has neither.
    normed: B::Rows,
    /// Queries, `[rows, heads * head_dim]`.
    q: B::Rows,
    /// What the heads return, `[rows, heads * head_dim]`.
    attn_out: B::Rows,
    /// What the activation gives, `[rows, intermediate_size]`; of experts, a row for each route.
    mlp_hidden: B::Rows,
    /// Scores of experts, `[rows, experts]`, and the routes; of no rows where there are none.
    scores: B::Rows,
    routes: B::Routes,
    /// Rows whose logits are wanted, `[rows, hidden_size]`.
    head_input: B::Rows,
    /// `[output rows, vocab_size]`
    logits: B::Rows,
}

/// First value of a row of a pass.
#[derive(Clone, Debug, PartialEq)]
pub enum RowInput {
    /// A token, or a row of picture features.
    Input(Input),
    /// The token that was sampled into this slot.
    Sampled(u32),
}

/// Consecutive rows of a pass that belong to one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The rows; at least one.
    pub inputs: &'a [RowInput],
    /// Kind of the rows.
    pub phase: Phase,
    /// Position of the first row in its sequence.
    pub position: usize,
    /// Pages of the sequence, of 16 positions each, those of the rows included. Pages that no row attends to may be
    /// [`Batch::NO_PAGE`].
    pub pages: &'a [PageId],
    /// Rope factors of the sequence.
    pub rope: RopeSet,
    /// Rows whose logits are computed.
    pub outputs: Outputs,
}

/// Rows of a segment whose logits are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// None: a chunk of a prompt that goes on.
    None,
    /// The last one.
    Last,
    /// All.
    All,
}

impl Outputs {
    /// Those of the rows of a segment.
    pub fn of(self, rows: Range<usize>) -> Range<usize> {
        match self {
            Outputs::None => rows.end..rows.end,
            Outputs::Last => rows.end.saturating_sub(1).max(rows.start)..rows.end,
            Outputs::All => rows,
        }
    }
}

/// Is shown the hidden states of a pass: `hidden.0` (input of layer 0), `hidden.i` (output of layer i - 1) and
/// `hidden.norm`, each `[rows, hidden_size]`.
pub type Probe<'a> = dyn FnMut(&str, &[f32]) + 'a;

/// How a decoder is set up.
#[derive(Clone, Copy, Debug)]
pub struct DecoderOptions {
    /// Rows of a pass, at most: the length of a prompt's chunks.
    pub max_rows: usize,
    /// How plain matrices (f32, f16, bf16) are quantized while they are loaded; kept as they are where absent. Matrices
    /// that are quantized in the file stay as they are.
    pub quant: Option<QuantScheme>,
    /// Type of the cached keys and values.
    pub kv: KvType,
    /// Threads that quantize while the model is loaded; all that the process may use where absent.
    pub threads: Option<usize>,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { max_rows: 512, quant: None, kv: KvType::F32, threads: None }
    }
}

impl DecoderOptions {
    /// Rows that activations are made for.
    pub(crate) fn rows(&self, spec: &ModelSpec) -> usize {
        self.max_rows.clamp(1, spec.max_position_embeddings.max(16))
    }
}

/// Rows of logits that are computed at once.
pub(crate) fn max_outputs(spec: &ModelSpec, rows: usize) -> usize {
    (LOGITS_BYTES / 4 / spec.vocab_size).clamp(1, rows)
}

/// A model on a device, behind which devices differ.
///
/// A pass is two steps: [`forward`](Self::forward) submits the layers, and [`sample`](Self::sample) or [`logits`](Self::logits)
/// submits what is made of the outputs. Neither waits for the device.
pub trait Model: Send {
    /// Description of the model.
    fn spec(&self) -> &ModelSpec;
    /// The device.
    fn device(&self) -> &DeviceInfo;
    /// Most rows of a pass.
    fn max_rows(&self) -> usize;
    /// Most outputs of a pass.
    fn max_outputs(&self) -> usize;
    /// Passes that may be in flight at once: more than 1 where the device computes while the host goes on.
    fn pipeline_depth(&self) -> usize;
    /// Whether a pass with rows of prompts and of new tokens reads the weights of the layers twice.
    fn phases_differ(&self) -> bool;
    /// Bytes of a page of the KV cache: keys and values of all layers.
    fn page_bytes(&self) -> u64;
    /// Most pages that the device allows.
    fn max_pages(&self) -> usize;
    /// Makes room for pages `0 .. pages`, where enlarging the cache bit by bit is expensive. [`forward`](Self::forward) makes room for
    /// the pages of its segments in any case.
    ///
    /// # Errors
    ///
    /// Those of the device's memory.
    fn reserve(&mut self, pages: usize) -> Result<()>;
    /// Makes room for slots `0 .. slots` of sampled tokens.
    ///
    /// # Errors
    ///
    /// Those of the device's memory.
    fn reserve_slots(&mut self, slots: usize) -> Result<()>;
    /// Copies pages, each pair from the first to the second, after the passes that were submitted before.
    ///
    /// # Errors
    ///
    /// [`Error::CacheMemory`] where the device has no memory for the pages, and those of the device.
    fn copy_pages(&mut self, pairs: &[(PageId, PageId)]) -> Result<()>;
    /// Submits the layers of a pass over any number of segments. Its outputs are numbered in the order of the segments. `probe` gets
    /// the hidden states, which are waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] where segments do not fit the model, [`Error::CacheMemory`] where the device has no memory for their pages,
    /// and those of the device.
    fn forward(&mut self, segments: &[Segment<'_>], probe: Option<&mut Probe<'_>>) -> Result<()>;
    /// Samples tokens from outputs of the last pass, whose logits are lost then. Without rows, the result is complete at the end of
    /// the pass.
    ///
    /// # Errors
    ///
    /// Those of [`Sample::sample`](phi3_tensor::ops::Sample::sample).
    fn sample(&mut self, samples: &Samples) -> Result<Readback<Sampled>>;
    /// Logits of outputs of the last pass, `[outputs, vocab_size]`, before any is sampled.
    ///
    /// # Errors
    ///
    /// Outputs that the pass does not have, and those of the device.
    fn logits(&mut self, outputs: Range<usize>) -> Result<Readback<Vec<f32>>>;
    /// Features of a picture, for [`Input`]s; the model keeps nothing of it. `probe` gets `positions`, if their table is resized,
    /// `[patches, hidden_size of the tower]`, `tower_features`, `[patches, hidden_size of the tower]`, and `projected`,
    /// `[tokens, hidden_size]`. They are waited for.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] where the model has no tower or the values do not fit it, and those of the device.
    fn encode_image(&mut self, input: &TowerInput<'_>, probe: Option<&mut Probe<'_>>) -> Result<Arc<Features>>;
}

/// The decoder on a backend.
pub struct Decoder<B: Backend> {
    backend: B,
    spec: ModelSpec,
    options: DecoderOptions,
    embed_tokens: B::Matrix,
    layers: Vec<Layer<B>>,
    norm: NormWeights<B>,
    /// Absent where the embedding is the head.
    lm_head: Option<B::Matrix>,
    cache: B::Cache,
    /// Pages that the cache has at least.
    pages: usize,
    activations: Activations<B>,
    /// Rows of `activations.logits`.
    max_outputs: usize,
    /// Absent where the model has none.
    tower: Option<Tower<B>>,
    batch: Batch,
    /// Tokens of a segment; 0 for rows of pictures.
    tokens: Vec<u32>,
    /// Rows of the pass that are a picture's.
    features: Vec<FeatureRows>,
}

/// Bytes of logits that are computed at once, about.
const LOGITS_BYTES: usize = 64 << 20;

impl<B: Backend> Decoder<B> {
    /// Brings a checkpoint to a device. `progress` is told the bytes of weights that are there so far.
    pub fn load(
        mut backend: B,
        checkpoint: &Checkpoint,
        options: DecoderOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let spec = checkpoint.spec().clone();
        let mut loader = Loader { backend: &mut backend, checkpoint, spec: &spec, options, done: 0, progress };
        let embed_tokens = loader.matrix(Slot::Embedding)?;
        let mut layers = Vec::new();
        for i in 0..spec.layers.len() {
            layers.push(loader.layer(i)?);
        }
        let norm = loader.norm(Slot::Norm)?;
        let lm_head = match spec.tie_word_embeddings {
            true => None,
            false => Some(loader.matrix(Slot::Head)?),
        };
        let mut done = loader.done;
        let tower = match &spec.vision {
            Some(vision) => Some(Tower::load(&mut backend, checkpoint, vision, spec.hidden_size, &mut done, progress)?),
            None => None,
        };
        let rows = options.rows(&spec);
        let max_outputs = max_outputs(&spec, rows);
        let experts = spec.most_experts();
        let normed = experts > 0 || spec.layers.iter().any(|layer| layer.block == Block::Parallel);
        let (routed, routes) = if experts > 0 { (rows, TOP_EXPERTS * rows) } else { (0, rows) };
        let activations = Activations {
            x: backend.rows("x", rows, spec.hidden_size)?,
            normed: backend.rows("normed", if normed { rows } else { 0 }, spec.hidden_size)?,
            q: backend.rows("q", rows, spec.heads.q_dim())?,
            attn_out: backend.rows("attn_out", rows, spec.heads.q_dim())?,
            mlp_hidden: backend.rows("mlp_hidden", routes, spec.widest_mlp())?,
            scores: backend.rows("scores", routed, experts.max(1))?,
            routes: backend.routes(routed, experts)?,
            head_input: backend.rows("head_input", rows, spec.hidden_size)?,
            logits: backend.rows("logits", max_outputs, spec.vocab_size)?,
        };
        Ok(Self {
            cache: backend.cache(spec.layers.len(), spec.heads, options.kv)?,
            pages: 0,
            options: DecoderOptions { max_rows: rows, ..options },
            backend,
            spec,
            embed_tokens,
            layers,
            norm,
            lm_head,
            activations,
            max_outputs,
            tower,
            batch: Batch::default(),
            tokens: Vec::new(),
            features: Vec::new(),
        })
    }

    /// The machine, for its own counters.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Makes the batch of a pass.
    fn lay_out(&mut self, segments: &[Segment<'_>]) -> Result<()> {
        let Self { batch, tokens, features, .. } = self;
        batch.clear();
        features.clear();
        for segment in segments {
            tokens.clear();
            tokens.extend(segment.inputs.iter().map(RowInput::token));
            let rows = batch.push_as(segment.phase, tokens, segment.position, segment.pages)?;
            for (row, input) in rows.clone().zip(segment.inputs) {
                if let RowInput::Input(input) = input {
                    FeatureRows::place(features, row, input);
                }
            }
            for position in segment.position..segment.position + segment.inputs.len() {
                self.spec.rope.cos_sin(segment.rope, position, batch.rope_mut());
            }
            let phase = if segment.outputs == Outputs::Last { Phase::Decode } else { segment.phase };
            segment.outputs.of(rows).try_for_each(|row| batch.push_output_as(phase, row))?;
        }
        self.reserve_pages(self.batch.pages_needed())
    }

    fn check(&self, segments: &[Segment<'_>]) -> Result<()> {
        let most = |what: &'static str, found: usize, limit: usize, hint| {
            if found <= limit {
                return Ok(());
            }
            Err(Error::Request {
                what: "pass",
                found: format!("{found} {what}"),
                limit: format!("a pass takes {limit} {what}"),
                hint,
            })
        };
        let rows = segments.iter().map(|segment| segment.inputs.len());
        most("rows", rows.sum(), self.options.max_rows, "compute a long prompt in chunks")?;
        for segment in segments {
            if segment.inputs.is_empty() {
                return Err(Error::Request {
                    what: "pass",
                    found: "a segment without rows".into(),
                    limit: "a segment has at least one row".into(),
                    hint: "leave the segment out",
                });
            }
            check_length(&self.spec, segment.position.saturating_add(segment.inputs.len()))?;
            check_inputs(&self.spec, segment.inputs.iter().filter_map(RowInput::input))?;
        }
        let outputs = segments.iter().map(|segment| segment.outputs.of(0..segment.inputs.len()).len());
        most("outputs", outputs.sum(), self.max_outputs, "compute a long prompt in chunks")
    }

    /// The pass up to the last layer.
    fn layers(&mut self, mut probe: Option<&mut Probe<'_>>) -> Result<()> {
        let Self { backend, spec, layers, cache, activations: a, batch, features, .. } = self;
        let (rows, width) = (batch.rows(), spec.hidden_size);
        let mut show = |backend: &mut B, layer: usize, x: &B::Rows| -> Result<()> {
            if let Some(probe) = probe.as_deref_mut() {
                let mut hidden = vec![0.0; rows * width];
                backend.read(x, &mut hidden)?;
                probe(&format!("hidden.{layer}"), &hidden);
            }
            Ok(())
        };

        backend.begin(batch)?;
        backend.embed(&self.embed_tokens, spec.embedding_scale, &mut a.x)?;
        for FeatureRows { row, features, rows } in features.iter() {
            backend.write(&mut a.x, *row, &features.values()[rows.start * width..rows.end * width])?;
        }
        for (i, (layer, spec_of)) in layers.iter().zip(&spec.layers).enumerate() {
            show(backend, i, &a.x)?;
            if spec_of.block == Block::Parallel {
                backend.norm(&a.x, layer.input_layernorm.norm(), &mut a.normed)?;
            }
            let (input, norm) = match spec_of.block {
                Block::Sequential => (&a.x, Some(layer.input_layernorm.norm())),
                Block::Parallel => (&a.normed, None),
            };
            // queries, keys and values are three parts at most
            let count = layer.qkv_proj.len();
            let qkv: [&B::Matrix; 3] = std::array::from_fn(|part| &layer.qkv_proj[part.min(count - 1)]);
            backend.project_qkv(input, norm, &qkv[..count], &mut a.q, cache, i)?;
            backend.attention(&a.q, cache, i, spec_of.mask, spec.attention_scale, &mut a.attn_out)?;
            backend.project(&a.attn_out, None, &layer.o_proj, Epilogue::ACCUMULATE, &mut a.x)?;
            // absent in a parallel block, whose branches take what was normed above
            let norm = layer.post_attention_layernorm.as_ref().map(NormWeights::norm);
            match &layer.mlp {
                MlpWeights::Dense { activation, up, down } => {
                    let input = if norm.is_some() { &a.x } else { &a.normed };
                    backend.project(input, norm, up, Epilogue::of(*activation), &mut a.mlp_hidden)?;
                    backend.project(&a.mlp_hidden, None, down, Epilogue::ACCUMULATE, &mut a.x)?;
                }
                MlpWeights::Experts { choice, activation, router, up, down } => {
                    if let Some(norm) = norm {
                        backend.norm(&a.x, norm, &mut a.normed)?;
                    }
                    backend.project(&a.normed, None, router, Epilogue::OVERWRITE, &mut a.scores)?;
                    backend.route(&a.scores, *choice, &mut a.routes)?;
                    backend.project_experts(&a.normed, up, *activation, &a.routes, &mut a.mlp_hidden)?;
                    backend.combine_experts(&a.mlp_hidden, down, &a.routes, &mut a.x)?;
                }
            }
        }
        show(backend, layers.len(), &a.x)?;
        if probe.is_some() {
            backend.norm(&a.x, self.norm.norm(), &mut a.head_input)?;
        }
        if let Some(probe) = probe {
            let mut hidden = vec![0.0; rows * width];
            backend.read(&a.head_input, &mut hidden)?;
            probe("hidden.norm", &hidden);
        }
        Ok(())
    }

    /// The pass: the layers, and the logits of the outputs.
    fn run(&mut self, probe: Option<&mut Probe<'_>>) -> Result<()> {
        self.layers(probe)?;
        let Self { backend, spec, activations: a, batch, .. } = self;
        let (outputs, phases) = (batch.outputs().len(), batch.output_phases());
        if outputs == 0 {
            return Ok(backend.submit()?);
        }
        // the last row of a prompt alone is an output like a new token's
        let same =
            |segment: &phi3_tensor::Segment| segment.rows.clone().all(|row| phases.get(row) == Some(&segment.phase));
        let input = if outputs == batch.rows() && batch.segments().iter().all(same) {
            &a.x
        } else {
            backend.select(&a.x, 0, outputs, &mut a.head_input)?;
            &a.head_input
        };
        let epilogue = Epilogue { scale: spec.logit_scale, ..Epilogue::OVERWRITE };
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        Ok(backend.project(input, Some(self.norm.norm()), head, epilogue, &mut a.logits)?)
    }
}

impl<B: Backend> Model for Decoder<B> {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn device(&self) -> &DeviceInfo {
        self.backend.info()
    }

    fn max_rows(&self) -> usize {
        self.options.max_rows
    }

    fn max_outputs(&self) -> usize {
        self.max_outputs
    }

    fn pipeline_depth(&self) -> usize {
        self.backend.pipeline_depth()
    }

    fn phases_differ(&self) -> bool {
        self.layers.first().is_some_and(|layer| self.backend.phases_differ(&layer.o_proj))
    }

    fn page_bytes(&self) -> u64 {
        self.backend.page_bytes(&self.cache)
    }

    fn max_pages(&self) -> usize {
        self.backend.max_pages(&self.cache)
    }

    fn reserve(&mut self, pages: usize) -> Result<()> {
        Ok(self.backend.reserve_hint(&mut self.cache, pages)?)
    }

    fn reserve_slots(&mut self, slots: usize) -> Result<()> {
        Ok(self.backend.reserve_slots(slots)?)
    }

    fn copy_pages(&mut self, pairs: &[(PageId, PageId)]) -> Result<()> {
        let pages = pairs.iter().map(|&(from, to)| from.max(to) as usize + 1).max().unwrap_or(0);
        self.reserve_pages(pages)?;
        Ok(self.backend.copy_pages(&mut self.cache, pairs)?)
    }

    fn forward(&mut self, segments: &[Segment<'_>], probe: Option<&mut Probe<'_>>) -> Result<()> {
        self.check(segments)?;
        self.lay_out(segments)?;
        if self.batch.rows() == 0 {
            return Ok(());
        }
        self.run(probe).inspect_err(|_| self.abandon())
    }

    fn sample(&mut self, samples: &Samples) -> Result<Readback<Sampled>> {
        self.backend.sample(&mut self.activations.logits, samples).map_err(Error::from).inspect_err(|_| self.abandon())
    }

    fn logits(&mut self, outputs: Range<usize>) -> Result<Readback<Vec<f32>>> {
        if outputs.end > self.batch.outputs().len() || outputs.start > outputs.end {
            return Err(Error::Request {
                what: "logits",
                found: format!("outputs {} to {}", outputs.start, outputs.end),
                limit: format!("the pass has {}", self.batch.outputs().len()),
                hint: "ask for outputs in the segments of the pass",
            });
        }
        let readback = self.backend.read_back(&self.activations.logits, outputs);
        let (vocab, suppressed) = (self.spec.vocab_size, self.spec.suppressed.clone());
        Ok(readback?.map(move |mut logits| {
            suppress(&mut logits, vocab, &suppressed);
            logits
        }))
    }

    fn encode_image(&mut self, input: &TowerInput<'_>, probe: Option<&mut Probe<'_>>) -> Result<Arc<Features>> {
        let Some(tower) = &mut self.tower else {
            return Err(Error::Request {
                what: "picture",
                found: "one for a model without a vision tower".into(),
                limit: "this model reads text only".into(),
                hint: "take a model with a vision tower",
            });
        };
        match tower.encode(&mut self.backend, input, probe) {
            Ok(features) => Ok(Arc::new(features)),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }
}

impl<B: Backend> Decoder<B> {
    /// Makes room for pages `0 .. pages` of the cache.
    ///
    /// # Errors
    ///
    /// [`Error::CacheMemory`] with the number of pages that there is memory for.
    fn reserve_pages(&mut self, pages: usize) -> Result<()> {
        let Self { backend, cache, .. } = self;
        reserve_pages(&mut self.pages, pages, |pages| backend.reserve(cache, pages))
    }

    /// Ends a pass that failed: its recorded operations are run now, and errors of them belong to that of the pass.
    fn abandon(&mut self) {
        self.batch.clear();
        let _ = self.backend.begin(&self.batch);
    }
}

/// Sets the logits of tokens that no text has to the lowest number.
fn suppress(logits: &mut [f32], vocab: usize, suppressed: &[u32]) {
    for logits in logits.chunks_exact_mut(vocab) {
        for token in suppressed {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = f32::MIN;
            }
        }
    }
}
