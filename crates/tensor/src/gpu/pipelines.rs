//! Pipelines and bind groups, each created once.

use super::device::{Buffer, Device};
use crate::Result;
use phi3_shaders::{Access, Binding, Op, PARAMS_SIZE, Tier, binding};
use std::collections::HashMap;
use std::num::NonZeroU64;

/// The buffers of a dispatch, by binding number. A kernel uses those that its source binds.
pub(crate) type Bindings<'a> = [Option<&'a Buffer>; binding::COUNT];

/// The pipeline's index, then the numbers of the buffers, 0 where the kernel has no binding.
type Key = [u32; binding::COUNT];

pub(crate) struct Pipelines {
    tier: Tier,
    checked: bool,
    indices: HashMap<Op, usize>,
    pipelines: Vec<Pipeline>,
    groups: HashMap<Key, wgpu::BindGroup>,
    pub(crate) groups_made: u64,
    /// Words of a shader source, and their replacement by a faulty driver.
    #[cfg(test)]
    pub(crate) wrong: Option<(&'static str, &'static str)>,
    #[cfg(test)]
    pub(crate) every_tier_is_wrong: bool,
}

struct Pipeline {
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: Vec<Binding>,
    name: String,
}

impl Pipelines {
    pub(crate) fn new(tier: Tier, checked: bool) -> Self {
        Self {
            tier,
            checked,
            indices: HashMap::new(),
            pipelines: Vec::new(),
            groups: HashMap::new(),
            groups_made: 0,
            #[cfg(test)]
            wrong: None,
            #[cfg(test)]
            every_tier_is_wrong: false,
        }
    }

    pub(crate) fn tier(&self) -> Tier {
        self.tier
    }

    /// Sets the tier of the kernels.
    pub(crate) fn set_tier(&mut self, tier: Tier) {
        self.tier = tier;
        self.indices.clear();
        self.pipelines.clear();
        self.groups.clear();
    }

    /// Number of pipelines created so far.
    pub(crate) fn made(&self) -> u64 {
        self.pipelines.len() as u64
    }

    /// Number of bind groups that are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.groups.len()
    }

    /// Index of an operation's pipeline, which is compiled at its first use.
    pub(crate) fn index(&mut self, device: &Device, op: Op) -> Result<usize> {
        if let Some(index) = self.indices.get(&op) {
            return Ok(*index);
        }
        let pipeline = self.compile(device, op)?;
        self.pipelines.push(pipeline);
        self.indices.insert(op, self.pipelines.len() - 1);
        Ok(self.pipelines.len() - 1)
    }

    pub(crate) fn pipeline(&self, index: usize) -> &wgpu::ComputePipeline {
        &self.pipelines[index].raw
    }

    /// The bind group of a pipeline and these buffers; `params` is bound with a dynamic offset.
    pub(crate) fn group(
        &mut self,
        device: &Device,
        index: usize,
        params: &Buffer,
        bindings: &Bindings<'_>,
    ) -> Result<&wgpu::BindGroup> {
        let pipeline = &self.pipelines[index];
        let mut key = Key::default();
        key[0] = index as u32;
        for number in pipeline.bindings.iter().map(|binding| binding.number as usize).filter(|number| *number > 0) {
            match bindings[number] {
                Some(buffer) => key[number] = buffer.id,
                None => {
                    return Err(device
                        .driver
                        .failed(format!("kernel {}: binding {number} is not given", pipeline.name)));
                }
            }
        }
        Ok(match self.groups.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.groups_made += 1;
                entry.insert(bind(device, pipeline, params, bindings))
            }
        })
    }

    /// Drops the bind groups of dropped buffers, so that their memory is freed.
    pub(crate) fn forget(&mut self, buffers: &[u32]) {
        if !buffers.is_empty() {
            self.groups.retain(|key, _| !key[1..].iter().any(|id| buffers.contains(id)));
        }
    }

    fn compile(&self, device: &Device, op: Op) -> Result<Pipeline> {
        #[allow(unused_mut, reason = "a test changes it")]
        let mut kernel = op.kernel(self.tier);
        #[cfg(test)]
        if self.tier > Tier::Base || self.every_tier_is_wrong {
            kernel.source = self.wrong.iter().fold(kernel.source, |text, (from, to)| text.replace(from, to));
        }
        let validation = device.raw.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.raw.push_error_scope(wgpu::ErrorFilter::Internal);

        let entries: Vec<wgpu::BindGroupLayoutEntry> = kernel.bindings.iter().map(layout_entry).collect();
        let layout = device.raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&kernel.name),
            entries: &entries,
        });
        let pipeline_layout = device.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let source = wgpu::ShaderModuleDescriptor {
            label: Some(&kernel.name),
            source: wgpu::ShaderSource::Wgsl(kernel.source.into()),
        };
        let module = if self.checked {
            device.raw.create_shader_module(source)
        } else {
            // SAFETY: the kernels are this project's own. Their loops end; the host checks every index that they compute
            // from sizes and tables (buffer widths, rows, tokens, pages) before it dispatches.
            unsafe { device.raw.create_shader_module_trusted(source, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let raw = device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&kernel.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: device.cached.as_ref().map(|cached| &cached.raw),
        });

        let internal = pollster::block_on(internal.pop());
        if let Some(error) = pollster::block_on(validation.pop()).or(internal) {
            return Err(device.driver.failed(format!("kernel {}: {error}", kernel.name)));
        }
        Ok(Pipeline { raw, layout, bindings: kernel.bindings, name: kernel.name })
    }
}

fn layout_entry(binding: &Binding) -> wgpu::BindGroupLayoutEntry {
    let (ty, size) = match binding.access {
        Access::Uniform => (wgpu::BufferBindingType::Uniform, PARAMS_SIZE),
        Access::Read => (wgpu::BufferBindingType::Storage { read_only: true }, 16),
        Access::ReadWrite => (wgpu::BufferBindingType::Storage { read_only: false }, 16),
    };
    wgpu::BindGroupLayoutEntry {
        binding: binding.number,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: binding.access == Access::Uniform,
            min_binding_size: NonZeroU64::new(size),
        },
        count: None,
    }
}

fn bind(device: &Device, pipeline: &Pipeline, params: &Buffer, bindings: &Bindings<'_>) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = pipeline
        .bindings
        .iter()
        .filter_map(|binding| {
            let (buffer, size) = match binding.access {
                Access::Uniform => (Some(params), NonZeroU64::new(PARAMS_SIZE)),
                Access::Read | Access::ReadWrite => (bindings[binding.number as usize], None),
            };
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &buffer?.raw, offset: 0, size });
            Some(wgpu::BindGroupEntry { binding: binding.number, resource })
        })
        .collect();
    device.raw.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(&pipeline.name),
        layout: &pipeline.layout,
        entries: &entries,
    })
}
