//! Embedding: `out[r] = scale * table[tokens[r]]`.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
mod reference;

use crate::checks::{ActivePass, Shape, at_most, same};
use crate::{Batch, Device, Error, Result, Role, Timed};

/// The operation `embed`.
pub trait Embed: Device {
    /// `out[r] = scale * table[tokens[r]]`; the table is `[vocab, dim]`, out `[rows, dim]`. A bias of the table counts for
    /// projections only.
    ///
    /// # Errors
    ///
    /// [`Error::Role`] where the table is neither plain nor an embedding, [`Error::Mismatch`] where widths differ, a token is
    /// no row of the table, or a sampled token's slot does not exist.
    fn embed(&mut self, table: &Self::Matrix, scale: f32, out: &mut Self::Rows) -> Result<()>;
}

impl ActivePass {
    /// Arguments of [`Embed::embed`] on a device with `slots` slots of sampled tokens.
    pub(crate) fn embed(&self, table: Shape, role: Role, slots: usize, out: Shape) -> Result<()> {
        const OP: &str = "embed";
        if !matches!(role, Role::Plain | Role::Embedding) {
            return Err(Error::Role { op: OP, expected: "plain or embedding", found: role.name() });
        }
        same(OP, "output width", table.cols, out.cols)?;
        at_most(OP, "largest token", table.rows.saturating_sub(1), self.batch.token_bound().saturating_sub(1))?;
        at_most(OP, "slots of sampled tokens", slots, self.batch.sampled_bound())?;
        self.all_rows(OP)?;
        self.capacity(OP, out)
    }
}

/// Row of the table for a token: where it is a slot, the token that was sampled into it. `None` where no token was sampled, or the
/// table has no such row.
pub(crate) fn row_of(token: u32, sampled: &[u32], table: Shape) -> Option<usize> {
    let token = match token.checked_sub(Batch::SAMPLED) {
        Some(slot) => *sampled.get(slot as usize)?,
        None => token,
    };
    Some(token as usize).filter(|row| *row < table.rows)
}

impl<D: Embed> Embed for Timed<D> {
    fn embed(&mut self, table: &Self::Matrix, scale: f32, out: &mut D::Rows) -> Result<()> {
        self.inner.embed(&table.inner, scale, out)?;
        self.lap_of("embed", None)
    }
}
