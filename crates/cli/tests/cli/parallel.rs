//! `phi3-run bench --parallel`.

use super::{assert_error, output, stderr, stdout};

#[test]
fn bench_of_several_sequences_has_llama_batched_bench_s_fields() {
    let size = ["bench", "--device", "cpu", "-p", "8", "-n", "4", "-r", "1", "-ub", "8"];
    let run = |more: &[&str]| output(&[&size[..], more].concat());
    let json = run(&["-np", "1,3", "-o", "json"]);
    assert_eq!(json.status.code(), Some(0), "{}", stderr(&json));
    let rows: Vec<serde_json::Value> =
        stdout(&json).lines().map(|row| serde_json::from_str(row).unwrap_or_else(|e| panic!("{e}: {row}"))).collect();
    let of = |name: &str| rows.iter().map(|row| row[name].as_u64()).collect::<Vec<_>>();
    assert_eq!((of("pl"), of("n_kv")), (vec![Some(1), Some(3)], vec![Some(12), Some(36)]));
    assert_eq!((of("pp"), of("tg")), (vec![Some(8); 2], vec![Some(4); 2]));
    assert_eq!((of("n_kv_max"), of("n_batch")), (vec![Some(36); 2], vec![Some(8); 2]));
    for row in &rows {
        let positive = |name: &str| row[name].as_f64().is_some_and(|value| value > 0.0 && value.is_finite());
        assert!(["t_pp", "speed_pp", "t_tg", "speed_tg", "t", "speed"].into_iter().all(positive), "{row:#}");
    }

    let table = stdout(&run(&["--parallel", "2-3"]));
    let head = "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |";
    assert!(table.starts_with("demo: phi3 4M") && table.contains(head), "{table}");
    assert!(table.contains("|     8 |      4 |    2 |     24 |"), "{table}");
    assert!(table.contains("|     8 |      4 |    3 |     36 |"), "{table}");
    // prompts of 128 tokens by default
    let default = output(&["bench", "--device", "cpu", "-n", "0", "-r", "1", "--no-warmup", "-np", "1", "-o", "csv"]);
    let csv = stdout(&default);
    assert!(csv.lines().count() == 2 && csv.contains(",\"128\",\"0\",\"1\",\"128\","), "{csv}");

    // an error costs its own row only
    let nine = run(&["-np", "2,9", "-o", "jsonl"]);
    assert_eq!((nine.status.code(), stdout(&nine).lines().count()), (Some(2), 1), "{}", stderr(&nine));
    for words in ["pp8 tg4 np9", "a pass takes 8 rows", "hint: take fewer sequences"] {
        assert!(stderr(&nine).contains(words), "{}", stderr(&nine));
    }
    let long = output(&["bench", "--device", "cpu", "-p", "99999", "-np", "2"]);
    assert!(long.status.code() == Some(2) && stderr(&long).contains("max_position_embeddings"), "{}", stderr(&long));
    assert_error(&run(&["-np", "0"]), &["--parallel", "from 1 to"]);
    assert_error(&run(&["-np", "2", "-pg", "1,1"]), &["--parallel", "--pg"]);
    assert_error(&run(&["-np", "2", "-d", "1"]), &["--parallel", "--n-depth"]);
    let help = stdout(&output(&["bench", "--help"]));
    for words in ["--parallel <N>", "also -np", "with --parallel the default is 128"] {
        let found = help.split_whitespace().collect::<Vec<_>>().join(" ").contains(words);
        assert!(found, "{words:?} is not in {help}");
    }
}
