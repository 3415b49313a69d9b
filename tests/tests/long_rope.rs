use crate::machines::{data, machines, on};
use phi3_model::Checkpoint;
use phi3_runner::verify::logits;
use phi3_runner::{Device, Engine, Event, GenerateOptions, RopePolicy, RopeSet, SamplerOptions};

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(max_tokens),
        sampler: Some(SamplerOptions::default()),
        ignore_eos: true,
        ..GenerateOptions::default()
    }
}

/// Ids of a generation, and its LongRoPE switches: (number of new tokens before it, new set, tokens computed again).
fn generate(engine: &Engine, prompt: &[u32], max_tokens: usize) -> (Vec<u32>, Vec<(usize, RopeSet, usize)>) {
    let (mut ids, mut switches) = (Vec::new(), Vec::new());
    for event in engine.continue_ids(prompt, &options(max_tokens)).unwrap() {
        match event.unwrap() {
            Event::Token { id, .. } => ids.push(id),
            Event::RopeSwitch { set, tokens } => switches.push((ids.len(), set, tokens)),
            _ => {}
        }
    }
    (ids, switches)
}

fn prompt(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 29 + 5) % 384).collect()
}

#[test]
fn crossing_the_border_is_an_event_and_rebuilds_the_cache_once() {
    let folder = data("oracle/checkpoints/phi-3.5-mini");
    for device_options in machines() {
        let engine = Engine::builder().model(&folder).device_options(device_options).build().unwrap();
        // the original context is 32: the 33rd token is fed after seven new ones
        let (ids, switches) = generate(&engine, &prompt(26), 12);
        assert_eq!(switches, [(7, RopeSet::Long, 32)]);
        // after a long text, a short one starts with short factors again
        let (again, switches) = generate(&engine, &prompt(26), 12);
        assert_eq!(ids, again);
        assert_eq!(switches, [(7, RopeSet::Long, 32)]);
        let (_, switches) = generate(&engine, &prompt(40), 3);
        assert!(switches.iter().all(|(at, ..)| *at == 0), "{switches:?}");
    }
}

#[test]
fn other_policies_never_rebuild() {
    let folder = data("oracle/checkpoints/phi-3-mini-128k");
    let run = |policy, max_tokens| {
        let builder = Engine::builder().model(&folder).device_options(on(Device::Cpu)).rope_policy(policy);
        generate(&builder.build().unwrap(), &prompt(26), max_tokens)
    };
    for policy in [RopePolicy::Ahead, RopePolicy::Long, RopePolicy::Short] {
        assert!(run(policy, 12).1.is_empty(), "{policy:?}");
    }
    assert_eq!(run(RopePolicy::Ahead, 12).0, run(RopePolicy::Long, 12).0);
    // six new tokens stay within the original context: `Ahead` then equals `Exact`
    assert_eq!(run(RopePolicy::Ahead, 6).0, run(RopePolicy::Exact, 6).0);
    assert_eq!(run(RopePolicy::Short, 6).0, run(RopePolicy::Exact, 6).0);
}

#[test]
fn policies_differ_where_they_should() {
    let folder = data("oracle/checkpoints/phi-4-mini");
    let mut loaded = on(Device::Cpu).load(&Checkpoint::open(&folder).unwrap(), &mut |_| {}).unwrap();
    let mut of = |len, policy| logits(&mut *loaded.model, &prompt(len), usize::MAX, policy, None).unwrap();
    assert_eq!(of(32, RopePolicy::Exact), of(32, RopePolicy::Short));
    assert_ne!(of(32, RopePolicy::Exact), of(32, RopePolicy::Long));
    assert_eq!(of(33, RopePolicy::Exact), of(33, RopePolicy::Long));
    assert_ne!(of(33, RopePolicy::Exact), of(33, RopePolicy::Short));
}
