//! The leg of a call as its task sees it: taken over when its socket arrives, told what to do, let go when it is over.

use super::Talk;
use crate::{
    base::fault::{Fault, Kind, Origin},
    control::{Listening, Mute, call::Now, directory::lock, plan},
    media::{Arrival, LegCommand, LegEnd, LegEvent, LegHandle, LegSendError, monitor::monitor},
    metrics,
    record::TapTx,
    speech::duplex::Order,
};
use std::{collections::VecDeque, time::Duration};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Commands to a leg whose shard is busy that wait to be tried again.
const MAX_UNSENT: usize = 64;
/// How soon they are tried again.
pub(super) const RESEND: Duration = Duration::from_millis(10);
/// What a listener may be behind: a second of the widest format, both ways, as base64.
const MONITOR_BYTES: usize = 256 * 1024;
const MONITOR_PIECES: usize = 512;

/// The leg of a call.
pub(super) struct Line {
    pub(super) handle: LegHandle,
    pub(super) shard: usize,
    pub(super) events: Option<mpsc::Receiver<LegEvent>>,
    pub(super) unsent: VecDeque<LegCommand>,
}

impl Talk {
    pub(super) fn listen(&mut self) -> Result<Listening, Fault> {
        let not_yet = || Fault::client(Kind::Conflict, "the call has no media stream now");
        let (_, stream_id, inbound) = self
            .stream
            .clone()
            .filter(|_| self.line.is_some())
            .ok_or_else(not_yet)?;
        let (tx, audio) = monitor(MONITOR_BYTES, MONITOR_PIECES);
        self.send_leg(LegCommand::Monitor(Box::new(tx)));
        Ok(Listening {
            row: self.call.row().clone(),
            stream_id,
            inbound,
            outbound: self.outbound,
            audio,
        })
    }

    pub(super) fn attach(&mut self, now: Now, arrival: Arrival) {
        if !self.call.awaits_leg() {
            return refuse_leg(arrival.leg, 1008, "the call has its media stream", "second_stream");
        }
        let tap = self.open_recording();
        // A service that holds the conversation hears on while a person has the call.
        let is_service = self.mind.is_service();
        let memory = is_service.then(|| self.memory.get_or_insert_default().clone());
        let profile = if is_service { &self.own } else { &self.profile };
        let whose = (self.entry.call, self.entry.tenant);
        let speech = &self.shared.deps.speech;
        let laid = plan::lay(speech, profile, whose, &arrival, tap, memory.as_ref());
        *lock(&self.entry.leg) = Some(arrival.leg.clone());
        self.line = Some(Line {
            handle: arrival.leg,
            shard: arrival.shard,
            events: Some(laid.leg),
            unsent: VecDeque::new(),
        });
        self.send_leg(LegCommand::Plan(Box::new(laid.plan)));
        if self.paused {
            self.send_leg(LegCommand::Record(false));
        }
        if self.muted.inbound == Some(true) || self.muted.outbound == Some(true) {
            self.mute(Mute::default());
        }
        self.speech = laid.speech;
        self.mouth = laid.mouth;
        self.ear = laid.ear;
        self.conversation = laid.conversation;
        if let Some(conversation) = self.conversation.as_ref().filter(|_| self.has_person()) {
            conversation.tell(Order::Pause(true));
        }
        if let Some((ear, language)) = self.ear.as_ref().zip(self.language.as_ref()) {
            ear.listen_in(language);
        }
        self.outbound = arrival.start.outbound;
        self.stream = Some((
            arrival.connection,
            arrival.start.stream_id.clone(),
            arrival.start.inbound,
        ));
        info!(connection = %arrival.connection, stream = %arrival.start.stream_id, "media stream attached");
        self.call.attached(
            now,
            &arrival.start.call_sid,
            &arrival.start.stream_id,
            self.mouth.is_some(),
        );
        self.waterfall.hears(now.mono);
        self.mind.answered(now.mono);
    }

    /// Stops the audio at the relay, or lets it pass again; a call without its stream yet begins so.
    pub(super) fn mute(&mut self, mute: Mute) {
        self.muted.inbound = mute.inbound.or(self.muted.inbound);
        self.muted.outbound = mute.outbound.or(self.muted.outbound);
        self.send_leg(LegCommand::Mute {
            uplink: self.muted.inbound == Some(true),
            downlink: self.muted.outbound == Some(true),
        });
    }

    /// Stops the recording, or lets it go on; a call without its stream yet begins so.
    pub(super) fn record(&mut self, on: bool) -> Result<(), Fault> {
        let recorded = match self.line {
            Some(_) => self.call.row().recording.is_some(),
            None => self.profile.record,
        };
        if !recorded || self.call.is_over() {
            return Err(Fault::client(Kind::Conflict, "the call is not being recorded"));
        }
        if self.line.as_ref().is_some_and(|l| l.unsent.len() >= MAX_UNSENT) {
            return Err(Fault::new(
                Origin::Us,
                Kind::Unavailable,
                "the call's media thread is busy: try again in a moment",
            ));
        }
        self.paused = !on;
        self.send_leg(LegCommand::Record(on));
        Ok(())
    }

    pub(super) fn open_recording(&mut self) -> Option<TapTx> {
        if !self.profile.record {
            return None;
        }
        let deps = &self.shared.deps;
        let part = match self.call.lost_streams() {
            0 => String::new(),
            n => format!("-{}", n + 1),
        };
        let format = self.profile.record_format.unwrap_or(deps.recorder.format());
        let kind = deps.recorder.extension(format);
        let file = deps
            .recordings
            .join(format!("{}{part}{kind}", self.call.row().session_id));
        match deps.recorder.open(&deps.data_root.join(&file), format) {
            Ok(tap) => {
                self.call.recorded_to(file.to_string_lossy().into_owned());
                Some(tap)
            }
            Err(cause) => {
                warn!(%cause, "the call is not recorded");
                None
            }
        }
    }

    pub(super) fn leg(&mut self, now: Now, event: Option<LegEvent>) {
        let over = matches!(event, None | Some(LegEvent::Ended { .. }));
        match &event {
            Some(LegEvent::BargedIn) => self.mind.cut_off(now.mono),
            Some(LegEvent::Playing(utterance)) => {
                if let Some(times) = self.waterfall.playing(now.mono, *utterance) {
                    self.call.turned(times);
                }
            }
            Some(LegEvent::Ended { end, .. }) => match end {
                LegEnd::Stopped => info!("stop_received"),
                LegEnd::ClosedWithoutStop => info!("closed_without_stop"),
                other => info!(end = ?other, "stream_ended"),
            },
            _ => {}
        }
        match event {
            Some(event) => self.call.leg(now, event),
            None => self.call.leg_lost(now),
        }
        if over {
            *lock(&self.entry.leg) = None;
            self.line = None;
            self.mouth = None;
            self.ear = None;
            self.conversation = None;
        }
    }

    pub(super) fn send_leg(&mut self, command: LegCommand) {
        let Some(line) = &mut self.line else { return };
        if line.unsent.len() < MAX_UNSENT {
            line.unsent.push_back(command);
        } else {
            metrics::dropped("leg_command", "shard_full", 1);
        }
        self.resend();
    }

    pub(super) fn resend(&mut self) {
        let Some(line) = &mut self.line else { return };
        while let Some(command) = line.unsent.pop_front() {
            match line.handle.try_send(command) {
                Ok(()) => {}
                Err(LegSendError::Full(command)) => return line.unsent.push_front(command),
                Err(LegSendError::Gone) => return line.unsent.clear(),
            }
        }
    }
}

/// Closes a media socket that no call wants. A shard that is too busy to be told closes it at its opening deadline.
pub(in crate::control) fn refuse_leg(leg: LegHandle, code: u16, reason: &'static str, why: &'static str) {
    metrics::refused("stream", why);
    let _ = leg.try_send(LegCommand::Close { code, reason });
}
