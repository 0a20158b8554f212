//! A daemon's lock on a file: one process holds it, and it goes with the process, however that ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

/// A child that this or the last holder just forked keeps the lock until it runs its own program: so often, so long, it is tried.
const TRIES: u32 = 20;
/// Time between tries.
const BETWEEN: Duration = Duration::from_millis(25);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock of a file, made where there is none. `None` when another process has it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN),
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
        Ok(None)
    }
}
