//! `cargo fuzz run frontend`: the body is `sidetone::fuzzing::frontend`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::frontend(data));
