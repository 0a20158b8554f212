//! The header of a 16-bit PCM WAVE file whose length is not known yet.

/// Bytes in front of the samples.
pub(super) const HEADER_LEN: usize = 44;

/// The header of a file whose samples are `data_bytes` long.
pub(super) fn header(rate: u32, channels: u16, data_bytes: u32) -> [u8; HEADER_LEN] {
    let frame = channels * 2;
    let mut bytes = [0; HEADER_LEN];
    let mut at = 0;
    let mut put = |part: &[u8]| {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    };
    put(b"RIFF\0\0\0\0WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes());
    put(&channels.to_le_bytes());
    put(&rate.to_le_bytes());
    put(&(rate * u32::from(frame)).to_le_bytes());
    put(&frame.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data\0\0\0\0");
    for (at, size) in sizes(data_bytes) {
        bytes[at..at + 4].copy_from_slice(&size);
    }
    bytes
}

/// Where the two sizes of a file with `data_bytes` of samples go, and what they are.
pub(super) fn sizes(data_bytes: u32) -> [(usize, [u8; 4]); 2] {
    let riff = data_bytes.saturating_add(HEADER_LEN as u32 - 8);
    [(4, riff.to_le_bytes()), (40, data_bytes.to_le_bytes())]
}
