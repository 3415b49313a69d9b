//! Operations before and after the matrix product of a projection.

use crate::{Format, Kv, Part, Product};

/// Operation before the matrix product of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// None.
    Plain,
    /// RMSNorm.
    Normed,
}

impl Input {
    /// Every input.
    pub const ALL: [Input; 2] = [Input::Plain, Input::Normed];

    pub(crate) fn part(self) -> Part {
        match self {
            Input::Plain => ("plain", include_str!("../input/plain.wgsl")),
            Input::Normed => ("normed", include_str!("../input/normed.wgsl")),
        }
    }
}

// an arm for each file of `activation/`
include!(concat!(env!("OUT_DIR"), "/activation.rs"));

/// How results are written to the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Replace the output.
    Overwrite,
    /// Add to the output.
    Accumulate,
}

/// Name and source of an epilogue that writes activations, after the source that both share.
macro_rules! rows {
    ($store:literal) => {
        (
            $store,
            concat!(
                include_str!("../epilogue/rows.wgsl"),
                "\n",
                include_str!(concat!("../epilogue/", $store, ".wgsl"))
            ),
        )
    };
}

/// Destination of a projection's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sink {
    /// Activations.
    Rows(Activation, Store),
    /// Rotated queries to activations; rotated keys, and values, to the cache. For a quantized cache, keys and values are staged
    /// in f32, and [`Op::Quantize`](crate::Op::Quantize) writes the cache.
    Qkv(Kv),
}

/// Operations after the matrix product of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// Whether a bias is added first. It uses the binding of a norm's gain.
    pub bias: bool,
    /// Destination of the result.
    pub sink: Sink,
}

impl Epilogue {
    /// Epilogues of products of `format` with `input`. Sources do not depend on each other, so only [`Format::F32`] is composed
    /// with all of them; other formats are composed with the epilogues of published models.
    pub(crate) fn all(format: Format, input: Input) -> Vec<Epilogue> {
        let biases: &[bool] = if input == Input::Normed { &[false] } else { &[false, true] };
        let (whole, gated) = (Activation::Identity, Activation::Swiglu);
        let mut sinks: Vec<Sink> = Kv::ALL.map(Sink::Qkv).to_vec();
        sinks.push(Sink::Rows(whole, Store::Accumulate));
        if format == Format::F32 {
            sinks.extend(Activation::ALL.iter().map(|activation| Sink::Rows(*activation, Store::Overwrite)));
            sinks.push(Sink::Rows(gated, Store::Accumulate));
        } else {
            sinks.extend([whole, gated].map(|activation| Sink::Rows(activation, Store::Overwrite)));
        }
        biases.iter().flat_map(|&bias| sinks.iter().map(move |&sink| Epilogue { bias, sink })).collect()
    }

    /// Whether `product` with this epilogue needs at most eight storage buffers. Products in half precision also bind the
    /// row scales.
    pub fn fits(self, product: Product, format: Format) -> bool {
        product.halves().is_none() || !format.has_scales() || !self.bias || !matches!(self.sink, Sink::Qkv(_))
    }

    /// Names and sources, in the order of composition.
    pub(crate) fn parts(self) -> Vec<Part> {
        let mut parts = Vec::new();
        if self.bias {
            parts.push(("bias", include_str!("../bias/some.wgsl")));
        } else {
            parts.push(("", include_str!("../bias/none.wgsl")));
        }
        match self.sink {
            Sink::Rows(activation, store) => {
                parts.push(activation.part());
                parts.push(match store {
                    Store::Overwrite => rows!("overwrite"),
                    Store::Accumulate => rows!("accumulate"),
                });
            }
            Sink::Qkv(kv) => {
                parts.push(("qkv", include_str!("../epilogue/qkv.wgsl")));
                parts.push(match kv {
                    Kv::F32 => ("f32", include_str!("../cache/store_f32.wgsl")),
                    Kv::F16 => ("f16", include_str!("../cache/store_f16.wgsl")),
                    Kv::Q8_0 => ("staged", include_str!("../cache/store_staged.wgsl")),
                });
            }
        }
        parts
    }
}
