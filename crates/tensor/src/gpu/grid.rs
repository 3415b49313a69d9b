//! Grids of products.

use super::recorder::folded;
use phi3_shaders::Product;

/// Largest number of rows for which reading a weight once per four rows is faster than once per sixteen, and of routes for which
/// reading it for each is.
const FEW_ROWS: usize = 8;

/// The kernel of new tokens for a number of rows, which does not change their bits.
pub(crate) fn matvec(rows: usize) -> Product {
    match rows {
        0..=1 => Product::Matvec,
        2..=FEW_ROWS => Product::Matvec4,
        _ => Product::Matvec16,
    }
}

/// As [`matvec`], for rows of experts.
pub(crate) fn routed_matvec(rows: usize) -> Product {
    if rows <= FEW_ROWS { Product::Matvec } else { Product::Matvec4 }
}

/// Workgroups of a product: outputs and rows in tiles.
pub(crate) fn grid(product: Product, rows: usize, outputs: usize) -> [u32; 3] {
    let (tile_rows, tile_outputs) = product.tile();
    let rows = (rows as u32).div_ceil(tile_rows);
    let outputs = (outputs as u32).div_ceil(tile_outputs);
    match product {
        Product::Matvec | Product::Matvec4 | Product::Matvec16 => {
            let [x, y, _] = folded(outputs as usize);
            [x, y, rows]
        }
        Product::Matmul | Product::MatmulHalves | Product::MatmulCoop { .. } => [outputs, rows, 1],
    }
}
