#![no_main]

libfuzzer_sys::fuzz_target!(init: phi3_fuzz::let_guarded_panics_pass(), |data: &[u8]| {
    phi3_fuzz::tokenizer(data);
});
