//! `phi3-run devices`

use super::args::Devices;
use super::output::{self, Outcome};
use phi3_runner::Result;

pub(super) fn devices(_args: &Devices) -> Result<Outcome> {
    output::print("")?;
    Ok(Outcome::Done)
}
