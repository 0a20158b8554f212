//! `cargo fuzz run reply`: the body is `sidetone::fuzzing::reply`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::reply(data));
