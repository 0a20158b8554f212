//! The command line: each subcommand a screenful.

pub mod keys;
pub mod token;
