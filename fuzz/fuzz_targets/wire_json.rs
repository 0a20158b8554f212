//! `cargo fuzz run wire_json`: the body is `sidetone::fuzzing::wire_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::wire_json(data));
