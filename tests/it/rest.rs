//! Requests over real TCP: who may ask, what answers look like, what is refused and how.

use crate::house::House;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    control::Strain,
    http::{metrics_router, routes::Gate},
    store::{Batch, CallChange, Write},
};
use std::sync::atomic::Ordering::Relaxed;

async fn ask(house: &House, method: &str, path: &str, token: Option<&str>) -> (u16, Value) {
    match method {
        "GET" => house.get(path, token).await,
        "PUT" => house.put(path, token, &json!({})).await,
        "DELETE" => house.delete(path, token).await,
        _ => house.post(path, token, &json!({})).await,
    }
}

#[tokio::test]
async fn every_route_has_a_gate_and_missing_and_bad_credentials_look_alike() {
    let house = House::with("[access]\nfailures_per_minute = 1000").await;
    let mut open = Vec::new();
    for (method, path, gate) in &house.routes {
        let path = path.replace("{id}", "CA1");
        let role = match gate {
            Gate::Role(role) => *role,
            Gate::Open => {
                open.push(path);
                continue;
            }
            Gate::Frontend => Role::Viewer,
            // Another test holds these: `an_unsigned_webhook_is_refused_and_leaves_nothing`.
            Gate::Vendor => continue,
        };
        let missing = ask(&house, method, &path, None).await;
        let bad = ask(&house, method, &path, Some("a.b.c")).await;
        assert_eq!(missing.0, 401, "{method} {path}");
        assert_eq!(missing, bad, "{method} {path}");
        if role > Role::Viewer {
            let viewer = ask(&house, method, &path, Some(&house.token(1, Role::Viewer))).await;
            assert_eq!(
                (viewer.0, &viewer.1["error"]["code"]),
                (403, &json!("forbidden")),
                "{path}"
            );
        }
        let allowed = ask(&house, method, &path, Some(&house.token(1, role))).await;
        assert!(![401, 403].contains(&allowed.0), "{method} {path}: {allowed:?}");
        assert!(
            method != "POST" || role > Role::Viewer,
            "{path}: who may only look must not act"
        );
    }
    assert_eq!(open, ["/health", "/ready", "/api/openapi.json", "/api/asyncapi.json"]);
}

#[tokio::test]
async fn twenty_bad_tokens_shut_an_address_out() {
    let house = House::new().await;
    for _ in 0..21 {
        assert_eq!(house.get("/api/calls/active", Some("a.b.c")).await.0, 401);
    }
    let good = house.token(1, Role::Viewer);
    assert_eq!(house.get("/api/calls/active", Some(&good)).await.0, 429);
    house.ring("CA1", 1).await;
}

#[tokio::test]
async fn forged_webhooks_shut_out_neither_people_nor_the_vendor_behind_the_same_address() {
    let house = House::strict().await;
    let path = "/api/calls/twilio/webhook";
    let form = "CallSid=CA1&AccountSid=AC00000000000000000000000000000001&From=%2B15559990000&To=%2B15550100001&CallStatus=ringing&Direction=inbound&ApiVersion=2010-04-01";
    let mut told = Vec::new();
    for _ in 0..25 {
        told.push(house.hook(path, form).await.status().as_u16());
    }
    assert_eq!((told[0], told[19], told[24]), (403, 403, 429), "{told:?}");
    let token = house.token(1, Role::Agent);
    assert_eq!(house.get("/api/calls/active", Some(&token)).await.0, 200);
    assert_eq!(house.get("/api/calls/active", Some("a.b.c")).await.0, 401, "not yet");
    // The vendor's own, from the same address.
    let signature = sidetone::wire::sign::MacKey::new(
        sidetone::wire::sign::Algorithm::HmacSha1,
        b"12345678901234567890123456789012",
    );
    let mut pairs: Vec<_> = sidetone::wire::form::Form::parse(form.as_bytes()).unwrap().0;
    pairs.sort();
    let text: String = pairs.iter().flat_map(|(n, v)| [&**n, &**v]).collect();
    let code = signature.sign(["http://relay.test", path, &text]);
    let signed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, code.as_ref());
    let request = ::http::Request::builder()
        .method("POST")
        .uri(path)
        .header("host", house.address.to_string())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-twilio-signature", signed)
        .body(form.to_owned())
        .unwrap();
    let answer = house.request(request).await;
    assert_eq!(answer.status(), 200, "{}", answer.body());
    assert!(answer.body().contains("<Stream"), "{}", answer.body());
    assert_eq!(
        house.hook(path, form).await.status(),
        429,
        "the forger is still told to stay away"
    );
}

#[tokio::test]
async fn faults_have_one_shape() {
    let house = House::new().await;
    let token = house.token(1, Role::Agent);
    let code = |(status, body): (u16, Value)| {
        assert_eq!(body["success"], false, "{body}");
        assert!(body["error"]["message"].is_string(), "{body}");
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    };
    let is = |status, word: &str| (status, word.to_owned());
    let to = json!({"to": "+15550009999"});
    assert_eq!(
        code(house.get("/api/nothing", Some(&token)).await),
        is(404, "not_found")
    );
    assert_eq!(
        code(house.get("/api/calls/CA404", Some(&token)).await),
        is(404, "not_found")
    );
    assert_eq!(
        code(house.post("/api/calls/active", Some(&token), &to).await),
        is(405, "method_not_allowed")
    );
    assert_eq!(
        code(house.post("/api/calls/initiate", Some(&token), &json!([])).await),
        is(400, "malformed")
    );
    assert_eq!(
        code(house.post("/api/calls/initiate", Some(&token), &json!({})).await),
        is(422, "invalid")
    );
    let extra = json!({"to": "+15550009999", "tenant_id": 2, "status": "ended"});
    let (status, body) = house.post("/api/calls/initiate", Some(&token), &extra).await;
    assert_eq!(
        (status, &body["error"]["message"]),
        (422, &json!("unknown fields: status, tenant_id"))
    );
    let wrong = json!({"to": "call me"});
    assert_eq!(
        code(house.post("/api/calls/initiate", Some(&token), &wrong).await),
        is(422, "invalid")
    );
    let big = json!({"to": "x".repeat(70_000)});
    assert_eq!(
        code(house.post("/api/calls/initiate", Some(&token), &big).await),
        is(413, "too_large")
    );
    let stream = house.get("/api/ws/telephony/stream", Some(&token)).await;
    assert_eq!(code(stream), is(426, "upgrade_required"));
    let request = http::Request::post("/api/calls/initiate")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "text/plain")
        .body("{}".to_owned())
        .unwrap();
    assert_eq!(house.request(request).await.status(), 415);
}

#[tokio::test]
async fn a_call_is_shown_live_and_afterwards_by_either_id_to_its_tenant_alone() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let (ours, theirs) = (house.token(1, Role::Viewer), house.token(2, Role::Admin));
    let (_, active) = house.get("/api/calls/active", Some(&ours)).await;
    let call = &active["data"][0];
    assert_eq!((&active["success"], &active["count"]), (&json!(true), &json!(1)));
    assert_eq!((&call["call_id"], &call["callId"]), (&json!("CA1"), &json!("CA1")));
    assert_eq!(
        (&call["from"], &call["to"]),
        (&json!("+15559990000"), &json!("+15550100001"))
    );
    assert_eq!(
        (&call["provider"], &call["direction"]),
        (&json!("twilio"), &json!("inbound"))
    );
    let id = call["id"].as_str().unwrap();
    assert!(id.starts_with("call_"));
    for id in ["CA1", id] {
        let (status, shown) = house.get(&format!("/api/calls/{id}/status"), Some(&ours)).await;
        assert_eq!((status, &shown["data"]["status"]), (200, &json!("incoming")));
        let foreign = house.get(&format!("/api/calls/{id}"), Some(&theirs)).await;
        let absent = house.get("/api/calls/CA404", Some(&theirs)).await;
        assert_eq!(foreign, absent);
        assert_eq!(foreign.0, 404);
    }
    let none = house.get("/api/calls/active", Some(&theirs)).await;
    assert_eq!(none.1["count"], 0);
    house.vendor_says("CA1", 1, "completed", 1).await;
    let (_, past) = house.get("/api/calls/history", Some(&ours)).await;
    assert_eq!(past["data"][0]["id"], id);
    assert_eq!(past["data"][0]["end_reason"], "completed");
    assert_eq!(house.get("/api/calls/history", Some(&theirs)).await.1["count"], 0);
}

#[tokio::test]
async fn history_is_paged_by_cursor_without_gap_or_repeat() {
    let house = House::new().await;
    for n in 0..7 {
        house.ring(&format!("CA{n}"), 1).await;
        house.vendor_says(&format!("CA{n}"), 1, "completed", 1).await;
    }
    let token = house.token(1, Role::Viewer);
    let mut seen = Vec::new();
    let mut path = "/api/calls/history?limit=3".to_owned();
    loop {
        let (status, page) = house.get(&path, Some(&token)).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["call_id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/calls/history?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["CA6", "CA5", "CA4", "CA3", "CA2", "CA1", "CA0"]);
    assert_eq!(
        house.get("/api/calls/history?cursor=junk", Some(&token)).await.0 / 100,
        4
    );
}

#[tokio::test]
async fn an_unsigned_webhook_is_refused_and_leaves_nothing() {
    let house = House::strict().await;
    let form = "CallSid=CA1&AccountSid=AC00000000000000000000000000000001&From=%2B15559990000&To=%2B15550100001&CallStatus=ringing";
    for path in ["/api/calls/twilio/webhook", "/api/calls/twilio/status"] {
        assert_eq!(house.hook(path, form).await.status(), 403);
    }
    let (_, active) = house
        .get("/api/calls/active", Some(&house.token(1, Role::Viewer)))
        .await;
    assert_eq!(active["count"], 0);
    let upgrade = house.upgrade("/api/calls/twilio/stream", &[]).await.unwrap_err();
    assert_eq!(upgrade.0, 403);
}

#[tokio::test]
async fn a_repeated_webhook_gets_the_same_kind_of_answer_and_makes_no_second_call() {
    let house = House::new().await;
    for _ in 0..3 {
        house.ring("CA1", 1).await;
    }
    let (_, active) = house
        .get("/api/calls/active", Some(&house.token(1, Role::Viewer)))
        .await;
    assert_eq!(active["count"], 1);
    let nonsense = house.hook("/api/calls/twilio/webhook", "x=1").await;
    assert_eq!(nonsense.status(), 400);
    let huge = house.hook("/api/calls/twilio/webhook", &"x".repeat(300_000)).await;
    assert_eq!(huge.status(), 413);
}

#[tokio::test]
async fn a_media_socket_is_handed_on_with_its_token_or_refused_before_the_upgrade() {
    let house = House::new().await;
    let _socket = house
        .upgrade("/api/calls/twilio/stream/tok-1?a=b%20c", &[])
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + crate::house::PATIENCE;
    let upgrade = loop {
        if let Some(upgrade) = house.door.adopted.lock().unwrap().pop() {
            break upgrade;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(upgrade.path_token.as_deref(), Some("tok-1"));
    assert_eq!(upgrade.query, [("a".to_owned(), "b c".to_owned())]);

    let plain = house.get("/api/calls/twilio/stream", None).await;
    assert_eq!(plain.0, 426);
    house.door.full.store(true, Relaxed);
    assert_eq!(house.upgrade("/api/calls/twilio/stream", &[]).await.unwrap_err().0, 503);
    let (status, ready) = house.get("/ready", None).await;
    assert_eq!((status, &ready["reasons"]), (503, &json!(["full"])));
}

#[tokio::test]
async fn a_strained_daemon_answers_new_calls_busy_and_keeps_the_old() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    assert_eq!(house.control.strain(Some(Strain::Late)), None);
    let (status, ready) = house.get("/ready", None).await;
    assert_eq!((status, &ready["reasons"]), (503, &json!(["late"])));
    let form = "CallSid=CA2&AccountSid=AC1&From=%2B15559990000&To=%2B15550100001&CallStatus=ringing&Direction=inbound";
    let busy = house.hook("/api/calls/twilio/webhook", form).await;
    assert_eq!(busy.status(), 200);
    assert!(busy.body().contains(r#"<Reject reason="busy""#), "{}", busy.body());
    house.ring("CA1", 1).await;
    house.vendor_says("CA1", 1, "in-progress", 1).await;
    assert_eq!(house.control.strain(None), Some(Strain::Late));
    house.ring("CA3", 1).await;
    assert_eq!(house.get("/ready", None).await.0, 200);
}

#[tokio::test]
async fn on_dev_only_this_machines_names_are_answered() {
    let house = House::dev().await;
    let port = house.address.port();
    let answered = async |host: &str| {
        let head = format!("GET /api/calls/active HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        house.raw(head.as_bytes()).await.starts_with("HTTP/1.1 200")
    };
    let here = [
        "localhost".to_owned(),
        format!("127.0.0.1:{port}"),
        "[::1]:1".to_owned(),
        "relay.test".to_owned(),
    ];
    for host in &here {
        assert!(answered(host).await, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.1:8080",
        "127.0.0.1.evil.example",
        "",
        "localhost@evil.example",
    ] {
        assert!(!answered(host).await, "{host:?}");
    }
    // No vendor is a page: its routes are no way in for one, though they ask for no credential.
    for origin in ["http://evil.example", "null"] {
        let hook = format!(
            "POST /api/calls/twilio/webhook HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let said = house.raw(hook.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 403 "), "{origin}: {said}");
    }
    let absolute = "GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(house.raw(absolute.as_bytes()).await.starts_with("HTTP/1.1 403"));
    let strict = House::new().await;
    let head = "GET /health HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n";
    assert!(strict.raw(head.as_bytes()).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn rest_answers_pages_of_listed_origins_alone() {
    let house = House::with("[http]\norigins = [\"https://app.example.com\"]").await;
    let token = house.token(1, Role::Viewer);
    for (origin, status) in [
        (None, 200),
        (Some("https://app.example.com"), 200),
        (Some("http://relay.test"), 200),
        (Some("https://app.example.com.evil.example"), 403),
        (Some("null"), 403),
    ] {
        let mut request = http::Request::get("/api/calls/active").header("authorization", format!("Bearer {token}"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let answer = house.request(request.body(String::new()).unwrap()).await;
        assert_eq!(answer.status(), status, "{origin:?}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_gets_the_one_shape_of_errors() {
    let house = House::new().await;
    let token = house.token(1, Role::Viewer);
    for path in [
        "/api/calls/%ff",
        "/api/calls/%zz/status",
        "/api/calls/twilio/stream/%ff",
        "/%c3",
    ] {
        let (status, body) = house.get(path, Some(&token)).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("malformed")), "{path}");
    }
}

#[tokio::test]
async fn health_and_readiness_say_what_is_so() {
    let house = House::new().await;
    assert_eq!(house.get("/health", None).await, (200, json!({"status": "ok"})));
    assert_eq!(house.get("/ready", None).await, (200, json!({"status": "ready"})));
    house.readiness.drain();
    assert_eq!(house.get("/health", None).await, (200, json!({"status": "draining"})));
    let (status, ready) = house.get("/ready", None).await;
    assert_eq!((status, &ready["reasons"]), (503, &json!(["draining"])));
}

#[tokio::test]
async fn answers_carry_security_headers_and_cors_for_listed_origins_alone() {
    let house = House::with("[http]\norigins = [\"https://app.example.com\"]").await;
    let ask = async |method: &str, origin: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri("/api/calls/initiate")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(String::new())
            .unwrap();
        house.request(request).await
    };
    let preflight = ask("OPTIONS", "https://app.example.com").await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(
        preflight.headers()["access-control-allow-origin"],
        "https://app.example.com"
    );
    assert!(preflight.headers().get("access-control-allow-credentials").is_none());
    let foreign = ask("OPTIONS", "https://evil.example").await;
    assert!(foreign.headers().get("access-control-allow-origin").is_none());
    let refused = ask("POST", "https://app.example.com").await;
    assert_eq!(refused.status(), 401);
    assert_eq!(
        refused.headers()["access-control-allow-origin"],
        "https://app.example.com"
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("www-authenticate", "Bearer"),
    ] {
        assert_eq!(refused.headers()[name], value);
    }
    assert!(refused.headers().get("server").is_none());
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_time() {
    let house = House::with("[http]\nheader_timeout = \"200ms\"").await;
    let head = |extra: &str| format!("GET /health HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n{extra}\r\n");
    let answer = async |bytes: &[u8]| {
        let answer = house.raw(bytes).await;
        let status = answer.split(' ').nth(1).unwrap_or("none").to_owned();
        if status != "200" {
            let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or_default()).unwrap();
            assert_eq!(body["success"], false, "{answer}");
            assert!(
                body["error"]["code"].is_string() && body["error"]["message"].is_string(),
                "{answer}"
            );
        }
        status
    };
    assert_eq!(answer(head("").as_bytes()).await, "200");
    for hosts in ["", "Host: a.test\r\nHost: b.test\r\n"] {
        let request = format!("GET /health HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        assert_eq!(answer(request.as_bytes()).await, "400", "{hosts:?}");
    }
    let long_line = format!("X: {}\r\n", "x".repeat(9000));
    assert_eq!(answer(head(&long_line).as_bytes()).await, "431");
    let much = format!("X: {}\r\n", "x".repeat(7000)).repeat(3);
    assert_eq!(answer(head(&much).as_bytes()).await, "431");
    let many: String = (0..70).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(answer(head(&many).as_bytes()).await, "431");
    for length in [9000, 300_000] {
        let uri = format!(
            "GET /{} HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n",
            "x".repeat(length)
        );
        assert_eq!(answer(uri.as_bytes()).await, "414");
    }
    // Each on a connection that has served a request before, too.
    for before in ["", "GET /health HTTP/1.1\r\nHost: relay.test\r\n\r\n"] {
        let hook = "POST /api/calls/twilio/webhook HTTP/1.1\r\nHost: relay.test\r\n";
        for (rest, status) in [
            ("GET /health HTTP/1.1\r\nHost: r", "408"),
            ("", if before.is_empty() { "408" } else { "" }),
            ("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"),
            (
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "400",
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
                "400",
            ),
        ] {
            if status.is_empty() {
                continue;
            }
            let head = if rest.starts_with("Content") || rest.starts_with("Transfer") {
                hook
            } else {
                ""
            };
            let whole = house.raw(format!("{before}{head}{rest}").as_bytes()).await;
            let last = whole.rfind("HTTP/1.1 ").map_or("", |at| &whole[at..]);
            assert!(
                last.starts_with(&format!("HTTP/1.1 {status} ")),
                "{before:?} {rest:?}: {whole}"
            );
            assert!(last.contains(r#""success":false"#), "{whole}");
            assert_eq!(
                whole.matches("HTTP/1.1 ").count(),
                1 + usize::from(!before.is_empty()),
                "{whole}"
            );
        }
    }
}

#[tokio::test]
async fn a_recording_is_served_whole_and_in_ranges() {
    let house = House::new().await;
    house.ring("CA1", 1).await;
    let token = house.token(1, Role::Viewer);
    let (status, none) = house.get("/api/calls/CA1/recording", Some(&token)).await;
    assert_eq!(
        (status, &none["error"]["message"]),
        (404, &json!("recording not found"))
    );

    house.vendor_says("CA1", 1, "completed", 1).await;
    let (_, call) = house.get("/api/calls/CA1", Some(&token)).await;
    let bytes: String = (0..200_000).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    std::fs::create_dir_all(house.folder.path().join("recordings")).unwrap();
    std::fs::write(house.folder.path().join("recordings/x.wav"), &bytes).unwrap();
    let change = CallChange {
        call_id: Some(call["data"]["id"].as_str().unwrap().parse().unwrap()),
        recording: Some("recordings/x.wav".into()),
        ..CallChange::default()
    };
    let batch = Batch {
        writes: vec![Write::CallChange(Box::new(change))],
    };
    house.store.commit(batch).await.unwrap();

    let fetch = async |range: Option<&str>, tenant| {
        let mut request = http::Request::get("/api/calls/CA1/recording")
            .header("authorization", format!("Bearer {}", house.token(tenant, Role::Viewer)));
        if let Some(range) = range {
            request = request.header("range", range);
        }
        house.request(request.body(String::new()).unwrap()).await
    };
    let whole = fetch(None, 1).await;
    assert_eq!((whole.status().as_u16(), whole.body() == &bytes), (200, true));
    assert_eq!(whole.headers()["content-type"], "audio/wav");
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    let part = fetch(Some("bytes=100000-100009"), 1).await;
    assert_eq!(
        (part.status().as_u16(), part.body().as_str()),
        (206, &bytes[100_000..100_010])
    );
    assert_eq!(part.headers()["content-range"], "bytes 100000-100009/200000");
    let none = fetch(Some("bytes=200000-"), 1).await;
    assert_eq!(
        (none.status().as_u16(), &none.headers()["content-range"]),
        (416, &"bytes */200000".parse().unwrap())
    );
    assert_eq!(fetch(None, 2).await.status(), 404);
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    let renderer = sidetone::metrics::install().unwrap();
    sidetone::metrics::refused("test", "test");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, address) = listener.accept().await.unwrap();
        let peer = sidetone::http::Peer { address, tls: false };
        let limits = sidetone::http::Config::default();
        let never = std::future::pending();
        let _ = sidetone::http::serve::connection(stream, metrics_router(renderer), &limits, peer, None, never).await;
    });
    let mut house = House::new().await;
    assert_eq!(house.get("/metrics", None).await.0, 404);
    house.address = address;
    let request = http::Request::get("/metrics")
        .header("host", "localhost")
        .body(String::new())
        .unwrap();
    let page = house.request(request).await;
    assert_eq!(page.status(), 200);
    assert!(
        page.body()
            .contains("sidetone_refused_total{what=\"test\",reason=\"test\"} 1"),
        "{}",
        page.body()
    );
}
