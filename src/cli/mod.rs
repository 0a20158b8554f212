//! The subcommands of `sidetone`: what each reads from its arguments, and its exit codes.

pub mod bench;
pub mod codec;
pub mod keys;
pub mod simulate;
pub mod token;
