//! Who this daemon is to the others of the database: an id in its state folder, which it alone may use.

use crate::store::{OpenError, lock::DaemonLock};
use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// A daemon's identity. It outlives the process; the lock does not.
#[derive(Debug)]
pub(super) struct Node {
    id: String,
    _lock: DaemonLock,
}

impl Node {
    /// Takes the folder for this process, and makes it where there is none.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let unavailable = |e: std::io::Error| OpenError::unavailable(folder.display(), e);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(unavailable)?;
        let lock = DaemonLock::take(&folder.join("lock")).map_err(unavailable)?;
        let lock = lock.ok_or_else(|| OpenError::InUse {
            place: folder.display().to_string(),
        })?;
        let id = id(&folder.join("node")).map_err(unavailable)?;
        Ok(Self { id, _lock: lock })
    }

    /// The id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

fn id(path: &Path) -> std::io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let id = format!("node_{}", uuid::Uuid::now_v7().simple());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_id_and_shares_it_with_no_other_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = Node::take(&folder.path().join("journal")).unwrap();
        let second = Node::take(&folder.path().join("journal"));
        assert!(matches!(second, Err(OpenError::InUse { .. })));
        let id = first.id().to_owned();
        drop(first);
        assert_eq!(Node::take(&folder.path().join("journal")).unwrap().id(), id);
    }
}
