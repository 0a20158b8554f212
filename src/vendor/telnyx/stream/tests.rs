//! The media socket's codec against recorded shapes, its own peer, and hostile bytes.

use super::*;
use crate::vendor::{Peer as _, PeerCall, PeerEvent, telnyx::peer::Peer};
use proptest::prelude::*;

const EXCHANGE: &str = include_str!("../testdata/stream.jsonl");
const SEED: &str = include_str!("../testdata/seed-stream.jsonl");
const SID: &str = "32DE0DEA-53CB-4B21-89A4-9E1819C043BC";

fn fresh() -> Codec {
    Codec::new(&Upgrade::default())
}

fn started() -> Codec {
    let mut codec = fresh();
    for line in EXCHANGE.lines().take(2) {
        codec.parse(line.as_bytes()).unwrap();
    }
    codec
}

/// What an event says, as text that can be compared.
fn say(codec: &mut Codec, message: &str) -> String {
    format!("{:?}", codec.parse(message.as_bytes()))
}

fn written(codec: &mut Codec, command: StreamCommand<'_>) -> String {
    let mut out = BytesMut::new();
    codec.format(command, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn start_of(codec: &mut Codec, message: &str) -> Result<StreamStart, WireError> {
    match codec.parse(message.as_bytes())? {
        StreamEvent::Start(start) => Ok(*start),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_exchange_is_understood() {
    let mut codec = fresh();
    let mut lines = EXCHANGE.lines();
    let mut next = || lines.next().unwrap();
    assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Hello)));
    let start = start_of(&mut codec, next()).unwrap();
    assert_eq!((start.stream_id.as_str(), start.token), (SID, None));
    assert_eq!(
        start.call_sid,
        "v3:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ"
    );
    assert_eq!(start.account.as_deref(), Some("3E6F995F-85F7-4705-9741-53B116D28237"));
    assert_eq!(
        (start.inbound, start.outbound),
        (AudioFormat::ULAW_8K, AudioFormat::ULAW_8K)
    );
    assert_eq!(
        (start.from.as_deref(), start.to.as_deref()),
        (Some("+15550100"), Some("+15550101"))
    );
    for (chunk, at) in [(2, 5), (3, 25)] {
        let Ok(StreamEvent::Media(media)) = codec.parse(next().as_bytes()) else {
            panic!("no media")
        };
        assert_eq!(media.payload, Payload::Base64(b"/38BAgMEBQYHCAk="));
        assert_eq!((media.inbound, media.chunk, media.at_ms), (true, Some(chunk), Some(at)));
    }
    assert!(matches!(
        codec.parse(next().as_bytes()),
        Ok(StreamEvent::DtmfAt('#', _))
    ));
    assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Mark("u7"))));
    assert!(matches!(
        codec.parse(next().as_bytes()),
        Ok(StreamEvent::Complaint(100_004))
    ));
    assert!(matches!(codec.parse(next().as_bytes()), Ok(StreamEvent::Stop)));
}

#[test]
fn a_stream_that_names_no_call_goes_by_its_own_name() {
    let mut codec = fresh();
    let mut lines = SEED.lines();
    let start = start_of(&mut codec, lines.next().unwrap()).unwrap();
    assert_eq!(
        (start.stream_id.as_str(), start.call_sid.as_str()),
        ("unique-stream-id", "unique-stream-id")
    );
    assert_eq!(start.inbound, AudioFormat::ULAW_8K);
    let media = codec.parse(lines.next().unwrap().as_bytes());
    assert!(matches!(
        media,
        Ok(StreamEvent::Media(Media {
            inbound: true,
            at_ms: Some(1_234_567_890),
            ..
        }))
    ));
    assert!(matches!(
        codec.parse(lines.next().unwrap().as_bytes()),
        Ok(StreamEvent::Stop)
    ));
}

#[test]
fn three_shapes_are_written() {
    let commands = [
        StreamCommand::Media(&[0xff, 0x7f, 1]),
        StreamCommand::Mark("turn \"1\"\n"),
        StreamCommand::Clear,
        StreamCommand::Media(&[]),
    ];
    let mut codec = started();
    assert_eq!(
        commands.map(|c| written(&mut codec, c)),
        [
            r#"{"event":"media","media":{"payload":"/38B"}}"#,
            r#"{"event":"mark","mark":{"name":"turn \"1\"\n"}}"#,
            r#"{"event":"clear"}"#,
            "",
        ]
    );
}

#[test]
fn media_is_understood_however_it_is_spelled() {
    let canonical = format!(
        r#"{{"event":"media","sequence_number":"4","stream_id":"{SID}","media":{{"track":"inbound","chunk":"3","timestamp":"97","payload":"ab+/"}}}}"#
    );
    let mut codec = started();
    let scanned = |codec: &Codec, message: &str| {
        let stream = codec.stream.as_ref().unwrap();
        stream.scan_media(message.as_bytes()).is_some()
    };
    assert!(scanned(&codec, &canonical));
    let expect = say(&mut codec, &canonical);
    let unnumbered = canonical.replace(r#""sequence_number":"4","#, "");
    let unnamed = canonical.replace(&format!(r#""stream_id":"{SID}","#), "");
    let turned = unnumbered.replace(r#","media":"#, r#","sequence_number":"4","media":"#);
    for other in [&unnumbered, &unnamed, &turned] {
        assert!(scanned(&codec, other), "{other}");
        assert_eq!(say(&mut codec, other), expect, "{other}");
    }
    for other in [
        canonical
            .replace(r#""4""#, "4")
            .replace(r#""97""#, "97")
            .replace(r#""3""#, "3"),
        canonical.replace(':', " : ").replace(',', " ,\n"),
        canonical.replace(r#""track":"inbound","#, ""),
        canonical.replace("inbound", "inbound_track"),
        canonical.replace(r#""track""#, r#""new":{"deep":[1]},"track""#),
        canonical.replace("ab+/", r"ab+\/"),
        canonical
            .replace(r#""event":"media","#, "")
            .replace(r#""}}"#, r#""},"event":"media"}"#),
    ] {
        assert!(!scanned(&codec, &other), "{other}");
        assert_eq!(say(&mut codec, &other), expect, "{other}");
    }
    for ours in ["outbound", "outbound_track"] {
        let outbound = canonical.replace("inbound", ours);
        assert_eq!(
            say(&mut codec, &outbound),
            expect.replace("inbound: true", "inbound: false")
        );
    }
    let foreign = canonical.replace(SID, "other");
    assert_eq!(say(&mut codec, &foreign), r#"Err(Shape("stream_id"))"#);
}

#[test]
fn the_format_that_start_names_is_honoured_and_ours_is_what_was_agreed() {
    let plain = r#"{"encoding":"PCMU","sample_rate":8000,"channels":1}"#;
    let with = |format: &str, agreed: Agreed| {
        let mut codec = Codec::new(&Upgrade {
            agreed,
            ..Upgrade::default()
        });
        let start = EXCHANGE.lines().nth(1).unwrap().replace(plain, format);
        start_of(&mut codec, &start).map(|s| (s.inbound.encoding, s.inbound.rate))
    };
    let big = Agreed {
        l16: Some(Encoding::L16Be),
        ..Agreed::default()
    };
    for (format, agreed, encoding, rate) in [
        (
            r#"{"encoding":"PCMA","sample_rate":8000}"#,
            Agreed::default(),
            Encoding::Alaw,
            8000,
        ),
        (
            r#"{"encoding":"L16","sample_rate":"16000"}"#,
            Agreed::default(),
            Encoding::L16,
            16_000,
        ),
        (r#"{"encoding":"L16"}"#, big, Encoding::L16Be, 16_000),
        (r#"{"encoding":"G722","sample_rate":8000}"#, big, Encoding::G722, 16_000),
        (
            r#"{"encoding":"OPUS","sample_rate":48000}"#,
            big,
            Encoding::Opus,
            48_000,
        ),
        (r#"{"encoding":"opus"}"#, big, Encoding::Opus, 16_000),
        (r#""audio/PCMA;rate=8000""#, big, Encoding::Alaw, 8000),
        (r#""audio/L16; rate=24000""#, big, Encoding::L16Be, 24_000),
        ("null", big, Encoding::Ulaw, 8000),
        ("{}", big, Encoding::Ulaw, 8000),
    ] {
        assert_eq!(with(format, agreed), Ok((encoding, rate)), "{format}");
    }
    for bad in [
        r#"{"encoding":"AMR-WB"}"#,
        r#"{"sample_rate":11025}"#,
        r#"{"sample_rate":4294975296}"#,
        r#"{"channels":2}"#,
        r#""audio/mp3""#,
    ] {
        assert_eq!(with(bad, Agreed::default()), Err(WireError::Format), "{bad}");
    }
    let wide = AudioFormat {
        encoding: Encoding::G722,
        rate: 16_000,
    };
    let mut codec = Codec::new(&Upgrade {
        agreed: Agreed {
            outbound: Some(wide),
            l16: None,
        },
        ..Upgrade::default()
    });
    assert_eq!(
        start_of(&mut codec, EXCHANGE.lines().nth(1).unwrap()).unwrap().outbound,
        wide
    );
}

#[test]
fn the_token_comes_by_header_query_greeting_or_parameter_and_only_one_is_believed() {
    let start = EXCHANGE.lines().nth(1).unwrap();
    let greeting = r#"{"event":"connected","version":"1.0.0","connected":{"x-telnyx-streaming-auth-token":"abc"}}"#;
    let token = |header: Option<&str>, query: Option<&str>, greeting: Option<&str>, start: &str| {
        let mut upgrade = Upgrade::default();
        if let Some(header) = header {
            upgrade.headers.insert(TOKEN_HEADER, header.parse().unwrap());
        }
        upgrade.query.extend(query.map(|q| ("token".to_owned(), q.to_owned())));
        let mut codec = Codec::new(&upgrade);
        if let Some(greeting) = greeting {
            codec.parse(greeting.as_bytes()).map(drop)?;
        }
        start_of(&mut codec, start).map(|s| s.token)
    };
    let abc = Ok(Some("abc".to_owned()));
    assert_eq!(token(Some("abc"), None, Some(greeting), start), abc);
    assert_eq!(token(None, Some("abc"), None, start), abc);
    assert_eq!(token(None, None, Some(greeting), start), abc);
    let object = start.replace(r#""customer_id":"customer_123""#, r#""token":"abc","n":1"#);
    let list = object.replace(r#"{"token":"abc","n":1}"#, r#"[{"name":"token","value":"abc"}]"#);
    assert_eq!(token(None, None, None, &object), abc);
    assert_eq!(token(None, None, None, &list), abc);
    assert_eq!(token(None, None, None, start), Ok(None));
    assert_eq!(
        token(Some("other"), None, Some(greeting), start),
        Err(WireError::Shape("connected"))
    );
}

#[test]
fn unknown_events_are_ignored_and_wrong_ones_named() {
    let mut codec = started();
    for (message, expect) in [
        (r#"{"event":"surprise","media":5}"#, "Ok(Ignored)"),
        (r#"{"event":"connected"}"#, "Ok(Hello)"),
        (r#"{"event":"error"}"#, "Ok(Complaint(0))"),
        ("", "Err(NotJson)"),
        ("{", "Err(NotJson)"),
        ("[]", r#"Err(Shape("event"))"#),
        (r#"{"event":"media"}"#, r#"Err(Shape("media"))"#),
        (r#"{"event":"media","media":{}}"#, r#"Err(Shape("media.payload"))"#),
        (r#"{"event":"mark","mark":{}}"#, r#"Err(Shape("mark.name"))"#),
        (r#"{"event":"mark","mark":{"name":"a\"b"}}"#, r#"Ok(Mark("a\"b"))"#),
        (r#"{"event":"dtmf","dtmf":{"digit":"d"}}"#, "Ok(Dtmf('D'))"),
        (r#"{"event":"dtmf","dtmf":{"digit":7}}"#, "Ok(Dtmf('7'))"),
        (r#"{"event":"dtmf","dtmf":{"digit":"12"}}"#, "Err(Key)"),
        (r#"{"event":"stop","stream_id":"other"}"#, r#"Err(Shape("stream_id"))"#),
        (EXCHANGE.lines().nth(1).unwrap(), r#"Err(Shape("start"))"#),
    ] {
        assert_eq!(say(&mut codec, message), expect, "{message}");
    }
    for (message, expect) in [
        (r#"{"event":"start"}"#, r#"Err(Shape("start"))"#),
        (r#"{"event":"start","start":{}}"#, r#"Err(Id("stream_id"))"#),
        (
            r#"{"event":"start","stream_id":"a b","start":{}}"#,
            r#"Err(Id("stream_id"))"#,
        ),
        (
            r#"{"event":"start","stream_id":"a","start":{"call_control_id":""}}"#,
            r#"Err(Id("start.call_control_id"))"#,
        ),
    ] {
        assert_eq!(say(&mut fresh(), message), expect, "{message}");
    }
}

fn call() -> impl Strategy<Value = PeerCall> {
    (
        "[!-~]{1,40}",
        proptest::option::of("[!-~]{1,60}"),
        "\\PC{0,20}",
        "\\PC{0,20}",
    )
        .prop_map(|(call_sid, token, from, to)| PeerCall {
            call_sid,
            token,
            from,
            to,
            ..PeerCall::default()
        })
}

proptest! {
    #[test]
    fn codec_and_peer_understand_each_other(
        call in call(),
        audio in prop::collection::vec(any::<u8>(), 160..400),
        name in any::<String>(),
        at_ms in any::<u32>(),
    ) {
        let (mut codec, mut peer) = (fresh(), Peer::new(call.clone()));
        let opening = peer.open();
        prop_assert!(matches!(codec.parse(opening[0].as_bytes()), Ok(StreamEvent::Hello)));
        let Ok(StreamEvent::Start(start)) = codec.parse(opening[1].as_bytes()) else {
            return Err(TestCaseError::fail("no start"));
        };
        prop_assert_eq!(&start.call_sid, &call.call_sid);
        prop_assert_eq!(&start.token, &call.token);
        prop_assert_eq!(start.from.unwrap_or_default(), call.from);
        prop_assert_eq!(start.to.unwrap_or_default(), call.to);

        let mut message = String::new();
        peer.media(&audio, u64::from(at_ms), &mut message);
        prop_assert!(codec.stream.as_ref().unwrap().scan_media(message.as_bytes()).is_some(), "the fast path refused {}", message);
        let Ok(StreamEvent::Media(Media { payload: Payload::Base64(text), inbound: true, chunk: Some(1), at_ms: Some(at), .. })) = codec.parse(message.as_bytes()) else {
            return Err(TestCaseError::fail("no media"));
        };
        prop_assert_eq!(at, u64::from(at_ms));
        prop_assert_eq!(&base64::decode_vec(text, 400).unwrap(), &audio);
        let mark = peer.mark(&name);
        prop_assert!(matches!(codec.parse(mark.as_bytes()), Ok(StreamEvent::Mark(n)) if n == name));
        for digit in "0123456789*#ABCD".chars() {
            let dtmf = peer.dtmf(digit);
            prop_assert!(matches!(codec.parse(dtmf.as_bytes()), Ok(StreamEvent::DtmfAt(d, _)) if d == digit));
        }
        let stop = peer.stop();
        prop_assert!(matches!(codec.parse(stop.as_bytes()), Ok(StreamEvent::Stop)));

        let back = written(&mut codec, StreamCommand::Media(&audio));
        let Ok(PeerEvent::Media(Payload::Base64(text))) = peer.read(back.as_bytes()) else {
            return Err(TestCaseError::fail("media refused"));
        };
        prop_assert_eq!(&base64::decode_vec(text, 400).unwrap(), &audio);
        let back = written(&mut codec, StreamCommand::Mark(&name));
        prop_assert_eq!(peer.read(back.as_bytes()), Ok(PeerEvent::Mark(&name)));
        let back = written(&mut codec, StreamCommand::Clear);
        prop_assert_eq!(peer.read(back.as_bytes()), Ok(PeerEvent::Clear));
    }

    #[test]
    fn what_the_scan_accepts_serde_reads_alike(message in near_media()) {
        let mut codec = started();
        let fast = codec.stream.as_ref().unwrap().scan_media(&message);
        if let Some(Media { payload: Payload::Base64(text), .. }) = fast {
            // The scan leaves the payload's own bytes to the base64 decoder, which refuses all that JSON would.
            if base64::decode_vec(text, 1000).is_ok() {
                let fast = format!("{:?}", Ok::<_, WireError>(StreamEvent::Media(fast.unwrap())));
                prop_assert_eq!(format!("{:?}", codec.read(&message)), fast);
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), near in near_media()) {
        let mut peer = Peer::new(PeerCall { call_sid: "v3:a".into(), ..PeerCall::default() });
        for message in [bytes, near] {
            let _ = fresh().parse(&message);
            let _ = started().parse(&message);
            let _ = peer.read(&message);
        }
    }
}

/// A media message with up to three bytes replaced, removed or doubled.
fn near_media() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(any::<u8>(), 0..40).prop_map(|audio| {
        format!(
            r#"{{"event":"media","sequence_number":"07","stream_id":"{SID}","media":{{"track":"inbound","chunk":"5","timestamp":"0100","payload":"{}"}}}}"#,
            base64::encode_string(&audio)
        )
        .into_bytes()
    });
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}:,0 =/"[..])];
    let edit = (any::<prop::sample::Index>(), byte, 0..3);
    (text, prop::collection::vec(edit, 0..4)).prop_map(|(mut text, edits)| {
        for (at, byte, how) in edits {
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => drop(text.remove(at)),
            }
        }
        text
    })
}
