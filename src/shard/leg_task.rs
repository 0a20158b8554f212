//! The shell of one leg: a WebSocket on one side, queues on the other, `media::Session` between them.
//!
//! One task per leg, woken by the socket, by its phase of the tick, or by a command; a panic here ends this leg alone.
//! Messages are parsed in the read buffer and dropped before the next is read, so reading allocates nothing. Writing goes
//! through one arena per leg. The socket is fed only when it took everything before, so that a peer that does not read
//! leaves the audio in our rings, in reach of a cut, and not in the kernel.

use super::thread::{Handover, Seat};
use crate::{
    base::{ids::ConnectionId, time::Mono},
    media::{Arrival, LegCommand, LegEvent, LegHandle, Output, Session},
    metrics,
    net::conn::Conn,
    vendor::Descriptor,
};
use bytes::BytesMut;
use futures_util::{Sink, Stream};
use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Read buffer of a socket: more costs memory and time for each of thousands of legs, less splits messages.
const READ_BUFFER: usize = 4096;
/// Frames gathered into one write.
const WRITE_BUFFER: usize = 8 * 1024;
/// Messages read in one turn, so that a flood on one socket does not starve the others.
const READS_PER_TURN: usize = 32;
/// Frames written in one turn.
const WRITES_PER_TURN: usize = 64;

struct Leg {
    seat: Seat,
    ws: WebSocketStream<Conn>,
    session: Session,
    out: BytesMut,
    handle: LegHandle,
    connection: ConnectionId,
    vendor: &'static Descriptor,
    path_token: Option<String>,
    number: Option<String>,
    proven: bool,
    peer: SocketAddr,
    shard: usize,
    /// Where news goes, once there is a plan.
    events: Option<mpsc::Sender<LegEvent>>,
    /// An arrival that its queue did not take yet.
    arrival: Option<Arrival>,
    began: Option<Mono>,
    /// A flush is under way; since when.
    flushing: Option<Mono>,
    counted: (u64, u64),
}

/// Runs a leg from its handover to its end.
pub(super) async fn run(seat: Seat, mut handover: Handover, handle: LegHandle, shard: usize) {
    if let Err(e) = handover.conn.adopt() {
        tracing::warn!(connection = %handover.connection, error = %e, "a media socket could not be moved to its thread");
        return;
    }
    let config = &seat.desk.config;
    let ws_config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(256 * 1024)
        .max_message_size(Some(config.max_message))
        .max_frame_size(Some(config.max_frame));
    // Copied, because these few bytes would keep the whole buffer of the HTTP connection alive.
    let ws = WebSocketStream::from_partially_read(handover.conn, handover.read.to_vec(), Role::Server, Some(ws_config))
        .await;
    let session = Session::new(
        Mono::now(),
        handover.vendor.caps,
        handover.codec.0,
        config.limits.clone(),
    );
    let mut leg = Leg {
        seat,
        ws,
        session,
        out: BytesMut::with_capacity(1024),
        handle,
        connection: handover.connection,
        vendor: handover.vendor,
        path_token: handover.path_token,
        number: handover.number,
        proven: handover.proven,
        peer: handover.peer,
        shard,
        events: None,
        arrival: None,
        began: None,
        flushing: None,
        counted: (0, 0),
    };
    poll_fn(|cx| leg.turn(cx)).await;
    // What happened last must reach the call, however long its queue is.
    if let Some(events) = leg.events.take() {
        while let Some(event) = leg.session.pop_event() {
            if events.send(event).await.is_err() {
                break;
            }
        }
    }
}

impl Leg {
    /// One turn: commands, socket, time, output, news.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.seat.cell.remember(cx.waker());
        let now = Mono::now();
        self.commands(now);
        self.read(now, cx);
        if self.seat.cell.due.replace(false) {
            self.session.handle_tick(now);
            if self
                .flushing
                .is_some_and(|since| now.since(since) > self.seat.desk.config.write_stall)
            {
                metrics::dropped("media_socket", "write_stalled", 1);
                self.session.handle_closed(now);
            }
        }
        self.write(now, cx);
        self.report(now);
        let waits = self.flushing.is_some() || self.arrival.is_some();
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

    fn commands(&mut self, now: Mono) {
        if self.seat.cell.inbox.borrow().is_empty() {
            return;
        }
        let inbox = self.seat.cell.inbox.take();
        let mut scratch = self.seat.desk.scratch.borrow_mut();
        for command in inbox {
            if let LegCommand::Plan(plan) = &command {
                self.events = Some(plan.events.clone());
                if let Some(began) = self.began.take() {
                    metrics::LEG_OPENING.record(now.since(began));
                }
            }
            self.session.handle_command(now, command, &mut scratch);
        }
    }

    fn read(&mut self, now: Mono, cx: &mut Context<'_>) {
        let mut scratch = self.seat.desk.scratch.borrow_mut();
        for _ in 0..READS_PER_TURN {
            match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(Message::Text(text)))) => {
                    self.seat.desk.meters.bytes_in.increment(text.len() as u64);
                    self.session.handle_message(now, text.as_bytes(), &mut scratch);
                }
                Poll::Ready(Some(Ok(Message::Binary(_)))) => {
                    self.session.handle_violation(now, 1003, "text expected");
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(e))) => {
                    match violation(&e) {
                        Some((code, reason)) => self.session.handle_violation(now, code, reason),
                        None => self.session.handle_closed(now),
                    }
                    return;
                }
                Poll::Ready(None) => return self.session.handle_closed(now),
            }
        }
        // There may be more: come again after the others had their turn.
        cx.waker().wake_by_ref();
    }

    fn write(&mut self, now: Mono, cx: &mut Context<'_>) {
        if self.flushing.is_none() {
            let mut scratch = self.seat.desk.scratch.borrow_mut();
            for _ in 0..WRITES_PER_TURN {
                let Some(output) = self.session.poll_output(now, &mut scratch, &mut self.out) else {
                    break;
                };
                let message = match output {
                    Output::Text => {
                        self.seat.desk.meters.bytes_out.increment(self.out.len() as u64);
                        match Utf8Bytes::try_from(self.out.split().freeze()) {
                            Ok(text) => Message::Text(text),
                            Err(_) => continue,
                        }
                    }
                    Output::Close { code, reason } => Message::Close(Some(CloseFrame {
                        code: CloseCode::from(code),
                        reason: reason.into(),
                    })),
                };
                self.flushing = Some(now);
                if Pin::new(&mut self.ws).start_send(message).is_err() {
                    return self.session.handle_closed(now);
                }
            }
        }
        if self.flushing.is_some() {
            match Pin::new(&mut self.ws).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushing = None,
                Poll::Ready(Err(_)) => self.session.handle_closed(now),
                Poll::Pending => {}
            }
        }
    }

    fn report(&mut self, now: Mono) {
        let (frames_in, frames_out) = self.session.frames();
        if frames_in != self.counted.0 {
            self.seat.desk.meters.frames_in.increment(frames_in - self.counted.0);
        }
        if frames_out != self.counted.1 {
            self.seat.desk.meters.frames_out.increment(frames_out - self.counted.1);
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
            self.arrival = Some(Arrival {
                leg: self.handle.clone(),
                connection: self.connection,
                vendor: self.vendor,
                start: *start,
                path_token: self.path_token.take(),
                number: self.number.take(),
                proven: self.proven,
                peer: self.peer,
                shard: self.shard,
            });
        }
        if let Some(arrival) = self.arrival.take()
            && let Err(TrySendError::Full(arrival)) = self.seat.desk.arrivals.try_send(arrival)
        {
            self.arrival = Some(arrival);
        }
        while let (Some(events), Some(event)) = (&self.events, self.session.front_event()) {
            match events.try_send(event.clone()) {
                Ok(()) | Err(TrySendError::Closed(_)) => {
                    self.session.pop_event();
                }
                Err(TrySendError::Full(_)) => break,
            }
        }
    }
}

/// The close code for an error that is the peer's doing, or `None` where the socket is simply gone.
fn violation(e: &Error) -> Option<(u16, &'static str)> {
    match e {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some((1009, "message too big")),
        Error::Utf8(_) => Some((1007, "not UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some((1002, "protocol error")),
        _ => None,
    }
}
