//! One file of the journal.

use super::Record;
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The first word of a file, with the version of its shape. The writer's name follows.
const HEAD: &str = "sidetone-journal-1";
/// A length and a checksum.
const FRAME: usize = 4 + SUM;
/// Bytes of SHA-256 that a record begins with.
const SUM: usize = 16;
/// The longest head line.
const LONGEST_HEAD: u64 = 128;
/// No record is longer: the queue that it came from is bounded.
const LONGEST: u32 = 1 << 30;

/// The size that a payload takes in a file.
pub(super) fn framed(payload: &[u8]) -> u64 {
    (FRAME + payload.len()) as u64
}

fn sum(payload: &[u8]) -> [u8; SUM] {
    let digest = ring::digest::digest(&ring::digest::SHA256, payload);
    std::array::from_fn(|n| digest.as_ref()[n])
}

/// A file and how far it was written and read.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    writer: String,
    file: File,
    /// Where records begin.
    start: u64,
    /// Where the next unread record begins.
    read: u64,
    /// Where the last record ends.
    end: u64,
}

impl Segment {
    /// A new file for a writer.
    pub(super) fn create(path: &Path, writer: &str) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let head = format!("{HEAD} {writer}\n");
        file.write_all(head.as_bytes())?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        let start = head.len() as u64;
        Ok(Self {
            path: path.to_owned(),
            writer: writer.to_owned(),
            file,
            start,
            read: start,
            end: start,
        })
    }

    /// A file that an earlier writer left, up to the last whole record. `None` when it holds none.
    ///
    /// What is damaged before its end is kept under another name, beside it; the records before the damage are used.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = file.metadata()?.len();
        let Some((writer, start)) = head(&mut file)? else {
            // Cut short before the first record: nothing in it was ever acknowledged, unless it is something else.
            if size > LONGEST_HEAD {
                keep_aside(path)?;
            }
            std::fs::remove_file(path)?;
            return Ok(None);
        };
        let mut segment = Self {
            path: path.to_owned(),
            writer,
            file,
            start,
            read: start,
            end: size,
        };
        let (mut at, mut damaged) = (start, false);
        loop {
            match segment.frame(at)? {
                Frame::Whole(_, end) => at = end,
                Frame::End | Frame::Torn => break,
                Frame::Damaged => {
                    damaged = true;
                    break;
                }
            }
        }
        if damaged {
            tracing::error!(path = %path.display(), "the journal is damaged: what follows the damage is kept aside and is lost to the database");
            keep_aside(path)?;
        }
        segment.end = at;
        if segment.is_read() {
            segment.remove()?;
            return Ok(None);
        }
        Ok(Some(segment))
    }

    pub(super) fn writer(&self) -> &str {
        &self.writer
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.end
    }

    pub(super) const fn is_read(&self) -> bool {
        self.read >= self.end
    }

    /// Writes a record behind the last. After an error the file is as long as before, or the next try makes it so.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|n| *n <= LONGEST);
        let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "too long for the journal"))?;
        let mut frame = Vec::with_capacity(FRAME + payload.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&sum(payload));
        frame.extend_from_slice(payload);
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        let written = self.file.write_all(&frame).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.end += frame.len() as u64,
            Err(_) => {
                let _ = self.file.set_len(self.end);
            }
        }
        written
    }

    /// The next unread records, at most `most`, and where they end.
    pub(super) fn read(&mut self, most: usize) -> io::Result<(Vec<Record>, u64)> {
        let (mut records, mut at) = (Vec::new(), self.read);
        while records.len() < most && at < self.end {
            match self.frame(at)? {
                Frame::Whole(record, end) => {
                    records.push(record);
                    at = end;
                }
                Frame::End | Frame::Torn | Frame::Damaged => {
                    return Err(io::Error::new(
                        ErrorKind::InvalidData,
                        "a record of the journal cannot be read again",
                    ));
                }
            }
        }
        Ok((records, at))
    }

    /// Records before `end` are done with.
    pub(super) const fn skip_to(&mut self, end: u64) {
        self.read = end;
    }

    /// Begins anew.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        (self.read, self.end) = (self.start, self.start);
        self.file.set_len(self.start)
    }

    /// Takes the file away.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn frame(&mut self, at: u64) -> io::Result<Frame> {
        let left = self.end.saturating_sub(at);
        if left == 0 {
            return Ok(Frame::End);
        }
        if left < FRAME as u64 {
            return Ok(Frame::Torn);
        }
        self.file.seek(SeekFrom::Start(at))?;
        let mut head = [0; FRAME];
        self.file.read_exact(&mut head)?;
        let (length, told) = head.split_at(4);
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        if length > LONGEST || u64::from(length) > left - FRAME as u64 {
            return Ok(Frame::Torn);
        }
        let mut payload = vec![0; length as usize];
        self.file.read_exact(&mut payload)?;
        let end = at + framed(&payload);
        if sum(&payload) != told {
            return Ok(if end == self.end { Frame::Torn } else { Frame::Damaged });
        }
        match serde_json::from_slice(&payload) {
            Ok(record) => Ok(Frame::Whole(record, end)),
            // Whole, and not understood: a later version's.
            Err(_) => Ok(Frame::Damaged),
        }
    }
}

/// What is at a place of a file.
enum Frame {
    /// A record and where it ends.
    Whole(Record, u64),
    /// The end of the file.
    End,
    /// A record that was never finished.
    Torn,
    /// Bytes that are not what was written.
    Damaged,
}

fn head(file: &mut File) -> io::Result<Option<(String, u64)>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(LONGEST_HEAD).read_to_end(&mut bytes)?;
    let Some(line) = bytes.split(|b| *b == b'\n').next().filter(|l| l.len() < bytes.len()) else {
        return Ok(None);
    };
    let start = line.len() as u64 + 1;
    let writer = std::str::from_utf8(line)
        .ok()
        .and_then(|l| l.strip_prefix(HEAD)?.strip_prefix(' '));
    Ok(writer.map(|w| (w.to_owned(), start)))
}

fn keep_aside(path: &Path) -> io::Result<()> {
    std::fs::copy(path, path.with_extension("damaged")).map(drop)
}
