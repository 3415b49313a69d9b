//! How products of activations and weights are computed.

use crate::{NO_ROUTE, Part, Tier};

/// Cooperative matrices of a device (matrix units, tensor cores): products of square matrices of halves by a subgroup, summed in
/// single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoopMatrix {
    /// Rows of a matrix: 8 or 16.
    pub side: u32,
    /// Threads of every subgroup.
    pub subgroup_size: u32,
}

impl CoopMatrix {
    /// Every kind that there are kernels for; of two with the same size of subgroups, the better last.
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

/// How exactly activations and weights are multiplied, where they are not in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As halves.
    Half,
    /// Each as a sum of two halves, which is as good as single precision.
    TwoHalves,
}

impl Precision {
    /// Every precision, for tests that walk them.
    pub const ALL: [Precision; 2] = [Precision::Half, Precision::TwoHalves];

    pub(crate) fn constants(self) -> [(&'static str, u32); 2] {
        match self {
            // a product of four such numbers and weights below 1024 is a half still
            Precision::Half => [("EXACT", 0), ("TOP", 3)],
            Precision::TwoHalves => [("EXACT", 1), ("TOP", 14)],
        }
    }
}

/// How a product of activations and weights is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// One row.
    Matvec,
    /// Few rows.
    Matvec4,
    /// Many rows, by tiles.
    Matmul,
    /// Many rows, by tiles of halves.
    MatmulHalves,
    /// Many rows, by matrix units.
    MatmulCoop {
        /// The matrices.
        matrix: CoopMatrix,
        /// Matrices of a subgroup along either axis.
        high: u32,
        /// How exact.
        precision: Precision,
    },
}

/// Which rows a product takes, and which weights for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowMap {
    /// All, with the whole weight.
    Direct,
    /// Those of each expert with its part of the weight, as [`Op::Route`](crate::Op::Route) lists them.
    Routed {
        /// Routes that have one row of the activations.
        share: u32,
    },
}

impl RowMap {
    /// Name and text; that of [`RowMap::Direct`] has no name.
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

/// Sums that depend on nothing but themselves, in the kernels that measure arithmetic.
pub const CHAINS: u32 = 8;

/// Weights along k in a tile for matrix units.
const DEPTH: u32 = 32;

impl Product {
    /// Every product of a tier above the one before, for tests that walk them.
    pub fn all(tier: Tier) -> Vec<Product> {
        match tier {
            Tier::Base => vec![Product::Matvec, Product::Matvec4, Product::Matmul],
            Tier::F16 => vec![Product::MatmulHalves],
            Tier::Subgroup => vec![Product::Matvec, Product::Matvec4],
            Tier::Coop => CoopMatrix::ALL
                .into_iter()
                .flat_map(|matrix| {
                    [(2, Precision::Half), (4, Precision::Half), (2, Precision::TwoHalves)]
                        .map(|(high, precision)| Product::MatmulCoop { matrix, high, precision })
                })
                .collect(),
        }
    }

    /// Rows and outputs of one workgroup.
    pub const fn tile(self) -> (u32, u32) {
        match self {
            Product::Matvec => (1, 4),
            Product::Matvec4 => (4, 4),
            Product::Matmul | Product::MatmulHalves => (32, 64),
            Product::MatmulCoop { matrix, high, .. } => (2 * high * matrix.side, 2 * high * matrix.side),
        }
    }

    /// Whether activations are what [`Op::Halve`](crate::Op::Halve) makes of them, and how exact.
    pub const fn halves(self) -> Option<Precision> {
        match self {
            Product::Matvec | Product::Matvec4 | Product::Matmul => None,
            Product::MatmulHalves => Some(Precision::Half),
            Product::MatmulCoop { precision, .. } => Some(precision),
        }
    }

    pub(crate) fn part(self) -> Part {
        match self {
            Product::Matvec => ("matvec", include_str!("../kernels/matvec.wgsl")),
            Product::Matvec4 => ("matvec4", include_str!("../kernels/matvec.wgsl")),
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
