use crate::machines::{data, gpu};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Outputs, RopeSet, RowInput, Segment};
use phi3_tensor::gpu::{Gpu, Options, Select};
use phi3_tensor::{Phase, Samples, Sampling};

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

/// After a model is prepared, no pass compiles a kernel: prompts and new tokens, few and many, at the beginning of a text and far
/// into it, and every kind of sampling.
#[test]
fn no_pass_of_a_prepared_model_compiles_a_kernel() {
    if gpu().is_none() {
        return;
    }
    for name in
        ["checkpoints/phi-3-medium-4k", "family/checkpoints/phi-3-small-blocks", "family/checkpoints/phi-tiny-moe"]
    {
        let backend = Gpu::open(&Select::Any, &Options { software: true, ..Options::default() }).unwrap();
        let checkpoint = Checkpoint::open(&data("oracle").join(name)).unwrap();
        let mut model = Decoder::load(backend, &checkpoint, DecoderOptions::default(), &mut |_| {}).unwrap();
        model.prepare().unwrap();
        let prepared = model.backend().counters();
        assert_eq!(prepared.dispatches, 0);
        assert!(prepared.pipelines > 0);
        model.reserve_slots(20).unwrap();

        // rows of each segment, all in one pass
        let passes: [&[(Phase, usize, Outputs)]; 6] = [
            &[(Phase::Prompt, 40, Outputs::Last)],
            &[(Phase::Prompt, 1, Outputs::None), (Phase::Prompt, 300, Outputs::All)],
            &[(Phase::Decode, 1, Outputs::Last)],
            &[(Phase::Decode, 1, Outputs::Last); 5],
            &[(Phase::Decode, 1, Outputs::Last); 17],
            &[(Phase::Decode, 1, Outputs::Last), (Phase::Prompt, 9, Outputs::Last), (Phase::Decode, 3, Outputs::Last)],
        ];
        let positions = model.spec().max_position_embeddings.min(1600);
        let (most, far) = (positions / 4, positions - positions / 4);
        for (position, pass) in [0, far].into_iter().flat_map(|position| passes.map(|pass| (position, pass))) {
            let (mut inputs, mut pages, mut next) = (Vec::new(), Vec::new(), 0);
            for (_, rows, _) in pass {
                let rows = most.min(*rows);
                inputs.push(vec![RowInput::Input(3u32.into()); rows]);
                // pages before the rows may be those of others
                let (first, end) = (position / 16, (position + rows).div_ceil(16));
                let mut of_segment = vec![0; first];
                of_segment.extend((first..end).map(|page| next + (page - first) as u32));
                next += (end - first) as u32;
                pages.push(of_segment);
            }
            let segments: Vec<Segment<'_>> = pass
                .iter()
                .zip(inputs.iter().zip(&pages))
                .map(|(&(phase, _, outputs), (inputs, pages))| Segment {
                    inputs,
                    phase,
                    position,
                    pages,
                    rope: RopeSet::Short,
                    outputs,
                })
                .collect();
            model.forward(&segments, None).unwrap();
            let random = Sampling::Random { temperature: 1.0, top_k: 3, top_p: 0.9, min_p: 0.1, draw: 7 };
            let outputs: usize = segments.iter().map(|segment| segment.outputs.of(0..segment.inputs.len()).len()).sum();
            let rows = [Sampling::Greedy, random].into_iter().cycle().take(outputs.min(20));
            let mut samples = Samples::of(&rows.collect::<Vec<_>>());
            model.sample(&samples).unwrap().wait().unwrap();
            samples.rows[0].logprobs = Some(2);
            model.sample(&samples).unwrap().wait().unwrap();
            assert_eq!(model.backend().counters().pipelines, prepared.pipelines, "{name}, {pass:?} from {position} on");
        }
    }
}
