//! The journal in front of a database that may be away: groups of batches on the local disk, in order, until they are applied.
//!
//! A start of the daemon writes to one file, named by its writer, and finds the files that earlier ones left. A file is a head
//! line and records: length and checksum, then a [`Record`] as JSON. What was appended is on the disk when `append` returns; a
//! record that a crash cut short was never acknowledged, and is passed over at the end of its file. Applying a record twice is
//! the reader's to prevent, by writer and group.

mod record;
mod segment;

pub(super) use record::{Entry, Record};

use crate::{base::time::Wall, metrics};
use segment::Segment;
use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Records read at once.
const AT_ONCE: usize = 32;

/// The journal.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    writer: String,
    max_bytes: u64,
    /// Oldest first; the last may be this writer's.
    segments: VecDeque<Segment>,
    /// When the oldest record was acknowledged.
    oldest: Option<Wall>,
}

/// Some records of one writer, oldest first, and where they end.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) writer: String,
    pub(super) records: Vec<Record>,
    end: u64,
}

impl Journal {
    /// Opens the journal in `folder` for a writer of this name, with what earlier writers left.
    pub(super) fn open(folder: &Path, writer: &str, max_bytes: u64) -> io::Result<Self> {
        let mut paths: Vec<_> = std::fs::read_dir(folder)?
            .map(|e| e.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        paths.retain(|p| p.extension().is_some_and(|e| e == "journal"));
        // Their names begin with the time at which the writer started.
        paths.sort();
        let mut segments = VecDeque::new();
        for path in &paths {
            segments.extend(Segment::find(path)?);
        }
        let journal = Self {
            folder: folder.to_owned(),
            writer: writer.to_owned(),
            max_bytes,
            segments,
            oldest: None,
        };
        journal.tell();
        Ok(journal)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.iter().all(Segment::is_read)
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// The bound of [`Journal::bytes`].
    pub(super) const fn capacity(&self) -> u64 {
        self.max_bytes
    }

    /// Takes a record down. When this returns it is on the disk; after an error nothing of it is.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let payload = serde_json::to_vec(record)?;
        if self.bytes() + segment::framed(&payload) > self.max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the journal is at its bound",
            ));
        }
        let was_empty = self.is_empty();
        self.own()?.append(&payload)?;
        if was_empty {
            self.oldest = Some(record.at);
        }
        self.tell();
        Ok(())
    }

    fn own(&mut self) -> io::Result<&mut Segment> {
        if self.segments.back().is_none_or(|s| s.writer() != self.writer) {
            let path = self.folder.join(format!("{}.journal", self.writer));
            self.segments.push_back(Segment::create(&path, &self.writer)?);
        }
        self.segments
            .back_mut()
            .ok_or_else(|| io::Error::other("the journal has no file"))
    }

    /// The oldest records that were not applied yet.
    pub(super) fn front(&mut self) -> io::Result<Option<Front>> {
        while let Some(segment) = self.segments.front_mut() {
            let (records, end) = segment.read(AT_ONCE)?;
            if let Some(first) = records.first() {
                self.oldest = Some(first.at);
                return Ok(Some(Front {
                    writer: segment.writer().to_owned(),
                    records,
                    end,
                }));
            }
            self.pass()?;
            if self.segments.len() == 1 && self.is_empty() {
                break;
            }
        }
        self.oldest = None;
        self.tell();
        Ok(None)
    }

    /// The records of a front are applied.
    pub(super) fn applied(&mut self, front: &Front) -> io::Result<()> {
        if let Some(segment) = self.segments.front_mut() {
            segment.skip_to(front.end);
            if segment.is_read() {
                self.pass()?;
            }
        }
        self.oldest = self.oldest.filter(|_| !self.is_empty());
        self.tell();
        Ok(())
    }

    /// Gives up the space of the first file, all of which was read.
    fn pass(&mut self) -> io::Result<()> {
        let Some(segment) = self.segments.front_mut() else {
            return Ok(());
        };
        if segment.writer() == self.writer {
            return segment.empty();
        }
        segment.remove()?;
        self.segments.pop_front();
        Ok(())
    }

    /// Puts aside what the database refused although it was acknowledged, for an operator to look at.
    pub(super) fn put_aside(&self, entry: &Entry) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.folder.join("refused.jsonl"))?;
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()
    }

    /// How long the oldest record has waited.
    pub(super) fn age_ms(&self, now: Wall) -> u64 {
        let waited = self.oldest.map_or(0, |at| now.as_millis() - at.as_millis());
        waited.max(0) as u64
    }

    fn tell(&self) {
        let bytes = if self.is_empty() { 0 } else { self.bytes() };
        ::metrics::gauge!(metrics::store_journal_bytes).set(bytes as f64);
        ::metrics::gauge!(metrics::store_journal_age_seconds).set(self.age_ms(Wall::now()) as f64 / 1e3);
    }
}

#[cfg(test)]
mod tests;
