//! `sidetone stt-worker`: a recognition worker process, started by the daemon and of no use to people.

use crate::speech::stt::pocketsphinx;
use std::process::ExitCode;

/// Answers questions on standard input until it ends.
pub fn run() -> ExitCode {
    pocketsphinx::run_worker()
}
