//! `cargo fuzz run wire_text`: the body is `sidetone::fuzzing::wire_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::wire_text(data));
