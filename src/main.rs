//! The `sidetone` binary: argv in, exit code out.
fn main() {}
