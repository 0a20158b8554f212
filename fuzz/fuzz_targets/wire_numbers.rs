//! `cargo fuzz run wire_numbers`: the body is `sidetone::fuzzing::wire_numbers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::wire_numbers(data));
