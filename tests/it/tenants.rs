//! Tenants, API keys, limits and keys of tokens that somebody else keeps, over real connections and on the command line.

use crate::{
    daemon::{Daemon, sidetone},
    house::{House, PATIENCE},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use sidetone::{access::Role, base::time::Wall};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

async fn key(house: &House, tenant: i64, body: Value) -> (String, String) {
    let (status, made) = house
        .post("/api/keys", Some(&house.token(tenant, Role::Admin)), &body)
        .await;
    assert_eq!(status, 200, "{made}");
    let text = |name: &str| made["data"][name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_and_what_it_has_open_is_closed() {
    let house = House::new().await;
    let (id, secret) = key(
        &house,
        2,
        json!({"name": "desk", "role": "viewer", "scopes": ["ws", "calls"]}),
    )
    .await;
    assert_eq!(house.get("/api/calls/active", Some(&secret)).await.0, 200);
    assert_eq!(
        house.get("/api/agents", Some(&secret)).await.0,
        403,
        "it is narrowed to others"
    );
    let mut open = Vec::new();
    for path in [
        "/api/ws/telephony/stream?client_type=telephony",
        "/call-events",
        "/frontend-audio",
    ] {
        let mut socket = house.upgrade(path, &[("x-api-key", &secret)]).await.unwrap();
        let named = if path == "/frontend-audio" { "event" } else { "type" };
        socket.say(&json!({ named: "ping" })).await;
        socket.next_of("pong").await;
        open.push(socket);
    }
    let (status, foreign) = house
        .delete(&format!("/api/keys/{id}"), Some(&house.token(3, Role::Admin)))
        .await;
    assert_eq!(status, 404, "{foreign}");
    let (status, revoked) = house
        .delete(&format!("/api/keys/{id}"), Some(&house.token(2, Role::Admin)))
        .await;
    assert_eq!(status, 200, "{revoked}");
    for socket in &mut open {
        assert_eq!(socket.closed().await.0, 4401);
    }
    assert_eq!(house.get("/api/calls/active", Some(&secret)).await.0, 401);
    let (_, listed) = house.get("/api/keys", Some(&house.token(2, Role::Admin))).await;
    assert!(listed["data"][0]["revokedAt"].is_string() && !listed.to_string().contains(&secret));
}

#[tokio::test]
async fn a_key_for_sockets_alone_opens_no_rest_and_makes_none_wider() {
    let house = House::new().await;
    let (_, ws) = key(&house, 2, json!({"name": "ws", "role": "admin", "scopes": ["ws"]})).await;
    assert_eq!(house.get("/api/calls/active", Some(&ws)).await.0, 403);
    house.upgrade("/call-events", &[("x-api-key", &ws)]).await.unwrap();
    let (_, keys) = key(&house, 2, json!({"name": "keys", "role": "admin", "scopes": ["keys"]})).await;
    assert_eq!(
        house
            .upgrade("/call-events", &[("x-api-key", &keys)])
            .await
            .unwrap_err()
            .0,
        403
    );
    let (status, said) = house
        .post("/api/keys", Some(&keys), &json!({"name": "wider", "role": "viewer"}))
        .await;
    assert_eq!(status, 403, "{said}");
    let (status, said) = house
        .post("/api/keys", Some(&keys), &json!({"name": "k", "tenantId": 3}))
        .await;
    assert_eq!(status, 422, "{said}");
}

#[tokio::test]
async fn a_disabled_tenant_is_let_in_nowhere_until_it_is_enabled() {
    let house = House::new().await;
    let operator = house.token(1, Role::Admin);
    let (status, made) = house
        .post("/api/tenants", Some(&operator), &json!({"id": 7, "name": "Böt"}))
        .await;
    assert_eq!(status, 200, "{made}");
    house.ring("CA1", 2).await;
    let agent = house.token(2, Role::Agent);
    let mut socket = house.frontend(&format!("client_type=telephony&token={agent}")).await;
    socket.next_of("telephony_connected").await;
    let (status, said) = house
        .put("/api/tenants/2", Some(&operator), &json!({"status": "disabled"}))
        .await;
    assert_eq!((status, &said["data"]["status"]), (200, &json!("disabled")), "{said}");
    assert_eq!(socket.closed().await.0, 4401);
    assert_eq!(house.get("/api/calls/active", Some(&agent)).await.0, 401);
    assert_eq!(house.control.live(), 1, "live calls go on");
    let form = "CallSid=CA2&AccountSid=AC1&From=%2B15559990000&To=%2B15550200001&CallStatus=ringing&Direction=inbound";
    let busy = house.hook("/api/calls/twilio/webhook", form).await;
    assert!(busy.status() == 200 && busy.body().contains("busy"), "{}", busy.body());
    let own = house
        .put("/api/tenants/1", Some(&operator), &json!({"status": "disabled"}))
        .await;
    assert_eq!(own.0, 409, "nobody locks themself out");
    house
        .put("/api/tenants/2", Some(&operator), &json!({"status": "active"}))
        .await;
    assert_eq!(house.get("/api/calls/active", Some(&agent)).await.0, 200);
}

#[tokio::test]
async fn limits_of_a_tenant_hold_for_it_alone_and_say_when_to_come_back() {
    let house = House::new().await;
    let operator = house.token(1, Role::Admin);
    let limits = json!({"requestsPerS": 1, "maxFrontends": 1, "maxCalls": 1});
    let (status, said) = house
        .put("/api/tenants/2", Some(&operator), &json!({"limits": limits}))
        .await;
    assert_eq!((status, &said["data"]["limits"]), (200, &limits), "{said}");
    let viewer = house.token(2, Role::Viewer);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(
            house
                .upgrade(&format!("/call-events?token={viewer}"), &[])
                .await
                .map_err(|e| e.0),
        );
    }
    assert!(held[0].is_ok() && held[1].as_ref().err() == Some(&429));
    let asked = async |token: &str| {
        let request = ::http::Request::builder().uri("/api/calls/active");
        let request = request.header("authorization", format!("Bearer {token}"));
        house.request(request.body(String::new()).unwrap()).await
    };
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(asked(&viewer).await);
    }
    let last = answers.pop().unwrap();
    assert_eq!(
        (last.status().as_u16(), &last.headers()["retry-after"]),
        (429, &::http::HeaderValue::from(1))
    );
    assert_eq!(asked(&house.token(3, Role::Viewer)).await.status(), 200);
    house.ring("CA1", 2).await;
    let form = "CallSid=CA2&AccountSid=AC1&From=%2B15559990000&To=%2B15550200001&CallStatus=ringing&Direction=inbound";
    assert!(
        house
            .hook("/api/calls/twilio/webhook", form)
            .await
            .body()
            .contains("busy")
    );
    house.ring("CA3", 1).await;
    let (status, said) = house
        .put("/api/tenants/2", Some(&operator), &json!({"limits": {"maxCalls": "x"}}))
        .await;
    assert_eq!(status, 422, "{said}");
}

#[tokio::test]
async fn premium_numbers_are_not_called_unless_they_are_allowed_by_name() {
    let house = House::new().await;
    let (agent, operator) = (house.token(1, Role::Agent), house.token(1, Role::Admin));
    let dial = async |to: &str| {
        house
            .post("/api/calls/initiate", Some(&agent), &json!({"to": to}))
            .await
            .0
    };
    assert_eq!(dial("+19005550100").await, 403);
    assert_eq!(dial("sip:+19005550100@gw.example.com").await, 403);
    assert_eq!(
        dial("+14155550100").await,
        409,
        "the account has no credentials: it was asked for"
    );
    house.get("/api/tenants/1", Some(&operator)).await;
    let limits = json!({"limits": {"destinations": ["+1900"]}});
    assert_eq!(house.put("/api/tenants/1", Some(&operator), &limits).await.0, 200);
    assert_eq!((dial("+19005550100").await, dial("+14155550100").await), (409, 403));
}

fn pair() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

fn jwk(pair: &Ed25519KeyPair, id: &str) -> Value {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": id, "x": x})
}

fn token(pair: &Ed25519KeyPair, id: &str, tenant: Value) -> String {
    let now = Wall::now().as_secs();
    let header = json!({"alg": "EdDSA", "kid": id, "typ": "JWT"});
    let claims = json!({"iss": "sidetone", "aud": "sidetone", "sub": "ann", "role": "viewer", "tenant_id": tenant, "iat": now, "exp": now + 300});
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()).as_ref());
    format!("{message}.{signature}")
}

#[tokio::test]
async fn keys_of_a_provider_are_fetched_when_a_token_names_one_and_outlive_its_server() {
    let (old, new, stranger) = (pair(), pair(), pair());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (set, asked) = (
        Arc::new(Mutex::new(json!({"keys": [jwk(&old, "old")]}))),
        Arc::new(Mutex::new(0)),
    );
    let server = tokio::spawn({
        let (set, asked) = (set.clone(), asked.clone());
        async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                *asked.lock().unwrap() += 1;
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let body = set.lock().unwrap().to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    let house = House::of(&format!(
        "[calls]\npublic_url = \"http://relay.test\"\n[access]\njwks = \"http://{address}/jwks\"\njwks_retry = \"1s\"\nfailures_per_minute = 1000\n"
    ))
    .await;
    let ask = async |token: String| house.get("/api/calls/active", Some(&token)).await.0;
    assert_eq!(ask(token(&old, "old", json!(7))).await, 200);
    assert_eq!(ask(token(&old, "old", json!("7"))).await, 200, "digits will do");
    for bad in [
        json!("7x"),
        json!(-7),
        json!(7.5),
        json!([7]),
        json!("99999999999999999999"),
    ] {
        assert_eq!(ask(token(&old, "old", bad)).await, 401);
    }
    assert_eq!(ask(token(&stranger, "old", json!(7))).await, 401);
    for n in 0..9 {
        assert_eq!(ask(token(&stranger, &format!("../{n}"), json!(7))).await, 401);
    }
    assert!(
        *asked.lock().unwrap() <= 2,
        "unknown names are looked for once a second at most"
    );
    *set.lock().unwrap() = json!({"keys": [jwk(&new, "new"), jwk(&old, "old")]});
    let found = async {
        while ask(token(&new, "new", json!(7))).await != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .expect("the new key is found once the set may be read again");
    server.abort();
    assert_eq!(ask(token(&stranger, "other", json!(7))).await, 401);
    for (pair, id) in [(&old, "old"), (&new, "new")] {
        assert_eq!(ask(token(pair, id, json!(7))).await, 200, "what was read stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_keys_are_kept_from_the_command_line() {
    let config = "[listen]\naddress = \"{address}\"\n[[access.jwt]]\nsecret = \"a8c3f1e09b7d4c2286aa55f0e1d2c3b4\"\n[twilio]\ninsecure = true\n";
    let daemon = Daemon::start(&[], config, &[]).await;
    let file = daemon.folder().join("cli.toml");
    std::fs::write(&file, config.replace("{address}", &daemon.address.to_string())).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = sidetone();
        command
            .args(arguments)
            .arg("--config")
            .arg(&file)
            .env_remove("SIDETONE_API_KEY");
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let (fine, made, err) = run(&[
        "tenants",
        "add",
        "--id",
        "5",
        "--name",
        "Acme Ltd",
        "--limit",
        "max_calls=3",
    ]);
    assert!(
        fine && made.contains("Acme Ltd") && made.contains("maxCalls=3"),
        "{made}{err}"
    );
    let (fine, made, err) = run(&[
        "keys", "add", "--tenant", "5", "--name", "bot", "--role", "viewer", "--scope", "calls",
    ]);
    assert!(fine, "{err}");
    let secret = made
        .lines()
        .find_map(|l| l.trim().starts_with("sk_").then(|| l.trim().to_owned()))
        .unwrap();
    let active = async || {
        let reply = active_as(&daemon, &secret).await;
        reply.status
    };
    assert_eq!(active().await, 200);
    let (_, listed, _) = run(&["keys", "list", "--tenant", "5"]);
    let id = listed
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    assert!(!listed.contains(&secret) && listed.contains(&secret[..9]), "{listed}");
    let (fine, _, err) = run(&["keys", "revoke", &id, "--tenant", "5"]);
    assert!(fine, "{err}");
    assert_eq!(active().await, 401);
    let (fine, _, err) = run(&["keys", "add", "--tenant", "6"]);
    assert!(!fine && err.contains("tenant not found"), "{err}");
    assert!(run(&["tenants", "disable", "5"]).1.contains("disabled"));
    assert!(run(&["tenants", "list"]).1.contains("disabled"));
}

async fn active_as(daemon: &Daemon, key: &str) -> sidetone::net::client::ApiReply {
    let mut headers = ::http::HeaderMap::new();
    headers.insert("x-api-key", key.parse().unwrap());
    let request = sidetone::net::client::ApiRequest {
        method: ::http::Method::GET,
        url: format!("http://{}/api/calls/active", daemon.address),
        headers,
        body: bytes::Bytes::new(),
        timeout: PATIENCE,
    };
    sidetone::net::client::HttpClient::new().send(request).await.unwrap()
}
