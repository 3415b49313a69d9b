//! The decoder: one text for every model of the family and every machine.

mod inputs;
mod load;
mod pipeline;

use crate::sequence::{PagePool, Sequence};
use crate::table::Slot;
use crate::vision::Tower;
use crate::{Block, Checkpoint, Error, Features, Input, ModelSpec, QuantScheme, Result, TowerInput};
use inputs::FeatureRows;
pub use inputs::{check_inputs, check_length, check_tokens};
use load::{Loader, NormWeights};
use phi3_tensor::{Activation, Backend, Batch, DeviceInfo, Epilogue, KvType, PAGE, Router, Sampling, TOP_EXPERTS};
use pipeline::InFlight;
use std::collections::VecDeque;
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

/// Rows of which sequence a pass computes, and whose logits are wanted.
pub struct SequenceRows<'a> {
    /// Where the inputs follow.
    pub sequence: &'a mut Sequence,
    /// At least one.
    pub inputs: &'a [Input],
    /// Whose logits are wanted.
    pub outputs: Outputs,
}

/// Whose logits a feed wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Nobody's: a chunk of a prompt that goes on.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
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

/// A model on a device. The library's border: machines differ behind it.
pub trait Model: Send {
    /// What the model computes.
    fn spec(&self) -> &ModelSpec;
    /// What it runs on.
    fn device(&self) -> &DeviceInfo;
    /// Rows that one pass takes.
    fn max_rows(&self) -> usize;
    /// An empty sequence, for this model only: others refuse it.
    fn sequence(&self) -> Sequence;
    /// Whether a sequence is one of this model's.
    fn owns(&self, sequence: &Sequence) -> bool;
    /// Bytes of keys and values in use.
    fn cache_bytes(&self) -> u64;
    /// Makes room on the device for `sequence` to grow to `tokens` tokens, where growing bit by bit would be dear. A
    /// sliding window needs no more than itself and a pass.
    ///
    /// # Errors
    ///
    /// [`Error::Sequence`] where it is another model's, and what the device reports.
    fn prepare(&mut self, sequence: &Sequence, tokens: usize) -> Result<()>;
    /// One pass over any number of sequences. `logits` becomes `[outputs, vocab_size]` in the order of the parts.
    ///
    /// # Errors
    ///
    /// [`Error::Sequence`] where one is another model's or has passes under way, [`Error::Request`] where a feed does not fit the
    /// model, and what the device reports. The sequences hold the tokens that they held then.
    fn forward(
        &mut self,
        parts: &mut [SequenceRows<'_>],
        logits: &mut Vec<f32>,
        probe: Option<&mut Probe<'_>>,
    ) -> Result<()>;
    /// Features of a picture, to be fed as [`Input`]s; the model keeps nothing of it. `probe` is shown `positions`, if
    /// their table is resized, `[patches, hidden_size of the tower]`, `tower_features`, `[patches, hidden_size of the tower]`, and
    /// `projected`, `[tokens, hidden_size]`.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] where the model has no tower or the values do not fit it, [`Error::Sequence`] while submitted passes
    /// are under way, and what the device reports.
    fn encode_image(&mut self, input: &TowerInput<'_>, probe: Option<&mut Probe<'_>>) -> Result<Arc<Features>>;
    /// Passes of [`submit`](Model::submit) that may be under way at once; 0 where the machine chooses no tokens.
    fn pipeline_depth(&self) -> usize;
    /// Passes of [`submit`](Model::submit) that are under way.
    fn in_flight(&self) -> usize;
    /// One pass over one token, after which the machine chooses the next one; the token is not waited for. The token of the
    /// pass is given, or it is the one that the launch before chose: then `sequence` learns of it when that one lands.
    ///
    /// # Errors
    ///
    /// [`Error::Sequence`] where it is another model's, was cut while passes were under way, or is not the one that was launched
    /// last and no token is given; [`Error::Request`] where it is too long or too many passes are under way.
    fn submit(&mut self, sequence: &mut Sequence, token: Option<u32>, sampling: Sampling) -> Result<()>;
    /// Waits for the oldest pass that is under way, and gives the token that the machine chose.
    ///
    /// # Errors
    ///
    /// [`Error::Sequence`] where that pass is not one of `sequence`, [`Error::NotFinite`], and what the device reports.
    fn wait(&mut self, sequence: &mut Sequence) -> Result<u32>;
    /// Waits for all passes that are under way, and forgets the tokens that they chose.
    ///
    /// # Errors
    ///
    /// What the device reports; nothing is under way then either.
    fn discard(&mut self) -> Result<()>;
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
    pool: PagePool,
    activations: Activations<B>,
    /// Rows of `activations.logits`.
    max_outputs: usize,
    /// Absent where the model has none.
    tower: Option<Tower<B>>,
    batch: Batch,
    /// Tokens of a feed; 0 for rows of pictures.
    tokens: Vec<u32>,
    /// Rows of the pass that are a picture's.
    features: Vec<FeatureRows>,
    /// Launched passes whose tokens nobody has asked for yet.
    in_flight: VecDeque<InFlight>,
    /// The last launched pass: its token is still on the device.
    last_submitted: Option<InFlight>,
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
            options: DecoderOptions { max_rows: rows, ..options },
            backend,
            spec,
            embed_tokens,
            layers,
            norm,
            lm_head,
            pool: PagePool::default(),
            activations,
            max_outputs,
            tower,
            batch: Batch::default(),
            tokens: Vec::new(),
            features: Vec::new(),
            in_flight: VecDeque::new(),
            last_submitted: None,
        })
    }

    /// The machine, for its own counters.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Lays parts out as rows of one pass.
    fn lay_out(&mut self, parts: &mut [SequenceRows<'_>]) -> Result<()> {
        let Self { batch, tokens, features, .. } = self;
        batch.clear();
        features.clear();
        for part in parts {
            let position = part.sequence.len();
            part.sequence.grow(part.inputs.len());
            tokens.clear();
            tokens.extend(part.inputs.iter().map(|input| input.token().unwrap_or(0)));
            let rows = batch.push(tokens, position, part.sequence.pages())?;
            for (row, input) in rows.clone().zip(part.inputs) {
                FeatureRows::place(features, row, input);
            }
            for position in position..position + part.inputs.len() {
                self.spec.rope.cos_sin(part.sequence.rope_set(), position, batch.rope_mut());
            }
            let mut outputs = match part.outputs {
                Outputs::None => rows.end..rows.end,
                Outputs::Last => rows.end - 1..rows.end,
                Outputs::All => rows,
            };
            outputs.try_for_each(|row| batch.push_output(row))?;
        }
        Ok(self.backend.reserve(&mut self.cache, self.pool.made())?)
    }

    fn check(&self, parts: &[SequenceRows<'_>]) -> Result<()> {
        for part in parts {
            self.check_owner("forward", part.sequence)?;
            if self.in_flight.iter().any(|pass| pass.sequence == part.sequence.id()) {
                let found = "the sequence has submitted passes under way";
                return Err(Error::Sequence { call: "forward", found, hint: "wait for them first" });
            }
        }
        let rows: usize = parts.iter().map(|part| part.inputs.len()).sum();
        if rows > self.options.max_rows {
            let limit = format!("a pass takes {} rows", self.options.max_rows);
            let hint = "feed a long prompt in chunks";
            return Err(Error::Request { what: "pass", found: format!("{rows} rows"), limit, hint });
        }
        for part in parts {
            if part.inputs.is_empty() {
                let limit = "a feed has at least one token".into();
                return Err(Error::Request {
                    what: "pass",
                    found: "no token".into(),
                    limit,
                    hint: "leave the feed out",
                });
            }
            let length = part.sequence.len() + part.inputs.len();
            check_length(&self.spec, length)?;
            check_inputs(&self.spec, part.inputs)?;
        }
        Ok(())
    }

    fn check_owner(&self, call: &'static str, sequence: &Sequence) -> Result<()> {
        if self.owns(sequence) { Ok(()) } else { Err(not_of_the_model(call)) }
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

    /// The pass itself.
    fn run(&mut self, logits: &mut Vec<f32>, probe: Option<&mut Probe<'_>>) -> Result<()> {
        self.layers(probe)?;
        let Self { backend, spec, activations: a, batch, .. } = self;
        let rows = batch.rows();
        let epilogue = Epilogue { scale: spec.logit_scale, ..Epilogue::OVERWRITE };
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let (outputs, vocab) = (batch.outputs().len(), spec.vocab_size);
        logits.resize(outputs * vocab, 0.0);
        if outputs == 0 {
            return Ok(backend.submit()?);
        }
        if outputs == rows && outputs <= self.max_outputs {
            backend.project(&a.x, Some(self.norm.norm()), head, epilogue, &mut a.logits)?;
            return Ok(backend.read(&a.logits, logits)?);
        }
        for (slice, out) in logits.chunks_mut(self.max_outputs * vocab).enumerate() {
            backend.select(&a.x, slice * self.max_outputs, out.len() / vocab, &mut a.head_input)?;
            backend.project(&a.head_input, Some(self.norm.norm()), head, epilogue, &mut a.logits)?;
            backend.read(&a.logits, out)?;
        }
        Ok(())
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

    fn sequence(&self) -> Sequence {
        Sequence::new(self.pool.clone())
    }

    fn owns(&self, sequence: &Sequence) -> bool {
        sequence.is_of(&self.pool)
    }

    fn cache_bytes(&self) -> u64 {
        self.pool.used() as u64 * self.backend.page_bytes(&self.cache)
    }

    fn prepare(&mut self, sequence: &Sequence, tokens: usize) -> Result<()> {
        self.check_owner("prepare", sequence)?;
        let window = self.spec.window().map_or(usize::MAX, |window| window + self.options.max_rows + PAGE);
        let pages = tokens.min(window).div_ceil(PAGE).saturating_sub(sequence.pages().len());
        Ok(self.backend.reserve_hint(&mut self.cache, self.pool.used() + pages)?)
    }

    fn forward(
        &mut self,
        parts: &mut [SequenceRows<'_>],
        logits: &mut Vec<f32>,
        probe: Option<&mut Probe<'_>>,
    ) -> Result<()> {
        logits.clear();
        if parts.is_empty() {
            return Ok(());
        }
        self.check(parts)?;
        self.lay_out(parts)?;
        if let Err(error) = self.run(logits, probe) {
            self.abandon();
            return Err(error);
        }
        for part in parts.iter_mut() {
            part.sequence.append(part.inputs, self.spec.window());
        }
        self.check_finite(logits)?;
        self.suppress(logits);
        Ok(())
    }

    fn encode_image(&mut self, input: &TowerInput<'_>, probe: Option<&mut Probe<'_>>) -> Result<Arc<Features>> {
        if !self.in_flight.is_empty() {
            let found = "submitted passes are under way";
            return Err(Error::Sequence { call: "encode_image", found, hint: "wait for them first" });
        }
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

    fn pipeline_depth(&self) -> usize {
        self.backend.pipeline_depth()
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn submit(&mut self, sequence: &mut Sequence, token: Option<u32>, sampling: Sampling) -> Result<()> {
        self.submit_one(sequence, token, sampling)
    }

    fn wait(&mut self, sequence: &mut Sequence) -> Result<u32> {
        self.wait_one(sequence)
    }

    fn discard(&mut self) -> Result<()> {
        self.discard_all()
    }
}

impl<B: Backend> Decoder<B> {
    /// Ends a pass that failed: what the device has of it is run now, and what it reports belongs to the error that there is.
    fn abandon(&mut self) {
        self.batch.clear();
        let _ = self.backend.begin(&self.batch);
    }

    /// Sets the logits of tokens that no text has to the lowest number.
    fn suppress(&self, logits: &mut [f32]) {
        for logits in logits.chunks_exact_mut(self.spec.vocab_size) {
            for token in &self.spec.suppressed {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit = f32::MIN;
                }
            }
        }
    }

    fn check_finite(&self, logits: &[f32]) -> Result<()> {
        let Some(at) = logits.iter().position(|v| !v.is_finite()) else { return Ok(()) };
        let row = self.batch.outputs().get(at / self.spec.vocab_size).map_or(0, |row| *row as usize);
        Err(not_finite(self.batch.position(row).unwrap_or(0)))
    }
}

/// A sequence of another model.
pub(crate) fn not_of_the_model(call: &'static str) -> Error {
    let hint = "a sequence is used with the model that made it";
    Error::Sequence { call, found: "the sequence belongs to another model", hint }
}

fn not_finite(position: usize) -> Error {
    Error::NotFinite { what: "logits", position, cause: "hint: a weight may be damaged".into() }
}
