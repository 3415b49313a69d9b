//! Pipelines and bind groups, each made once.

use super::device::{Buffer, Device};
use crate::Result;
use phi3_shaders::{Access, Binding, Op, PARAMS_SIZE, Tier, binding};
use std::collections::HashMap;
use std::num::NonZeroU64;

/// The buffers of a dispatch, by binding number. A kernel takes those that its text binds.
pub(super) type Slots<'a> = [Option<&'a Buffer>; binding::COUNT];

/// The pipeline in place 0, then the buffers' numbers, 0 where the kernel binds none.
type Key = [u32; binding::COUNT];

pub(super) struct Pipelines {
    tier: Tier,
    checked: bool,
    places: HashMap<Op, usize>,
    pipelines: Vec<Pipeline>,
    groups: HashMap<Key, wgpu::BindGroup>,
    pub(super) groups_made: u64,
    /// What a wrong driver would make of a text.
    #[cfg(test)]
    pub(super) wrong: Option<(&'static str, &'static str)>,
    #[cfg(test)]
    pub(super) every_tier_is_wrong: bool,
}

struct Pipeline {
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: Vec<Binding>,
    name: String,
}

impl Pipelines {
    pub(super) fn new(tier: Tier, checked: bool) -> Self {
        Self {
            tier,
            checked,
            places: HashMap::new(),
            pipelines: Vec::new(),
            groups: HashMap::new(),
            groups_made: 0,
            #[cfg(test)]
            wrong: None,
            #[cfg(test)]
            every_tier_is_wrong: false,
        }
    }

    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    /// Takes other kernels from now on.
    pub(super) fn set_tier(&mut self, tier: Tier) {
        self.tier = tier;
        self.places.clear();
        self.pipelines.clear();
        self.groups.clear();
    }

    /// Pipelines made so far.
    pub(super) fn made(&self) -> u64 {
        self.pipelines.len() as u64
    }

    /// Bind groups that are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.groups.len()
    }

    /// The place of an operation's pipeline.
    pub(super) fn place(&mut self, device: &Device, op: Op) -> Result<usize> {
        if let Some(place) = self.places.get(&op) {
            return Ok(*place);
        }
        let pipeline = self.compile(device, op)?;
        self.pipelines.push(pipeline);
        self.places.insert(op, self.pipelines.len() - 1);
        Ok(self.pipelines.len() - 1)
    }

    pub(super) fn pipeline(&self, place: usize) -> &wgpu::ComputePipeline {
        &self.pipelines[place].raw
    }

    /// The bind group of a pipeline and these buffers; `params` is bound with a dynamic offset.
    pub(super) fn group(
        &mut self,
        device: &Device,
        place: usize,
        params: &Buffer,
        slots: &Slots<'_>,
    ) -> Result<&wgpu::BindGroup> {
        let pipeline = &self.pipelines[place];
        let mut key = Key::default();
        key[0] = place as u32;
        for number in pipeline.bindings.iter().map(|binding| binding.number as usize).filter(|number| *number > 0) {
            match slots[number] {
                Some(buffer) => key[number] = buffer.id,
                None => return Err(device.failed(format!("kernel {}: binding {number} is not given", pipeline.name))),
            }
        }
        Ok(match self.groups.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.groups_made += 1;
                entry.insert(bind(device, pipeline, params, slots))
            }
        })
    }

    /// Lets go of the bind groups of buffers that are no more, so that their memory is freed.
    pub(super) fn forget(&mut self, buffers: &[u32]) {
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
            return Err(device.failed(format!("kernel {}: {error}", kernel.name)));
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

fn bind(device: &Device, pipeline: &Pipeline, params: &Buffer, slots: &Slots<'_>) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = pipeline
        .bindings
        .iter()
        .filter_map(|binding| {
            let (buffer, size) = match binding.access {
                Access::Uniform => (Some(params), NonZeroU64::new(PARAMS_SIZE)),
                Access::Read | Access::ReadWrite => (slots[binding.number as usize], None),
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
