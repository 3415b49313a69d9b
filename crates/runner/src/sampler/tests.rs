use super::*;

type Change = fn(&mut SamplerOptions);

fn sampler(change: impl FnOnce(&mut SamplerOptions)) -> Sampler {
    let mut options = SamplerOptions { temperature: 1.0, ..SamplerOptions::default() };
    change(&mut options);
    Sampler::new(options).unwrap()
}

/// The tokens that can be chosen.
fn kept(sampler: &Sampler, logits: &[f32]) -> Vec<usize> {
    let probabilities = sampler.probabilities(&[], 0, logits).unwrap();
    (0..logits.len()).filter(|&i| probabilities[i] > 0.0).collect()
}

#[test]
fn choices_follow_the_probabilities() {
    let logits = [0.5, -1.0, 2.0, 1.5, 0.0, -3.0, 1.0];
    let mut sampler = sampler(|o| (o.temperature, o.top_k, o.top_p, o.seed) = (0.9, 6, 0.95, 7));
    let expected = sampler.probabilities(&[], 0, &logits).unwrap();
    let draws = 200_000;
    let mut counts = [0u32; 7];
    for index in 0..draws {
        counts[sampler.sample(&[], index, &logits).unwrap() as usize] += 1;
    }
    for (count, p) in counts.iter().zip(expected) {
        let (n, p) = (draws as f64, f64::from(p));
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!((f64::from(*count) - n * p).abs() <= 5.0 * sigma, "{count} of {n} for {p}");
    }
}

#[test]
fn seeds_repeat_in_any_order() {
    let draw = |seed| {
        let mut sampler = sampler(|o| o.seed = seed);
        (0..32).map(|index| sampler.sample(&[], index, &[0.0; 100]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let mut backwards = sampler(|o| o.seed = 1);
    for index in (0..32).rev() {
        assert_eq!(backwards.sample(&[], index, &[0.0; 100]).unwrap(), draw(1)[index]);
    }
}

/// Choices of earlier versions for a seed.
#[test]
fn seeds_keep_their_choices() {
    let mut sampler = sampler(|o| (o.temperature, o.top_k, o.top_p, o.min_p, o.seed) = (0.8, 50, 0.95, 0.01, 42));
    let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 101) as f32 / 25.0).collect();
    let chosen: Vec<u32> = (0..12).map(|index| sampler.sample(&[], index, &logits).unwrap()).collect();
    assert_eq!(chosen, [76, 19, 30, 35, 5, 87, 24, 79, 32, 60, 21, 49]);
    assert!(sampler.is_on_device());
    let draw = (draw(42, Stream::Token, 3) >> 32) as u32;
    let expected = Sampling::Random { temperature: 0.8, top_k: 50, top_p: 0.95, min_p: 0.01, draw };
    assert_eq!(sampler.sampling(3), expected);
}

#[test]
fn greedy_takes_the_first_of_equals_and_still_penalises() {
    let mut greedy = Sampler::new(SamplerOptions::default()).unwrap();
    assert!(greedy.is_on_device());
    assert_eq!(greedy.sample(&[], 0, &[0.0, 2.0, 2.0]), Ok(1));
    let mut greedy = Sampler::new(SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() }).unwrap();
    assert!(greedy.is_on_device() && greedy.uses_past());
    assert_eq!(greedy.sample(&[1, 1, 9999], 0, &[0.0, 2.0, 1.5]), Ok(2));
    let mut logits = [4.0, -4.0, 1.0];
    greedy.process(&[0, 1, 0], 0, &mut logits).unwrap();
    assert_eq!(logits, [2.0, -8.0, 1.0]);
}

#[test]
fn presence_and_frequency_count_the_text() {
    let mut sampler = sampler(|o| (o.repetition_penalty, o.presence_penalty, o.frequency_penalty) = (2.0, 0.5, 0.25));
    for _ in 0..2 {
        let mut logits = [4.0, -4.0, 1.0, 0.0];
        sampler.process(&[0, 1, 0, 0, 7], 0, &mut logits).unwrap();
        assert_eq!(logits, [2.0 - 0.5 - 0.75, -8.0 - 0.5 - 0.25, 1.0, 0.0]);
        sampler.sample(&[0, 1, 0, 0, 7], 0, &logits).unwrap();
    }
    let negative = self::sampler(|o| o.presence_penalty = -1.0);
    let mut logits = [0.0, 0.0];
    negative.process(&[1], 0, &mut logits).unwrap();
    assert_eq!(logits, [0.0, 1.0]);
}

#[test]
fn biases_are_added_and_ban() {
    let biased = |logit_bias: &[(u32, f32)]| {
        let logit_bias = logit_bias.to_vec();
        Sampler::new(SamplerOptions { logit_bias, ..SamplerOptions::default() }).unwrap()
    };
    let mut sampler = biased(&[(1, f32::NEG_INFINITY), (2, 1.5), (2, 1.0)]);
    let mut edits = Vec::new();
    sampler.edits(&[], &mut edits);
    assert_eq!(
        edits.iter().map(|edit| (edit.token, edit.bias)).collect::<Vec<_>>(),
        [(1, f32::NEG_INFINITY), (2, 2.5)]
    );
    assert!(sampler.is_on_device() && !sampler.uses_past());
    assert_eq!(sampler.sample(&[], 0, &[2.0, 9.0, 0.0]), Ok(2));
    let mut logits = [2.0, 9.0, 0.0];
    sampler.process(&[], 0, &mut logits).unwrap();
    assert_eq!(logits, [2.0, f32::NEG_INFINITY, 2.5]);
    let banned = biased(&[(0, f32::NEG_INFINITY), (0, 3.0)]).sample(&[], 0, &[1.0]);
    assert_eq!(banned, Err(SamplerError::AllBanned));
    let unknown = biased(&[(3, 1.0)]).sample(&[], 0, &[1.0; 3]);
    assert_eq!(unknown, Err(SamplerError::BiasedToken { vocabulary: 3, token: 3 }));
    assert_eq!(biased(&[(0, f32::MIN), (1, f32::MAX)]).sample(&[], 0, &[f32::MIN, f32::MAX]), Ok(1));
}

#[test]
fn ties_at_the_edge() {
    let mut logits = [1.0, 3.0, 1.0, 0.0];
    sampler(|o| o.top_k = 2).process(&[], 0, &mut logits).unwrap();
    assert_eq!(logits, [1.0, 3.0, 1.0, f32::NEG_INFINITY]);
    let top_p = |top_p| kept(&sampler(|o| o.top_p = top_p), &[0.0; 4]);
    assert_eq!(top_p(0.6), [0, 1, 2]);
    assert_eq!(top_p(1e-9), [0]);
    assert_eq!(kept(&sampler(|o| o.typical_p = 0.5), &[0.0; 4]), [0, 1, 2, 3]);
    let certain = sampler(|o| (o.xtc_probability, o.xtc_threshold) = (1.0, 0.1));
    assert_eq!(kept(&certain, &[0.0; 4]), [3]);
    assert_eq!(kept(&certain, &[3.0, 2.0, 1.0, -9.0]), [1, 2, 3]);
}

#[test]
fn xtc_is_applied_as_often_as_its_probability() {
    let sampler = sampler(|o| (o.xtc_probability, o.seed) = (0.3, 5));
    let removed =
        (0..10_000).filter(|&index| sampler.probabilities(&[], index, &[1.0, 0.0]).unwrap()[0] == 0.0).count();
    assert!((2_850..3_150).contains(&removed), "{removed}");
    assert!(!sampler.is_on_device());
}

#[test]
fn the_order_matters() {
    use SamplerKind::{MinP, Temperature};
    let ordered =
        |samplers: &[SamplerKind]| sampler(|o| (o.temperature, o.min_p, o.samplers) = (4.0, 0.4, samplers.to_vec()));
    let logits = [2.0, 1.0, -3.0];
    assert_eq!(kept(&ordered(&[Temperature, MinP]), &logits), [0, 1]);
    assert_eq!(kept(&ordered(&[MinP, Temperature]), &logits), [0]);
    assert_eq!(kept(&ordered(&[Temperature]), &logits), [0, 1, 2]);
    assert!(ordered(&[Temperature, MinP]).is_on_device());
    assert!(!ordered(&[MinP, Temperature]).is_on_device());
    let Sampling::Random { temperature, min_p, .. } = ordered(&[MinP]).sampling(0) else { panic!() };
    assert_eq!((temperature, min_p), (1.0, 0.4));
}

#[test]
fn on_a_device_only_with_its_samplers() {
    let on_device = |change: Change| sampler(change).is_on_device();
    assert!(on_device(|o| (o.temperature, o.top_k, o.top_p, o.min_p) = (0.5, 3, 0.5, 0.5)));
    assert!(on_device(|o| (o.logit_bias, o.presence_penalty, o.frequency_penalty) = (vec![(0, 0.0)], 0.1, -0.1)));
    let on_host: [Change; 6] = [
        |o| o.typical_p = 0.5,
        |o| o.top_n_sigma = 1.0,
        |o| o.xtc_probability = 0.1,
        |o| o.dry.multiplier = 0.5,
        |o| o.dynatemp_range = 0.5,
        |o| o.mirostat = Some(MirostatOptions::default()),
    ];
    for (i, change) in on_host.into_iter().enumerate() {
        assert!(!on_device(change), "{i}");
    }
}

#[test]
fn mirostat_reaches_its_target() {
    let mut sampler = sampler(|o| (o.mirostat, o.top_k, o.seed) = (Some(MirostatOptions { tau: 3.0, eta: 0.1 }), 1, 3));
    let logits: Vec<f32> = (1..1000).map(|i| -(i as f32).ln()).collect();
    let mut surprise = 0.0;
    for index in 0..2000 {
        let probabilities = sampler.probabilities(&[], index, &logits).unwrap();
        let token = sampler.sample(&[], index, &logits).unwrap() as usize;
        assert!(probabilities[token] > 0.0);
        surprise -= f64::from(probabilities[token]).log2() / 2000.0;
    }
    assert!((surprise - 3.0).abs() < 0.05, "{surprise}");
}

#[test]
fn dynamic_temperature_depends_on_the_entropy() {
    let dynamic = sampler(|o| (o.temperature, o.dynatemp_range) = (0.5, 0.5));
    let mut flat = [2.0; 4];
    dynamic.process(&[], 0, &mut flat).unwrap();
    assert_eq!(flat, [2.0; 4]);
    assert_eq!(kept(&dynamic, &[1e4, 0.0, -1e4]), [0]);
    assert_eq!(kept(&dynamic, &[1.0]), [0]);
}

#[test]
fn extreme_values() {
    let mut cold = sampler(|o| o.temperature = 1e-38);
    assert_eq!(cold.sample(&[], 0, &[1.0, 30.0, -30.0]), Ok(1));
    let mut wide = sampler(|o| (o.top_p, o.min_p) = (0.5, 1.0));
    assert_eq!(wide.sample(&[], 0, &[f32::MIN, f32::MAX]), Ok(1));
    let mut penalty = sampler(|o| o.repetition_penalty = 1e-30);
    assert_eq!(penalty.sample(&[0], 0, &[1e30, 1.0]), Ok(0));
    let mut one = sampler(|o| (o.top_k, o.top_p) = (usize::MAX, 0.1));
    assert_eq!(one.sample(&[], 0, &[5.0]), Ok(0));
}

/// No combination of extreme options and logits panics or chooses a token of probability 0.
#[test]
fn extreme_options_and_logits() {
    let logits: [&[f32]; 6] = [
        &[0.0],
        &[f32::MIN, f32::MAX],
        &[f32::MAX, f32::MAX, f32::MIN, f32::MIN],
        &[1e-45, -1e-45, 0.0, -0.0],
        &[0.0; 7],
        &[50.0, 40.0, 1e30, 3.0, -1e30],
    ];
    let changes: [Change; 15] = [
        |o| o.temperature = f32::MIN_POSITIVE,
        |o| o.temperature = f32::MAX,
        |o| (o.dynatemp_range, o.dynatemp_exponent) = (f32::MAX, f32::MAX),
        |o| (o.dynatemp_range, o.dynatemp_exponent) = (1.0, 0.0),
        |o| o.top_k = 1,
        |o| o.top_p = f32::MIN_POSITIVE,
        |o| o.min_p = 1.0,
        |o| o.typical_p = f32::MIN_POSITIVE,
        |o| o.typical_p = 1.0 - f32::EPSILON,
        |o| o.top_n_sigma = f32::MIN_POSITIVE,
        |o| (o.xtc_probability, o.xtc_threshold) = (1.0, 0.0),
        |o| (o.presence_penalty, o.frequency_penalty) = (f32::MAX, f32::MIN),
        |o| (o.dry.multiplier, o.dry.base, o.dry.allowed_length) = (f32::MAX, f32::MAX, 0),
        |o| o.mirostat = Some(MirostatOptions { tau: 0.0, eta: f32::MAX }),
        |o| o.mirostat = Some(MirostatOptions { tau: f32::MAX, eta: f32::MAX }),
    ];
    let past = [0, 1, 0, 1, 0, 9, 0, 1];
    for reversed in [false, true] {
        for (first, second) in changes.iter().flat_map(|a| changes.iter().map(move |b| (a, b))) {
            let mut sampler = sampler(|o| {
                first(o);
                second(o);
                if reversed {
                    o.samplers.reverse();
                }
            });
            for (index, logits) in logits.iter().enumerate() {
                let probabilities = sampler.probabilities(&past, index, logits).unwrap();
                let sum: f32 = probabilities.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5, "{:?} {logits:?} {sum}", sampler.options());
                let token = sampler.sample(&past, index, logits).unwrap() as usize;
                assert!(probabilities[token] > 0.0, "{:?} {logits:?}", sampler.options());
            }
        }
    }
}

#[test]
fn faults_are_named() {
    let faults: [(Change, &str); 20] = [
        (|o| o.temperature = -1.0, "temperature"),
        (|o| o.temperature = f32::NAN, "temperature"),
        (|o| o.top_p = 0.0, "top_p"),
        (|o| o.top_p = f32::NAN, "top_p"),
        (|o| o.min_p = 1.5, "min_p"),
        (|o| o.repetition_penalty = 0.0, "repetition_penalty"),
        (|o| o.presence_penalty = f32::INFINITY, "presence_penalty"),
        (|o| o.frequency_penalty = f32::NAN, "frequency_penalty"),
        (|o| o.typical_p = 0.0, "typical_p"),
        (|o| o.top_n_sigma = -1.0, "top_n_sigma"),
        (|o| o.xtc_probability = 1.1, "xtc_probability"),
        (|o| o.xtc_threshold = -0.1, "xtc_threshold"),
        (|o| o.dynatemp_range = -1.0, "dynatemp_range"),
        (|o| o.dynatemp_exponent = f32::NAN, "dynatemp_exponent"),
        (|o| o.logit_bias = vec![(0, 1.0), (1, f32::INFINITY)], "logit_bias"),
        (|o| o.logit_bias = vec![(0, f32::NAN)], "logit_bias"),
        (|o| o.dry.multiplier = -1.0, "dry_multiplier"),
        (|o| o.dry.base = 0.5, "dry_base"),
        (|o| o.mirostat = Some(MirostatOptions { tau: -1.0, eta: 0.1 }), "mirostat_tau"),
        (|o| o.mirostat = Some(MirostatOptions { tau: 1.0, eta: f32::NAN }), "mirostat_eta"),
    ];
    for (change, name) in faults {
        let mut options = SamplerOptions::default();
        change(&mut options);
        let error = Sampler::new(options).unwrap_err();
        assert!(matches!(error, SamplerError::Option { option, .. } if option == name), "{error}");
    }
    let samplers = vec![SamplerKind::TopK; 2];
    let error = Sampler::new(SamplerOptions { samplers, ..Default::default() }).unwrap_err();
    assert!(matches!(error, SamplerError::Order { .. }), "{error}");
    let mut sampler = sampler(|_| ());
    assert_eq!(sampler.sample(&[], 0, &[]), Err(SamplerError::NoLogits));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = sampler.sample(&[], 0, &[0.0, bad]).unwrap_err();
        assert!(matches!(error, SamplerError::NotFinite { token: 1, .. }), "{error}");
    }
}
