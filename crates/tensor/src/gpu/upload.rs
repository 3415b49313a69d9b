//! Weights on their way to the device: rows in the order that the kernels want, in pieces that a binding can hold.

use super::device::{Buffer, Device, STORAGE};
use crate::{DType, Error, Result, Role, Weight};
use phi3_shaders::Format;
use std::num::NonZeroU64;
use std::ops::Range;

/// Weights that a kernel unpacks at once: rows are padded to a multiple of it.
pub(super) const GROUP: usize = 8;

/// Outputs that a kernel computes at once: pieces are padded to a multiple of it.
const OUTPUTS: usize = 4;

/// Outputs of the largest tile: pieces but the last have a multiple of it, where they can.
const TILE: usize = 64;

/// Bytes of one staging buffer.
const CHUNK: usize = 16 << 20;

/// Staging buffers that may be under way.
const IN_FLIGHT: usize = 4;

/// A weight matrix on the device.
pub struct Matrix {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) role: Role,
    pub(super) format: Format,
    pub(super) pieces: Vec<Piece>,
}

/// Rows of a matrix, in the device's order, in a buffer of their own.
pub(super) struct Piece {
    pub(super) rows: Range<usize>,
    pub(super) buffer: Buffer,
}

impl Piece {
    /// Rows of the buffer: those past the matrix's last are zero.
    pub(super) fn padded(&self) -> usize {
        self.rows.len().next_multiple_of(OUTPUTS)
    }
}

impl Matrix {
    /// Groups of eight weights in a row.
    pub(super) fn groups(&self) -> usize {
        self.cols.div_ceil(GROUP)
    }
}

/// Brings a weight to the device.
pub(super) fn matrix(device: &mut Device, weight: &Weight, role: Role) -> Result<Matrix> {
    let format = match weight.dtype {
        DType::F32 => Format::F32,
        DType::F16 => Format::F16,
        DType::Bf16 => Format::Bf16,
        dtype => return Err(device.no_kernels(&weight.name, dtype)),
    };
    check_rows(weight, role)?;
    let order = Order { role, rows: weight.rows };
    if order.rows == 0 {
        return Ok(Matrix { rows: weight.rows, cols: weight.cols, role, format, pieces: Vec::new() });
    }
    let cols = weight.cols.next_multiple_of(GROUP);
    let row_bytes = weight.dtype.bytes(cols).unwrap_or(usize::MAX);
    let per_piece = rows_per_piece(device, weight, row_bytes)?;

    let mut pieces = Vec::new();
    let mut in_flight = Vec::new();
    for start in (0..order.rows).step_by(per_piece) {
        let rows = start..(start + per_piece).min(order.rows);
        let bytes = row_bytes * rows.len().next_multiple_of(OUTPUTS);
        let piece = Piece { rows, buffer: device.buffer(&weight.name, bytes as u64, STORAGE)? };
        fill(device, weight, &order, &piece, row_bytes, &mut in_flight)?;
        pieces.push(piece);
    }
    Ok(Matrix { rows: weight.rows, cols: weight.cols, role, format, pieces })
}

fn check_rows(weight: &Weight, role: Role) -> Result<()> {
    let expected = match role {
        Role::Plain => weight.rows,
        Role::GateUp => weight.rows.next_multiple_of(2),
        Role::Qkv(heads) => heads.qkv_dim(),
    };
    if expected == weight.rows {
        return Ok(());
    }
    let (expected, found) = (vec![expected, weight.cols], vec![weight.rows, weight.cols]);
    Err(Error::Shape { name: weight.name.clone(), expected, found })
}

fn rows_per_piece(device: &Device, weight: &Weight, row_bytes: usize) -> Result<usize> {
    let rows = (device.max_piece / (row_bytes as u64).max(1)) as usize;
    match rows / TILE * TILE {
        0 if rows < OUTPUTS => {
            let detail = format!("; a piece of a weight may have {}", device.max_piece);
            Err(device.out_of_memory(&weight.name, (row_bytes * OUTPUTS) as u64, detail))
        }
        0 => Ok(rows / OUTPUTS * OUTPUTS),
        rows => Ok(rows),
    }
}

/// Writes a piece by chunks; of these only a few are under way at a time.
fn fill(
    device: &mut Device,
    weight: &Weight,
    order: &Order,
    piece: &Piece,
    row_bytes: usize,
    in_flight: &mut Vec<wgpu::SubmissionIndex>,
) -> Result<()> {
    let step = (CHUNK / row_bytes.max(1)).max(1);
    for first in (0..piece.padded()).step_by(step) {
        let rows = first..(first + step).min(piece.padded());
        let offset = (first * row_bytes) as u64;
        let Some(size) = NonZeroU64::new((rows.len() * row_bytes) as u64) else { continue };
        let Some(mut view) = device.queue.write_buffer_with(&piece.buffer.raw, offset, size) else {
            device.check()?;
            return Err(device.out_of_memory("staging memory", size.get(), String::new()));
        };
        for row in rows.clone() {
            let mut to = view.slice((row - rows.start) * row_bytes..).into_slice(..row_bytes);
            let from = match piece.rows.start + row {
                row if row < order.rows => weight.row(order.source(row)),
                _ => &[],
            };
            to.slice(..from.len()).copy_from_slice(from);
            to.slice(from.len()..).fill(0);
        }
        drop(view);
        if in_flight.len() == IN_FLIGHT {
            device.wait(in_flight.remove(0))?;
        }
        in_flight.push(device.submit(None));
    }
    device.check()
}

/// The order of a matrix's rows on the device.
struct Order {
    role: Role,
    rows: usize,
}

impl Order {
    /// The file's row that stands in row `row` of the device.
    fn source(&self, row: usize) -> usize {
        match self.role {
            Role::Plain => row,
            // gate 0, up 0, gate 1, up 1, ...
            Role::GateUp => row / 2 + row % 2 * (self.rows / 2),
            // the two dimensions of a rotated pair next to each other
            Role::Qkv(heads) => {
                let i = row % heads.head_dim;
                if row < heads.q_dim() + heads.kv_dim() && i < heads.rotary_dim {
                    row - i + i / 2 + i % 2 * (heads.rotary_dim / 2)
                } else {
                    row
                }
            }
        }
    }
}
