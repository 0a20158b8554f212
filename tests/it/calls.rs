//! The simulated caller against a far end of a few lines: what is measured and heard must be what was sent.

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use sidetone::{
    base::time::Mono,
    sim::{
        address::Address,
        caller::{self, CallError, Opening, Outcome, Plan, Progress},
        report::Ended,
        script::Manner,
    },
    vendor::{Payload, StreamCodec, StreamCommand, StreamEvent, Upgrade, VENDORS},
    wire::base64,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

/// The daemon's side of one media socket.
struct FarEnd {
    socket: WebSocketStream<TcpStream>,
    codec: Box<dyn StreamCodec>,
}

/// What the far end heard.
enum Heard {
    Start,
    Audio(Vec<u8>),
    Mark(String, Mono),
    Stop,
}

impl FarEnd {
    async fn hear(&mut self) -> Option<Heard> {
        loop {
            let Message::Text(text) = self.socket.next().await?.ok()? else {
                continue;
            };
            return Some(match self.codec.parse(text.as_bytes()).ok()? {
                StreamEvent::Start(_) => Heard::Start,
                StreamEvent::Media(media) => {
                    let Payload::Base64(text) = media.payload else {
                        return None;
                    };
                    Heard::Audio(base64::decode_vec(text, text.len()).ok()?)
                }
                StreamEvent::Mark(name) => Heard::Mark(name.to_owned(), Mono::now()),
                StreamEvent::Stop => Heard::Stop,
                _ => continue,
            });
        }
    }

    async fn say(&mut self, command: StreamCommand<'_>) {
        let mut message = BytesMut::new();
        self.codec.format(command, &mut message);
        let text = String::from_utf8(message.to_vec()).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
    }
}

/// Places a call to `far_end` and returns both sides' results.
async fn call<T, F>(samples: Vec<i16>, far_end: impl FnOnce(FarEnd) -> F + Send + 'static) -> (Outcome, T)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("ws://{}/stream", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let socket = accept_async(stream).await.unwrap();
        let codec = (VENDORS[0].codec)(&Upgrade::default());
        far_end(FarEnd { socket, codec }).await
    });
    let (progress, _watched) = mpsc::channel::<Progress>(16);
    let outcome = caller::place(plan(address, samples), &progress).await.unwrap();
    (outcome, server.await.unwrap())
}

fn plan(daemon: Address, samples: Vec<i16>) -> Plan {
    Plan {
        vendor: VENDORS[0],
        daemon,
        opening: Opening::Unannounced,
        from: "+15550100".into(),
        to: "+15550101".into(),
        samples,
        manner: Manner::AsRecorded,
        format: None,
        faults: Vec::new(),
        linger: Duration::from_millis(300),
        limit: Duration::from_secs(20),
    }
}

/// Half a second of noise, loud enough for speech.
fn noise() -> Vec<i16> {
    let mut samples = vec![0; 4000];
    sidetone::audio::tone::Noise::new(7).white(-20.0, &mut samples);
    samples
}

#[tokio::test]
async fn an_echo_comes_back_bit_for_bit_and_is_recognised_as_one() {
    let (outcome, frames) = call(noise(), |mut far| async move {
        let mut frames = 0_u64;
        while let Some(heard) = far.hear().await {
            match heard {
                Heard::Audio(audio) => {
                    frames += 1;
                    far.say(StreamCommand::Media(&audio)).await;
                }
                Heard::Stop => break,
                Heard::Start | Heard::Mark(..) => {}
            }
        }
        frames
    })
    .await;
    let report = &outcome.report;
    assert_eq!(report.ended, Ended::Caller);
    assert_eq!(report.frames_sent, frames);
    let echo = report.echo.unwrap();
    assert_eq!(echo.changed, 0, "{report:?}");
    assert!(echo.bytes >= 4000, "{report:?}");
    assert_eq!((report.turns.len(), report.turns[0].from_ms), (1, 0));
    assert!((480..=520).contains(&report.turns[0].to_ms), "{report:?}");
    assert_eq!(report.refused, [""; 0]);
}

#[tokio::test]
async fn a_mark_waits_for_its_audio_and_a_clear_silences_at_once() {
    let (outcome, (first, dropped)) = call(Vec::new(), |mut far| async move {
        while !matches!(far.hear().await, Some(Heard::Start)) {}
        let begun = Mono::now();
        // 200 ms, a mark, and two seconds that are never heard to their end.
        far.say(StreamCommand::Media(&[0x10; 1600])).await;
        far.say(StreamCommand::Mark("first")).await;
        far.say(StreamCommand::Media(&[0x20; 16_000])).await;
        far.say(StreamCommand::Mark("dropped")).await;
        let mut marks = Vec::new();
        while let Some(heard) = far.hear().await {
            match heard {
                Heard::Mark(name, at) => {
                    if name == "first" {
                        far.say(StreamCommand::Clear).await;
                    }
                    marks.push((name, at.since(begun)));
                }
                Heard::Stop => break,
                Heard::Start | Heard::Audio(_) => {}
            }
        }
        assert_eq!(
            marks.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
            ["first", "dropped"]
        );
        (marks[0].1, marks[1].1)
    })
    .await;
    // The jitter buffer and the audio before it: never earlier.
    assert!(first >= Duration::from_millis(239), "{first:?}");
    assert!(dropped < Duration::from_secs(2), "{dropped:?}");
    let report = &outcome.report;
    assert_eq!((report.marks, report.clears), (2, 1), "{report:?}");
    let loud = outcome.heard.iter().filter(|s| s.unsigned_abs() > 128).count() as u64;
    // Two roundings to whole milliseconds.
    assert!((2198..=2200).contains(&(loud / 8 + report.audio_cut_ms)), "{report:?}");
    assert_eq!(report.gaps, []);
}

#[tokio::test]
async fn a_far_end_that_hangs_up_or_breaks_is_told_apart() {
    let (closed, ()) = call(noise(), |mut far| async move {
        while !matches!(far.hear().await, Some(Heard::Audio(_))) {}
        far.socket.close(None).await.unwrap();
        while far.hear().await.is_some() {}
    })
    .await;
    assert_eq!(closed.report.ended, Ended::Daemon(1005));
    let (broken, ()) = call(noise(), |mut far| async move {
        while !matches!(far.hear().await, Some(Heard::Audio(_))) {}
    })
    .await;
    assert_eq!(broken.report.ended, Ended::Lost);
}

#[tokio::test]
async fn messages_that_the_vendor_would_refuse_are_reported() {
    let (outcome, ()) = call(Vec::new(), |mut far| async move {
        while !matches!(far.hear().await, Some(Heard::Start)) {}
        for bad in ["not JSON", r#"{"event":"media"}"#] {
            far.socket.send(Message::text(bad)).await.unwrap();
        }
        far.socket.send(Message::binary(vec![1])).await.unwrap();
        while !matches!(far.hear().await, Some(Heard::Stop) | None) {}
    })
    .await;
    assert_eq!(outcome.report.refused.len(), 3, "{:?}", outcome.report.refused);
}

#[tokio::test]
async fn a_daemon_that_is_not_there_or_refuses_is_an_error() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (progress, _watched) = mpsc::channel(1);
    let address: Address = format!("ws://{nobody}").parse().unwrap();
    let error = caller::place(plan(address, Vec::new()), &progress).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(..)), "{error}");

    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address: Address = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        stream
            .try_write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let error = caller::place(plan(address, Vec::new()), &progress).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Refused(why) if why.contains("403")),
        "{error}"
    );
}
