//! One call of the load: its socket by hand, its vendor's end, and the account of what it sent and heard.

use super::{MASK, Plan, REMEMBERED, micros};
use crate::{
    base::{format::AudioFormat, time::Mono},
    sim::{
        announce,
        frames::{self, CLOSE, PING, PONG, TEXT},
        payload,
        phrases::Phrases,
    },
    vendor::{Peer, PeerCall, PeerEvent},
};
use bytes::{Buf, BytesMut};
use std::{cell::RefCell, collections::VecDeque, io, rc::Rc, time::Duration};
use tokio::net::TcpStream;

/// Messages that come closer together than this were sent at once, as a lead is, and are not held to a pace.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What all calls sent and heard.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Whether this is the window that is measured.
    pub(super) counts: bool,
    pub(super) in_window: u64,
    pub(super) sent: u64,
    pub(super) returned: u64,
    pub(super) heard: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) changed: u64,
    pub(super) echo: Vec<u32>,
    pub(super) pacing: Vec<u32>,
}

impl Tally {
    /// With room for so many frames, so that measuring allocates little.
    pub(super) fn with_room(frames: usize) -> Self {
        Self {
            echo: Vec::with_capacity(frames),
            pacing: Vec::with_capacity(frames),
            ..Self::default()
        }
    }
}

/// A frame on its way: what must come back, and when it was sent.
struct Flight {
    body: Vec<u8>,
    sent: Mono,
}

/// What a call says.
enum Speech {
    /// Noise, no two frames alike. What comes back is compared with it.
    Noise(u64),
    /// A conversation's half. What comes back is somebody else's.
    Phrases { audio: Rc<Phrases>, at: usize },
}

pub(super) struct Call {
    stream: Rc<TcpStream>,
    peer: Box<dyn Peer>,
    floor: bool,
    format: AudioFormat,
    frame_ms: u32,
    speech: Speech,
    at_ms: u64,
    in_flight: VecDeque<Flight>,
    /// When the newest frame that is back was sent.
    newest_back: Mono,
    /// Bodies that are back.
    back: VecDeque<Vec<u8>>,
    /// Bodies to use again.
    spare: Vec<Vec<u8>>,
    /// Audio that is not yet a whole frame.
    partial: Vec<u8>,
    /// When the last message with audio came, and how long its audio lasts.
    heard: Option<(Mono, Duration)>,
    message: String,
    outbox: BytesMut,
    pub(super) tally: Rc<RefCell<Tally>>,
    over: bool,
}

impl Call {
    /// Connects call `n` and opens its stream.
    pub(super) async fn open(plan: &Plan, n: usize, phrases: Option<&Rc<Phrases>>) -> io::Result<Rc<RefCell<Self>>> {
        let mut peer = (plan.vendor.peer)(PeerCall {
            call_sid: announce::new_call_sid(),
            token: None,
            from: format!("+1555{n:07}"),
            to: "+15550000000".to_owned(),
            ..PeerCall::default()
        });
        let path = match plan.daemon.path.as_str() {
            "" => plan.vendor.stream_path,
            path => path,
        };
        let mut stream = plan.daemon.connect().await?;
        frames::connect(&mut stream, &plan.daemon.authority(), path).await?;
        let mut outbox = BytesMut::with_capacity(2048);
        if !plan.floor {
            for message in peer.open() {
                frames::put(&mut outbox, TEXT, message.as_bytes(), Some(MASK));
            }
        }
        let (format, frame_ms) = (peer.format(), peer.frame_ms());
        let mut call = Self {
            stream: Rc::new(stream),
            format,
            frame_ms,
            peer,
            floor: plan.floor,
            speech: match phrases {
                None => Speech::Noise(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n as u64 + 1)),
                // Each begins elsewhere, so that they do not all speak at once.
                Some(audio) => Speech::Phrases {
                    audio: audio.clone(),
                    at: n.wrapping_mul(7919),
                },
            },
            at_ms: 0,
            in_flight: VecDeque::with_capacity(REMEMBERED),
            newest_back: Mono::ZERO,
            back: VecDeque::with_capacity(REMEMBERED),
            spare: Vec::new(),
            partial: Vec::new(),
            heard: None,
            message: String::with_capacity(1024),
            outbox,
            tally: Rc::default(),
            over: false,
        };
        call.flush();
        Ok(Rc::new(RefCell::new(call)))
    }

    /// Frames that are not back yet.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends the next frame.
    pub(super) fn send(&mut self) {
        if self.over {
            return;
        }
        let mut body = self.spare.pop().unwrap_or_default();
        body.clear();
        match &mut self.speech {
            Speech::Noise(noise) => {
                let bytes = self.format.bytes_of_ms(self.frame_ms);
                body.extend((0..bytes).map(|_| {
                    // xorshift64
                    *noise ^= *noise << 13;
                    *noise ^= *noise >> 7;
                    *noise ^= *noise << 17;
                    (*noise as u8) & 0xFE
                }));
            }
            Speech::Phrases { audio, at } => {
                body.extend_from_slice(audio.frame(*at));
                *at = at.wrapping_add(1);
            }
        }
        self.message.clear();
        self.peer.media(&body, self.at_ms, &mut self.message);
        self.at_ms += u64::from(self.frame_ms);
        if self.floor {
            body.clear();
            body.extend_from_slice(self.message.as_bytes());
        }
        frames::put(&mut self.outbox, TEXT, self.message.as_bytes(), Some(MASK));
        {
            let mut tally = self.tally.borrow_mut();
            tally.sent += 1;
            match self.speech {
                Speech::Noise(_) => self.in_flight.push_back(Flight {
                    body,
                    sent: Mono::now(),
                }),
                Speech::Phrases { .. } => {
                    tally.in_window += u64::from(tally.counts);
                    self.spare.push(body);
                }
            }
        }
        self.flush();
    }

    /// Writes what the kernel takes; the rest goes with the next frame.
    fn flush(&mut self) {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox) {
                Ok(n) => self.outbox.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.broke(),
            }
        }
    }

    /// Reads one message of the far end.
    fn hear(&mut self, message: &[u8]) {
        if self.floor {
            self.note_arrival(self.frame_ms);
            return self.came_back(message);
        }
        let audio = match self.peer.read(message) {
            Ok(PeerEvent::Media(payload)) => payload::decode(payload),
            Ok(PeerEvent::Mark(name)) => {
                let name = name.to_owned();
                let answer = self.peer.mark(&name);
                frames::put(&mut self.outbox, TEXT, answer.as_bytes(), Some(MASK));
                return self.flush();
            }
            Ok(_) => return,
            Err(_) => None,
        };
        let Some(audio) = audio else {
            self.tally.borrow_mut().changed += 1;
            return;
        };
        let plays = self.peer.plays();
        self.note_arrival((audio.len() * 1000 / plays.bytes_of_ms(1000).max(1)) as u32);
        if matches!(self.speech, Speech::Phrases { .. }) {
            return;
        }
        let bytes = self.format.bytes_of_ms(self.frame_ms);
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(&audio);
        let whole = partial.len() / bytes * bytes;
        for frame in partial[..whole].chunks(bytes) {
            self.came_back(frame);
        }
        partial.drain(..whole);
        self.partial = partial;
    }

    /// Audio of `ms` came: how far from when the audio before it ends?
    fn note_arrival(&mut self, ms: u32) {
        let now = Mono::now();
        let mut tally = self.tally.borrow_mut();
        tally.heard += 1;
        if let (Some((then, length)), true) = (self.heard, tally.counts)
            && now.since(then) >= AT_ONCE
        {
            tally.pacing.push(micros(now.since(then).abs_diff(length)));
        }
        self.heard = Some((now, Duration::from_millis(ms.into())));
    }

    fn came_back(&mut self, body: &[u8]) {
        let mut tally = self.tally.borrow_mut();
        let Some(at) = self.in_flight.iter().position(|f| f.body == body) else {
            match self.back.iter().any(|b| b == body) {
                true => tally.doubled += 1,
                false => tally.changed += 1,
            }
            return;
        };
        let Some(flight) = self.in_flight.remove(at) else {
            return;
        };
        tally.returned += 1;
        tally.reordered += u64::from(flight.sent < self.newest_back);
        self.newest_back = self.newest_back.max(flight.sent);
        if tally.counts {
            tally.in_window += 1;
            tally.echo.push(micros(Mono::now().since(flight.sent)));
        }
        if self.back.len() == REMEMBERED
            && let Some(old) = self.back.pop_front()
        {
            self.spare.push(old);
        }
        self.back.push_back(flight.body);
    }

    fn broke(&mut self) {
        self.over = true;
    }

    /// Whether its socket is gone.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Says goodbye.
    pub(super) fn hang_up(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if !self.floor {
            let stop = self.peer.stop();
            // Where the socket's end is the stream's, there is none.
            if !stop.is_empty() {
                frames::put(&mut self.outbox, TEXT, stop.as_bytes(), Some(MASK));
            }
        }
        frames::put(&mut self.outbox, CLOSE, &1000_u16.to_be_bytes(), Some(MASK));
        self.flush();
    }
}

/// Reads a call's socket until it ends.
pub(super) async fn listen(call: Rc<RefCell<Call>>) {
    let stream = call.borrow().stream.clone();
    let mut inbox = BytesMut::with_capacity(4096);
    loop {
        inbox.reserve(1024);
        let read = match stream.try_read_buf(&mut inbox) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => match stream.readable().await {
                Ok(()) => continue,
                Err(_) => 0,
            },
            Ok(n) => n,
            Err(_) => 0,
        };
        if read == 0 {
            return call.borrow_mut().broke();
        }
        loop {
            let mut call = call.borrow_mut();
            match frames::next(&mut inbox) {
                Ok(Some(frame)) => {
                    let payload = &inbox[frame.begin..frame.end];
                    match frame.opcode {
                        TEXT => call.hear(payload),
                        PING => {
                            frames::put(&mut call.outbox, PONG, payload, Some(MASK));
                            call.flush();
                        }
                        CLOSE => return call.broke(),
                        _ => {}
                    }
                    inbox.advance(frame.end);
                }
                Ok(None) => break,
                Err(_) => return call.broke(),
            }
        }
    }
}
