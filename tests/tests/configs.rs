//! `config.json` as written by transformers 5 and as edited by hand, compared with the results of transformers.

use crate::machines::{data, machines};
use phi3_model::Checkpoint;
use phi3_runner::Device;
use phi3_runner::verify::{Golden, VerifyOptions, verify};

#[test]
fn every_form_of_a_config_gives_the_reference_s_logits() {
    let mut cases = 0;
    for entry in std::fs::read_dir(data("oracle/family/configs")).unwrap() {
        let folder = entry.unwrap().path();
        let (checkpoint, golden) = (Checkpoint::open(&folder).unwrap(), Golden::read(&folder).unwrap());
        for device_options in machines() {
            let tolerance = if device_options.device == Device::Cpu { 1e-4 } else { 2e-4 };
            let mut loaded = device_options.load(&checkpoint, &mut |_| {}).unwrap();
            let report = verify(&mut *loaded.model, &golden, VerifyOptions { tolerance, chunk: usize::MAX }).unwrap();
            assert!(report.checks.len() >= 2 && report.ok(), "{} on {}\n{report}", folder.display(), loaded.reason);
        }
        cases += 1;
    }
    assert!(cases >= 20, "{cases} cases");
}

#[test]
fn what_a_config_says_and_is_not_followed_is_told() {
    let notes = |case: &str| Checkpoint::open(&data("oracle/family/configs").join(case)).unwrap().notes().join("\n");
    for (case, words) in [
        ("rope-scaling-and-rope-parameters", ["rope_parameters", "not read"]),
        ("rope-parameters-win", ["rope_theta", "at the top level"]),
        ("two-originals", ["original_max_position_embeddings", "is not used"]),
        ("original-in-rope-scaling", ["4096", "default"]),
        ("tied-with-other-head", ["lm_head.weight", "tie_word_embeddings"]),
    ] {
        let notes = notes(case);
        assert!(words.into_iter().all(|word| notes.contains(word)), "{case}: {notes}");
    }
    for case in ["resaved-long", "rope-parameters", "tied-with-same-head", "tied-head-only", "factor", "window-absent"]
    {
        assert_eq!(notes(case), "", "{case}");
    }
}
