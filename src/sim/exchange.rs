//! A simulated telephone network for calls that a daemon places: takes them where the vendors' REST interfaces would, lets a
//! phone ring, and answers it.
//!
//! From the answer on a call is like any other: the vendor's webhooks, its media socket, its commands.

use super::{
    address::Address,
    announce::{self, AnnounceError},
    caller::{self, CallError, Opening, Plan, Webhook},
    desk::{Asked, Desk},
    script::Manner,
    voice,
};
use crate::{
    base::settings::{Faults, Item, Place, Section, Table, Value},
    net::client::HttpClient,
    speech::Speech,
    vendor::{self, Answer, Descriptor, HookKind, Peer, PeerCall, PeerOrder, Trunk},
};
use std::{collections::HashMap, fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Calls at once.
const MOST: usize = 16;
/// Calls that are remembered, those that are over among them: commands for them may still come.
const REMEMBERED: usize = 64;
/// How long a phone rings.
const RINGS: Duration = Duration::from_secs(1);
/// What whoever answers it says.
const HELLO: &str = "Hello?";
/// Hangs up after this much silence from both sides: long enough for a person to type.
const LINGER: Duration = Duration::from_secs(60);
/// Hangs up after this time whatever happens.
const LIMIT: Duration = Duration::from_secs(600);

/// The network, reachable on loopback.
#[derive(Debug)]
pub struct Exchange {
    desk: Desk,
}

/// A call that was placed.
struct Phone {
    vendor: &'static str,
    call_sid: String,
    /// Takes the commands for it.
    peer: Box<dyn Peer>,
    talk: JoinHandle<()>,
    /// Tells it that the vendor takes the call elsewhere; used up by that.
    leave: Option<oneshot::Sender<()>>,
}

/// Why a phone that rang was not connected.
enum NotConnected {
    Flow(AnnounceError),
    Media(CallError),
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(e) => write!(f, "no call flow: {e}"),
            Self::Media(e) => e.fmt(f),
        }
    }
}

impl Exchange {
    /// Opens it on a free port. Must be called within a runtime.
    pub async fn open() -> io::Result<Self> {
        let desk = Desk::open((Ipv4Addr::LOCALHOST, 0).into()).await?;
        Ok(Self { desk })
    }

    /// An account with each simulated vendor, by the vendor's name.
    pub fn accounts(&self) -> HashMap<&'static str, Arc<dyn Trunk>> {
        let reachable = vendor::all().iter().filter(|v| !v.simulated.is_empty());
        reachable.map(|v| (v.name, self.account(v))).collect()
    }

    fn account(&self, vendor: &Descriptor) -> Arc<dyn Trunk> {
        let base = format!("http://{}/{}", self.desk.address(), vendor.name);
        let item = |text: &str| Item {
            value: Value::String(text.replace("{base}", &base)),
            place: Place::Request,
        };
        let pairs = vendor.simulated.iter();
        let table: Table = pairs.map(|(key, text)| ((*key).to_owned(), item(text))).collect();
        (vendor.trunk)(&Section::root(&table, &Faults::default()))
    }

    /// Carries calls for the daemon at an address, for good.
    pub async fn run(mut self, speech: Speech, daemon: Address) {
        let mut phones: Vec<Phone> = Vec::new();
        while let Some(mut asked) = self.desk.next().await {
            let Some(vendor) = vendor::all().iter().copied().find(|v| asked.enter(v.name)) else {
                asked.refuse(404, "");
                continue;
            };
            let about = |p: &&mut Phone| p.vendor == vendor.name && asked.path().contains(&p.call_sid);
            if let Some(phone) = phones.iter_mut().find(about) {
                // A call that is hung up is left by the daemon, too.
                if asked.carry_out(&mut *phone.peer, None) == PeerOrder::Leave
                    && let Some(leave) = phone.leave.take()
                {
                    // It may be over already.
                    let _ = leave.send(());
                }
                continue;
            }
            if phones.iter().filter(|p| !p.talk.is_finished()).count() >= MOST {
                asked.refuse(429, "");
                continue;
            }
            if phones.len() >= REMEMBERED {
                phones.retain(|p| !p.talk.is_finished());
            }
            phones.extend(ring(vendor, asked, &speech, &daemon));
        }
    }
}

/// Lets a phone ring, if the request was one to place a call.
fn ring(vendor: &'static Descriptor, asked: Asked, speech: &Speech, daemon: &Address) -> Option<Phone> {
    let call = PeerCall {
        call_sid: announce::new_call_sid(),
        ..PeerCall::default()
    };
    let mut peer = (vendor.peer)(call.clone());
    let media = match asked.carry_out(&mut *peer, None) {
        PeerOrder::Connect(Answer::Stream { url, token, .. }) => Some((url, token)),
        PeerOrder::Take => None,
        _ => return None,
    };
    let call_sid = call.call_sid.clone();
    let (speech, daemon) = (speech.clone(), daemon.clone());
    let (leave, left) = oneshot::channel();
    let talk = tokio::spawn(async move {
        let hello = voice::speak(&speech, HELLO.to_owned(), Plan::rate(vendor));
        let (hello, ()) = tokio::join!(hello, tokio::time::sleep(RINGS));
        if let Err(error) = talk(vendor, call, media, hello.unwrap_or_default(), daemon, left).await {
            tracing::warn!(vendor = vendor.name, %error, "a simulated phone was not connected");
        }
    });
    Some(Phone {
        vendor: vendor.name,
        call_sid,
        peer,
        talk,
        leave: Some(leave),
    })
}

/// Picks a phone up, says hello, and stays until the call is over.
async fn talk(
    vendor: &'static Descriptor,
    mut call: PeerCall,
    media: Option<(String, String)>,
    hello: Vec<i16>,
    daemon: Address,
    leave: oneshot::Receiver<()>,
) -> Result<(), NotConnected> {
    let client = HttpClient::new();
    let path = vendor.hook(HookKind::Call).map_or("", |h| h.path);
    let webhook = Webhook {
        url_secret: None,
        signed_as: daemon.at("http", path),
        address: Address {
            path: path.to_owned(),
            ..daemon.clone()
        },
        secret: None,
        account: None,
        rest: None,
    };
    let peer = (vendor.peer)(call.clone());
    if let Some(answered) = peer.pick_up(&webhook.signed_as, None) {
        let posted = announce::post(&client, answered, &webhook).await;
        posted.map_err(NotConnected::Flow)?;
    }
    let (url, token) = match media {
        Some(media) => media,
        None => {
            let url = announce::announce(&client, vendor, &mut call, &webhook).await;
            (url.map_err(NotConnected::Flow)?, call.token.clone().unwrap_or_default())
        }
    };
    let plan = Plan {
        vendor,
        daemon,
        opening: Opening::Announced {
            call_sid: call.call_sid.clone(),
            token,
            url,
            account: None,
            signature: Vec::new(),
        },
        from: String::new(),
        to: String::new(),
        samples: hello,
        manner: Manner::AsRecorded,
        format: None,
        faults: Vec::new(),
        linger: LINGER,
        limit: LIMIT,
    };
    let (progress, _unwatched) = mpsc::channel(1);
    let outcome = caller::place_until(plan, &progress, Some(leave))
        .await
        .map_err(NotConnected::Media)?;
    let seconds = (outcome.report.duration_ms / 1000) as u32;
    if let Some(over) = peer.conclude(&announce::status_url(vendor, &webhook), seconds, None) {
        // The stream's end was the call's; this only confirms it.
        let _ = announce::post(&client, over, &webhook).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_vendor_has_an_account_that_places_calls() {
        let exchange = Exchange::open().await.unwrap();
        let accounts = exchange.accounts();
        for vendor in vendor::VENDORS {
            assert!(accounts[vendor.name].can_dial(), "{vendor:?}");
        }
    }
}
