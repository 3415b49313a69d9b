//! The GPU backend against the reference, on the best adapter, which may be a software one.
//!
//! Without an adapter the tests print a line and pass, unless PHI3_GPU=require is set.
#![cfg(feature = "gpu")]

use phi3_tensor::cpu::Cpu;
use phi3_tensor::gpu::{Counters, Gpu, Options, Select, Tier, adapters};
use phi3_tensor::ops::*;
use phi3_tensor::parity::{self, Random};
use phi3_tensor::reference::Reference;
use phi3_tensor::{
    Activation, Batch, Bytes, DType, Epilogue, Error, Heads, KvType, Mask, Norm, PAGE, Role, Weight, quant,
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;

/// The adapter that PHI3_ADAPTER names, or the best.
fn open(options: Options) -> Option<Gpu> {
    let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
    match Gpu::open(&select, &Options { software: true, ..options }) {
        Ok(gpu) => Some(gpu),
        Err(error @ Error::NoAdapter { .. }) if std::env::var("PHI3_GPU").as_deref() != Ok("require") => {
            println!("skipped: {error}");
            None
        }
        Err(error @ Error::Tier { .. }) if std::env::var("PHI3_TIER").is_err() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The adapter with every tier of kernels that it can run; tiers that it cannot run are printed. PHI3_TIER selects one tier.
fn every_tier(options: &Options) -> Vec<Gpu> {
    let only = std::env::var("PHI3_TIER").ok();
    let tiers = Tier::ALL.into_iter().filter(|tier| only.as_ref().is_none_or(|only| tier.name() == only));
    tiers.filter_map(|tier| open(Options { tier: Some(tier), ..options.clone() })).collect()
}

fn parity_of(mut gpu: Gpu) {
    println!("{}", gpu.info());
    let outcomes = parity::run(&mut gpu, &[]).unwrap();
    let worst = outcomes.iter().map(|o| o.difference / o.allowed).fold(0.0, f64::max);
    println!("{} cases, the worst at {worst:.3} of what is allowed", outcomes.len());
    let wrong: Vec<_> = outcomes.iter().filter(|outcome| !outcome.ok()).collect();
    assert!(wrong.is_empty(), "{} of {} cases: {:#?}", wrong.len(), outcomes.len(), &wrong[..wrong.len().min(12)]);
}

#[test]
fn parity_with_whole_matrices() {
    every_tier(&Options { exact: true, ..Options::default() }).into_iter().for_each(parity_of);
}

#[test]
fn parity_with_matrices_in_pieces() {
    // pieces of 4 rows of the widest matrix, and of a few hundred rows of the narrowest
    open(Options { max_piece: Some(16512), exact: true, ..Options::default() }).into_iter().for_each(parity_of);
}

#[test]
fn parity_with_checks_on_the_device() {
    let options = Options { exact: true, checked: true, validation: true, ..Options::default() };
    // exact products of tier f16 are those of base
    every_tier(&options).into_iter().filter(|gpu| gpu.tier() != Tier::F16).for_each(parity_of);
}

/// Without the option `exact`, rows of a prompt are multiplied in half precision: the error of a product is at most the rounding of
/// its factors, and the sum of four products is rounded once more. Rows of very large and very small numbers are as exact as others.
#[test]
fn products_of_a_prompt_are_as_exact_as_halves() {
    for exact in [true, false] {
        let options = Options { exact, ..Options::default() };
        every_tier(&options).into_iter().for_each(|gpu| products_of_a_prompt(gpu, exact));
    }
}

fn products_of_a_prompt(mut gpu: Gpu, exact: bool) {
    for (dtype, rows, inputs, outputs) in [
        (DType::F32, 9, 40, 20),
        (DType::Bf16, 33, 131, 68),
        (DType::Q4_0, 70, 96, 36),
        (DType::Q6K, 130, 256, 10),
        // enough tiles for the kernel of large tiles
        (DType::F16, 300, 24, 2100),
    ] {
        let mut random = Random(11);
        let weight = random.weight("w", dtype, outputs, inputs, 0.2);
        let values = weight.to_f32();
        let mut table = random.vector(rows * inputs, 1.0);
        for (row, scale) in [1.0f32, 3e4, 1e9, 1e-9].into_iter().cycle().take(rows).enumerate() {
            table[row * inputs..][..inputs].iter_mut().for_each(|x| *x *= scale);
        }
        let bytes: Vec<u8> = table.iter().flat_map(|x| x.to_le_bytes()).collect();
        let embedding = Weight::new("x", DType::F32, rows, inputs, Bytes::from(bytes)).unwrap();
        let embedding = gpu.matrix(&embedding, Role::Embedding).unwrap();
        let weight = gpu.matrix(&weight, Role::Plain).unwrap();
        let mut x = gpu.rows("x", rows, inputs).unwrap();
        let mut y = gpu.rows("y", rows, outputs).unwrap();
        gpu.begin(&Batch::of(&(0..rows as u32).collect::<Vec<_>>(), 0, &(0..20).collect::<Vec<_>>()).unwrap()).unwrap();
        gpu.embed(&embedding, 1.0, &mut x).unwrap();
        gpu.project(&x, None, &weight, Epilogue::OVERWRITE, &mut y).unwrap();
        let mut got = vec![0.0; rows * outputs];
        gpu.read(&y, &mut got).unwrap();
        let mut worst = 0.0f64;
        for (at, got) in got.iter().enumerate() {
            let x = &table[at / outputs * inputs..][..inputs];
            let terms = x.iter().zip(&values[at % outputs * inputs..]).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            worst = worst.max((f64::from(*got) - sum).abs() / size);
        }
        println!("{} exact {exact}: {dtype} [{rows}, {inputs}] x {outputs}: {worst:.1e}", gpu.tier().name());
        assert!(
            worst < if exact { 1e-6 } else { 3.0 / 2048.0 },
            "{}: {dtype} [{rows}, {inputs}]: {worst}",
            gpu.tier().name()
        );
    }
}

/// The oracle's blocks, also with scales that are subnormal halves.
#[test]
fn every_block_means_what_it_means_on_the_cpu_bit_for_bit() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracle/gguf/blocks");
    let bytes = std::fs::read(folder.join("blocks.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("blocks.json")).unwrap()).unwrap();
    let mut blocks = 0;
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantized()) {
        let name = dtype.name().to_uppercase();
        for (case, info) in index["types"][&name]["cases"].as_object().unwrap() {
            if info["finite"] != true {
                continue;
            }
            let size = |key: &str| info[key].as_u64().unwrap() as usize;
            let (rows, cols) = (size("rows"), size("row_elements"));
            let raw = tensors.tensor(&format!("{name}.{case}.raw")).unwrap().data().to_vec();
            let weight = Weight::new(name.as_str(), dtype, rows, cols, Bytes::from(raw)).unwrap();
            let table = gpu.matrix(&weight, Role::Plain).unwrap();
            let mut x = gpu.rows("x", rows, cols).unwrap();
            gpu.begin(&decode(&(0..rows as u32).collect::<Vec<_>>(), &vec![0; rows], 0)).unwrap();
            gpu.embed(&table, 1.0, &mut x).unwrap();
            let mut got = vec![0.0; rows * cols];
            gpu.read(&x, &mut got).unwrap();
            for (i, (got, want)) in got.iter().zip(weight.to_f32()).enumerate() {
                assert!(*got == want, "{name}.{case}[{i}]: {got:e}, expected {want:e}");
            }
            blocks += rows * cols / dtype.block().0;
        }
    }
    println!("{blocks} blocks");
    assert!(blocks > 400);
}

#[test]
fn adapters_are_listed_or_missed() {
    match adapters() {
        Ok(list) => {
            for (index, info) in list.iter().enumerate() {
                println!("{info:?}");
                assert_eq!(info.index, index);
            }
        }
        Err(error) => assert!(matches!(error, Error::NoAdapter { .. }), "{error}"),
    }
    let nobody = Select::Name("no such adapter".into());
    let error = Gpu::open(&nobody, &Options::default()).err().unwrap();
    assert!(error.to_string().starts_with("no GPU adapter with \"no such adapter\" in its name; hint: "), "{error}");
    assert!(Gpu::open(&Select::Index(usize::MAX), &Options::default()).is_err());
}

#[test]
fn what_is_too_large_is_out_of_memory() {
    let Some(mut gpu) = open(Options { max_binding: Some(1 << 16), ..Options::default() }) else { return };
    let limit = |error: Error| {
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("65536"), "{error}");
    };
    limit(gpu.rows("x", 1000, 1000).err().unwrap());
    let weight = Random(1).weight("w", DType::F32, 4, 1 << 13, 1.0);
    limit(gpu.matrix(&weight, Role::Plain).err().unwrap());
    let heads = Heads { heads: 4, kv_heads: 4, head_dim: 64, rotary_dim: 64 };
    let mut cache = gpu.cache(2, heads, KvType::F32).unwrap();
    gpu.reserve(&mut cache, 4).unwrap();
    limit(gpu.reserve(&mut cache, 5).unwrap_err());
}

/// One row of each of several sequences, each in pages of its own.
fn decode(tokens: &[u32], positions: &[u32], rotary_dim: usize) -> Batch {
    let mut batch = Batch::default();
    for (row, (&token, &position)) in tokens.iter().zip(positions).enumerate() {
        let page = |page: u32| page * positions.len() as u32 + row as u32;
        let pages: Vec<u32> = (0..=position / PAGE as u32).map(page).collect();
        batch.push(&[token], position as usize, &pages).unwrap();
        for i in 0..rotary_dim / 2 {
            let angle = position as f32 / (i + 1) as f32;
            batch.rope_mut().extend([angle.cos(), angle.sin()]);
        }
        batch.push_output(row).unwrap();
    }
    batch
}

/// A sequence of 623 tokens, in chunks, over a cache that grows with it; in the last pass another sequence begins.
fn long<B: Backend>(b: &mut B, heads: Heads, window: Option<usize>, kv: KvType) -> Vec<f32> {
    let mut random = Random(11);
    let table = b.matrix(&random.weight("table", DType::F32, 40, 24, 2.0), Role::Plain).unwrap();
    let gain = b.vector("gain", &random.vector(24, 1.5)).unwrap();
    let qkv = b.matrix(&random.weight("qkv", DType::F16, heads.qkv_dim(), 24, 0.3), Role::Qkv(heads)).unwrap();
    let mut x = b.rows("x", 128, 24).unwrap();
    let mut q = b.rows("q", 128, heads.q_dim()).unwrap();
    let mut out = b.rows("out", 128, heads.q_dim()).unwrap();
    let mut cache = b.cache(1, heads, kv).unwrap();
    let mut all = Vec::new();
    let chunks =
        [0..100usize, 100..228, 228..298, 298..299, 299..300, 300..428, 428..511, 511..512, 512..620, 620..621];
    for chunk in chunks.into_iter().chain(std::iter::once(621..623)) {
        let pages: Vec<u32> = (0..chunk.end.div_ceil(PAGE) as u32).collect();
        let tokens: Vec<u32> = chunk.clone().map(|i| i as u32 * 7 % 40).collect();
        let mut batch = Batch::of(&tokens, chunk.start, &pages).unwrap();
        let angles = chunk.clone().flat_map(|i| (0..heads.rotary_dim / 2).map(move |j| i as f32 / (j + 1) as f32));
        batch.rope_mut().extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
        if chunk.end == 623 {
            batch.push(&[3], 0, &[pages.len() as u32]).unwrap();
            batch.rope_mut().extend(std::iter::repeat_n([1.0, 0.0], heads.rotary_dim / 2).flatten());
        }
        b.reserve(&mut cache, pages.len() + 1).unwrap();
        b.begin(&batch).unwrap();
        b.embed(&table, 1.0, &mut x).unwrap();
        b.project_qkv(&x, Some(Norm::Rms { weight: &gain, eps: 1e-5 }), &[&qkv], &mut q, &mut cache, 0).unwrap();
        let scale = 2.0 / (heads.head_dim as f32).sqrt();
        b.attention(&q, &cache, 0, Mask::windowed(window), scale, &mut out).unwrap();
        let at = all.len();
        all.resize(at + batch.rows() * heads.q_dim(), 0.0);
        b.read(&out, &mut all[at..]).unwrap();
    }
    all
}

#[test]
fn attention_over_several_tiles_of_positions() {
    every_tier(&Options { exact: true, ..Options::default() }).into_iter().for_each(long_attention);
}

fn long_attention(mut gpu: Gpu) {
    for (head_dim, rotary_dim, window) in
        [(256, 64, None), (128, 96, None), (6, 6, None), (96, 96, Some(43)), (80, 20, Some(520)), (2, 0, Some(129))]
    {
        let heads = Heads { heads: 4, kv_heads: 2, head_dim, rotary_dim };
        for kv in KvType::ALL {
            let want = long(&mut Reference::default(), heads, window, kv);
            let got = long(&mut gpu, heads, window, kv);
            let difference = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let size = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            println!("head_dim {head_dim}, window {window:?}, {kv}: {difference:e} of {size}");
            // a key or a value about half way between two values of the type may be rounded to either
            let allowed = (1e-5 + parity::kv_step(kv) as f32) * (1.0 + size);
            assert!(want.len() == got.len() && difference < allowed, "{heads:?} {window:?} {kv}: {difference}");
        }
    }
}

/// Many rows of two sequences, whose projections are exact halves before the rotation. Returns the output, and the largest
/// `|q| |k|` and `|v|`.
fn many<B: Backend>(b: &mut B, heads: Heads, start: usize, mask: Mask, kv: KvType) -> (Vec<f32>, [f32; 2]) {
    const HIDDEN: usize = 32;
    let mut random = Random(23);
    let mut table = vec![0.0f32; 64 * HIDDEN];
    for (token, row) in table.chunks_exact_mut(HIDDEN).enumerate() {
        row[token / 32 * 24..][..8].iter_mut().for_each(|x| *x = if random.unit() < 0.0 { -2.0 } else { 2.0 });
    }
    let mut weights = random.vector(heads.qkv_dim() * HIDDEN, 0.2);
    weights.chunks_exact_mut(HIDDEN).for_each(|row| row[24..].iter_mut().for_each(|w| *w *= 2.0));
    let weights = quant::quantize(DType::F16, &weights).unwrap();
    let weights = Weight::new("qkv", DType::F16, heads.qkv_dim(), HIDDEN, Bytes::from(weights)).unwrap();
    let values = weights.to_f32();
    let mut most = [0.0f32; 3];
    for x in table.chunks_exact(HIDDEN) {
        let all: Vec<f32> = values.chunks_exact(HIDDEN).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
        let (q, kv) = all.split_at(heads.q_dim());
        for (most, part) in most.iter_mut().zip([q, &kv[..heads.kv_dim()], &kv[heads.kv_dim()..]]) {
            let length = |head: &[f32]| head.iter().map(|x| x * x).sum::<f32>().sqrt();
            *most = part.chunks_exact(heads.head_dim).map(length).fold(*most, f32::max);
        }
    }
    let table: Vec<u8> = table.iter().flat_map(|x| x.to_le_bytes()).collect();
    let table = Weight::new("table", DType::F32, 64, HIDDEN, Bytes::from(table)).unwrap();
    let table = b.matrix(&table, Role::Embedding).unwrap();
    let qkv = b.matrix(&weights, Role::Qkv(heads)).unwrap();
    let gain = b.vector("gain", &[1.0; HIDDEN]).unwrap();
    let mut x = b.rows("x", start + 21, HIDDEN).unwrap();
    let mut q = b.rows("q", start + 21, heads.q_dim()).unwrap();
    let mut out = b.rows("out", start + 21, heads.q_dim()).unwrap();
    let mut cache = b.cache(1, heads, kv).unwrap();
    b.reserve(&mut cache, 96).unwrap();
    let mut got = Vec::new();
    for pass in [[0..start, 0..21], [start..start + 37, 21..40]] {
        let mut batch = Batch::default();
        for (sequence, positions) in pass.into_iter().enumerate() {
            let pages: Vec<u32> = (0..positions.end.div_ceil(PAGE)).map(|page| (2 * page + sequence) as u32).collect();
            let token = |i: usize| (i * 7 % 32 + if i < 64 { 0 } else { 32 }) as u32;
            batch.push(&positions.clone().map(token).collect::<Vec<_>>(), positions.start, &pages).unwrap();
            let angles = positions.flat_map(|i| (0..heads.rotary_dim / 2).map(move |j| i as f32 / (j + 1) as f32));
            batch.rope_mut().extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
        }
        b.begin(&batch).unwrap();
        b.embed(&table, 1.0, &mut x).unwrap();
        b.project_qkv(&x, Some(Norm::Rms { weight: &gain, eps: 0.0 }), &[&qkv], &mut q, &mut cache, 0).unwrap();
        if batch.segments()[0].position > 0 {
            let scale = 2.0 / (heads.head_dim as f32).sqrt();
            b.attention(&q, &cache, 0, mask, scale, &mut out).unwrap();
            got.resize(batch.rows() * heads.q_dim(), 0.0);
            b.read(&out, &mut got).unwrap();
        }
    }
    (got, [most[0] * most[1], most[2]])
}

/// Queries and keys as halves change a score by 2^-10 of `|q| |k| / sqrt(head_dim)`, as their roundings are independent, and a
/// probability and the sum of all by as much; probabilities and values as halves add 2^-11 each. A value is
/// `|v| / sqrt(head_dim)`.
#[test]
fn attention_of_many_rows_is_as_exact_as_halves() {
    for mut gpu in every_tier(&Options::default()).into_iter().filter(|gpu| gpu.tier() == Tier::Coop) {
        for (head_dim, start, window, kvs) in [
            (96, 70, None, &KvType::ALL[..]),
            (96, 560, None, &[KvType::F16]),
            (80, 70, Some(43), &[KvType::F16]),
            (128, 70, None, &[KvType::F16]),
            (20, 70, Some(30), &[KvType::F32]),
        ] {
            let heads = Heads { heads: 6, kv_heads: 2, head_dim, rotary_dim: head_dim / 4 * 2 };
            let mask = Mask::windowed(window);
            for kv in kvs {
                let (want, [product, value]) = many(&mut Reference::default(), heads, start, mask, *kv);
                let (got, _) = many(&mut gpu, heads, start, mask, *kv);
                let difference = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let root = (head_dim as f32).sqrt();
                let allowed = (2.0 / root * product / root / 512.0 + 1e-3 + parity::kv_step(*kv) as f32) * value / root;
                let case = format!("{} {head_dim} from {start} on, window {window:?}, {kv}", gpu.tier().name());
                println!("{case}: {difference:.1e}, allowed {allowed:.1e}");
                assert!(want.len() == got.len() && difference < allowed, "{case}: {difference}");
            }
        }
    }
}

#[test]
fn a_tier_that_the_adapter_lacks_is_an_error() {
    let Some(best) = open(Options::default()) else { return };
    for tier in Tier::ALL {
        assert_eq!(Tier::from_name(tier.name()), Some(tier));
        let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
        match Gpu::open(&select, &Options { software: true, tier: Some(tier), ..Options::default() }) {
            Ok(gpu) => {
                assert!(tier <= best.tier());
                assert!(gpu.info().detail.starts_with(&format!("{} kernels, ", tier.name())), "{}", gpu.info());
            }
            Err(error) => {
                assert!(tier > best.tier() && matches!(error, Error::Tier { .. }), "{error}");
                println!("{error}");
            }
        }
    }
}

/// The positions of few rows late in a long sequence are split between several workgroups, whose results one more kernel merges.
#[test]
fn a_row_of_a_long_text_is_split() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 16, rotary_dim: 0 };
    let mut cache = gpu.cache(1, heads, KvType::F32).unwrap();
    gpu.reserve(&mut cache, 64).unwrap();
    let q = gpu.rows("q", 1, heads.q_dim()).unwrap();
    let mut out = gpu.rows("out", 1, heads.q_dim()).unwrap();
    for (position, window, dispatches) in [(510, None, 1), (511, None, 2), (1000, Some(511), 1), (1000, Some(512), 2)] {
        let before = gpu.counters().dispatches;
        gpu.begin(&decode(&[0], &[position], 0)).unwrap();
        gpu.attention(&q, &cache, 0, Mask::windowed(window), 1.0, &mut out).unwrap();
        assert_eq!(gpu.counters().dispatches - before, dispatches, "position {position}, window {window:?}");
    }
}

#[test]
fn caches_are_as_large_as_their_types() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let mut cpu = Cpu::new(Default::default()).unwrap();
    // a head of 72 in three blocks, the last of eight
    let heads = Heads { heads: 6, kv_heads: 3, head_dim: 72, rotary_dim: 72 };
    for (kv, head) in [(KvType::F32, 4 * 72), (KvType::F16, 2 * 72), (KvType::Q8_0, 72 + 3 * 4)] {
        let bytes = (5 * 2 * PAGE * heads.kv_heads * head) as u64;
        let (on_gpu, on_cpu) = (gpu.cache(5, heads, kv).unwrap(), cpu.cache(5, heads, kv).unwrap());
        assert_eq!(gpu.page_bytes(&on_gpu), bytes, "{kv}");
        assert_eq!(cpu.page_bytes(&on_cpu), bytes, "{kv}");
        assert_eq!(KvType::from_name(kv.name()), Some(kv));
    }
}

#[test]
fn a_decoded_token_is_one_submission_and_five_dispatches_a_layer() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let mut random = Random(7);
    let (layers, hidden, inner, vocab) = (3, 64, 96, 50);
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 16, rotary_dim: 16 };
    let mut matrix = |rows, cols, role| gpu.matrix(&random.weight("w", DType::Bf16, rows, cols, 0.2), role).unwrap();
    let table = matrix(vocab, hidden, Role::Plain);
    let weights: Vec<_> = (0..layers)
        .map(|_| {
            [
                matrix(heads.qkv_dim(), hidden, Role::Qkv(heads)),
                matrix(hidden, heads.q_dim(), Role::Plain),
                matrix(2 * inner, hidden, Role::GateUp),
                matrix(hidden, inner, Role::Plain),
            ]
        })
        .collect();
    let gain = gpu.vector("gain", &vec![1.0; hidden]).unwrap();
    let norm = Norm::Rms { weight: &gain, eps: 1e-5 };
    let mut x = gpu.rows("x", 1, hidden).unwrap();
    let mut q = gpu.rows("q", 1, heads.q_dim()).unwrap();
    let mut attended = gpu.rows("attended", 1, heads.q_dim()).unwrap();
    let mut gated = gpu.rows("gated", 1, inner).unwrap();
    let mut last = gpu.rows("last", 1, hidden).unwrap();
    let mut logits = gpu.rows("logits", 1, vocab).unwrap();
    let mut cache = gpu.cache(layers, heads, KvType::F16).unwrap();
    gpu.reserve(&mut cache, 4).unwrap();

    let mut steady = None;
    for position in 0..40u32 {
        let before = gpu.counters();
        gpu.begin(&decode(&[position % vocab as u32], &[position], heads.rotary_dim)).unwrap();
        gpu.embed(&table, 1.0, &mut x).unwrap();
        for (layer, [qkv, o, gate_up, down]) in weights.iter().enumerate() {
            gpu.project_qkv(&x, Some(norm), &[qkv], &mut q, &mut cache, layer).unwrap();
            gpu.attention(&q, &cache, layer, Mask::Causal, 0.25, &mut attended).unwrap();
            gpu.project(&attended, None, o, Epilogue::ACCUMULATE, &mut x).unwrap();
            gpu.project(&x, Some(norm), gate_up, Epilogue::of(Activation::SwiGlu), &mut gated).unwrap();
            gpu.project(&gated, None, down, Epilogue::ACCUMULATE, &mut x).unwrap();
        }
        gpu.select(&x, 0, 1, &mut last).unwrap();
        gpu.project(&last, Some(norm), &table, Epilogue::OVERWRITE, &mut logits).unwrap();
        let mut out = vec![0.0; vocab];
        gpu.read(&logits, &mut out).unwrap();
        assert!(out.iter().all(|value| value.is_finite() && *value != 0.0));
        if position > 0 {
            let after = gpu.counters();
            let added = Counters {
                submits: after.submits - before.submits,
                dispatches: after.dispatches - before.dispatches,
                bind_groups: after.bind_groups - before.bind_groups,
                pipelines: after.pipelines - before.pipelines,
                buffers: after.buffers - before.buffers,
                read_bytes: after.read_bytes - before.read_bytes,
            };
            let read_bytes = 4 * vocab.next_multiple_of(8) as u64;
            let dispatches = 5 * layers as u64 + 3;
            let expected = Counters { submits: 1, dispatches, read_bytes, ..Counters::default() };
            assert_eq!(added, expected, "token {position}");
            steady = Some(added);
        }
    }
    println!("{steady:?}");
}

#[test]
fn passes_that_wait_for_nothing_run_in_order() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let weight = Random(3).weight("table", DType::F32, 8, 24, 1.0);
    let table = gpu.matrix(&weight, Role::Plain).unwrap();
    let mut rows: Vec<_> = (0..8).map(|_| gpu.rows("x", 1, 24).unwrap()).collect();
    for (token, row) in rows.iter_mut().enumerate() {
        gpu.begin(&decode(&[token as u32], &[0], 0)).unwrap();
        gpu.embed(&table, 1.0, row).unwrap();
        if token % 2 == 0 {
            gpu.submit().unwrap();
        }
    }
    let values = weight.to_f32();
    for (token, row) in rows.iter().enumerate() {
        let mut out = [0.0; 24];
        gpu.read(row, &mut out).unwrap();
        assert_eq!(out, values[token * 24..][..24]);
    }
}

#[test]
fn a_pass_with_more_parameters_than_fit_is_submitted_in_parts() {
    let Some(mut gpu) = open(Options::default()) else { return };
    let table = gpu.matrix(&Random(3).weight("table", DType::F16, 8, 8, 1.0), Role::Plain).unwrap();
    let gain = gpu.vector("gain", &[1.0; 8]).unwrap();
    let mut x = gpu.rows("x", 1, 8).unwrap();
    let mut normed: Vec<_> = (0..1200).map(|_| gpu.rows("normed", 1, 8).unwrap()).collect();
    let before = gpu.counters().submits;
    gpu.begin(&decode(&[5], &[0], 0)).unwrap();
    gpu.embed(&table, 1.0, &mut x).unwrap();
    for (i, out) in normed.iter_mut().enumerate() {
        gpu.norm(&x, Norm::Rms { weight: &gain, eps: i as f32 }, out).unwrap();
    }
    gpu.submit().unwrap();
    assert_eq!(gpu.counters().submits - before, 3);

    let mut row = [0.0; 8];
    gpu.read(&x, &mut row).unwrap();
    let mean = row.iter().map(|v| v * v).sum::<f32>() / 8.0;
    for i in [0, 510, 511, 512, 1199] {
        let mut out = [0.0; 8];
        gpu.read(&normed[i], &mut out).unwrap();
        for (y, x) in out.iter().zip(row) {
            assert!((y - x / (mean + i as f32).sqrt()).abs() < 1e-6, "norm {i}");
        }
    }
}

#[test]
fn vocabularies_fold_into_the_grid() {
    let Some(mut gpu) = open(Options { max_piece: Some(3 << 20), ..Options::default() }) else { return };
    let weight = Random(9).weight("head", DType::Bf16, 300_001, 8, 1.0);
    let head = gpu.matrix(&weight, Role::Plain).unwrap();
    let mut x = gpu.rows("x", 1, 8).unwrap();
    let mut y = gpu.rows("y", 1, 300_001).unwrap();
    gpu.begin(&decode(&[299_999], &[0], 0)).unwrap();
    gpu.embed(&head, 1.0, &mut x).unwrap();
    gpu.project(&x, None, &head, Epilogue::OVERWRITE, &mut y).unwrap();
    let mut out = vec![0.0; 300_001];
    gpu.read(&y, &mut out).unwrap();
    let values = weight.to_f32();
    let token = &values[299_999 * 8..][..8];
    for (row, (y, w)) in out.iter().zip(values.chunks_exact(8)).enumerate() {
        let want: f32 = w.iter().zip(token).map(|(a, b)| a * b).sum();
        assert!((y - want).abs() < 1e-5, "output {row}: {y}, expected {want}");
    }
}
