//! Arguments that do not fit each other are errors, on every backend the same.
#![cfg(feature = "reference")]

use phi3_tensor::cpu::Cpu;
use phi3_tensor::ops::*;
use phi3_tensor::parity::Random;
use phi3_tensor::reference::Reference;
use phi3_tensor::{
    Activation, Batch, Bytes, DType, Epilogue, Error, Heads, KvType, Mask, Norm, PAGE, Result, Role, Router, Weight,
};

const HEADS: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 8, rotary_dim: 8 };
const WIDTH: usize = 24;
const VOCAB: usize = 12;
const LAYERS: usize = 2;
const PAGES: usize = 3;
const MASK: Mask = Mask::Causal;

/// Checks that a mistake has the same message on every backend.
fn refused<T>(op: &str, words: &str, result: Result<T>) {
    let Err(error) = result else { panic!("{op}: {words}: no error") };
    assert!(matches!(error, Error::Mismatch { .. } | Error::Role { .. } | Error::Shape { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with(op) && text.contains(words) && text.contains("; hint: "), "{op}, {words}: {text}");
}

fn with_rope(mut batch: Batch) -> Batch {
    let rotations = batch.rows() * HEADS.rotary_dim / 2;
    batch.rope_mut().extend((0..rotations).flat_map(|_| [1.0, 0.0]));
    batch
}

fn misuse<B: Backend>(b: &mut B) {
    let mut random = Random(1);
    println!("{}", b.info());

    // invalid heads, matrices and activations
    for (what, heads) in [
        ("kv_heads", Heads { kv_heads: 0, ..HEADS }),
        ("heads", Heads { heads: 0, ..HEADS }),
        ("heads", Heads { heads: 3, ..HEADS }),
        ("head_dim", Heads { head_dim: 0, rotary_dim: 0, ..HEADS }),
        ("head_dim", Heads { head_dim: 9, ..HEADS }),
        ("rotary_dim", Heads { rotary_dim: 7, ..HEADS }),
        ("rotary_dim", Heads { rotary_dim: 10, ..HEADS }),
        ("width of all heads", Heads { heads: usize::MAX, kv_heads: 1, ..HEADS }),
    ] {
        refused("cache", what, b.cache(1, heads, KvType::F32));
        let weight = random.weight("w", DType::F32, HEADS.qkv_dim(), WIDTH, 1.0);
        refused("matrix", what, b.matrix(&weight, Role::Qkv(heads)));
    }
    for role in [Role::GateUp, Role::Qkv(HEADS)] {
        refused("tensor w", "shape [13, 24]", b.matrix(&random.weight("w", DType::F32, 13, WIDTH, 1.0), role));
    }
    for (rows, cols) in [(0, WIDTH), (VOCAB, 0), (0, 0)] {
        let empty = Weight::new("none", DType::F32, rows, cols, Bytes::from(Vec::new())).unwrap();
        refused("tensor none", "shape", b.matrix(&empty, Role::Plain));
    }
    refused("rows", "width", b.rows("x", 3, 0));
    for (rows, dim) in [(usize::MAX, 8), (8, usize::MAX), (usize::MAX, usize::MAX)] {
        assert!(matches!(b.rows("x", rows, dim), Err(Error::OutOfMemory { .. })), "{rows} rows of {dim}");
    }

    let mut matrix = |rows, role| b.matrix(&random.weight("w", DType::F16, rows, WIDTH, 1.0), role).unwrap();
    let plain = matrix(VOCAB, Role::Plain);
    let embedding = matrix(VOCAB, Role::Embedding);
    let gates = matrix(VOCAB, Role::GateUp);
    let qkv = matrix(HEADS.qkv_dim(), Role::Qkv(HEADS));
    let other_heads = Heads { heads: 2, kv_heads: 1, head_dim: 16, rotary_dim: 16 };
    let other = matrix(other_heads.qkv_dim(), Role::Qkv(other_heads));
    let gain = b.vector("gain", &[1.0; WIDTH]).unwrap();
    let short_gain = b.vector("gain", &[1.0; WIDTH - 1]).unwrap();
    let (norm, short_norm) = (Norm::Rms { weight: &gain, eps: 1e-5 }, Norm::Rms { weight: &short_gain, eps: 1e-5 });
    let mut rows = |rows, dim| b.rows("rows", rows, dim).unwrap();
    let (mut x, mut normed) = (rows(4, WIDTH), rows(4, WIDTH));
    let (mut one, mut narrow, mut x2) = (rows(1, WIDTH), rows(4, WIDTH - 1), rows(8, WIDTH));
    let (mut y, mut y1, mut half) = (rows(4, VOCAB), rows(1, VOCAB), rows(4, VOCAB / 2));
    let (mut q, mut q1, mut out, mut out1) =
        (rows(4, HEADS.q_dim()), rows(1, HEADS.q_dim()), rows(4, HEADS.q_dim()), rows(1, HEADS.q_dim()));
    let mut cache = b.cache(LAYERS, HEADS, KvType::F16).unwrap();
    b.reserve(&mut cache, PAGES).unwrap();

    // experts
    let count = 3;
    let mut of_experts = |rows, cols, gated| {
        let weight = random.weight("experts", DType::F16, rows, cols, 1.0);
        b.matrix(&weight, Role::Experts { count, gated })
    };
    refused("tensor experts", "shape [9, 24]", of_experts(9, WIDTH, true));
    refused("tensor experts", "shape [10, 24]", of_experts(10, WIDTH, false));
    let (up, down) = (of_experts(count * 20, WIDTH, true).unwrap(), of_experts(count * WIDTH, 10, false).unwrap());
    let (mut scores, mut routed, mut few) =
        (b.rows("s", 4, count).unwrap(), b.rows("r", 8, 10).unwrap(), b.rows("f", 3, 10).unwrap());
    let (mut routes, mut few_routes, mut more) =
        (b.routes(4, count).unwrap(), b.routes(1, count).unwrap(), b.routes(4, count + 1).unwrap());
    let router = b.matrix(&random.weight("router", DType::F32, count, WIDTH, 1.0), Role::Plain).unwrap();
    let sparse = Router::SparseMixer { jitter: 0.01 };
    b.begin(&with_rope(Batch::of(&[3, 11], 0, &[0]).unwrap())).unwrap();
    b.embed(&plain, 1.0, &mut x).unwrap();
    b.project(&x, None, &router, Epilogue::OVERWRITE, &mut scores).unwrap();
    refused("route", "scores of a row", b.route(&x, sparse, &mut routes));
    refused("route", "scores of a row", b.route(&scores, sparse, &mut more));
    refused("route", "rows", b.route(&scores, sparse, &mut few_routes));
    let swiglu = Activation::SwiGlu;
    refused("project_experts", "routed rows", b.project_experts(&x, &up, swiglu, &routes, &mut routed));
    b.route(&scores, sparse, &mut routes).unwrap();
    refused("project_experts", "experts", b.project_experts(&x, &up, swiglu, &more, &mut routed));
    refused("project_experts", "rows", b.project_experts(&x, &up, swiglu, &routes, &mut few));
    refused("project_experts", "input width", b.project_experts(&narrow, &up, swiglu, &routes, &mut routed));
    refused("project_experts", "output width", b.project_experts(&x, &up, swiglu, &routes, &mut x2));
    refused("project_experts", "expected experts", b.project_experts(&x, &up, Activation::Identity, &routes, &mut x2));
    refused("project_experts", "plain", b.project_experts(&x, &plain, swiglu, &routes, &mut routed));
    b.project_experts(&x, &up, swiglu, &routes, &mut routed).unwrap();
    refused("combine_experts", "rows", b.combine_experts(&few, &down, &routes, &mut x));
    refused("combine_experts", "input width", b.combine_experts(&x2, &down, &routes, &mut x));
    refused("combine_experts", "output width", b.combine_experts(&routed, &down, &routes, &mut narrow));
    refused("combine_experts", "experts", b.combine_experts(&routed, &up, &routes, &mut x));
    b.combine_experts(&routed, &down, &routes, &mut x).unwrap();
    b.begin(&Batch::of(&[3], 0, &[0]).unwrap()).unwrap();
    refused("project_experts", "routed rows", b.project_experts(&x, &up, swiglu, &routes, &mut routed));

    // tokens
    let mut batch = with_rope(Batch::of(&[3, 11], 15, &[2, 0]).unwrap());
    batch.push_output(1).unwrap();
    for token in [VOCAB as u32, Batch::SAMPLED - 1, Batch::SAMPLED, Batch::SAMPLED + 7, Batch::NO_TOKEN] {
        b.begin(&Batch::of(&[3, token], 0, &[0]).unwrap()).unwrap();
        refused("embed", "token", b.embed(&plain, 1.0, &mut x));
    }
    b.begin(&batch).unwrap();
    refused("embed", "output width", b.embed(&plain, 1.0, &mut narrow));
    refused("embed", "rows is 2, expected at most 1", b.embed(&plain, 1.0, &mut one));
    refused("embed", "gate and up, expected plain or embedding", b.embed(&gates, 1.0, &mut x));
    b.embed(&embedding, 1.0, &mut x).unwrap();

    // norms and products
    refused("norm", "norm width", b.norm(&x, short_norm, &mut normed));
    refused("norm", "output width", b.norm(&x, norm, &mut narrow));
    refused("norm", "rows", b.norm(&x, norm, &mut one));
    refused("norm", "rows", b.norm(&one, norm, &mut normed));
    refused("project", "input width", b.project(&narrow, None, &plain, Epilogue::OVERWRITE, &mut y));
    refused("project", "norm width", b.project(&x, Some(short_norm), &plain, Epilogue::OVERWRITE, &mut y));
    refused("project", "output width", b.project(&x, None, &plain, Epilogue::ACCUMULATE, &mut half));
    refused("project", "output width", b.project(&x, None, &gates, Epilogue::of(Activation::SwiGlu), &mut y));
    refused("project", "rows", b.project(&x, None, &plain, Epilogue::OVERWRITE, &mut y1));
    refused("project", "rows", b.project(&one, None, &plain, Epilogue::OVERWRITE, &mut y));
    refused("project", "gate and up, expected plain", b.project(&x, None, &gates, Epilogue::OVERWRITE, &mut y));
    refused(
        "project",
        "plain, expected gate and up",
        b.project(&x, None, &plain, Epilogue::of(Activation::SwiGlu), &mut half),
    );
    refused("project", "embedding", b.project(&x, None, &embedding, Epilogue::OVERWRITE, &mut y));
    refused("project", "queries", b.project(&x, None, &qkv, Epilogue::OVERWRITE, &mut y));
    let mut project_qkv = |x: &B::Rows, norm, weight: &B::Matrix, q: &mut B::Rows, layer, words| {
        refused("project_qkv", words, b.project_qkv(x, Some(norm), &[weight], q, &mut cache, layer));
    };
    project_qkv(&narrow, norm, &qkv, &mut q, 0, "input width");
    project_qkv(&one, norm, &qkv, &mut q, 0, "rows");
    project_qkv(&x, short_norm, &qkv, &mut q, 0, "norm width");
    project_qkv(&x, norm, &plain, &mut q, 0, "plain");
    project_qkv(&x, norm, &other, &mut q, 0, "other heads");
    project_qkv(&x, norm, &qkv, &mut q1, 0, "rows");
    project_qkv(&x, norm, &qkv, &mut y, 0, "query width");
    project_qkv(&x, norm, &qkv, &mut q, LAYERS, "layer is 2, expected less than 2");
    project_qkv(&x, norm, &qkv, &mut q, usize::MAX, "layer");
    b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 1).unwrap();

    // rows from the host
    refused("write", "elements", b.write(&mut x, 0, &[0.0; WIDTH + 1]));
    refused("write", "rows", b.write(&mut x, 1, &[0.0; 2 * WIDTH]));
    refused("write", "rows", b.write(&mut x, usize::MAX, &[0.0; WIDTH]));
    refused("write", "rows", b.write(&mut one, 0, &[0.0; WIDTH]));

    // attention
    refused("attention", "query width", b.attention(&y, &cache, 1, MASK, 0.3, &mut out));
    refused("attention", "output width", b.attention(&q, &cache, 1, MASK, 0.3, &mut y));
    refused("attention", "rows", b.attention(&q1, &cache, 1, MASK, 0.3, &mut out));
    refused("attention", "rows", b.attention(&q, &cache, 1, MASK, 0.3, &mut out1));
    refused("attention", "layer", b.attention(&q, &cache, LAYERS, MASK, 0.3, &mut out));
    refused("attention", "window", b.attention(&q, &cache, 1, Mask::Window(0), 0.3, &mut out));
    b.attention(&q, &cache, 1, MASK, 0.3, &mut out).unwrap();

    // outputs and reads
    for (first, count) in [(0, 2), (1, 1), (2, 0), (1, usize::MAX), (usize::MAX, usize::MAX)] {
        refused("select", "outputs", b.select(&x, first, count, &mut normed));
    }
    refused("select", "rows", b.select(&one, 0, 1, &mut normed));
    refused("select", "output width", b.select(&x, 0, 1, &mut narrow));
    for len in [1, WIDTH + 1, 4 * WIDTH + 1] {
        refused("read", "elements", b.read(&x, &mut vec![0.0; len]));
    }
    refused("read", "rows", b.read(&x, &mut [0.0; 5 * WIDTH]));
    b.select(&x, 0, 1, &mut normed).unwrap();
    // operations on tokens or positions do not take selected rows
    refused("embed", "rows", b.embed(&plain, 1.0, &mut x));
    refused("project_qkv", "rows", b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0));
    refused("attention", "rows", b.attention(&q, &cache, 0, MASK, 0.3, &mut out));

    // rotations and pages
    for rotations in [0, HEADS.rotary_dim, 2 * HEADS.rotary_dim - 1, 3 * HEADS.rotary_dim] {
        let mut batch = Batch::of(&[3, 4], 0, &[0]).unwrap();
        batch.rope_mut().resize(rotations, 0.5);
        b.begin(&batch).unwrap();
        refused("project_qkv", "rotations", b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0));
    }
    for page in [99, 1 << 28, Batch::NO_PAGE - 1] {
        b.begin(&with_rope(Batch::of(&[3], 16, &[0, page]).unwrap())).unwrap();
        refused("project_qkv", "pages", b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0));
        refused("attention", "pages", b.attention(&q, &cache, 0, MASK, 0.3, &mut out));
    }
    let windowed = Batch::of(&[3], 2 * PAGE + 3, &[Batch::NO_PAGE, 1, 2]).unwrap();
    b.begin(&with_rope(windowed)).unwrap();
    b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0).unwrap();
    refused("attention", "missing pages", b.attention(&q, &cache, 0, MASK, 0.3, &mut out));
    refused("attention", "missing pages", b.attention(&q, &cache, 0, Mask::Full, 0.3, &mut out));
    refused("attention", "missing pages", b.attention(&q, &cache, 0, Mask::Window(21), 0.3, &mut out));
    b.attention(&q, &cache, 0, Mask::Window(20), 0.3, &mut out).unwrap();

    // a refused batch is left empty, and every operation takes it
    let mut refused = Batch::of(&[1], 0, &[0]).unwrap();
    assert!(refused.push(&[1], 0, &[0]).is_err());
    b.begin(&refused).unwrap();
    b.embed(&plain, 1.0, &mut x).unwrap();
    b.project_qkv(&x, Some(norm), &[&qkv], &mut q, &mut cache, 0).unwrap();
    b.attention(&q, &cache, 0, MASK, 0.3, &mut out).unwrap();
    b.read(&x, &mut []).unwrap();

    // after all these errors a pass gives the results of a fresh backend
    b.begin(&with_rope(Batch::of(&[3, 11], 0, &[2]).unwrap())).unwrap();
    b.embed(&plain, 1.0, &mut x).unwrap();
    b.project(&x, Some(norm), &plain, Epilogue::OVERWRITE, &mut y).unwrap();
    let mut values = [0.0; 2 * VOCAB];
    b.read(&y, &mut values).unwrap();
    assert!(values.iter().all(|value| value.is_finite() && *value != 0.0), "{values:?}");
}

#[test]
fn misuse_is_an_error_on_the_reference() {
    misuse(&mut Reference::default());
}

#[test]
fn misuse_is_an_error_on_the_processor() {
    misuse(&mut Cpu::new(Default::default()).unwrap());
}

#[cfg(feature = "gpu")]
#[test]
fn misuse_is_an_error_on_a_gpu() {
    use phi3_tensor::gpu::{Gpu, Options, Select};
    let options = Options { software: true, ..Options::default() };
    let mut gpu = match Gpu::open(&Select::Any, &options) {
        Ok(gpu) => gpu,
        Err(error @ Error::NoAdapter { .. }) if std::env::var("PHI3_GPU").as_deref() != Ok("require") => {
            println!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let wide = Heads { head_dim: 300, rotary_dim: 300, ..HEADS };
    let error = gpu.cache(1, wide, KvType::F32).err().unwrap();
    assert!(matches!(error, Error::Unsupported { what: "head_dim", found: 300, limit: 256, .. }), "{error}");
    misuse(&mut gpu);
}
