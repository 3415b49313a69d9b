//! Grids of products.

use super::recorder::folded;
use phi3_shaders::Product;

/// Largest number of rows for which reading a weight once per four rows is faster than tiles.
pub(super) const FEW_ROWS: usize = 8;

/// Whether a product of `rows` rows takes the kernels for few rows.
pub(super) fn is_few(rows: usize) -> bool {
    rows <= FEW_ROWS
}

/// Workgroups of a product: outputs and rows in tiles.
pub(crate) fn grid(product: Product, rows: usize, outputs: usize) -> [u32; 3] {
    let (tile_rows, tile_outputs) = product.tile();
    let rows = (rows as u32).div_ceil(tile_rows);
    let outputs = (outputs as u32).div_ceil(tile_outputs);
    match product {
        Product::Matvec | Product::Matvec4 => {
            let [x, y, _] = folded(outputs as usize);
            [x, y, rows]
        }
        Product::Matmul | Product::MatmulHalves | Product::MatmulCoop { .. } => [outputs, rows, 1],
    }
}
