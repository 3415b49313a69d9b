//! `phi3-run devices`

use crate::args::Devices;
use crate::output::{self, Outcome};
use phi3_runner::Result;

/// Lists adapters with their features, limits and tiers, then the CPU.
pub(super) fn devices(args: &Devices) -> Result<Outcome> {
    let cpu = phi3_tensor::cpu::Cpu::new(phi3_tensor::cpu::Options::default())?;
    let cpu = phi3_tensor::Device::info(&cpu).to_string();
    let (adapters, missing) = adapters()?;
    if args.json {
        output::print(&format!("{}\n", serde_json::json!({ "gpu": adapters, "cpu": cpu })))?;
        return Ok(Outcome::Done);
    }
    for adapter in &adapters {
        let text = |key: &str| adapter[key].as_str().unwrap_or("").to_owned();
        let size = |key: &str| format!("{} MiB", adapter[key].as_u64().unwrap_or(0) >> 20);
        let mut features = Vec::new();
        if adapter["f16"] == true {
            features.push("f16".to_owned());
        }
        if let Some([least, most]) = adapter["subgroup"].as_array().map(Vec::as_slice) {
            features.push(if least == most {
                format!("subgroups of {least}")
            } else {
                format!("subgroups of {least} to {most}")
            });
        }
        if adapter["matrix_units"] == true {
            features.push("matrix units".to_owned());
        }
        let features = if features.is_empty() { "none beyond WebGPU's own".to_owned() } else { features.join(", ") };
        let tier = adapter["tier"]
            .as_str()
            .map_or("none: below WebGPU's default limits".to_owned(), |tier| format!("{tier} kernels"));
        output::print(&format!(
            "gpu:{}  {} ({}, {})\n       driver    {}\n       features  {features}\n       limits    buffers of {}, bindings of {}\n       tier      {tier}\n",
            adapter["index"],
            text("name"),
            text("kind"),
            text("backend"),
            text("driver"),
            size("max_buffer"),
            size("max_binding"),
        ))?;
    }
    if let Some(missing) = missing {
        output::note(&missing);
    }
    output::print(&format!("cpu    {cpu}\n"))?;
    Ok(Outcome::Done)
}

/// Every adapter as JSON, and a note if there is none.
#[cfg(feature = "gpu")]
fn adapters() -> Result<(Vec<serde_json::Value>, Option<String>)> {
    let adapters = match phi3_tensor::gpu::adapters() {
        Ok(adapters) => adapters,
        Err(error @ phi3_tensor::Error::NoAdapter { .. }) => return Ok((Vec::new(), Some(error.to_string()))),
        Err(error) => return Err(error.into()),
    };
    let object = |a: &phi3_tensor::gpu::AdapterInfo| {
        serde_json::json!({
            "index": a.index, "name": a.name, "kind": a.kind.name(), "backend": a.backend, "driver": a.driver,
            "f16": a.f16, "subgroup": a.subgroup.map(|(least, most)| [least, most]), "matrix_units": a.matrix_units,
            "max_buffer": a.max_buffer, "max_binding": a.max_binding, "tier": a.tier,
        })
    };
    Ok((adapters.iter().map(object).collect(), None))
}

#[cfg(not(feature = "gpu"))]
fn adapters() -> Result<(Vec<serde_json::Value>, Option<String>)> {
    Ok((Vec::new(), Some("this build has no GPU backend".into())))
}
