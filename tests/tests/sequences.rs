//! Misuse of sequences: those of another session.

use crate::machines::{data, machines};
use phi3_model::{
    Checkpoint, Error, Input, Model, Outputs, PrefillOptions, RopePolicy, Sequence, SequenceRows, Session,
};
use phi3_runner::DeviceOptions;
use std::ops::ControlFlow;

fn model(device_options: &DeviceOptions, name: &str) -> Box<dyn Model> {
    let checkpoint = Checkpoint::open(&data("oracle/checkpoints").join(name)).unwrap();
    device_options.load(&checkpoint, &mut |_| {}).unwrap().model
}

fn forward(session: &mut Session<'_>, sequence: &mut Sequence, tokens: &[u32]) -> phi3_model::Result<Vec<f32>> {
    let mut logits = Vec::new();
    let inputs: Vec<Input> = tokens.iter().map(Input::from).collect();
    session.forward(&mut [SequenceRows { sequence, inputs: &inputs, outputs: Outputs::Last }], &mut logits, None)?;
    Ok(logits)
}

#[track_caller]
fn refused<T>(call: &str, words: &str, result: phi3_model::Result<T>) {
    let Err(error) = result else { panic!("{call}: {words}: no error") };
    assert!(matches!(error, Error::Sequence { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with(call) && text.contains(words) && text.contains("; hint: "), "{text}");
}

#[test]
fn a_sequence_of_another_session_is_refused() {
    for device_options in machines() {
        // of the same checkpoint, and of another one
        for name in ["phi-3-medium-4k", "phi-4"] {
            let (mut ours, mut other) = (model(&device_options, "phi-3-medium-4k"), model(&device_options, name));
            let (mut ours, mut other) = (Session::new(&mut *ours), Session::new(&mut *other));
            let (mut mine, mut strange) = (ours.sequence(), other.sequence());
            forward(&mut ours, &mut mine, &[3, 1, 4]).unwrap();
            forward(&mut other, &mut strange, &[2, 7, 1, 8]).unwrap();
            let (bytes, held) = (ours.cache_bytes(), strange.inputs().to_vec());

            let another = "another session";
            refused("forward", another, forward(&mut ours, &mut strange, &[5]));
            let mut logits = Vec::new();
            let feed = |sequence| SequenceRows { sequence, inputs: &[Input::Token(5)], outputs: Outputs::None };
            refused("forward", another, ours.forward(&mut [feed(&mut mine), feed(&mut strange)], &mut logits, None));
            let options = PrefillOptions { chunk: 8, policy: RopePolicy::Long, budget: 0, outputs: Outputs::Last };
            let watch = &mut |_| ControlFlow::Continue(());
            refused("prefill", another, ours.prefill(&mut strange, &[5u32], options, &mut logits, None, watch));

            // all sequences are unchanged
            assert_eq!((ours.cache_bytes(), strange.inputs()), (bytes, &held[..]));
            assert_eq!(mine.inputs(), [3u32, 1, 4]);
            let mut fresh = other.sequence();
            let want = forward(&mut other, &mut fresh, &[2, 7, 1, 8, 5]).unwrap();
            let got = forward(&mut other, &mut strange, &[5]).unwrap();
            assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-3));
            // a sequence that outlives its session is still refused by another one
            drop(other);
            refused("forward", another, forward(&mut ours, &mut strange, &[5]));
        }
    }
}
