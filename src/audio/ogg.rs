//! Ogg pages (RFC 3533), and Opus in them (RFC 7845): two mono streams side by side, one for each side of a call. Pure.
//!
//! The sides are two uncoupled streams of one packet (channel mapping family 1), so that no side is heard in the other, as joint
//! stereo would have it at the bit rates of speech. Pages are whole at any moment: a file cut anywhere plays up to its last page.

use super::opus::{self, BadPacket};
use std::fmt;

/// Ticks a second of Ogg Opus's clock, whatever the samples' rate (RFC 7845 §4).
pub const CLOCK: u64 = 48_000;

/// Entries of a page's lacing table at most.
const MAX_LACING: usize = 255;
/// Bytes of a page in front of its lacing table.
const HEADER: usize = 27;

const FIRST: u8 = 2;
const LAST: u8 = 4;

/// Table of the CRC of RFC 3533 §6: polynomial 0x04c11db7, not reflected, nothing added.
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = ((n as u32) << 24, 0);
        while bit < 8 {
            crc = (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

fn crc(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |crc, b| (crc << 8) ^ CRC[((crc >> 24) as u8 ^ b) as usize])
}

/// Writes the pages of one logical stream.
#[derive(Debug)]
pub struct Pages {
    serial: u32,
    sequence: u32,
    lacing: Vec<u8>,
    body: Vec<u8>,
}

impl Pages {
    /// The pages of a stream of that number.
    pub const fn new(serial: u32) -> Self {
        Self {
            serial,
            sequence: 0,
            lacing: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a packet to the page, whole. Returns whether it had room for it; one page never holds more than 65,025 bytes.
    pub fn add(&mut self, packet: &[u8]) -> bool {
        let full = packet.len() / 255;
        if self.lacing.len() + full + 1 > MAX_LACING {
            return false;
        }
        self.lacing.resize(self.lacing.len() + full, 255);
        self.lacing.push((packet.len() % 255) as u8);
        self.body.extend_from_slice(packet);
        true
    }

    /// Appends the page to `out`, whose last packet ends at `position` of the stream's clock, and begins the next.
    pub fn finish(&mut self, position: u64, last: bool, out: &mut Vec<u8>) {
        let begin = out.len();
        let flags = if self.sequence == 0 { FIRST } else { 0 } | if last { LAST } else { 0 };
        out.extend_from_slice(b"OggS\0");
        out.push(flags);
        out.extend_from_slice(&position.to_le_bytes());
        out.extend_from_slice(&self.serial.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(self.lacing.len() as u8);
        out.append(&mut self.lacing);
        out.append(&mut self.body);
        let sum = crc(&out[begin..]);
        out[begin + 22..begin + 26].copy_from_slice(&sum.to_le_bytes());
        self.sequence += 1;
    }
}

/// The two header pages of a stream of two sides: samples that are to be left out at the begin, on the stream's clock, and the rate
/// of what was encoded (RFC 7845 §5).
pub fn headers(pages: &mut Pages, pre_skip: u16, rate: u32, out: &mut Vec<u8>) {
    let mut head = b"OpusHead\x01\x02".to_vec();
    head.extend_from_slice(&pre_skip.to_le_bytes());
    head.extend_from_slice(&rate.to_le_bytes());
    // No gain; family 1: two streams, none of them coupled; left is the first, right the second.
    head.extend_from_slice(&[0, 0, 1, 2, 0, 0, 1]);
    pages.add(&head);
    pages.finish(0, false, out);
    let vendor = concat!("sidetone ", env!("CARGO_PKG_VERSION")).as_bytes();
    let mut tags = b"OpusTags".to_vec();
    tags.extend_from_slice(&(vendor.len() as u32).to_le_bytes());
    tags.extend_from_slice(vendor);
    tags.extend_from_slice(&0u32.to_le_bytes());
    pages.add(&tags);
    pages.finish(0, false, out);
}

/// Puts a packet of each side together (RFC 7845 §3): the first with its length told, after RFC 6716 appendix B, the second as it
/// is. Both hold one frame each; of one that does not, nothing is written and `false` returned.
pub fn join(left: &[u8], right: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((toc, frame)) = left.split_first().filter(|(toc, _)| **toc & 3 == 0) else {
        return false;
    };
    out.push(*toc);
    let n = frame.len();
    if n < 252 {
        out.push(n as u8);
    } else {
        let low = 252 + (n & 3);
        out.extend_from_slice(&[low as u8, ((n - low) >> 2) as u8]);
    }
    out.extend_from_slice(frame);
    out.extend_from_slice(right);
    true
}

/// Bytes that are no Ogg Opus of two sides as it is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not Ogg Opus of two uncoupled sides")
    }
}

impl std::error::Error for NotOurs {}

impl From<BadPacket> for NotOurs {
    fn from(_: BadPacket) -> Self {
        Self
    }
}

/// Both sides of a call as they were recorded.
#[derive(Debug, PartialEq, Eq)]
pub struct Sides {
    /// Samples a second.
    pub rate: u32,
    /// The caller's.
    pub left: Vec<i16>,
    /// The agent's.
    pub right: Vec<i16>,
    /// Whether the stream was ended, and not cut.
    pub complete: bool,
}

/// Reads a file as [`headers`], [`join`] and [`Pages`] write it, up to where it is cut, at the rate of its source.
pub fn read(mut file: &[u8]) -> Result<Sides, NotOurs> {
    let (mut packets, mut position, mut complete, mut sequence) = (Vec::new(), 0, false, 0u32);
    while let Some(page) = Page::parse(file) {
        if page.sequence != sequence {
            return Err(NotOurs);
        }
        sequence += 1;
        packets.extend(page.packets);
        (position, complete) = (page.position, page.last);
        file = &file[page.size..];
    }
    let [head, tags, audio @ ..] = &packets[..] else {
        return Err(NotOurs);
    };
    let ours = head.len() == 23 && head.starts_with(b"OpusHead\x01\x02") && head[18..] == [1, 2, 0, 0, 1];
    if !ours || !tags.starts_with(b"OpusTags") {
        return Err(NotOurs);
    }
    let pre_skip = u16::from_le_bytes([head[10], head[11]]);
    let rate = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    let decoder = || opus::Decoder::new(rate).ok_or(NotOurs);
    let (mut decoders, mut sides) = ([decoder()?, decoder()?], [Vec::new(), Vec::new()]);
    let mut samples = vec![0; rate as usize * opus::MAX_MS / 1000];
    for packet in audio {
        let (left, right) = split(packet).ok_or(NotOurs)?;
        for ((decoder, side), packet) in decoders.iter_mut().zip(&mut sides).zip([&left[..], right]) {
            let n = decoder.decode(packet, &mut samples)?;
            side.extend_from_slice(&samples[..n]);
        }
    }
    let at = |ticks: u64| (u128::from(ticks) * u128::from(rate) / u128::from(CLOCK)) as usize;
    let [left, right] = sides.map(|mut side| {
        side.truncate(at(position));
        side.drain(..at(pre_skip.into()).min(side.len()));
        side
    });
    Ok(Sides {
        rate,
        left,
        right,
        complete,
    })
}

/// Parts what [`join`] put together.
fn split(packet: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (toc, rest) = packet.split_first()?;
    let (n, rest) = match rest.split_first()? {
        (n @ 0..252, rest) => (usize::from(*n), rest),
        (low, rest) => {
            let (high, rest) = rest.split_first()?;
            (usize::from(*high) * 4 + usize::from(*low), rest)
        }
    };
    let (frame, right) = rest.split_at_checked(n)?;
    Some(([&[*toc], frame].concat(), right))
}

struct Page {
    packets: Vec<Vec<u8>>,
    position: u64,
    sequence: u32,
    last: bool,
    size: usize,
}

impl Page {
    /// The page at the beginning, if all of it is there and unharmed.
    fn parse(file: &[u8]) -> Option<Self> {
        let head = file.get(..HEADER).filter(|h| h.starts_with(b"OggS\0"))?;
        let lacing = file.get(HEADER..HEADER + usize::from(head[26]))?;
        let begin = HEADER + lacing.len();
        let size = begin + lacing.iter().map(|n| usize::from(*n)).sum::<usize>();
        let mut page = file.get(..size)?.to_vec();
        page[22..26].fill(0);
        if crc(&page).to_le_bytes() != head[22..26] {
            return None;
        }
        let (mut packets, mut packet, mut at) = (Vec::new(), Vec::new(), begin);
        for n in lacing {
            packet.extend_from_slice(&page[at..at + usize::from(*n)]);
            at += usize::from(*n);
            if *n < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        Some(Self {
            packets,
            position: u64::from_le_bytes(head[6..14].try_into().ok()?),
            sequence: u32::from_le_bytes(head[18..22].try_into().ok()?),
            last: head[5] & LAST != 0,
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_sum_is_that_of_ogg() {
        assert_eq!(
            crc(b"123456789"),
            0x89a1_897f,
            "CRC-32 with this polynomial, unreflected, from zero"
        );
    }

    #[test]
    fn a_page_is_written_as_rfc_3533_has_it() {
        let (mut pages, mut out) = (Pages::new(0x0403_0201), Vec::new());
        assert!(pages.add(&[9; 255]) && pages.add(&[8; 10]) && pages.add(&[]));
        pages.finish(960, false, &mut out);
        assert_eq!(out[..6], *b"OggS\0\x02");
        assert_eq!(out[6..22], [0xc0, 3, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(out[26..31], [4, 255, 0, 10, 0]);
        let page = Page::parse(&out).unwrap();
        assert_eq!(page.packets, [vec![9; 255], vec![8; 10], vec![]]);
        assert_eq!((page.position, page.size), (960, out.len()));
        for n in 0..out.len() {
            assert!(Page::parse(&out[..n]).is_none(), "cut at {n}");
            let mut harmed = out.clone();
            harmed[n] ^= 0x10;
            assert!(Page::parse(&harmed).is_none(), "harmed at {n}");
        }
        let begin = out.len();
        pages.add(b"x");
        pages.finish(1920, true, &mut out);
        let page = Page::parse(&out[begin..]).unwrap();
        assert!(page.last && page.sequence == 1);
    }

    #[test]
    fn a_full_page_takes_no_more() {
        let mut pages = Pages::new(0);
        let taken = (0..100).take_while(|_| pages.add(&[0; 1000])).count();
        assert_eq!(taken, 63);
    }

    proptest! {
        #[test]
        fn what_was_joined_is_parted_again(left in 0usize..1276, right in prop::collection::vec(any::<u8>(), 1..50), toc in 0u8..64) {
            let (toc, mut joined) = (toc << 2, Vec::new());
            let first: Vec<u8> = std::iter::once(toc).chain((0..left).map(|n| n as u8)).collect();
            prop_assert!(join(&first, &right, &mut joined));
            prop_assert_eq!(split(&joined), Some((first, &right[..])));
            prop_assert!(!join(&[toc | 1, 2], &right, &mut joined), "more frames than one");
        }

        #[test]
        fn hostile_files_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[&b"OggS\0"[..], &bytes].concat());
        }
    }
}
