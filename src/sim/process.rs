//! CPU time and memory of a process on this machine, from `/proc`.

use std::{fs, io};

/// A process by its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(pub(super) u32);

/// CPU time of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ThreadTime {
    pub(super) id: u32,
    pub(super) name: String,
    /// User and kernel time since the thread began, in ns.
    pub(super) cpu_ns: u64,
}

impl Process {
    /// Every thread; those that end meanwhile are left out.
    pub(super) fn threads(self) -> io::Result<Vec<ThreadTime>> {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let path = entry?.path();
            let id = path.file_name().and_then(|n| n.to_str()?.parse().ok());
            // schedstat: ns on a core, ns waiting for one, time slices.
            let times = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            let cpu_ns = times.split(' ').next().and_then(|t| t.parse().ok());
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if let (Some(id), Some(cpu_ns)) = (id, cpu_ns) {
                threads.push(ThreadTime {
                    id,
                    name: name.trim().to_owned(),
                    cpu_ns,
                });
            }
        }
        Ok(threads)
    }

    /// Memory of its own that is resident. Pages of files, such as the program itself, are left out: they come as they are first used.
    pub(super) fn resident_bytes(self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib * 1024)
            .ok_or_else(|| io::Error::other("no RssAnon: is it a process of this machine?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_can_be_read() {
        let own = Process(std::process::id());
        assert!(own.resident_bytes().unwrap() > 1 << 20);
        let threads = own.threads().unwrap();
        assert!(threads.iter().any(|t| t.cpu_ns > 0), "{threads:?}");
    }
}
