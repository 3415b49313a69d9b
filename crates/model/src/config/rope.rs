//! Rotary embedding from `config.json`, in the layouts of transformers 4 and 5.
//!
//! Precedence is that of `Phi3Config` and `modeling_rope_utils.py` of transformers 5: the first of the objects `rope_scaling` and
//! `rope_parameters` that is not empty; fields of that object before those at the top level. The exception is
//! `original_max_position_embeddings`, which Phi-3 reads only at the top level.

use crate::json::Object;
use crate::rope::{LongRope, Rope};
use crate::spec::limits;
use crate::{Error, Result};

/// Known fields of the object; other fields get a note.
const KNOWN: [&str; 10] = [
    "rope_type",
    "type",
    "short_factor",
    "long_factor",
    "factor",
    "attention_factor",
    "original_max_position_embeddings",
    "rope_theta",
    "partial_rotary_factor",
    "max_position_embeddings",
];

const ORIGINAL: &str = "original_max_position_embeddings";

const SHORT_MSCALE: &str = "short_mscale";
const LONG_MSCALE: &str = "long_mscale";

/// Default of [`ORIGINAL`] in `Phi3Config`.
const DEFAULT_ORIGINAL: usize = 4096;

/// Defaults of a model class, and the fields that it reads.
pub(super) struct Rules {
    theta: f64,
    partial_rotary_factor: f64,
    /// Whether `original_max_position_embeddings` inside the object has precedence over the field at the top level.
    inner_original: bool,
    /// Whether `short_mscale` and `long_mscale` are followed.
    mscales: bool,
}

pub(super) const PHI3: Rules =
    Rules { theta: 10_000.0, partial_rotary_factor: 1.0, inner_original: false, mscales: false };

pub(super) const PHIMOE: Rules = Rules { theta: 1_000_000.0, inner_original: true, mscales: true, ..PHI3 };

pub(super) const PHI: Rules = Rules { partial_rotary_factor: 0.5, ..PHI3 };

/// Rotary embedding and the number of rotated dimensions.
pub(super) fn read(
    json: &Object,
    rules: &Rules,
    head_dim: usize,
    max_positions: usize,
    notes: &mut Vec<String>,
) -> Result<(Rope, usize)> {
    let object = |field| json.object(field).map(|object| object.filter(|object| object.names().next().is_some()));
    let (scaling, parameters) = (object("rope_scaling")?, object("rope_parameters")?);
    if scaling.is_some() && parameters.is_some() {
        notes.push(json.note("rope_parameters", "is not read if rope_scaling is present, as in transformers"));
    }
    let inner = scaling.or(parameters);
    // theta and the rotated share of a head: the object before the top level
    let number = |field: &str| -> Result<Option<(f64, &Object)>> {
        let inside = inner.as_ref().map(|inner| Ok::<_, Error>((inner.positive(field)?, inner))).transpose()?;
        match inside {
            Some((Some(value), owner)) => Ok(Some((value, owner))),
            _ => Ok(json.positive(field)?.map(|value| (value, json))),
        }
    };
    let share = number("partial_rotary_factor")?;
    let (factor, owner) = share.unwrap_or((rules.partial_rotary_factor, json));
    let rotary_dim = (head_dim as f64 * factor) as usize;
    if factor > 1.0 || rotary_dim < 2 || !rotary_dim.is_multiple_of(2) {
        let expected = format!("a share of the head ({head_dim}) that is an even number of dimensions");
        return Err(owner.bad("partial_rotary_factor", expected, "dimensions of a head are rotated in pairs"));
    }
    let theta = number("rope_theta")?.map_or(rules.theta, |(theta, _)| theta) as f32;
    for field in ["rope_theta", "partial_rotary_factor"] {
        let outside = json.positive(field)?;
        if let (Some((used, owner)), Some(outside)) = (number(field)?, outside)
            && used != outside
        {
            notes.push(owner.note(field, &format!("{used} is used, not {outside} at the top level")));
        }
    }
    let long = match &inner {
        Some(inner) => long_rope(json, inner, rules, rotary_dim, max_positions, notes)?,
        None => None,
    };
    Ok((Rope::new(rotary_dim, theta, long), rotary_dim))
}

/// [`read`] for Phi-3-small, whose fields have other names. Without LongRoPE, `rope_position_scale` is a factor of the positions.
/// With it, `short_mscale` and `long_mscale` are read, and a missing `short_mscale` is 1.
pub(super) fn read_small(
    json: &Object,
    head_dim: usize,
    max_positions: usize,
    notes: &mut Vec<String>,
) -> Result<(Rope, usize)> {
    let theta = json.positive("rope_embedding_base")?.unwrap_or(10_000.0) as f32;
    let scale = json.positive("rope_position_scale")?.unwrap_or(1.0) as f32;
    let Some(inner) = json.object("rope_scaling")?.filter(|object| object.names().next().is_some()) else {
        return Ok((Rope::new(head_dim, theta, None).with_position_scale(scale), head_dim));
    };
    let rules = Rules { inner_original: true, mscales: true, ..PHI3 };
    let long = long_rope(json, &inner, &rules, head_dim, max_positions, notes)?.map(|long| LongRope {
        short_mscale: if inner.get(SHORT_MSCALE).is_some() { long.short_mscale } else { 1.0 },
        ..long
    });
    if long.is_some() && scale != 1.0 {
        notes.push(json.note("rope_position_scale", "is not followed if rope_scaling is present, as in the reference"));
    }
    Ok((Rope::new(head_dim, theta, long), head_dim))
}

fn long_rope(
    json: &Object,
    inner: &Object,
    rules: &Rules,
    rotary_dim: usize,
    max_positions: usize,
    notes: &mut Vec<String>,
) -> Result<Option<LongRope>> {
    let kind = inner.string("rope_type")?.or(inner.string("type")?);
    let is_long = match kind {
        Some("su" | "longrope") => true,
        None | Some("default") => false,
        Some(_) => {
            let field = if inner.get("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(inner.bad(field, "\"longrope\", \"su\" or \"default\"", "other kinds are not implemented"));
        }
    };
    let known = |name: &str| KNOWN.contains(&name) || rules.mscales && [SHORT_MSCALE, LONG_MSCALE].contains(&name);
    let unread: Vec<&str> = inner.names().filter(|name| !known(name) && inner.get(name).is_some()).collect();
    if let Some(first) = unread.first() {
        notes.push(inner.note(first, "is not read, as in transformers"));
    }
    if !is_long {
        if inner.get("short_factor").is_some() || inner.get("long_factor").is_some() {
            let said = if kind.is_some() { "the type is \"default\"" } else { "there is no rope_type" };
            notes.push(inner.note("long_factor", &format!("is not used: {said}, as in transformers")));
        }
        return Ok(None);
    }
    let [outside, inside] = [json, inner].map(|object| object.integer(ORIGINAL, 1..=limits::POSITIONS));
    let held = if rules.inner_original { inside?.or(outside?) } else { outside? };
    let original = held.unwrap_or(DEFAULT_ORIGINAL);
    if !rules.inner_original
        && let Some(inside) = inner.integer(ORIGINAL, 1..=limits::POSITIONS)?.filter(|&inside| inside != original)
    {
        let whose = if json.get(ORIGINAL).is_some() {
            "is the value at the top level"
        } else {
            "is the default at the top level"
        };
        notes.push(inner.note(ORIGINAL, &format!("{inside} is not used: {original} {whose}, as in transformers")));
    }
    let attention_factor = match inner.positive("attention_factor")? {
        Some(factor) => factor,
        None => attention_factor(json, inner, original, max_positions)?,
    };
    let mscale = |field| -> Result<f64> {
        let own = if rules.mscales { inner.positive(field)? } else { None };
        Ok(own.unwrap_or(attention_factor))
    };
    Ok(Some(LongRope {
        short_factor: inner.factors("short_factor", rotary_dim / 2)?,
        long_factor: inner.factors("long_factor", rotary_dim / 2)?,
        original_max_position_embeddings: original,
        short_mscale: mscale(SHORT_MSCALE)? as f32,
        long_mscale: mscale(LONG_MSCALE)? as f32,
    }))
}

/// `sqrt(1 + ln(factor) / ln(original))`, where `factor` is the field of that name, else the ratio of the two lengths; 1 if
/// `factor` is at most 1.
fn attention_factor(json: &Object, inner: &Object, original: usize, max_positions: usize) -> Result<f64> {
    let factor = inner.positive("factor")?.unwrap_or(max_positions as f64 / original as f64);
    if factor <= 1.0 {
        return Ok(1.0);
    }
    if original == 1 {
        return Err(json.bad(ORIGINAL, "more than 1", "the attention factor divides by its logarithm"));
    }
    Ok((1.0 + factor.ln() / (original as f64).ln()).sqrt())
}
