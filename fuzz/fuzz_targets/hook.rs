//! `cargo fuzz run hook`: the body is `sidetone::fuzzing::hook`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::hook(data));
