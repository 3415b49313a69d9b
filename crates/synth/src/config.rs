//! `config.json` and `generation_config.json`, with the fields and sizes of the published files.

use serde_json::{Value, json};

use crate::Result;

/// Names of the variants.
pub(super) const VARIANTS: [&str; 18] = [
    "phi-1",
    "phi-1.5",
    "phi-2",
    "phi-3-mini-4k",
    "phi-3-mini-128k",
    "phi-3-small-8k",
    "phi-3-small-128k",
    "phi-3-medium-4k",
    "phi-3-medium-128k",
    "phi-3-vision",
    "phi-3.5-mini",
    "phi-3.5-moe",
    "phi-3.5-vision",
    "phi-4",
    "phi-4-mini",
    "phi-4-reasoning-vision",
    "phi-mini-moe",
    "phi-tiny-moe",
];

/// Published files of the tests, for their LongRoPE factors.
const PHI_3_VISION: &str = include_str!("../../../tests/data/tokenizer/phi-3-vision/config.json");
const OPERATIONS: &str = include_str!("../../../tests/data/oracle/ops/ops.json");

/// Sizes of the variants whose kernels the program benchmarks.
const SIZES: &str = include_str!("../../model/src/variants.json");

/// The two files of a variant.
pub(super) fn of(variant: &str) -> Result<(Value, Value)> {
    let sizes = parse(SIZES, "variants.json")?[variant].take();
    let stops = |config: &Value| generation(config, json!([32_000, 32_001, 32_007]));
    let config = match variant {
        "phi-1" => return Ok(phi(json!({"_name_or_path": "microsoft/phi-1", "torch_dtype": "float32"}))),
        "phi-1.5" => return Ok(phi(json!({"_name_or_path": "microsoft/phi-1_5"}))),
        "phi-2" => return Ok(phi(phi_2())),
        "phi-3-mini-4k" => phi3("Phi-3-mini-4k-instruct", [sizes]),
        "phi-3-mini-128k" => phi3("Phi-3-mini-128k-instruct", [sizes, longrope("longrope", 48)?]),
        "phi-3.5-mini" => phi3("Phi-3.5-mini-instruct", [sizes, longrope("longrope", 48)?]),
        "phi-3-medium-4k" => phi3("Phi-3-medium-4k-instruct", [sizes]),
        "phi-3-medium-128k" => phi3("Phi-3-medium-128k-instruct", [sizes, longrope("su", 64)?]),
        "phi-3-small-8k" => return Ok(phi3small("Phi-3-small-8k-instruct", json!({}))),
        "phi-3-small-128k" => return phi3small_128k(),
        "phi-3-vision" => {
            let config = parse(PHI_3_VISION, "Phi-3-vision's config.json")?;
            let generation = generation(&config, json!([2, 32_000, 32_001, 32_007]));
            return Ok((config, generation));
        }
        "phi-3.5-vision" => {
            let mut config = parse(PHI_3_VISION, "Phi-3-vision's config.json")?;
            merge(
                &mut config,
                json!({"_name_or_path": "Phi-3.5-vision-instruct", "embd_pdrop": 0.0,
                "pad_token_id": 32_000, "resid_pdrop": 0.0, "sliding_window": 262_144}),
            );
            let generation = generation(&config, json!([2, 32_000, 32_001, 32_007]));
            return Ok((config, generation));
        }
        "phi-3.5-moe" => return phi_moe(),
        "phi-mini-moe" => return slim_moe(json!({"intermediate_size": 960})),
        "phi-tiny-moe" => {
            let heads = json!({"num_attention_heads": 16, "num_key_value_heads": 4});
            let mut sizes = json!({"head_dim": 128, "intermediate_size": 448});
            merge(&mut sizes, heads);
            return slim_moe(sizes);
        }
        "phi-4" => {
            let config = phi3("phi-4", [sizes, phi_4()]);
            let generation = generation(&config, json!(100_265));
            return Ok((config, generation));
        }
        "phi-4-mini" => {
            let config = phi3("Phi-4-mini-instruct", [sizes, phi_4_mini()?]);
            let generation = generation(&config, json!([200_020, 199_999]));
            return Ok((config, generation));
        }
        "phi-4-reasoning-vision" => {
            let config = phi3("Phi-4-reasoning-vision-15B", [sizes, phi_4(), phi_4_reasoning_vision()]);
            let generation = generation(&config, json!(100_265));
            return Ok((config, generation));
        }
        other => return Err(format!("no variant {other}")),
    };
    let generation = stops(&config);
    Ok((config, generation))
}

fn phi3<const N: usize>(name: &str, changes: [Value; N]) -> Value {
    let mut config = json!({
        "_name_or_path": name,
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": 32_000,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "model_type": "phi3",
        "original_max_position_embeddings": 4096,
        "pad_token_id": 32_000,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": 10_000.0,
        "sliding_window": 2047,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.2",
        "use_cache": true,
    });
    changes.into_iter().for_each(|change| merge(&mut config, change));
    config
}

fn phi_4() -> Value {
    json!({"bos_token_id": 100_257, "eos_token_id": 100_265, "pad_token_id": 100_349,
        "original_max_position_embeddings": 16_384, "rope_theta": 250_000, "transformers_version": "4.47.0"})
}

fn phi_4_reasoning_vision() -> Value {
    json!({"architectures": ["Phi4ForCausalLMV"], "original_max_position_embeddings": 32_768, "rope_theta": 500_000.0,
        "tokenizer_model_max_length": 16_384, "tokenizer_padding_side": "right", "use_mm_proj": true,
        "transformers_version": "4.57.1"})
}

fn phi_4_mini() -> Result<Value> {
    let operations = parse(OPERATIONS, "ops.json")?;
    let rope = &operations["rope_phi_4_mini_short"];
    let scaling = json!({"long_factor": rope["long_factor"], "short_factor": rope["short_factor"], "type": "longrope"});
    Ok(json!({"bos_token_id": 199_999, "eos_token_id": 199_999, "pad_token_id": 199_999, "full_attn_mod": 1,
        "interpolate_factor": 1, "lm_head_bias": false, "mlp_bias": false, "rope_scaling": scaling,
        "transformers_version": "4.45.0"}))
}

fn phi(changes: Value) -> (Value, Value) {
    let mut config = json!({
        "architectures": ["PhiForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": null,
        "embd_pdrop": 0.0,
        "eos_token_id": null,
        "hidden_act": "gelu_new",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "model_type": "phi",
        "num_attention_heads": 32,
        "num_hidden_layers": 24,
        "num_key_value_heads": null,
        "partial_rotary_factor": 0.5,
        "qk_layernorm": false,
        "resid_pdrop": 0.0,
        "rope_scaling": null,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "float16",
        "transformers_version": "4.37.0",
        "use_cache": true,
        "vocab_size": 51_200,
    });
    merge(&mut config, changes);
    let mut generation = json!({"_from_model_config": true, "transformers_version": "4.37.0"});
    if !config["eos_token_id"].is_null() {
        merge(&mut generation, json!({"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}));
    }
    (config, generation)
}

fn phi_2() -> Value {
    json!({"_name_or_path": "microsoft/phi-2", "bos_token_id": 50_256, "eos_token_id": 50_256, "hidden_size": 2560,
        "intermediate_size": 10_240, "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4,
        "resid_pdrop": 0.1})
}

fn phi_moe() -> Result<(Value, Value)> {
    let mut scaling = longrope("longrope", 64)?["rope_scaling"].take();
    merge(
        &mut scaling,
        json!({"long_mscale": 1.243163121016122, "original_max_position_embeddings": 4096,
        "short_mscale": 1.243163121016122}),
    );
    let config = json!({
        "architectures": ["PhiMoEForCausalLM"],
        "attention_bias": true,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 32_000,
        "hidden_act": "silu",
        "hidden_dropout": 0.0,
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "input_jitter_noise": 0.01,
        "intermediate_size": 6400,
        "lm_head_bias": true,
        "max_position_embeddings": 131_072,
        "model_type": "phimoe",
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 16,
        "original_max_position_embeddings": 4096,
        "output_router_logits": false,
        "rms_norm_eps": 1e-5,
        "rope_scaling": scaling,
        "rope_theta": 10_000.0,
        "router_aux_loss_coef": 0.0,
        "router_jitter_noise": 0.01,
        "sliding_window": 131_072,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.3",
        "use_cache": true,
        "vocab_size": 32_064,
    });
    let mut generation = generation(&config, json!([32_001, 32_007, 32_000]));
    generation["pad_token_id"] = json!(32_000);
    Ok((config, generation))
}

/// Phi-mini-MoE and Phi-tiny-MoE: Phi-3.5-MoE with small experts, a window, and no LongRoPE.
fn slim_moe(changes: Value) -> Result<(Value, Value)> {
    let (mut config, generation) = phi_moe()?;
    merge(&mut config, json!({"max_position_embeddings": 4096, "rope_scaling": null, "sliding_window": 2047}));
    merge(&mut config, changes);
    Ok((config, generation))
}

fn phi3small(name: &str, changes: Value) -> (Value, Value) {
    let mut config = json!({
        "_name_or_path": name,
        "architectures": ["Phi3SmallForCausalLM"],
        "attention_bias": false,
        "attention_dropout_prob": 0.0,
        "blocksparse_block_size": 64,
        "blocksparse_homo_head_pattern": false,
        "blocksparse_num_local_blocks": 16,
        "blocksparse_triton_kernel_block_size": 64,
        "blocksparse_vert_stride": 8,
        "bos_token_id": 100_257,
        "dense_attention_every_n_layers": 2,
        "embedding_dropout_prob": 0.1,
        "eos_token_id": 100_257,
        "ff_dim_multiplier": null,
        "ff_intermediate_size": 14_336,
        "ffn_dropout_prob": 0.1,
        "gegelu_limit": 20.0,
        "gegelu_pad_to_256": true,
        "hidden_act": "gegelu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 8192,
        "model_type": "phi3small",
        "mup_attn_multiplier": 1.0,
        "mup_embedding_multiplier": 10.0,
        "mup_use_scaling": true,
        "mup_width_multiplier": 8.0,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "pad_sequence_to_multiple_of_64": true,
        "reorder_and_upcast_attn": false,
        "rope_embedding_base": 1_000_000,
        "rope_position_scale": 1.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.38.1",
        "use_cache": true,
        "vocab_size": 100_352,
    });
    merge(&mut config, changes);
    let generation = generation(&config, json!([100_257, 100_266]));
    (config, generation)
}

fn phi3small_128k() -> Result<(Value, Value)> {
    let mut scaling = longrope("su", 64)?["rope_scaling"].take();
    merge(
        &mut scaling,
        json!({"long_mscale": 1.1902380714238083, "original_max_position_embeddings": 8192,
        "short_mscale": 1.0}),
    );
    let changes = json!({"max_position_embeddings": 131_072, "rope_scaling": scaling});
    Ok(phi3small("Phi-3-small-128k-instruct", changes))
}

fn generation(config: &Value, eos: Value) -> Value {
    let mut generation = json!({"_from_model_config": true, "bos_token_id": config["bos_token_id"],
        "eos_token_id": eos, "transformers_version": config["transformers_version"]});
    if !config["pad_token_id"].is_null() {
        generation["pad_token_id"] = config["pad_token_id"].clone();
    }
    generation
}

/// Phi-3-vision's 48 published factors, stretched to `count` for a larger head.
fn longrope(kind: &str, count: usize) -> Result<Value> {
    let config = parse(PHI_3_VISION, "Phi-3-vision's config.json")?;
    let stretched = |name: &str| -> Result<Vec<Value>> {
        let published = config["rope_scaling"][name].as_array().ok_or("config.json has no rope factors")?;
        Ok((0..count).map(|i| published[i * published.len() / count].clone()).collect())
    };
    let (long, short) = (stretched("long_factor")?, stretched("short_factor")?);
    Ok(json!({"rope_scaling": {"long_factor": long, "short_factor": short, "type": kind}}))
}

fn parse(text: &str, name: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| format!("{name}: {error}"))
}

fn merge(config: &mut Value, changes: Value) {
    if let (Some(config), Value::Object(changes)) = (config.as_object_mut(), changes) {
        config.extend(changes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tensors;
    use super::*;

    #[test]
    fn parameters_are_as_many_as_published() {
        let published = [
            ("phi-1", 1.418e9),
            ("phi-1.5", 1.418e9),
            ("phi-2", 2.780e9),
            ("phi-3-mini-4k", 3.821e9),
            ("phi-3-mini-128k", 3.821e9),
            ("phi-3-small-8k", 7.392e9),
            ("phi-3-small-128k", 7.392e9),
            ("phi-3-medium-4k", 13.960e9),
            ("phi-3-medium-128k", 13.960e9),
            ("phi-3-vision", 4.147e9),
            ("phi-3.5-mini", 3.821e9),
            ("phi-3.5-moe", 41.873e9),
            ("phi-3.5-vision", 4.147e9),
            ("phi-4", 14.660e9),
            ("phi-4-mini", 3.836e9),
            ("phi-4-reasoning-vision", 15.120e9),
            ("phi-mini-moe", 7.648e9),
            ("phi-tiny-moe", 3.755e9),
        ];
        assert_eq!(published.map(|(name, _)| name), VARIANTS);
        for (name, count) in published {
            let (config, _) = of(name).unwrap();
            let found: u64 = tensors::of(&config).unwrap().iter().map(tensors::Tensor::elements).sum();
            assert!((found as f64 - count).abs() < 1e6, "{name}: {found}");
        }
    }

    #[test]
    fn longrope_has_a_factor_for_every_pair() {
        for name in VARIANTS {
            let (config, _) = of(name).unwrap();
            let number = |field: &str| config[field].as_f64().unwrap_or(1.0);
            let Some(factors) = config["rope_scaling"]["long_factor"].as_array() else { continue };
            let head = number("hidden_size") / number("num_attention_heads");
            assert_eq!(factors.len() as f64, head * number("partial_rotary_factor") / 2.0, "{name}");
        }
    }
}
