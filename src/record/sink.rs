//! The file of a recording, in either format: valid at any moment up to the last second.
//!
//! A WAV file's sizes are patched as it grows. Ogg Opus goes out in whole pages of half a second, which need no patching; both
//! sides are encoded here, on the recorder's thread.

use super::{
    config::Format,
    timeline::{RATE, Taken},
    vault::Vault,
};
use crate::{
    audio::{
        ogg::{self, Pages},
        opus::{self, Encoder},
        wav,
    },
    base::secret::Secret,
};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

/// Packets of a page: half a second.
const PAGE: u32 = 25;
/// So many silent packets in a row are encoded; those after them need no encoder.
const SILENT: u32 = 50;

/// An open file.
#[derive(Debug)]
pub(super) struct Sink {
    out: Out,
    form: Form,
}

/// Where the bytes go.
#[derive(Debug)]
enum Out {
    Clear(File),
    Sealed(Box<Vault>),
}

impl Out {
    /// Writes bytes at a place; what nobody wrote before it is zeros. Sealed files grow at their end alone.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::Clear(file) => file.write_all_at(bytes, at),
            Self::Sealed(vault) => {
                vault.extend(at)?;
                vault.append(bytes)
            }
        }
    }

    /// Sees that there are as many bytes.
    fn reach(&mut self, len: u64) -> io::Result<()> {
        match self {
            Self::Clear(file) => file.set_len(len),
            Self::Sealed(vault) => vault.extend(len),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Clear(file) => file.sync_data(),
            Self::Sealed(vault) => vault.sync(),
        }
    }
}

#[derive(Debug)]
enum Form {
    Wav { frames: u64 },
    Opus(Box<Stream>),
}

impl Sink {
    /// Makes a new file of mode 0640, with its folders and its headers.
    pub(super) fn create(path: &Path, format: Format, key: Option<&Secret>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
        let mut serial = DefaultHasher::new();
        path.hash(&mut serial);
        let out = match key {
            None => Out::Clear(file),
            Some(key) => Out::Sealed(Box::new(Vault::begin(file, key)?)),
        };
        let mut sink = Self::into(out, format, serial.finish() as u32);
        match &mut sink.form {
            Form::Wav { .. } => sink.out.write_at(&wav::header(RATE as u32, 2, 0), 0)?,
            Form::Opus(stream) => stream.begin(&mut sink.out)?,
        }
        Ok(sink)
    }

    /// A recording into a file whose headers are somebody else's matter.
    #[cfg(test)]
    pub(super) fn on(file: File, format: Format, serial: u32) -> Self {
        Self::into(Out::Clear(file), format, serial)
    }

    fn into(out: Out, format: Format, serial: u32) -> Self {
        // libopus encodes 8 kHz; where it did not, the recording would be a WAV file all the same.
        let stream = match format {
            Format::Wav => None,
            Format::Opus => Stream::new(serial),
        };
        let form = stream.map_or(Form::Wav { frames: 0 }, |stream| Form::Opus(Box::new(stream)));
        Self { out, form }
    }

    /// Writes frames, interleaved little-endian, and silence up to where `taken` ends.
    pub(super) fn write(&mut self, taken: &Taken, frames: &[u8]) -> io::Result<()> {
        match &mut self.form {
            Form::Wav { frames: written } => {
                // What is not spelled out is a hole, which reads as silence.
                self.out.write_at(frames, wav::HEADER_LEN as u64 + taken.at * 4)?;
                *written = taken.end;
                Ok(())
            }
            Form::Opus(stream) => stream.write(&mut self.out, taken, frames),
        }
    }

    /// Brings what the file says of itself up to what was written.
    pub(super) fn patch(&mut self) -> io::Result<()> {
        let Form::Wav { frames } = self.form else { return Ok(()) };
        let bytes = frames * 4;
        self.out.reach(wav::HEADER_LEN as u64 + bytes)?;
        // Of a sealed file the sizes are told by who reads it: they follow from its length.
        let Out::Clear(file) = &self.out else { return Ok(()) };
        for (at, size) in wav::sizes(u32::try_from(bytes).unwrap_or(u32::MAX)) {
            file.write_all_at(&size, at as u64)?;
        }
        Ok(())
    }

    /// Completes the file and sees it to the disk.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if let Form::Opus(stream) = &mut self.form {
            stream.end(&mut self.out)?;
        }
        self.patch()?;
        self.out.sync()
    }
}

/// Two sides on their way into pages.
#[derive(Debug)]
struct Stream {
    pages: Pages,
    sides: [Side; 2],
    /// Samples of a side taken so far.
    taken: u64,
    packets: u64,
    in_page: u32,
    /// Packets of silence in a row.
    silent: u32,
    /// Bytes written to the file.
    at: u64,
    packet: Vec<u8>,
    page: Vec<u8>,
}

#[derive(Debug)]
struct Side {
    encoder: Encoder,
    /// What is no whole packet yet.
    partial: Vec<i16>,
    packet: Box<[u8]>,
}

impl Side {
    fn new() -> Option<Self> {
        let encoder = Encoder::new(RATE as u32, 0)?;
        Some(Self {
            partial: Vec::with_capacity(encoder.frame()),
            encoder,
            packet: vec![0; opus::MAX_PACKET].into(),
        })
    }

    /// The packet of what is there.
    fn packet(&mut self, silent: bool) -> &[u8] {
        let n = match silent {
            true => opus::silence(self.encoder.frame(), RATE as u32, &mut self.packet),
            false => self.encoder.encode(&self.partial, &mut self.packet),
        };
        self.partial.clear();
        &self.packet[..n]
    }
}

impl Stream {
    fn new(serial: u32) -> Option<Self> {
        Some(Self {
            pages: Pages::new(serial),
            sides: [Side::new()?, Side::new()?],
            taken: 0,
            packets: 0,
            in_page: 0,
            silent: 0,
            at: 0,
            packet: Vec::new(),
            page: Vec::new(),
        })
    }

    /// Samples by which what is decoded comes late.
    fn lookahead(&self) -> u64 {
        self.sides[0].encoder.lookahead() as u64
    }

    fn begin(&mut self, out: &mut Out) -> io::Result<()> {
        let pre_skip = (self.lookahead() * ogg::CLOCK / RATE) as u16;
        ogg::headers(&mut self.pages, pre_skip, RATE as u32, &mut self.page);
        self.flush(out)
    }

    fn write(&mut self, out: &mut Out, taken: &Taken, frames: &[u8]) -> io::Result<()> {
        for frame in frames.chunks_exact(4) {
            let pair = [[frame[0], frame[1]], [frame[2], frame[3]]].map(i16::from_le_bytes);
            self.take(out, pair)?;
        }
        let spelled_out = frames.len() as u64 / 4;
        let hole = (taken.end - taken.at).saturating_sub(spelled_out);
        self.silence(out, hole)
    }

    fn take(&mut self, out: &mut Out, pair: [i16; 2]) -> io::Result<()> {
        for (side, sample) in self.sides.iter_mut().zip(pair) {
            side.partial.push(sample);
        }
        self.taken += 1;
        match self.sides[0].partial.len() == self.sides[0].encoder.frame() {
            true => self.pack(out),
            false => Ok(()),
        }
    }

    fn silence(&mut self, out: &mut Out, mut samples: u64) -> io::Result<()> {
        let frame = self.sides[0].encoder.frame() as u64;
        while samples > 0 {
            // Hours of silence are soon written.
            if self.silent >= SILENT && samples >= frame && self.sides[0].partial.is_empty() {
                self.taken += frame;
                samples -= frame;
                self.pack(out)?;
            } else {
                samples -= 1;
                self.take(out, [0; 2])?;
            }
        }
        Ok(())
    }

    /// Makes a packet of what both sides hold.
    fn pack(&mut self, out: &mut Out) -> io::Result<()> {
        let mute = self.sides.iter().all(|s| s.partial.iter().all(|s| *s == 0));
        self.silent = if mute { self.silent.saturating_add(1) } else { 0 };
        let silent = self.silent > SILENT;
        let [left, right] = &mut self.sides;
        self.packet.clear();
        let (left, right) = (left.packet(silent), right.packet(silent));
        if !ogg::join(left, right, &mut self.packet) {
            return Err(io::Error::other("libopus made a packet of several frames"));
        }
        self.packets += 1;
        self.in_page += 1;
        self.pages.add(&self.packet);
        if self.in_page == PAGE {
            let position = self.packets * self.ticks();
            self.pages.finish(position, false, &mut self.page);
            return self.flush(out);
        }
        Ok(())
    }

    /// The clock's ticks of a packet.
    fn ticks(&self) -> u64 {
        self.sides[0].encoder.frame() as u64 * ogg::CLOCK / RATE
    }

    fn flush(&mut self, out: &mut Out) -> io::Result<()> {
        self.in_page = 0;
        out.write_at(&self.page, self.at)?;
        self.at += self.page.len() as u64;
        self.page.clear();
        Ok(())
    }

    /// Writes what is left, and where in the last packet the recording ends.
    fn end(&mut self, out: &mut Out) -> io::Result<()> {
        let end = self.taken + self.lookahead();
        let frame = self.sides[0].encoder.frame() as u64;
        // At least one packet is still to come: the encoder is behind.
        while (self.packets + 1) * frame < end {
            self.take(out, [0; 2])?;
        }
        for side in &mut self.sides {
            side.partial.resize(side.encoder.frame(), 0);
        }
        let position = end * ogg::CLOCK / RATE;
        // Whatever its length, the page of the last packet is the last one.
        self.in_page = 0;
        self.pack(out)?;
        self.pages.finish(position, true, &mut self.page);
        self.flush(out)
    }
}
