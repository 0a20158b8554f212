//! `cargo fuzz run peer`: the body is `sidetone::fuzzing::peer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sidetone::fuzzing::peer(data));
