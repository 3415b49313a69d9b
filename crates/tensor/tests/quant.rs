//! Every weight type against the oracle's blocks (tests/data/oracle/gguf/blocks): the values of bytes, and the bytes of values.

use phi3_tensor::{DType, quant};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracle/gguf/blocks")
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Type and name in the oracle.
fn types() -> impl Iterator<Item = (DType, String)> {
    DType::ALL.into_iter().map(|dtype| (dtype, dtype.name().to_uppercase()))
}

fn widened(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let (elements, size) = dtype.block();
    let mut out = vec![f32::MAX; bytes.len() / size * elements];
    dtype.widen(bytes, &mut out);
    out
}

#[test]
fn types_are_those_of_the_oracle() {
    let index: Value = serde_json::from_slice(&read("blocks.json")).unwrap();
    let required = index["types"].as_object().unwrap().iter().filter(|(_, info)| info["required"] == true);
    assert_eq!(required.count(), DType::ALL.len());
    for (dtype, name) in types() {
        let info = &index["types"][&name];
        let (elements, bytes) = dtype.block();
        assert_eq!(info["id"], dtype.ggml_id(), "{name}");
        assert_eq!(info["block_elements"], elements, "{name}");
        assert_eq!(info["block_bytes"], bytes, "{name}");
        assert_eq!(DType::from_ggml_id(dtype.ggml_id()), Some(dtype));
        assert_eq!(dtype.bytes(3 * elements), Some(3 * bytes));
        assert_eq!(dtype.bytes(elements + 1).is_some(), !dtype.is_quantized());
    }
}

#[test]
fn every_block_means_what_the_oracle_says_bit_for_bit() {
    let (bytes, index) = (read("blocks.safetensors"), read("blocks.json"));
    let (tensors, index) =
        (SafeTensors::deserialize(&bytes).unwrap(), serde_json::from_slice::<Value>(&index).unwrap());
    let mut cases = 0;
    for (dtype, name) in types() {
        for (case, info) in index["types"][&name]["cases"].as_object().unwrap() {
            let raw = tensors.tensor(&format!("{name}.{case}.raw")).unwrap();
            let want = floats(&tensors, &format!("{name}.{case}.f32"));
            let got = widened(dtype, raw.data());
            assert_eq!(got.len(), want.len(), "{name}.{case}");
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let same = got.to_bits() == want.to_bits() || got == want || (got.is_nan() && want.is_nan());
                assert!(same, "{name}.{case}[{i}]: {got:e}, expected {want:e}");
            }
            assert_eq!(dtype.all_finite(raw.data()), info["finite"] == true, "{name}.{case}");
            cases += 1;
        }
    }
    assert!(cases > 100, "{cases}");
}

#[test]
fn the_exact_quantizers_give_the_bytes_of_ggml() {
    let (bytes, index) = (read("quantise.safetensors"), read("quantise.json"));
    let (tensors, index) =
        (SafeTensors::deserialize(&bytes).unwrap(), serde_json::from_slice::<Value>(&index).unwrap());
    let mut cases = 0;
    for (dtype, name) in types().filter(|(dtype, _)| *dtype != DType::F32) {
        if index["types"][&name]["bytes_exact"] != true {
            continue;
        }
        for case in index["types"][&name]["cases"].as_object().unwrap().keys() {
            let want = tensors.tensor(&format!("{case}.{name}")).unwrap();
            let got = quant::quantize(dtype, &floats(&tensors, &format!("{case}.f32"))).unwrap();
            let wrong = got.iter().zip(want.data()).filter(|(a, b)| a != b).count();
            assert!(got.len() == want.data().len() && wrong == 0, "{name}.{case}: {wrong} bytes of {}", got.len());
            cases += 1;
        }
    }
    assert!(cases > 60, "{cases}");
    // every border of the halves; any quiet NaN is accepted
    for dtype in [DType::F16, DType::Bf16] {
        let want = tensors.tensor(&format!("edges.{}", dtype.name().to_uppercase())).unwrap();
        let got = quant::quantize(dtype, &floats(&tensors, "edges.f32")).unwrap();
        for (i, (got, want)) in widened(dtype, &got).iter().zip(widened(dtype, want.data())).enumerate() {
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{dtype}[{i}]: {got} {want}");
        }
    }
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

#[test]
fn the_fitted_quantizers_are_as_good_as_those_of_ggml() {
    let (bytes, index) = (read("quantise.safetensors"), read("quantise.json"));
    let (tensors, index) =
        (SafeTensors::deserialize(&bytes).unwrap(), serde_json::from_slice::<Value>(&index).unwrap());
    let mut cases = 0;
    for (dtype, name) in types() {
        if index["types"][&name]["bytes_exact"] != false {
            continue;
        }
        for (case, info) in index["types"][&name]["cases"].as_object().unwrap() {
            let values = floats(&tensors, &format!("{case}.f32"));
            let error = rms(&widened(dtype, &quant::quantize(dtype, &values).unwrap()), &values);
            let ratio = error / info["rms_error"].as_f64().unwrap();
            println!("{name}.{case}: {ratio:.3} of llama.cpp's error");
            assert!(ratio <= 1.3, "{name}.{case}: {ratio}");
            cases += 1;
        }
        // for cases without an error in the oracle the values must be about right
        for case in ["zeros", "constant", "one_per_block", "equal_magnitudes", "all_positive", "all_negative", "large"]
        {
            let values = floats(&tensors, &format!("{case}.f32"));
            let back = widened(dtype, &quant::quantize(dtype, &values).unwrap());
            let size = rms(&values, &vec![0.0; values.len()]);
            let limit = if dtype == DType::Q2K || dtype == DType::Q3K { 0.5 } else { 0.2 };
            assert!(rms(&back, &values) <= limit * size, "{name}.{case}: {} of {size}", rms(&back, &values));
        }
    }
    assert_eq!(cases, 14);
}

#[test]
fn the_int4_recipe_rounds_to_nearest_by_the_stored_scale() {
    let mut values = [0.0f32; 32];
    values[..6].copy_from_slice(&[4.0, -2.0, 1.0, 0.26, -0.24, 3.9]);
    let bytes = quant::quantize_int4_rtn(&values).unwrap();
    assert_eq!(bytes.len(), 18);
    let back = widened(DType::Q4_0, &bytes);
    assert_eq!(back[..7], [4.0, -2.0, 1.0, 0.5, 0.0, 4.0, 0.0]);
    // of two extremes of equal magnitude the negative one gets the level that only its side has
    values[1] = -4.0;
    let back = widened(DType::Q4_0, &quant::quantize_int4_rtn(&values).unwrap());
    assert_eq!(back[..2], [3.5, -4.0]);
    assert!(quant::quantize_int4_rtn(&values[1..]).is_none());
}

#[test]
fn hostile_values_do_not_panic() {
    for dtype in DType::ALL {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, -0.0] {
            let mut values = [1.0f32; 256];
            assert!(quant::quantize(dtype, &values).is_some());
            values[17] = value;
            assert!(quant::quantize(dtype, &values).is_some());
            assert!(quant::quantize(dtype, &[value; 256]).is_some());
        }
        assert_eq!(quant::quantize(dtype, &[1.0; 33]).is_none(), dtype.is_quantized());
    }
}
