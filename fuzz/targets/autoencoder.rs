//! cargo-fuzz target: files of the kind `adapter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sdft_fuzz::read("autoencoder", bytes));
