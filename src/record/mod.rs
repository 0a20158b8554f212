//! A call's audio to disk: the tap a media thread writes, and the one thread that turns taps into stereo files, WAV or Ogg Opus.
//!
//! Left is the caller, right is what the caller was sent. Both are placed on one clock of 8 kHz samples, so the sides do not drift:
//! position 0 is the leg's begin, and where a side says nothing there is silence.

mod config;
mod recorder;
mod sink;
mod timeline;
mod vault;

pub use config::{Config, Format};
pub use recorder::{RecordError, Recorder};
pub use vault::{Keys, Reading};

use rtrb::Producer;

/// Which side of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the caller: left channel.
    Caller,
    /// To the caller: right channel.
    Agent,
}

/// A run of tapped samples, in front of the samples themselves.
#[derive(Clone, Copy, Debug)]
pub struct TapSpan {
    /// Whose.
    pub side: Side,
    /// Position of the first sample on the recording's clock, in samples since the leg began.
    pub at: u64,
    /// How many.
    pub samples: u32,
}

/// The media thread's end of a recording. Lossy: what does not fit is counted and left out.
#[derive(Debug)]
pub struct TapTx {
    samples: Producer<i16>,
    spans: Producer<TapSpan>,
    lost: u64,
}

impl TapTx {
    /// Joins the two rings of a tap; the reading ends belong to the writer thread.
    pub const fn new(samples: Producer<i16>, spans: Producer<TapSpan>) -> Self {
        Self {
            samples,
            spans,
            lost: 0,
        }
    }

    /// Copies samples at 8 kHz that begin at sample `at` of the recording.
    pub fn push(&mut self, side: Side, at: u64, samples: &[i16]) {
        let fits = !self.spans.is_full() && self.samples.push_entire_slice(samples).is_ok();
        if fits {
            let _ = self.spans.push(TapSpan {
                side,
                at,
                samples: samples.len() as u32,
            });
        } else {
            self.lost += samples.len() as u64;
        }
    }

    /// Samples left out so far.
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}
