//! A media stream that came to another node than its call. The call moves to where its stream is, before the stream begins: the
//! node that had it uses up the token and lets go, and the database writes down who carries it from then on.
//!
//! Nothing is left between two nodes: a call that was let go of and not taken is ended by the node that had it, and if that
//! dies too, by the survivors. The database decides in each case, so a call is taken once or ended once.

use super::{
    CALLS, read,
    wire::{Asked, Said},
};
use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        ids::TenantId,
    },
    bus::peers::AskError,
    control::{
        Shared,
        begin::{Seated, Served},
        call::Call,
        cdr::Facts,
        directory::Entry,
        gone,
        talk::Command,
        too_slow,
    },
    media::Arrival,
    store::{Batch, CallRow, Write},
    vendor,
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// How long a call may take to let go: what it waits for is a commit, or its vendor's answer to what it asked.
const LET_GO: Duration = Duration::from_secs(5);
/// How long the other node may take in all.
const CLAIM: Duration = Duration::from_secs(6);

/// Whose call a stream says it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::control) struct Claim {
    vendor: String,
    /// The number whose path the stream came to.
    line: Option<String>,
    /// The token, or else the stream proved itself.
    token: Option<String>,
    call_sid: String,
    /// Whether `call_sid` is the call's and not the stream's.
    names_call: bool,
    account: Option<String>,
    dialled: Option<String>,
}

/// A call that was let go of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::control) struct Given {
    tenant: i64,
    call: String,
    /// The number of its last message.
    seq: i64,
    simulated: bool,
}

impl Shared {
    /// Whether a stream may be of a call of another node's.
    pub(in crate::control) fn may_be_elsewhere(&self, arrival: &Arrival) -> bool {
        if !self.deps.bus.peers().is_some_and(|peers| peers.is_connected()) {
            return false;
        }
        match arrival.path_token.as_deref().or(arrival.start.token.as_deref()) {
            Some(token) => self.pending.peek(token).is_none(),
            None => (arrival.proven || self.deps.config.accept_unannounced) && self.named_by(arrival).is_none(),
        }
    }

    /// Has the call of a stream moved here. `None` where no other node has it.
    pub(in crate::control) async fn claim(self: &Arc<Self>, arrival: &Arrival) -> Result<Option<Arc<Entry>>, Fault> {
        let Some(peers) = self.deps.bus.peers() else {
            return Ok(None);
        };
        let start = &arrival.start;
        let claim = Claim {
            vendor: arrival.vendor.name.to_owned(),
            line: arrival.number.clone(),
            token: arrival.path_token.clone().or_else(|| start.token.clone()),
            call_sid: start.call_sid.clone(),
            names_call: start.names_call().is_some(),
            account: start.account.clone(),
            dialled: start.to.clone(),
        };
        let body = Asked::Claim(claim).write().map_err(|_| AskError::TooLong.fault())?;
        let mut answers = peers.ask_each(CALLS, &body, CLAIM);
        let mut silent = None;
        while let Some((node, answer)) = answers.next().await {
            match answer.map(|said| read(&said)) {
                Ok(Said::Given(given)) => return self.take(&node, given).await.map(Some),
                Ok(said) => {
                    if let Some(Err(fault)) = said.outcome() {
                        return Err(fault);
                    }
                }
                Err(AskError::NotThere) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(None), |error: AskError| Err(error.fault()))
    }

    /// Takes a call that `node` has let go of.
    async fn take(self: &Arc<Self>, node: &str, given: Given) -> Result<Arc<Entry>, Fault> {
        let row = self.deps.store.call(TenantId(given.tenant), &given.call).await?;
        let row = row.ok_or_else(|| Fault::not_found("call"))?;
        let (served, vendor) = self.served_again(&row)?;
        let sid = Some(row.call_sid.as_str()).filter(|sid| !sid.starts_with("pending:"));
        let seated = self.seat(vendor, &served, &row, sid).map_err(|refusal| {
            let message = format!("no room for the call: {}", refusal.as_str());
            Fault::new(Origin::Us, Kind::Unavailable, message)
        })?;
        let Seated::New(entry, inbox) = seated else {
            return Err(Fault::client(Kind::Conflict, "the call is here already"));
        };
        let writes = vec![Write::Carry {
            call_id: row.call_id,
            from: node.to_owned(),
        }];
        if let Err(fault) = self.deps.store.commit(Batch { writes }).await {
            self.directory.leave(entry.call);
            return Err(fault);
        }
        tracing::info!(call = %row.call_id, node, "a call is taken over from another node, with its media stream");
        let facts = Facts {
            simulated: given.simulated,
            ..Facts::default()
        };
        let terms = self.terms(&entry, &facts, self.deps.config.stream_timeout);
        let call = Call::adopted(self.clock.now(), row, terms, facts, given.seq);
        self.run(entry.clone(), inbox, call, served.profile, None);
        Ok(entry)
    }

    /// Who serves a call that is on record.
    fn served_again(&self, row: &CallRow) -> Result<(Served, &'static vendor::Descriptor), Fault> {
        let vendor = vendor::by_name(&row.vendor).ok_or_else(|| Fault::not_found("vendor"))?;
        let tenant = row.tenant_id;
        let line = self.roster.called(vendor.name, &row.organization_number);
        let line = line.filter(|l| l.row.tenant_id == tenant);
        let (config, agents) = (&self.deps.config, &self.deps.agents);
        let named = self.roster.agent(tenant, &row.agent).and_then(|a| a.profile.clone());
        let profile = named
            .or_else(|| agents.get(&row.agent).cloned())
            .or_else(|| self.roster.answers(config, agents, tenant, line.as_deref()));
        let served = Served {
            tenant,
            profile: profile.ok_or_else(|| Fault::not_found("agent"))?,
            line,
            trunk: None,
        };
        Ok((served, vendor))
    }

    /// Lets go of a call of ours whose stream came to another node.
    pub(super) async fn give(&self, claim: Claim) -> Said {
        let Some(entry) = self.claimed(&claim) else {
            return Said::NotHere;
        };
        let (told, answer) = oneshot::channel();
        if entry.commands.try_send(Command::Leave(told)).is_err() {
            return Said::fault(&gone());
        }
        match timeout(LET_GO, answer).await {
            Ok(Ok(Ok(left))) => Said::Given(Given {
                tenant: entry.tenant.0,
                call: entry.call.to_string(),
                seq: left.seq,
                simulated: left.simulated,
            }),
            Ok(Ok(Err(fault))) => Said::fault(&fault),
            Ok(Err(_)) => Said::fault(&gone()),
            Err(_) => Said::fault(&too_slow()),
        }
    }

    /// The call of ours that a stream is of. Its token is used up.
    fn claimed(&self, claim: &Claim) -> Option<Arc<Entry>> {
        let vendor = vendor::by_name(&claim.vendor)?;
        let of_account = |entry: &Arc<Entry>| {
            let ours = entry.carrier.trunk.as_ref().and_then(|t| t.account());
            let named = claim.account.as_deref();
            self.deps.config.accept_unannounced || ours.zip(named).is_none_or(|(ours, named)| ours == named)
        };
        match &claim.token {
            Some(token) => {
                let entry = self.directory.get(self.pending.peek(token)?).filter(of_account)?;
                let sid = claim.names_call.then_some(claim.call_sid.as_str());
                let taken = self.pending.take(self.clock.now().mono, token, vendor.name, sid);
                taken.ok().map(|_| entry)
            }
            None => {
                let line = match &claim.line {
                    Some(id) => Some(self.roster.line(id)?),
                    None => None,
                };
                let dialled = claim.dialled.as_deref().unwrap_or_default();
                let entry = self.named(vendor, &claim.call_sid, dialled, line.as_deref());
                let entry = entry.filter(of_account)?;
                self.pending.revoke(entry.call);
                Some(entry)
            }
        }
    }
}
