//! cargo-fuzz target: files of the kind `peft`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sdft_fuzz::read("peft", bytes));
