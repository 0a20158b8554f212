//! The subcommands of `sidetone`: what each reads from its arguments, and its exit codes.

pub mod codec;
