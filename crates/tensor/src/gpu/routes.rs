//! Routes of rows to experts, on the device.

use super::device::{Buffer, Device, STORAGE};
use super::grid::routed_matvec;
use crate::checks::RoutesShape;
use crate::{Phase, Result, TOP_EXPERTS};
use phi3_shaders::Product;
use std::ops::Range;

const _: () = assert!(TOP_EXPERTS == phi3_shaders::TOP_EXPERTS as usize);

/// Routes of a pass, in the layout of route.wgsl.
pub struct Routes {
    /// Capacity in rows.
    pub(crate) capacity: usize,
    pub(crate) experts: usize,
    /// Rows of the last routing.
    pub(crate) routed: usize,
    /// Tiles of the last routing.
    pub(crate) tiles: Vec<Tiles>,
    pub(crate) buffer: Buffer,
}

impl Routes {
    pub(super) fn new(device: &mut Device, rows: usize, experts: usize) -> Result<Self> {
        // weight and expert of each route, and more than each route in a tile of its own
        let words = TOP_EXPERTS * rows * (2 + 2 * (Product::Matmul.tile().0 as usize + 1));
        let buffer = device.buffer("routes to experts", (words * size_of::<u32>()) as u64, STORAGE)?;
        Ok(Self { capacity: rows, experts, routed: 0, tiles: Vec::new(), buffer })
    }

    pub(crate) fn shape(&self) -> RoutesShape {
        RoutesShape { capacity: self.capacity, experts: self.experts, routed: self.routed }
    }
}

/// The tiles of the routes of consecutive rows of a phase.
pub(crate) struct Tiles {
    pub(crate) rows: Range<usize>,
    pub(crate) product: Product,
    /// Routes of a tile.
    pub(crate) size: usize,
    /// Largest possible number of tiles.
    pub(crate) count: usize,
    /// Start of the tiles in the list.
    pub(crate) at: usize,
}

impl Tiles {
    /// The tiles of each run of rows of a phase; the last run ends at the last row.
    pub(crate) fn of(runs: &[(Phase, Range<usize>)], experts: usize) -> Vec<Self> {
        let mut at = 2 * TOP_EXPERTS * runs.last().map_or(0, |(_, rows)| rows.end);
        let of_run = |(phase, rows): &(Phase, Range<usize>)| {
            let product = match phase {
                Phase::Decode => routed_matvec(rows.len()),
                Phase::Prompt => Product::Matmul,
            };
            let (size, routes) = (product.tile().0 as usize, TOP_EXPERTS * rows.len());
            // each expert that has routes may have a tile that is not full
            let count = routes / size + experts.min(routes);
            let tiles = Self { rows: rows.clone(), product, size, count, at };
            at += count * (size + 1);
            tiles
        };
        runs.iter().map(of_run).collect()
    }
}
