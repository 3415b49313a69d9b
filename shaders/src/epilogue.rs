//! What stands in front of a projection, and what becomes of its result.

use crate::{Format, Kv, Part, Product};

/// What stands in front of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing.
    Plain,
    /// RMSNorm.
    Normed,
}

impl Input {
    /// Every input, for tests that walk them.
    pub const ALL: [Input; 2] = [Input::Plain, Input::Normed];

    pub(crate) fn part(self) -> Part {
        match self {
            Input::Plain => ("plain", include_str!("../input/plain.wgsl")),
            Input::Normed => ("normed", include_str!("../input/normed.wgsl")),
        }
    }
}

/// Name and text of a file of `activation/`, for each activation; the list of all of them.
macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident: $file:literal,)*) => {
        /// A function of a projection's outputs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Activation {
            $($(#[$doc])* $name,)*
        }

        impl Activation {
            /// Every activation, for tests that walk them.
            pub const ALL: &[Activation] = &[$(Activation::$name),*];

            fn part(self) -> Part {
                match self {
                    $(Activation::$name => ($file, include_str!(concat!("../activation/", $file, ".wgsl"))),)*
                }
            }
        }
    };
}

activations! {
    /// None.
    Identity: "identity",
    /// GELU by tanh.
    GeluTanh: "gelu_tanh",
    /// GELU by erf.
    GeluErf: "gelu_erf",
    /// CLIP's approximation of GELU.
    QuickGelu: "quick_gelu",
    /// SwiGLU of gates and ups, which alternate.
    SwiGlu: "swiglu",
    /// Clamped quick GELU of gates, times ups plus one, which alternate.
    GeGlu: "geglu",
}

/// How results meet what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// They replace it.
    Overwrite,
    /// They are added to it.
    Accumulate,
}

/// Name and text of an epilogue to activations, after the text that both share.
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

/// Where the results of a projection go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sink {
    /// To activations.
    Rows(Activation, Store),
    /// Queries and keys are rotated; keys and values go to the cache. If that is a quantized one, [`Op::Quantize`](crate::Op::Quantize)
    /// brings them there.
    Qkv(Kv),
}

/// What becomes of a projection's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// Whether a bias is added first; it takes the binding of a norm's gain.
    pub bias: bool,
    /// Where the result goes.
    pub sink: Sink,
}

impl Epilogue {
    /// The epilogues behind products of `format` with `input`. Parts do not know of each other, so only one format is composed
    /// with all of them; the others with those that published models have.
    pub(crate) fn all(format: Format, input: Input) -> Vec<Epilogue> {
        let biases: &[bool] = if input == Input::Normed { &[false] } else { &[false, true] };
        let (whole, gated) = (Activation::Identity, Activation::SwiGlu);
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

    /// Whether a product with it keeps to eight storage buffers: those of halves bind the scales of rows too.
    pub fn fits(self, product: Product, format: Format) -> bool {
        product.halves().is_none() || !format.has_scales() || !self.bias || !matches!(self.sink, Sink::Qkv(_))
    }

    /// The texts, in the order in which they are composed.
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
