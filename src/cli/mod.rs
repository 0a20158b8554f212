//! The subcommands of `sidetone`: what each reads from its arguments, and its exit codes. One file each.

pub mod bench;
pub mod check_config;
pub mod codec;
pub mod keys;
pub mod migrate;
pub mod remote;
pub mod serve;
pub mod simulate;
pub mod stand_in;
pub mod stt_worker;
pub mod tenants;
pub mod token;

use clap::{Parser, Subcommand};
use std::{io, process::ExitCode};

/// A low-latency media relay daemon for phone voice
#[derive(Debug, Parser)]
#[command(name = "sidetone", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Box<serve::Args>),
    /// Place a simulated phone call from a WAV file and show what happens
    Simulate(Box<simulate::Args>),
    /// Measure a daemon with many calls at once
    Bench(Box<bench::Args>),
    /// Tell everything that is wrong with a configuration
    CheckConfig(check_config::Args),
    /// Convert G.711, standard input to standard output
    Codec(codec::CodecArgs),
    /// Bring the database's schema up to date, or move SQLite into PostgreSQL
    Migrate(migrate::Args),
    /// Mint a token for a frontend or an operator
    Token(token::Command),
    /// Make, list and revoke API keys
    Keys(keys::Args),
    /// Make, list, change and disable tenants
    Tenants(tenants::Args),
    /// Stand in for a speech service, which goes wrong on request
    StandIn(stand_in::Args),
    /// Recognise speech for a daemon that starts it
    #[command(hide = true)]
    SttWorker,
}

/// Reads the command line and runs the subcommand.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Simulate(args) => simulate::run(*args),
        Command::Bench(args) => bench::run(&args),
        Command::CheckConfig(args) => check_config::main(&args),
        Command::Codec(args) => codec::run(&args),
        Command::Migrate(args) => migrate::main(&args),
        Command::Token(args) => token::main(&args),
        Command::SttWorker => stt_worker::run(),
        Command::StandIn(args) => told("stand-in", stand_in::run(&args)),
        Command::Keys(args) => keys::main(&args),
        Command::Tenants(args) => tenants::main(&args),
    }
}

/// The exit code of a command that can only fail to do its one thing.
fn told(command: &str, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sidetone {command}: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }
}
