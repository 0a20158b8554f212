//! Calls that we place, with every vendor whose answer is a document: a local double of its REST interface reads requests as strictly as
//! the real one, refuses wrong keys and unknown or missing fields, fails, and falls silent.

use super::house::House;
use serde_json::{Value, json};
use sidetone::{
    access::Role,
    base::secret::Secret,
    sim::desk::{Asked, Desk},
    vendor::{self, Peer, PeerCall, PeerOrder},
};
use std::{net::SocketAddr, time::Duration};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
const OURS: &str = "+15550300001";
const CALLEE: &str = "+15559990000";
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A vendor, its section without the base URL, and what of the double's address the base URL holds.
const VENDORS: &[(&str, &str, &str)] = &[
    (
        "twilio",
        "account_sid = \"AC00000000000000000000000000000001\"\nauth_token = \"{key}\"\n",
        "",
    ),
    (
        "exotel",
        "sid = \"acct1\"\napi_key = \"user\"\napi_token = \"{key}\"\nwebhook_secret = \"w\"\n",
        "",
    ),
    ("ozonetel", "api_key = \"{key}\"\nwebhook_secret = \"w\"\n", ""),
    ("teler", "api_key = \"{key}\"\nwebhook_secret = \"w\"\n", "/api/v1"),
];

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

struct World {
    vendor: &'static str,
    house: House,
    desk: Desk,
    peer: Box<dyn Peer>,
    token: String,
}

impl World {
    async fn new((vendor, section, path): (&'static str, &str, &str)) -> Self {
        let rest = free_address();
        let desk = Desk::open(rest).await.unwrap();
        let section = section.replace("{key}", KEY);
        let number = format!("[[numbers]]\nnumber = \"{OURS}\"\nvendor = \"{vendor}\"\ntenant = 1\nagent = \"echo\"\n");
        let account = format!("[{vendor}]\n{section}base_url = \"http://{rest}{path}\"\napi_timeout = \"1s\"\n");
        let house = House::bare(&format!("{number}\n{account}")).await;
        let token = house.token(1, Role::Agent);
        let peer = (vendor::by_name(vendor).unwrap().peer)(PeerCall {
            call_sid: "placed1".to_owned(),
            ..PeerCall::default()
        });
        Self {
            vendor,
            house,
            desk,
            peer,
            token,
        }
    }

    /// Places a call beside what `during` does for the vendor, once for each request.
    async fn initiate(&mut self, mut during: impl FnMut(Asked, &mut dyn Peer)) -> (u16, Value) {
        let Self {
            vendor,
            house,
            desk,
            peer,
            token,
        } = self;
        let body = json!({ "to": CALLEE, "from": OURS, "agentId": "echo" });
        let path = format!("/api/calls/{vendor}/initiate");
        let placed = house.post(&path, Some(token), &body);
        tokio::pin!(placed);
        let answered = async {
            loop {
                tokio::select! {
                    answer = &mut placed => return answer,
                    Some(asked) = desk.next() => during(asked, &mut **peer),
                }
            }
        };
        timeout(SOON, answered).await.expect("an answer")
    }
}

#[tokio::test]
async fn every_vendor_is_asked_as_its_pages_say_and_its_id_is_in_the_record() {
    for vendor in VENDORS {
        let mut world = World::new(*vendor).await;
        let mut orders = Vec::new();
        let (status, body) = world
            .initiate(|asked, peer| orders.push(asked.carry_out(peer, Some(&Secret::new(KEY)))))
            .await;
        assert_eq!(status, 200, "{}: {body}", world.vendor);
        assert!(
            matches!(orders[..], [PeerOrder::Connect(_) | PeerOrder::Take]),
            "{}: {orders:?}",
            world.vendor
        );
        assert_eq!(
            (&body["data"]["call_id"], &body["data"]["provider"]),
            (&json!("placed1"), &json!(world.vendor))
        );
        let (_, record) = world.house.get("/api/calls/placed1", Some(&world.token)).await;
        assert_eq!(record["data"]["customer_number"], CALLEE, "{}", world.vendor);
        assert!(
            !body.to_string().contains("token="),
            "{}: a token is shown",
            world.vendor
        );
    }
}

#[tokio::test]
async fn a_vendors_refusal_is_passed_on_in_its_own_words() {
    for vendor in VENDORS {
        let mut world = World::new(*vendor).await;
        let name = world.vendor;
        let (status, body) = world
            .initiate(|asked, peer| {
                assert_eq!(
                    asked.carry_out(peer, Some(&Secret::new("another"))),
                    PeerOrder::Nothing,
                    "{name}"
                );
            })
            .await;
        assert_eq!(status, 502, "{name}: {body}");
        let message = body["error"]["message"].as_str().unwrap().to_lowercase();
        assert!(
            message.starts_with(name) && message.contains(&format!("check {name}.")),
            "{name}: {message}"
        );
        let (status, _) = world.initiate(|asked, _| asked.refuse(500, "")).await;
        assert_eq!(status, 502, "{name}");
    }
}

#[tokio::test]
async fn too_many_is_waited_for_and_silence_is_not() {
    for vendor in VENDORS {
        let mut world = World::new(*vendor).await;
        let name = world.vendor;
        let mut tries = 0;
        let (status, body) = world
            .initiate(|asked, peer| {
                tries += 1;
                match tries {
                    1 => asked.refuse(429, ""),
                    _ => drop(asked.carry_out(peer, Some(&Secret::new(KEY)))),
                }
            })
            .await;
        assert_eq!((status, tries), (200, 2), "{name}: {body}");

        let mut world = World::new(*vendor).await;
        let mut held = Vec::new();
        let (status, body) = world.initiate(|asked, _| held.push(asked)).await;
        assert_eq!((status, held.len()), (504, 1), "{name}: {body}");
    }
}

#[tokio::test]
async fn a_call_that_rings_is_ended_here_and_who_asked_is_told_where_the_phone_rings_on() {
    for vendor in VENDORS {
        let mut world = World::new(*vendor).await;
        let name = world.vendor;
        world
            .initiate(|asked, peer| drop(asked.carry_out(peer, Some(&Secret::new(KEY)))))
            .await;
        let body = json!({ "call_sid": "placed1" });
        let path = format!("/api/calls/{name}/end");
        let ended = world.house.post(&path, Some(&world.token), &body);
        tokio::pin!(ended);
        let mut commands = 0;
        let answered = async {
            loop {
                tokio::select! {
                    answer = &mut ended => return answer,
                    Some(asked) = world.desk.next() => {
                        commands += 1;
                        drop(asked.carry_out(&mut *world.peer, Some(&Secret::new(KEY))));
                    }
                }
            }
        };
        let (status, answer) = timeout(SOON, answered).await.expect("an answer");
        assert_eq!(status, 200, "{name}: {answer}");
        assert_eq!(answer["data"]["end_reason"], "canceled", "{name}");
        let warned = answer["data"]["warnings"][0].as_str().unwrap_or_default();
        assert_eq!(warned.contains("the phone rings on"), commands == 0, "{name}: {answer}");
        assert_eq!(commands, usize::from(matches!(name, "twilio" | "teler")), "{name}");
    }
}

#[tokio::test]
async fn a_sip_address_is_refused_with_words_where_the_vendor_calls_none() {
    for vendor in VENDORS {
        let mut world = World::new(*vendor).await;
        let (name, title) = (world.vendor, vendor::by_name(world.vendor).unwrap().title);
        if vendor::by_name(name).unwrap().dials_sip {
            continue;
        }
        let body = json!({ "to": "sip:desk@pbx.example", "from": OURS, "agentId": "echo" });
        let path = format!("/api/calls/{name}/initiate");
        let (status, answer) = world.house.post(&path, Some(&world.token), &body).await;
        assert_eq!(status, 422, "{name}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("E.164") && message.contains(title),
            "{name}: {message}"
        );
        assert!(
            timeout(Duration::ZERO, world.desk.next()).await.is_err(),
            "{name} is asked nothing"
        );
    }
}
