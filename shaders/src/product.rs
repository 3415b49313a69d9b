//! Kernels for matrix products of activations and weights.

use crate::{NO_ROUTE, Part, Tier};

/// Matrix units of a device: products of square f16 matrices, summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoopMatrix {
    /// Rows and columns of a matrix: 8 or 16.
    pub side: u32,
    /// Subgroup size, which must be fixed.
    pub subgroup_size: u32,
}

impl CoopMatrix {
    /// Every kind with kernels. Of two kinds with the same subgroup size, the preferred one comes last.
    pub const ALL: [CoopMatrix; 8] = [
        CoopMatrix { side: 8, subgroup_size: 8 },
        CoopMatrix { side: 16, subgroup_size: 8 },
        CoopMatrix { side: 8, subgroup_size: 16 },
        CoopMatrix { side: 16, subgroup_size: 16 },
        CoopMatrix { side: 8, subgroup_size: 32 },
        CoopMatrix { side: 16, subgroup_size: 32 },
        CoopMatrix { side: 8, subgroup_size: 64 },
        CoopMatrix { side: 16, subgroup_size: 64 },
    ];
}

/// Precision of the activations and weights of products in half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// One f16 per number.
    Half,
    /// Sum of two f16 per number, which is as accurate as single precision.
    TwoHalves,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 2] = [Precision::Half, Precision::TwoHalves];

    pub(crate) fn constants(self) -> [(&'static str, u32); 2] {
        match self {
            // the sum of four products of numbers below 2^TOP and weights below 1024 fits f16
            Precision::Half => [("EXACT", 0), ("TOP", 3)],
            Precision::TwoHalves => [("EXACT", 1), ("TOP", 14)],
        }
    }
}

/// Kernel for a matrix product of activations and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// One row, in single precision.
    Matvec,
    /// Rows four at a time; each has the same bits as by [`Product::Matvec`].
    Matvec4,
    /// Rows sixteen at a time; each has the same bits as by [`Product::Matvec`].
    Matvec16,
    /// Many rows, tiled, in single precision.
    Matmul,
    /// Many rows, tiled, in half precision.
    MatmulHalves,
    /// Many rows, on matrix units.
    MatmulCoop {
        /// Matrix units.
        matrix: CoopMatrix,
        /// Matrices per subgroup along each axis.
        high: u32,
        /// Precision of activations and weights.
        precision: Precision,
    },
}

/// Rows of a product, and the part of the weight for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowMap {
    /// All rows, with the whole weight.
    Direct,
    /// Rows grouped by expert, with the expert's part of the weight, as listed by [`Op::Route`](crate::Op::Route).
    Routed {
        /// Number of routes that share one row of the activations.
        share: u32,
    },
}

impl RowMap {
    /// Name and source; the name of [`RowMap::Direct`] is empty.
    pub(crate) fn part(self) -> Part {
        match self {
            RowMap::Direct => ("", include_str!("../rows/direct.wgsl")),
            RowMap::Routed { share: 1 } => ("routed", include_str!("../rows/routed.wgsl")),
            RowMap::Routed { .. } => ("routed_shared", include_str!("../rows/routed.wgsl")),
        }
    }

    pub(crate) fn constants(self) -> Vec<(&'static str, u32)> {
        match self {
            RowMap::Direct => Vec::new(),
            RowMap::Routed { share } => vec![("SHARE", share), ("NO_ROUTE", NO_ROUTE)],
        }
    }
}

/// Independent accumulators in the kernels that measure the arithmetic rate.
pub const CHAINS: u32 = 8;

/// Weights along k in a tile of the matrix-unit kernel.
const DEPTH: u32 = 32;

impl Product {
    /// Kernels that a tier adds to the next lower one.
    pub fn all(tier: Tier) -> Vec<Product> {
        match tier {
            Tier::Base => vec![Product::Matvec, Product::Matvec4, Product::Matvec16, Product::Matmul],
            Tier::F16 => vec![Product::MatmulHalves],
            Tier::Subgroup => vec![Product::Matvec, Product::Matvec4, Product::Matvec16],
            Tier::Coop => CoopMatrix::ALL
                .into_iter()
                .flat_map(|matrix| {
                    [(2, Precision::Half), (4, Precision::Half), (2, Precision::TwoHalves)]
                        .map(|(high, precision)| Product::MatmulCoop { matrix, high, precision })
                })
                .collect(),
        }
    }

    /// This kernel, and those that take its place for other numbers of rows.
    pub(crate) fn siblings(self, rows: RowMap) -> Vec<Product> {
        match (self, rows) {
            (Product::Matvec | Product::Matvec4 | Product::Matvec16, RowMap::Direct) => {
                vec![Product::Matvec, Product::Matvec4, Product::Matvec16]
            }
            (Product::Matvec | Product::Matvec4, RowMap::Routed { .. }) => vec![Product::Matvec, Product::Matvec4],
            (Product::MatmulCoop { matrix, precision: Precision::Half, .. }, _) => {
                [2, 4].map(|high| Product::MatmulCoop { matrix, high, precision: Precision::Half }).to_vec()
            }
            (other, _) => vec![other],
        }
    }

    /// Rows and outputs per workgroup.
    pub const fn tile(self) -> (u32, u32) {
        match self {
            Product::Matvec => (1, 4),
            Product::Matvec4 => (4, 4),
            Product::Matvec16 => (16, 4),
            Product::Matmul | Product::MatmulHalves => (32, 64),
            Product::MatmulCoop { matrix, high, .. } => (2 * high * matrix.side, 2 * high * matrix.side),
        }
    }

    /// Precision of the f16 activations that the kernel takes from [`Op::Halve`](crate::Op::Halve); `None` if it takes f32.
    pub const fn halves(self) -> Option<Precision> {
        match self {
            Product::Matvec | Product::Matvec4 | Product::Matvec16 | Product::Matmul => None,
            Product::MatmulHalves => Some(Precision::Half),
            Product::MatmulCoop { precision, .. } => Some(precision),
        }
    }

    pub(crate) fn part(self) -> Part {
        match self {
            Product::Matvec => ("matvec", include_str!("../kernels/matvec.wgsl")),
            Product::Matvec4 => ("matvec4", include_str!("../kernels/matvec.wgsl")),
            Product::Matvec16 => ("matvec16", include_str!("../kernels/matvec.wgsl")),
            Product::Matmul => ("matmul", include_str!("../kernels/matmul.wgsl")),
            Product::MatmulHalves => ("matmul_halves", include_str!("../kernels/matmul_halves.wgsl")),
            Product::MatmulCoop { .. } => ("matmul_coop", include_str!("../kernels/matmul_coop.wgsl")),
        }
    }

    pub(crate) fn constants(self) -> Vec<(&'static str, u32)> {
        let (rows, outputs) = self.tile();
        let mut constants = vec![("TILE_ROWS", rows), ("TILE_OUTPUTS", outputs)];
        if let Product::MatmulCoop { matrix, high, precision } = self {
            constants.extend([("SIDE", matrix.side), ("THREADS", 4 * matrix.subgroup_size), ("HIGH", high)]);
            constants.extend([("DEPTH", DEPTH), ("STEPS", DEPTH / matrix.side)]);
            constants.extend(precision.constants());
        }
        constants
    }
}
