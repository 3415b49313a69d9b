//! Header, metadata and tensor table of a GGUF file, version 3, as bytes. Layout after `docs/gguf.md` of ggml.

use phi3_tensor::DType;

/// Alignment of tensor data, in bytes.
pub(crate) const ALIGNMENT: u64 = 32;

/// A metadata value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// `u32`
    U32(u32),
    /// `i32`
    I32(i32),
    /// `f32`
    F32(f32),
    /// `bool`
    Bool(bool),
    /// `string`
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of `f32`.
    Floats(Vec<f32>),
    /// An array of `i32`.
    Integers(Vec<i32>),
}

/// Keys with their values, in the order of the file.
pub type MetadataList = Vec<(String, MetadataValue)>;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape, outermost dimension first; one dimension for a vector.
    pub shape: Vec<usize>,
    /// Type of its elements.
    pub dtype: DType,
    /// Size of its data in bytes, without padding.
    pub bytes: u64,
}

/// Everything before the tensor data, padded.
pub(crate) fn header(metadata: &[(String, MetadataValue)], tensors: &[GgufTensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut out, key);
        write_value(&mut out, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
        out.extend(tensor.dtype.ggml_id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes.next_multiple_of(ALIGNMENT);
    }
    let padded = (out.len() as u64).next_multiple_of(ALIGNMENT) as usize;
    out.resize(padded, 0);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &MetadataValue) {
    let kind = |out: &mut Vec<u8>, id: u32| out.extend(id.to_le_bytes());
    let array = |out: &mut Vec<u8>, element: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(element.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        MetadataValue::U32(n) => {
            kind(out, 4);
            out.extend(n.to_le_bytes());
        }
        MetadataValue::I32(n) => {
            kind(out, 5);
            out.extend(n.to_le_bytes());
        }
        MetadataValue::F32(x) => {
            kind(out, 6);
            out.extend(x.to_le_bytes());
        }
        MetadataValue::Bool(b) => {
            kind(out, 7);
            out.push(u8::from(*b));
        }
        MetadataValue::String(text) => {
            kind(out, 8);
            string(out, text);
        }
        MetadataValue::Strings(list) => {
            array(out, 8, list.len());
            list.iter().for_each(|text| string(out, text));
        }
        MetadataValue::Floats(list) => {
            array(out, 6, list.len());
            list.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        MetadataValue::Integers(list) => {
            array(out, 5, list.len());
            list.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
    }
}
