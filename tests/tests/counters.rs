use crate::machines::{data, gpu};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Outputs, RopeSet, RowInput, Segment};
use phi3_tensor::Phase;
use phi3_tensor::gpu::{Gpu, Options, Select};

/// A decoded token is one submit of five dispatches per layer and two more. No GPU object is created for it.
#[test]
fn a_decoded_token_is_one_submit_and_allocates_nothing() {
    if gpu().is_none() {
        return;
    }
    let backend = Gpu::open(&Select::Any, &Options { software: true, ..Options::default() }).unwrap();
    let checkpoint = Checkpoint::open(&data("oracle/checkpoints/phi-3-medium-4k")).unwrap();
    let mut model = Decoder::load(backend, &checkpoint, DecoderOptions::default(), &mut |_| {}).unwrap();
    let mut position = 0;
    let mut feed = |model: &mut Decoder<Gpu>, tokens: &[u32]| {
        let inputs: Vec<RowInput> = tokens.iter().map(|token| RowInput::Input(token.into())).collect();
        let (rope, outputs) = (RopeSet::Short, Outputs::Last);
        model
            .forward(
                &[Segment { inputs: &inputs, phase: Phase::of(inputs.len()), position, pages: &[0, 1], rope, outputs }],
                None,
            )
            .unwrap();
        model.logits(0..1).unwrap().wait().unwrap();
        position += tokens.len();
    };
    feed(&mut model, &[3, 1, 4, 1, 5]);
    // the first token creates the decode pipelines and bind groups
    feed(&mut model, &[9]);
    for token in 0..20 {
        let before = model.backend().counters();
        feed(&mut model, &[token]);
        let after = model.backend().counters();
        assert_eq!(after.submits - before.submits, 1);
        assert_eq!(after.dispatches - before.dispatches, 5 * 4 + 2);
        assert_eq!(
            (after.bind_groups, after.pipelines, after.buffers),
            (before.bind_groups, before.pipelines, before.buffers)
        );
    }
}
