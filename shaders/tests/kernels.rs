//! Every composed kernel is valid WGSL for WebGPU core, translates to every platform, and keeps the default limits.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess};
use phi3_shaders::{Access, COOP_MEMORY, Kernel, Op, PARAMS_SIZE, Tier, all};
use std::collections::HashMap;
use std::process::Command;
use std::sync::LazyLock;

/// Capabilities of WebGPU core: naga counts `unpack2x16float` as a capability because WebGL lacks it.
const CORE: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

fn module(tier: Tier, kernel: &Kernel) -> (Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(&kernel.source)
        .unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(&kernel.source)));
    let capabilities = match tier {
        Tier::Base => CORE,
        Tier::F16 => CORE | Capabilities::SHADER_FLOAT16,
        Tier::Subgroup => CORE | Capabilities::SUBGROUP,
        Tier::Coop => CORE | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX,
    };
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    if tier >= Tier::Subgroup {
        validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
    }
    let info =
        validator.validate(&module).unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(&kernel.source)));
    (module, info)
}

/// Every kernel with the lowest tier that has it, parsed and validated once for all tests.
static KERNELS: LazyLock<Vec<(Tier, Kernel, Module, ModuleInfo)>> = LazyLock::new(|| {
    let parsed = |(tier, kernel): (Tier, Kernel)| {
        let (module, info) = module(tier, &kernel);
        (tier, kernel, module, info)
    };
    all().into_iter().map(parsed).collect()
});

/// Kernels of the same name have the same source in every tier.
#[test]
fn names_differ() {
    let mut texts = HashMap::new();
    for tier in Tier::ALL {
        for op in Op::all(tier) {
            let kernel = op.kernel(tier);
            let text = texts.entry(kernel.name.clone()).or_insert_with(|| kernel.source.clone());
            assert_eq!(*text, kernel.source, "{}", kernel.name);
        }
        let mut of_tier: Vec<String> = Op::all(tier).into_iter().map(|op| op.kernel(tier).name).collect();
        of_tier.sort();
        of_tier.dedup();
        assert_eq!(of_tier.len(), Op::all(tier).len(), "{tier:?}");
    }
    assert_eq!(texts.len(), all().len());
    println!("{} kernels", texts.len());
}

#[test]
fn valid_and_translatable() {
    for (tier, kernel, module, info) in KERNELS.iter() {
        spv::write_vec(module, info, &spv::Options::default(), None)
            .unwrap_or_else(|e| panic!("{}: SPIR-V: {e}", kernel.name));

        let lang_version = if *tier == Tier::Coop { (2, 3) } else { (2, 1) };
        let options = msl::Options { fake_missing_bindings: true, lang_version, ..Default::default() };
        msl::write_string(module, info, &options, &msl::PipelineOptions::default())
            .unwrap_or_else(|e| panic!("{}: MSL: {e}", kernel.name));

        let shader_model = match tier {
            Tier::Base => hlsl::ShaderModel::V5_1,
            Tier::F16 => hlsl::ShaderModel::V6_2,
            Tier::Subgroup => hlsl::ShaderModel::V6_0,
            // no Direct3D adapter has these matrix units
            Tier::Coop => continue,
        };
        let options = hlsl::Options { fake_missing_bindings: true, shader_model, ..Default::default() };
        let pipeline = hlsl::PipelineOptions::default();
        hlsl::Writer::new(String::new(), &options, &pipeline)
            .write(module, info, None)
            .unwrap_or_else(|e| panic!("{}: HLSL: {e}", kernel.name));
    }
}

#[test]
fn within_default_limits() {
    for (_, kernel, module, _) in KERNELS.iter() {
        let name = &kernel.name;
        let sizes = |wanted: AddressSpace| {
            module
                .global_variables
                .iter()
                .filter(move |(_, v)| v.space == wanted)
                .map(move |(_, v)| u64::from(module.types[v.ty].inner.size(module.to_ctx())))
        };
        let memory = if name.starts_with("attention_coop") { u64::from(COOP_MEMORY) } else { 16384 };
        assert!(sizes(AddressSpace::WorkGroup).sum::<u64>() <= memory, "{name}: workgroup memory");
        assert!(sizes(AddressSpace::Uniform).all(|size| size <= PARAMS_SIZE), "{name}: parameters");
        assert!(kernel.workgroup.iter().product::<u32>() <= 256, "{name}: threads");
        assert_eq!(module.entry_points[0].workgroup_size, kernel.workgroup, "{name}: threads");
        assert!(kernel.bindings.iter().filter(|b| b.access != Access::Uniform).count() <= 8, "{name}: storage buffers");
    }
}

/// Matrices are loaded from addresses that are multiples of 16 bytes (VUID-RuntimeSpirv-OpCooperativeMatrixLoadKHR-08986). Drivers place
/// arrays of halves one behind another, so that each has to be a multiple of 16 bytes long, and so has the distance of two lines.
#[test]
fn matrices_begin_at_multiples_of_16_bytes() {
    const LINE: &str = "PITCH";
    let (mut arrays, mut lines) = (0, 0);
    for (_, kernel, module, _) in KERNELS.iter() {
        if !module.types.iter().any(|(_, ty)| matches!(ty.inner, naga::TypeInner::CooperativeMatrix { .. })) {
            continue;
        }
        for (_, variable) in module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup) {
            let size = module.types[variable.ty].inner.size(module.to_ctx());
            assert_eq!(size % 16, 0, "{}: {:?} has {size} bytes", kernel.name, variable.name);
            arrays += 1;
        }
        for (_, constant) in
            module.constants.iter().filter(|(_, c)| c.name.as_deref().is_some_and(|n| n.ends_with(LINE)))
        {
            let naga::Expression::Literal(naga::Literal::U32(halves)) = module.global_expressions[constant.init] else {
                panic!("{}: {:?} is not a number", kernel.name, constant.name);
            };
            assert_eq!(2 * halves % 16, 0, "{}: {:?} is {halves} halves", kernel.name, constant.name);
            lines += 1;
        }
    }
    assert!(arrays > 0 && lines > 0);
}

#[test]
fn bindings_are_those_of_the_text() {
    for (_, kernel, module, _) in KERNELS.iter() {
        let mut found: Vec<(u32, Access)> = module
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let binding = variable.binding?;
                let access = match variable.space {
                    AddressSpace::Uniform => Access::Uniform,
                    AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::ReadWrite,
                    _ => Access::Read,
                };
                Some((binding.binding, access))
            })
            .collect();
        found.sort_by_key(|(number, _)| *number);
        let parsed: Vec<_> = kernel.bindings.iter().map(|b| (b.number, b.access)).collect();
        assert_eq!(parsed, found, "{}", kernel.name);
    }
}

/// Tint, the compiler of Chromium, also checks that barriers are in uniform control flow, which naga does not. Kernels on matrix
/// units are left out, because Tint has another syntax for them.
#[test]
fn tint_accepts() {
    if Command::new("tint").arg("--help").output().is_err() {
        println!("skipped: there is no `tint` on the PATH");
        return;
    }
    let dir = std::env::temp_dir().join(format!("phi3-tint-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (tier, kernel) in all().into_iter().filter(|(tier, _)| *tier < Tier::Coop) {
        let (from, to) = (dir.join(format!("{}.wgsl", kernel.name)), dir.join("out.wgsl"));
        // Tint needs this line, which naga does not support
        let enable = if tier >= Tier::Subgroup { "enable subgroups;\n" } else { "" };
        std::fs::write(&from, format!("{enable}{}", kernel.source)).unwrap();
        let output = Command::new("tint").arg(&from).arg("-o").arg(&to).output().unwrap();
        assert!(output.status.success(), "{}: {}", kernel.name, String::from_utf8_lossy(&output.stderr));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
