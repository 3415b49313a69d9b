//! Misuse of sequences: those of another model, and one in place of another of the same model.

use crate::machines::{data, machines};
use phi3_model::{
    Checkpoint, Error, Input, Model, Outputs, PrefillOptions, RopePolicy, Sequence, SequenceRows, prefill,
};
use phi3_runner::DeviceOptions;
use phi3_tensor::{Batch, Sampling};
use std::ops::ControlFlow;

fn model(device_options: &DeviceOptions, name: &str) -> Box<dyn Model> {
    let checkpoint = Checkpoint::open(&data("oracle/checkpoints").join(name)).unwrap();
    device_options.load(&checkpoint, &mut |_| {}).unwrap().model
}

fn forward(model: &mut dyn Model, sequence: &mut Sequence, tokens: &[u32]) -> phi3_model::Result<Vec<f32>> {
    let mut logits = Vec::new();
    let inputs: Vec<Input> = tokens.iter().map(Input::from).collect();
    model.forward(&mut [SequenceRows { sequence, inputs: &inputs, outputs: Outputs::Last }], &mut logits, None)?;
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
fn a_sequence_of_another_model_is_refused() {
    for device_options in machines() {
        // of the same checkpoint, and of another one
        for name in ["phi-3-medium-4k", "phi-4"] {
            let (mut ours, mut other) = (model(&device_options, "phi-3-medium-4k"), model(&device_options, name));
            let (mut mine, mut strange) = (ours.sequence(), other.sequence());
            forward(&mut *ours, &mut mine, &[3, 1, 4]).unwrap();
            forward(&mut *other, &mut strange, &[2, 7, 1, 8]).unwrap();
            assert!(ours.owns(&mine) && !ours.owns(&strange) && !other.owns(&mine));
            let (bytes, held) = (ours.cache_bytes(), strange.inputs().to_vec());

            let another = "another model";
            refused("forward", another, forward(&mut *ours, &mut strange, &[5]));
            refused("prepare", another, ours.prepare(&strange, 100));
            let mut logits = Vec::new();
            let feed = |sequence| SequenceRows { sequence, inputs: &[Input::Token(5)], outputs: Outputs::None };
            refused("forward", another, ours.forward(&mut [feed(&mut mine), feed(&mut strange)], &mut logits, None));
            let options = PrefillOptions { chunk: 8, policy: RopePolicy::Long, budget: 0, outputs: Outputs::Last };
            let watch = &mut |_| ControlFlow::Continue(());
            refused("prefill", another, prefill(&mut *ours, &mut strange, &[5u32], options, &mut logits, None, watch));
            if ours.pipeline_depth() > 0 {
                refused("submit", another, ours.submit(&mut strange, Some(5), Sampling::Greedy));
                refused("wait", another, ours.wait(&mut strange));
            }

            // all sequences are unchanged
            assert_eq!((ours.cache_bytes(), strange.inputs()), (bytes, &held[..]));
            assert_eq!(mine.inputs(), [3u32, 1, 4]);
            let mut fresh = other.sequence();
            let want = forward(&mut *other, &mut fresh, &[2, 7, 1, 8, 5]).unwrap();
            let got = forward(&mut *other, &mut strange, &[5]).unwrap();
            assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-3));
            // a sequence that outlives its model is still refused by another one
            drop(other);
            refused("forward", another, forward(&mut *ours, &mut strange, &[5]));
        }
    }
}

#[test]
fn tokens_land_in_the_sequence_that_was_launched() {
    for device_options in machines() {
        let mut model = model(&device_options, "phi-3-medium-4k");
        if model.pipeline_depth() == 0 {
            let mut sequence = model.sequence();
            assert!(model.submit(&mut sequence, Some(9), Sampling::Greedy).is_err());
            refused("wait", "no pass is under way", model.wait(&mut sequence));
            model.discard().unwrap();
            continue;
        }
        // tokens of each sequence alone
        let mut alone = |first: u32| {
            let mut sequence = model.sequence();
            let mut tokens = vec![first];
            for _ in 0..3 {
                model.submit(&mut sequence, tokens.last().copied(), Sampling::Greedy).unwrap();
                tokens.push(model.wait(&mut sequence).unwrap());
            }
            tokens
        };
        let (want_a, want_b) = (alone(9), alone(14));
        assert_ne!(want_a[1..], want_b[1..]);

        let (mut a, mut b) = (model.sequence(), model.sequence());
        refused("wait", "no pass is under way", model.wait(&mut a));
        refused("submit", "no token is given", model.submit(&mut a, None, Sampling::Greedy));
        model.submit(&mut a, Some(9), Sampling::Greedy).unwrap();
        model.submit(&mut a, None, Sampling::Greedy).unwrap();
        // the token on the device belongs to the other sequence
        refused("submit", "no token is given", model.submit(&mut b, None, Sampling::Greedy));
        model.submit(&mut b, Some(14), Sampling::Greedy).unwrap();
        refused("submit", "no token is given", model.submit(&mut a, None, Sampling::Greedy));
        // swapped
        refused("wait", "another sequence's", model.wait(&mut b));
        assert!(b.inputs() == [14u32] && model.in_flight() == 3);
        refused("forward", "under way", forward(&mut *model, &mut a, &[5]));

        assert_eq!(model.wait(&mut a).unwrap(), want_a[1]);
        assert_eq!(a.inputs(), &want_a[..2]);
        refused("wait", "another sequence's", model.wait(&mut b));
        assert_eq!(model.wait(&mut a).unwrap(), want_a[2]);
        refused("wait", "another sequence's", model.wait(&mut a));
        assert_eq!(model.wait(&mut b).unwrap(), want_b[1]);
        model.submit(&mut a, Some(want_a[2]), Sampling::Greedy).unwrap();
        assert_eq!(model.wait(&mut a).unwrap(), want_a[3]);

        // a sequence truncated during its passes, and a dropped one
        model.submit(&mut b, Some(want_b[1]), Sampling::Greedy).unwrap();
        model.submit(&mut b, None, Sampling::Greedy).unwrap();
        b.truncate(1, None);
        refused("submit", "cut", model.submit(&mut b, Some(want_b[1]), Sampling::Greedy));
        drop(b);
        assert_eq!(model.in_flight(), 2);
        model.discard().unwrap();
        assert_eq!(model.in_flight(), 0);
        assert!(a.inputs().iter().all(|input| input.token() < Some(Batch::SAMPLED)));
        forward(&mut *model, &mut a, &[5]).unwrap();
    }
}
