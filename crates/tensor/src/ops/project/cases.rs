//! Cases of projections.

use crate::comparison::{Case, Comparison, Random, allowed, flat_as};
use crate::{Activation, Backend, DType, Epilogue, Norm, Phase, Result, Role, Store};
use Phase::{Decode, Prompt};

/// Norm in front of a projection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Normed {
    No,
    Rms,
    Layer,
}

/// Types, shapes, norms, biases and epilogues.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    for dtype in comparison.dtypes.clone() {
        // (phase, rows, inputs, outputs): one new token, a few, many; a few rows of a prompt, a tile and a bit, larger than a tile
        // each way
        let shapes = [
            (Decode, 1, 48usize, 20),
            (Decode, 1, 1027, 37),
            (Decode, 3, 96, 10),
            (Decode, 5, 131, 70),
            (Decode, 33, 65, 34),
            (Prompt, 5, 131, 70),
            (Prompt, 33, 65, 129),
            (Prompt, 70, 200, 36),
            (Prompt, 130, 40, 2),
        ];
        for (phase, rows, inputs, outputs) in shapes {
            // a quantized row is a whole number of blocks
            let inputs = inputs.next_multiple_of(dtype.block().0);
            let mut plans = Vec::new();
            for epilogue in [Epilogue::OVERWRITE, Epilogue::ACCUMULATE, Epilogue::of(Activation::SwiGlu)] {
                for norm in [Normed::Rms, Normed::No] {
                    // combinations that do not depend on the type are tested with the plain types; quantizing takes long
                    if dtype.is_quantized()
                        && (rows % 4 != 1 || (norm == Normed::Rms) == (epilogue == Epilogue::ACCUMULATE))
                    {
                        continue;
                    }
                    plans.push((epilogue, norm, false));
                }
            }
            if dtype == DType::F32 && [1, 5, 70].contains(&rows) {
                let epilogues = Activation::ALL.map(|activation| Epilogue { scale: 0.75, ..Epilogue::of(activation) });
                plans.extend(epilogues.map(|epilogue| (epilogue, Normed::Layer, true)));
                let gated = Epilogue { store: Store::Accumulate, ..Epilogue::of(Activation::SwiGlu) };
                plans.push((gated, Normed::Rms, true));
            } else if rows == 5 && phase == Decode {
                plans.push((Epilogue::of(Activation::SwiGlu), Normed::Rms, true));
                plans.push((Epilogue::ACCUMULATE, Normed::Layer, true));
            }
            for (epilogue, norm, bias) in plans {
                let shape = format!("{phase:?} [{rows}, {inputs}] x [{outputs}, {inputs}]");
                let case = format!("project {dtype} {shape} {epilogue:?} {norm:?} bias {bias}");
                let plan = Projection { dtype, phase, rows, inputs, outputs, epilogue, norm, bias };
                comparison.case(case, &plan, |size| allowed(inputs, size))?;
            }
        }
    }
    Ok(())
}

struct Projection {
    dtype: DType,
    phase: Phase,
    rows: usize,
    inputs: usize,
    outputs: usize,
    epilogue: Epilogue,
    norm: Normed,
    bias: bool,
}

impl Case for Projection {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { dtype, phase, rows, inputs, outputs, epilogue, norm, bias } = *self;
        let mut random = Random(inputs as u64 * 1000 + outputs as u64);
        let gated = epilogue.activation.is_gated();
        let role = if gated { Role::GateUp } else { Role::Plain };
        let weight_rows = if gated { 2 * outputs } else { outputs };
        let mut weight = random.weight("weight", dtype, weight_rows, inputs, 0.2);
        if bias {
            weight = weight.with_bias(random.vector(weight_rows, 2.0))?;
        }
        let weight = b.matrix(&weight, role)?;
        let gain = b.vector("norm", &random.vector(inputs, 1.5))?;
        let shift = b.vector("norm", &random.vector(inputs, 0.7))?;
        let norm = match norm {
            Normed::No => None,
            Normed::Rms => Some(Norm::Rms { weight: &gain, eps: 3e-3 }),
            Normed::Layer => Some(Norm::Layer { weight: &gain, bias: &shift, eps: 3e-3 }),
        };
        let capacity = rows + 3;
        let mut x = b.rows("x", capacity, inputs)?;
        let mut y = b.rows("y", capacity, outputs)?;
        b.begin(&flat_as(phase, &vec![0; rows], &[])?)?;
        b.write(&mut x, 0, &random.vector(rows * inputs, 1.0))?;
        b.write(&mut y, 0, &random.vector(rows * outputs, 9.0))?;
        b.project(&x, norm, &weight, epilogue, &mut y)?;
        let mut out = vec![0.0; rows * outputs];
        b.read(&y, &mut out)?;
        Ok(out)
    }
}
