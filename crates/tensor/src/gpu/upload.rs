//! Upload of weights: rows in the order of the kernels, in pieces that fit into a binding.

use super::device::{Buffer, Device, STORAGE};
use super::driver::Submission;
use super::planes::{self, BLOCKS, Planes};
use crate::checks::{self, Shape};
use crate::{DType, Footprint, Result, Role, Weight};
use phi3_shaders::Format;
use std::num::NonZeroU64;
use std::ops::Range;

/// Weights of a group, which a kernel unpacks at a time: rows are padded to a multiple of this number.
pub(crate) const GROUP: usize = 8;

/// Outputs of a thread: pieces are padded to a multiple of this number.
const OUTPUTS: usize = 4;

// the blocks of OUTPUTS rows are a whole number of periods of the planes
const _: () = assert!(OUTPUTS.is_multiple_of(BLOCKS));

/// Outputs of the largest tile: all pieces but the last are a multiple of this number where their size permits.
const TILE: usize = 64;

/// Bytes of one staging buffer.
const CHUNK: usize = 16 << 20;

/// Staging buffers in flight.
const IN_FLIGHT: usize = 4;

/// A weight matrix on the device.
pub struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) role: Role,
    pub(crate) format: Format,
    /// First output, for a part of a larger matrix.
    pub(crate) first: usize,
    /// Bias of each output, in the order of the device, after those of the parts before.
    pub(crate) bias: Option<Buffer>,
    pub(crate) pieces: Vec<Piece>,
}

/// Rows of a matrix, in the order of the device, in a buffer of their own.
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    /// Experts of the rows; empty for a matrix without experts.
    pub(crate) experts: Range<usize>,
    /// First row within the expert, for a piece of one expert.
    pub(crate) first: usize,
    pub(crate) weight: Buffer,
    /// Plane of scales of a quantized type.
    pub(crate) scales: Option<Buffer>,
}

impl Piece {
    /// Rows of the buffer with its padding, which is zero.
    pub(crate) fn padded(&self) -> usize {
        self.rows.len().next_multiple_of(OUTPUTS)
    }
}

impl Matrix {
    pub(crate) fn shape(&self) -> Shape {
        Shape { rows: self.rows, cols: self.cols }
    }

    /// Groups of eight weights in a row.
    pub(crate) fn groups(&self) -> usize {
        self.cols.div_ceil(GROUP)
    }
}

/// Uploads a weight.
pub(crate) fn matrix(device: &mut Device, weight: &Weight, role: Role) -> Result<Matrix> {
    let format = planes::format(weight.dtype);
    checks::matrix(weight, role)?;
    let order = Order::new(role, weight.rows);
    let first = role.qkv().map_or(0, |(_, first)| first);
    let layout = Layout::of(weight.dtype, weight.cols);
    let unit = order.expert.map_or(1, |expert| expert.padded);
    let per_piece = rows_per_piece(device, &weight.name, layout.bytes.max(layout.scales))?;

    let mut pieces = Vec::new();
    let mut in_flight = Vec::new();
    for rows in pieces_of(order.rows, per_piece, unit) {
        let padded = rows.len().next_multiple_of(OUTPUTS);
        let scales = match layout.scales {
            0 => None,
            bytes => Some(device.buffer(&weight.name, (bytes * padded) as u64, STORAGE)?),
        };
        let buffer = device.buffer(&weight.name, (layout.bytes * padded) as u64, STORAGE)?;
        let (experts, first) = match order.expert {
            Some(Expert { padded, .. }) => (rows.start / padded..rows.end.div_ceil(padded), rows.start % padded),
            None => (0..0, 0),
        };
        let piece = Piece { rows, experts, first, weight: buffer, scales };
        fill(device, weight, &order, &piece, &layout, &mut in_flight)?;
        pieces.push(piece);
    }
    let bias = match weight.bias() {
        Some(bias) => {
            let mut values = vec![0.0; first];
            values.extend((0..order.rows).map(|row| order.source(row).map_or(0.0, |row| bias[row])));
            values.resize(values.len().next_multiple_of(OUTPUTS), 0.0);
            let buffer = device.buffer(&weight.name, (values.len() * size_of::<f32>()) as u64, STORAGE)?;
            device.queue.write_buffer(&buffer.raw, 0, bytemuck::cast_slice(&values));
            device.check()?;
            Some(buffer)
        }
        None => None,
    };
    Ok(Matrix { rows: weight.rows, cols: weight.cols, role, format, first, bias, pieces })
}

/// Memory of a matrix.
pub(crate) fn footprint(
    device: &Device,
    name: &str,
    dtype: DType,
    rows: usize,
    cols: usize,
    role: Role,
) -> Result<Footprint> {
    let layout = Layout::of(dtype, cols);
    let order = Order::new(role, rows);
    rows_per_piece(device, name, layout.bytes.max(layout.scales))?;
    let bytes = (layout.bytes + layout.scales) as u64 * order.rows.next_multiple_of(OUTPUTS) as u64;
    Ok(Footprint { bytes, in_place: false })
}

/// Layout of rows on the device.
struct Layout {
    /// Bytes of a row; of a quantized type, in the plane of quants.
    bytes: usize,
    /// Bytes of a row in the plane of scales.
    scales: usize,
    planes: Option<Planes>,
}

impl Layout {
    fn of(dtype: DType, cols: usize) -> Self {
        let cols = cols.next_multiple_of(GROUP);
        match Planes::of(dtype) {
            Some(planes) => {
                let blocks = cols / dtype.block().0;
                Self {
                    bytes: blocks * planes.quants / BLOCKS,
                    scales: blocks * planes.scales / BLOCKS,
                    planes: Some(planes),
                }
            }
            None => Self { bytes: dtype.bytes(cols).unwrap_or(usize::MAX), scales: 0, planes: None },
        }
    }
}

/// Rows of the pieces: multiples of `unit`, or parts of a unit that is too large for a piece.
fn pieces_of(rows: usize, per_piece: usize, unit: usize) -> Vec<Range<usize>> {
    let (span, step) = if per_piece < unit { (unit, per_piece) } else { (rows.max(1), per_piece / unit * unit) };
    let spans = (0..rows).step_by(span).map(|start| start..(start + span).min(rows));
    spans.flat_map(|span| span.clone().step_by(step).map(move |start| start..(start + step).min(span.end))).collect()
}

/// Largest number of rows of a piece.
fn rows_per_piece(device: &Device, name: &str, row_bytes: usize) -> Result<usize> {
    let rows = (device.max_piece / (row_bytes as u64).max(1)) as usize;
    match rows / TILE * TILE {
        0 if rows < OUTPUTS => {
            let detail = format!("; a piece of a weight may have {}", device.max_piece);
            Err(device.out_of_memory(name, (row_bytes * OUTPUTS) as u64, detail))
        }
        0 => Ok(rows / OUTPUTS * OUTPUTS),
        rows => Ok(rows),
    }
}

/// Writes a piece in chunks, of which at most [`IN_FLIGHT`] are in flight.
fn fill(
    device: &mut Device,
    weight: &Weight,
    order: &Order,
    piece: &Piece,
    layout: &Layout,
    in_flight: &mut Vec<Submission>,
) -> Result<()> {
    // empty for the rows of the padding
    let source = |row: usize| match piece.rows.start + row {
        row if row < order.rows => order.source(row).map_or(&[][..], |row| weight.row(row)),
        _ => &[],
    };
    let mut packed = (vec![0; OUTPUTS * layout.bytes], vec![0; OUTPUTS * layout.scales]);
    let step = (CHUNK / (OUTPUTS * layout.bytes).max(1)).max(1) * OUTPUTS;
    for first in (0..piece.padded()).step_by(step) {
        let rows = first..(first + step).min(piece.padded());
        let Some(mut view) = staging(device, &piece.weight, &rows, layout.bytes)? else { continue };
        if let (Some(planes), Some(scales)) = (&layout.planes, &piece.scales) {
            let Some(mut scales) = staging(device, scales, &rows, layout.scales)? else { continue };
            for at in (0..rows.len()).step_by(OUTPUTS) {
                let (quants_of, scales_of) = &mut packed;
                pack(planes, weight, (0..OUTPUTS).map(|i| source(rows.start + at + i)), quants_of, scales_of);
                view.slice(at * layout.bytes..).slice(..quants_of.len()).copy_from_slice(quants_of);
                scales.slice(at * layout.scales..).slice(..scales_of.len()).copy_from_slice(scales_of);
            }
        } else {
            for row in rows.clone() {
                let mut to = view.slice((row - rows.start) * layout.bytes..).into_slice(..layout.bytes);
                let from = source(row);
                to.slice(..from.len()).copy_from_slice(from);
                to.slice(from.len()..).fill(0);
            }
        }
        drop(view);
        if in_flight.len() == IN_FLIGHT {
            device.wait(in_flight.remove(0))?;
        }
        in_flight.push(device.submit(None));
    }
    device.check()
}

/// Staging memory for rows of a buffer, which the next submission copies; `None` for rows without bytes.
fn staging(
    device: &Device,
    buffer: &Buffer,
    rows: &Range<usize>,
    row_bytes: usize,
) -> Result<Option<wgpu::QueueWriteBufferView>> {
    let Some(size) = NonZeroU64::new((rows.len() * row_bytes) as u64) else { return Ok(None) };
    match device.queue.write_buffer_with(&buffer.raw, (rows.start * row_bytes) as u64, size) {
        Some(view) => Ok(Some(view)),
        None => {
            device.check()?;
            Err(device.out_of_memory("staging memory", size.get(), String::new()))
        }
    }
}

/// Packs the blocks of rows one after another. A missing row is zero.
fn pack<'a>(
    planes: &Planes,
    weight: &Weight,
    rows: impl Iterator<Item = &'a [u8]>,
    quants: &mut [u8],
    scales: &mut [u8],
) {
    let size = weight.dtype.block().1;
    let blocks = weight.row_bytes() / size;
    quants.fill(0);
    scales.fill(0);
    for (i, row) in rows.enumerate() {
        for (at, block) in row.chunks_exact(size).enumerate() {
            planes.pack(block, i * blocks + at, quants, scales);
        }
    }
}

/// Order of the rows of a matrix on the device.
struct Order {
    role: Role,
    /// Rows on the device.
    rows: usize,
    expert: Option<Expert>,
}

/// Rows of each expert.
#[derive(Clone, Copy)]
struct Expert {
    rows: usize,
    /// Rows on the device, a multiple of [`OUTPUTS`].
    padded: usize,
}

impl Order {
    fn new(role: Role, rows: usize) -> Self {
        match role {
            Role::Experts { count, .. } => {
                let rows = rows / count.max(1);
                let padded = rows.next_multiple_of(OUTPUTS);
                Self { role, rows: count * padded, expert: Some(Expert { rows, padded }) }
            }
            _ => Self { role, rows, expert: None },
        }
    }

    /// Row of the weight in row `row` of the device; none for padding.
    fn source(&self, row: usize) -> Option<usize> {
        // gate 0, up 0, gate 1, up 1, ...
        let alternating = |row: usize, rows: usize| row / 2 + row % 2 * (rows / 2);
        Some(match self.role {
            Role::Plain | Role::Embedding => row,
            Role::GateUp => alternating(row, self.rows),
            Role::Experts { gated, .. } => {
                let Expert { rows, padded } = self.expert?;
                let (expert, row) = (row / padded, row % padded);
                if row >= rows {
                    return None;
                }
                expert * rows + if gated { alternating(row, rows) } else { row }
            }
            // the two dimensions of a rotated pair next to each other
            Role::Qkv(heads) | Role::QkvPart(heads, _) => {
                let (first, i) = (self.role.qkv().map_or(0, |(_, first)| first), row % heads.head_dim);
                if first + row < heads.q_dim() + heads.kv_dim() && i < heads.rotary_dim {
                    row - i + i / 2 + i % 2 * (heads.rotary_dim / 2)
                } else {
                    row
                }
            }
        })
    }
}
