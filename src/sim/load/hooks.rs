//! Webhooks that announce further calls while others are measured.

use super::{Plan, micros};
use crate::{
    base::time::Mono,
    net::client::HttpClient,
    sim::{announce, caller::Webhook, pace::Pace},
    vendor::{Descriptor, PeerCall},
};
use std::{cell::RefCell, rc::Rc, time::Duration};

/// Webhooks sent while calls are live.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Times from sending one until its answer was whole, in µs.
    pub(super) times: Vec<u32>,
    pub(super) failed: u64,
}

/// How.
pub(super) struct HookPlan {
    vendor: &'static Descriptor,
    webhook: Webhook,
    every: Duration,
}

/// The webhooks of `plan`.
pub(super) fn plan_of_hooks(plan: &Plan) -> HookPlan {
    let mut address = plan.daemon.clone();
    announce::hook_path(plan.vendor)
        .unwrap_or("/")
        .clone_into(&mut address.path);
    HookPlan {
        vendor: plan.vendor,
        webhook: Webhook {
            url_secret: None,
            rest: None,
            signed_as: address.at("http", &address.path),
            address,
            secret: None,
            account: None,
        },
        every: Duration::from_secs(1) / plan.hooks_per_s.max(1),
    }
}

/// Sends them until the task is aborted.
pub(super) async fn call_hooks(plan: HookPlan, hooks: Rc<RefCell<Hooks>>) {
    let Ok(mut pace) = Pace::every(plan.every) else { return };
    let client = HttpClient::new();
    for n in 0_u64.. {
        if pace.tick().await.is_err() {
            return;
        }
        let mut call = PeerCall {
            call_sid: announce::new_call_sid(),
            token: None,
            from: format!("+1556{n:07}"),
            to: "+15550000000".to_owned(),
            ..PeerCall::default()
        };
        let before = Mono::now();
        let mut peer = (plan.vendor.peer)(call.clone());
        let answered = match peer.by_command() {
            true => announce::commanded(&client, &mut *peer, None, &plan.webhook)
                .await
                .map(drop),
            false => announce::announce(&client, plan.vendor, &mut call, &plan.webhook)
                .await
                .map(drop),
        };
        match answered {
            Ok(()) => hooks.borrow_mut().times.push(micros(Mono::now().since(before))),
            Err(_) => hooks.borrow_mut().failed += 1,
        }
    }
}
