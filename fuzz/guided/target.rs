//! All programs: the name of the program is the name of its target.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| (fuzz::target(env!("CARGO_BIN_NAME")).run)(data));
