//! The shell of one leg: a WebSocket on one side, queues on the other, `media::Session` between them.
//!
//! One task per leg, woken by the socket, by its phase of the tick, or by a command; a panic here ends this leg alone.
//! Messages are parsed where they were received, in a buffer that the shard's legs share, and frames are written into another,
//! with one write a turn. The socket is fed only when it took everything before, so that a peer that does not read leaves the
//! audio in our rings, in reach of a cut, and not in the kernel.

use super::thread::{Handover, Seat};
use crate::{
    base::{ids::ConnectionId, time::Mono},
    media::{Arrival, LegCommand, LegEnd, LegEvent, LegHandle, Output, Session},
    metrics,
    net::{
        listen::Permit,
        websocket::{
            Over, WebSocket,
            frame::{Limits, Message, TextFrame},
        },
    },
    vendor::Descriptor,
};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc::{self, error::TrySendError};

/// Reads in one turn, so that a flood on one socket does not starve the others.
const READS_PER_TURN: usize = 4;
/// Frames written in one turn.
const WRITES_PER_TURN: usize = 64;
/// Fragments of one message, and the time they may take.
const FRAGMENTS: u32 = 64;
const GATHER: Duration = Duration::from_secs(5);

struct Leg {
    seat: Seat,
    ws: WebSocket,
    session: Session,
    handle: LegHandle,
    connection: ConnectionId,
    vendor: &'static Descriptor,
    path_token: Option<String>,
    number: Option<String>,
    proven: bool,
    peer: SocketAddr,
    shard: usize,
    permit: Option<Permit>,
    /// Where news goes, once there is a plan.
    events: Option<mpsc::Sender<LegEvent>>,
    /// An arrival that its queue did not take yet.
    arrival: Option<Box<Arrival>>,
    began: Option<Mono>,
    /// A flush is under way; since when.
    flushing: Option<Mono>,
    counted: (u64, u64),
}

/// Runs a leg from its handover to its end.
pub(super) async fn run(seat: Seat, handover: Handover, handle: LegHandle, shard: usize) {
    let connection = handover.connection;
    let mut leg = match Leg::new(seat, handover, handle, shard) {
        Ok(leg) => leg,
        Err(e) => {
            tracing::warn!(%connection, error = %e, "a media socket could not be moved to its thread");
            return;
        }
    };
    poll_fn(|cx| leg.turn(cx)).await;
    leg.tell_end().await;
}

/// What a close code says (RFC 6455 §7.4.1), for a label.
const fn word_of(code: u16) -> &'static str {
    match code {
        1002 => "protocol",
        1003 => "not_text",
        1007 => "not_utf8",
        1009 => "too_large",
        _ => "rules",
    }
}

impl Leg {
    /// Of the handover only what a leg needs is kept: what came with the handshake sits in a buffer of the HTTP server's.
    fn new(seat: Seat, mut handover: Handover, handle: LegHandle, shard: usize) -> io::Result<Self> {
        handover.conn.adopt()?;
        let config = &seat.desk.config;
        let limits = Limits {
            frame: config.max_frame,
            message: config.max_message,
            fragments: FRAGMENTS,
            gather: GATHER,
        };
        let ws = WebSocket::new(handover.conn, &handover.read, limits);
        let session = Session::new(
            Mono::now(),
            handover.vendor.caps,
            handover.codec.0,
            config.limits.clone(),
        );
        Ok(Self {
            seat,
            ws,
            session,
            handle,
            connection: handover.connection,
            vendor: handover.vendor,
            path_token: handover.path_token,
            number: handover.number,
            proven: handover.proven,
            peer: handover.peer,
            shard,
            permit: handover.permit,
            events: None,
            arrival: None,
            began: None,
            flushing: None,
            counted: (0, 0),
        })
    }

    /// One turn: commands, socket, time, output, news.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.seat.cell.remember(cx.waker());
        let now = Mono::now();
        self.commands(now);
        self.read(now, cx);
        if self.seat.cell.due.replace(false) {
            self.session.handle_tick(now);
            if self.ws.is_overdue(now) {
                self.session
                    .handle_violation(now, 1008, "a fragmented message took too long");
            }
            if self
                .flushing
                .is_some_and(|since| now.since(since) > self.seat.desk.config.write_stall)
                && self.session.handle_stalled(now)
            {
                metrics::dropped("media_socket", "write_stalled", 1);
            }
        }
        self.write(now, cx);
        self.report(now);
        let meters = &self.seat.desk.meters;
        meters.note_ear_queue(self.session.ear_queue());
        meters.turns.record(Mono::now().since(now));
        let waits = self.flushing.is_some() || self.arrival.is_some() || self.ws.is_gathering();
        self.seat
            .cell
            .quiet_until
            .set(if waits { now } else { self.session.next_tick(now) });
        if self.session.is_closed() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Counts what was dropped, and tells of a socket that broke the rules before a call had it: nobody else learns of that.
    fn count_end(&self) {
        for (kind, reason, n) in self.session.accounting().drops() {
            if n > 0 {
                metrics::dropped(kind, reason, n);
            }
        }
        if let (None, (Some(LegEnd::Violation(code)), reason)) = (&self.events, self.session.outcome()) {
            metrics::refused("media_socket", word_of(code));
            tracing::info!(connection = %self.connection, vendor = self.vendor.name, peer = %self.peer, code, reason, "a media socket was closed before it had a call");
        }
    }

    /// What happened last must reach the call, however long its queue is. A caller may be gone before the call has said, with
    /// its plan, where that queue is.
    async fn tell_end(&mut self) {
        self.ws.disconnect();
        self.count_end();
        let Self { seat, session, .. } = self;
        if let Some(arrival) = self.arrival.take() {
            match seat.desk.arrivals.reserve().await {
                Ok(place) => place.send(*arrival),
                Err(_) => return,
            }
        }
        let events = match (self.events.take(), self.began) {
            (None, Some(_)) => {
                let patience = seat.desk.config.limits.plan;
                seat.cell.quiet_until.set(Mono::now() + patience);
                let planned = poll_fn(|cx| seat.cell.poll_plan(cx));
                tokio::time::timeout(patience, planned).await.ok().flatten()
            }
            (events, _) => events,
        };
        let Some(events) = events else { return };
        while let Some(event) = session.pop_event() {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    fn commands(&mut self, now: Mono) {
        if self.seat.cell.inbox.borrow().is_empty() {
            return;
        }
        let inbox = self.seat.cell.inbox.take();
        let mut scratch = self.seat.desk.scratch.borrow_mut();
        for command in inbox {
            match &command {
                LegCommand::Plan(plan) => {
                    self.events = Some(plan.events.clone());
                    if let Some(permit) = &self.permit {
                        permit.vouch();
                    }
                    if let Some(began) = self.began.take() {
                        metrics::LEG_OPENING.record(now.since(began));
                    }
                }
                // Refused: no plan will come.
                LegCommand::Close { .. } => self.began = None,
                _ => {}
            }
            self.session.handle_command(now, command, &mut scratch);
        }
    }

    fn read(&mut self, now: Mono, cx: &mut Context<'_>) {
        let Self { ws, session, seat, .. } = self;
        let binary = self.vendor.caps.binary;
        let desk = &*seat.desk;
        let mut buffers = desk.buffers.borrow_mut();
        let mut scratch = desk.scratch.borrow_mut();
        for _ in 0..READS_PER_TURN {
            let read = ws.poll_read(cx, now, &mut buffers, |message| match message {
                Message::Text(text) => {
                    desk.meters.bytes_in.add(text.len() as u64);
                    session.handle_message(now, text.as_bytes(), &mut scratch);
                }
                Message::Binary(bytes) if binary => match std::str::from_utf8(bytes) {
                    Ok(text) => {
                        desk.meters.bytes_in.add(text.len() as u64);
                        session.handle_message(now, text.as_bytes(), &mut scratch);
                    }
                    Err(_) => session.handle_control(now),
                },
                Message::Binary(_) => session.handle_violation(now, 1003, "text expected"),
                Message::Ping(_) | Message::Pong => session.handle_control(now),
                Message::Close(_) => {}
            });
            match read {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Over::Closed)) => return session.handle_closed(now),
                Poll::Ready(Err(Over::Violation(v))) => session.handle_violation(now, v.code, v.reason),
            }
        }
        // There may be more: come again after the others had their turn.
        cx.waker().wake_by_ref();
    }

    fn write(&mut self, now: Mono, cx: &mut Context<'_>) {
        let desk = &*self.seat.desk;
        let mut buffers = desk.buffers.borrow_mut();
        // A leg that panicked while it wrote must not have written for this one.
        buffers.outbox.clear();
        if self.flushing.is_none() {
            let mut scratch = desk.scratch.borrow_mut();
            for _ in 0..WRITES_PER_TURN {
                let text = TextFrame::begin(&mut buffers.outbox);
                match self.session.poll_output(now, &mut scratch, &mut buffers.outbox) {
                    Some(Output::Text) => desk.meters.bytes_out.add(text.end(&mut buffers.outbox) as u64),
                    Some(Output::Ping) => {
                        text.cancel(&mut buffers.outbox);
                        WebSocket::ping(&mut buffers.outbox);
                    }
                    Some(Output::Close { code, reason }) => {
                        text.cancel(&mut buffers.outbox);
                        self.ws.close(&mut buffers.outbox, code, reason);
                    }
                    None => {
                        text.cancel(&mut buffers.outbox);
                        break;
                    }
                }
            }
            if buffers.outbox.is_empty() && !self.ws.owes() {
                return;
            }
            self.flushing = Some(now);
        }
        match self.ws.poll_write(cx, &mut buffers) {
            Poll::Ready(Ok(())) => self.flushing = None,
            Poll::Ready(Err(_)) => self.session.handle_closed(now),
            Poll::Pending => {}
        }
    }

    fn report(&mut self, now: Mono) {
        let (frames_in, frames_out) = self.session.frames();
        if frames_in != self.counted.0 {
            self.seat.desk.meters.frames_in.add(frames_in - self.counted.0);
        }
        if frames_out != self.counted.1 {
            self.seat.desk.meters.frames_out.add(frames_out - self.counted.1);
        }
        self.counted = (frames_in, frames_out);
        if let Some(bell) = self.session.take_bell() {
            let mut ring = self.seat.desk.ring.borrow_mut();
            if ring.is_none() {
                *ring = Some(bell.clone());
            }
        }
        if let Some(start) = self.session.take_arrival() {
            self.began = Some(now);
            self.arrival = Some(Box::new(Arrival {
                leg: self.handle.clone(),
                connection: self.connection,
                vendor: self.vendor,
                start: *start,
                path_token: self.path_token.take(),
                number: self.number.take(),
                proven: self.proven,
                peer: self.peer,
                shard: self.shard,
            }));
        }
        if let Some(arrival) = self.arrival.take()
            && let Err(TrySendError::Full(arrival)) = self.seat.desk.arrivals.try_send(*arrival)
        {
            self.arrival = Some(Box::new(arrival));
        }
        while let (Some(events), true) = (&self.events, self.session.has_events()) {
            let place = match events.try_reserve() {
                Ok(place) => Some(place),
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => None,
            };
            if let (Some(event), Some(place)) = (self.session.pop_event(), place) {
                place.send(event);
            }
        }
    }
}
