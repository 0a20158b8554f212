//! What a call asks of its vendor, and what is done here where the vendor has no command for it.

use super::{Event, Talk};
use crate::{
    agent::Kind as AgentKind,
    audio::{
        opus,
        tone::{Dtmf, DtmfKey},
    },
    base::{
        fault::{Fault, Kind},
        format::Encoding,
        ids::CallId,
    },
    control::{
        call::{Ask, Now},
        rest,
    },
    media::{LegCommand, Tones},
    metrics,
    vendor::{Answer, CallAction},
};
use futures_util::FutureExt;
use std::time::Duration;

/// In-band keys: milliseconds of tone and of silence (ITU-T Q.24 asks for 40 of each at least).
const KEY_MS: u32 = 100;
/// Keys that wait to be played on a leg without a mouth, at most.
const KEYS_WAIT: Duration = Duration::from_secs(60);

/// How a call is placed.
#[derive(Clone, Debug)]
pub(in crate::control) struct Dial {
    pub(in crate::control) to: String,
    pub(in crate::control) from: String,
    pub(in crate::control) answer_url: String,
    pub(in crate::control) status_url: String,
    pub(in crate::control) ring: Duration,
}

/// What the vendor is told about a call beside what it is to do.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) call: CallId,
    pub(super) agent: String,
    pub(super) answer: Answer,
}

impl Talk {
    pub(super) fn ask(&mut self, now: Now, ask: Ask) {
        let deps = &self.shared.deps;
        let carrier = &self.entry.carrier;
        let trunk = carrier.trunk.clone().filter(|t| t.can_dial());
        let sid = self.call.row().call_sid.clone();
        let request = trunk
            .as_ref()
            .and_then(|t| t.request(&sid, &action(&ask, &self.offer, self.dial.as_deref())?));
        let Some((trunk, request)) = trunk.zip(request) else {
            return self.cannot_ask(now, ask);
        };
        if ask == Ask::StartStream {
            self.shared
                .await_stream(now.mono, &self.entry, Some(sid), Duration::ZERO);
        }
        let http = deps.client(carrier.own).clone();
        let (vendor, dial, offer) = (self.entry.vendor, self.dial.clone(), self.offer.clone());
        let job = async move {
            let result = match action(&ask, &offer, dial.as_deref()) {
                Some(action) => rest::ask(&http, vendor, &*trunk, &action, request)
                    .await
                    .map(|(sid, _)| sid),
                None => Ok(String::new()),
            };
            Event::Asked(ask, result)
        };
        self.jobs.push(job.boxed());
    }

    /// What the vendor has no command for is done here where it can be.
    pub(super) fn cannot_ask(&mut self, now: Now, ask: Ask) {
        let no_command = "the vendor has no such command, or its REST credentials are missing";
        let result = match &ask {
            Ask::Digits(digits) => self.play_keys(now, digits),
            Ask::Enhance(_) => Ok(()),
            _ => Err(Fault::client(Kind::Conflict, no_command)),
        };
        match result {
            Ok(()) => self.call.asked(now, ask, Ok(String::new())),
            Err(fault) => self.asked(now, ask, Err(fault)),
        }
    }

    /// Keys as tones, in the caller's ear.
    fn play_keys(&mut self, now: Now, digits: &str) -> Result<(), Fault> {
        const RATE: u32 = 8000;
        if self.own.kind == AgentKind::Echo && self.line.is_some() {
            return self.echo_keys(now, digits);
        }
        let Some((mouth, utterance)) = self.mouth.as_ref().zip(self.call.sound()) else {
            metrics::dropped("digits", "no_caller", 1);
            let message = "the vendor sends no keys, and nothing can be played to the caller now";
            return Err(Fault::client(Kind::Conflict, message));
        };
        if mouth.play(utterance, tones(digits, RATE), RATE, true) {
            return Ok(());
        }
        Err(too_much())
    }

    /// The same where no mouth speaks and the caller's own audio comes back: the keys come back in its place.
    fn echo_keys(&mut self, now: Now, digits: &str) -> Result<(), Fault> {
        let Some((_, _, inbound)) = &self.stream else {
            return Ok(());
        };
        let samples = tones(digits, inbound.rate);
        let lasts = Duration::from_micros(samples.len() as u64 * 1_000_000 / u64::from(inbound.rate));
        let until = self.keys_until.max(now.mono) + lasts;
        if until.since(now.mono) > KEYS_WAIT {
            return Err(too_much());
        }
        self.keys_until = until;
        let passed_on = inbound.encoding == Encoding::Opus && self.outbound.encoding == Encoding::Opus;
        let tones = match opus::Encoder::new(inbound.rate, 0).filter(|_| passed_on) {
            Some(encoder) => packed(encoder, samples),
            None => Tones::new(samples),
        };
        self.send_leg(LegCommand::Tones(Box::new(tones)));
        Ok(())
    }
}

fn too_much() -> Fault {
    metrics::dropped("digits", "mouth_full", 1);
    Fault::client(Kind::TooMany, "too much waits to be said on this call")
}

/// Keys as samples.
fn tones(digits: &str, rate: u32) -> Vec<i16> {
    let mut generator = Dtmf::new(rate, KEY_MS, KEY_MS);
    let mut tone = vec![0; (rate * 2 * KEY_MS / 1000) as usize];
    let mut samples = Vec::new();
    for key in digits.chars().filter_map(DtmfKey::of) {
        generator.press(key);
        let n = generator.fill(&mut tone);
        samples.extend_from_slice(&tone[..n]);
    }
    samples
}

/// The same in packets.
fn packed(mut encoder: opus::Encoder, mut samples: Vec<i16>) -> Tones {
    let frame = encoder.frame();
    samples.resize(samples.len().next_multiple_of(frame), 0);
    let mut packet = [0; opus::MAX_PACKET];
    let packets = samples.chunks(frame).map(|piece| {
        let n = encoder.encode(piece, &mut packet);
        packet[..n].into()
    });
    let packets = packets.collect();
    Tones::in_packets(samples, frame, packets)
}

fn action<'a>(ask: &'a Ask, offer: &'a Offer, dial: Option<&'a Dial>) -> Option<CallAction<'a>> {
    let (call, agent, answer) = (offer.call.as_str(), offer.agent.as_str(), &offer.answer);
    Some(match ask {
        Ask::Dial => {
            let dial = dial?;
            CallAction::Dial {
                call,
                agent,
                to: &dial.to,
                from: &dial.from,
                answer,
                answer_url: &dial.answer_url,
                status_url: &dial.status_url,
                ring: dial.ring,
            }
        }
        Ask::Accept => CallAction::Accept { call, agent, answer },
        Ask::StartStream => CallAction::StartStream { answer },
        Ask::Enhance(on) => CallAction::Enhance { on: *on },
        Ask::HangUp => CallAction::HangUp,
        Ask::Transfer(to) => CallAction::Transfer { to },
        Ask::Digits(digits) => CallAction::Digits { digits },
    })
}
