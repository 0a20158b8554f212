//! Calls that we place: from which number, with which account, served by whom. And what their vendors tell of calls.

use super::{
    DialRequest, Shared,
    admission::Refusal,
    begin::{Seed, Served},
    cdr::Facts,
    directory::{Carrier, Entry},
    rest,
    roster::Line,
    route::NOT_E164,
};
use crate::{
    access::destinations::Destinations,
    base::{
        fault::{Fault, Kind, Origin},
        ids::TenantId,
    },
    metrics,
    store::CallRow,
    vendor::{self, CallAction, CallDetails, Descriptor},
};
use std::sync::Arc;

impl Shared {
    /// Who carries the calls that a number places, and whether a simulated vendor does: where no account can, and one is
    /// there to try things out with. `None` where nobody can.
    pub(super) fn dials(&self, vendor: &Descriptor, line: Option<&Line>) -> Option<(Carrier, bool)> {
        let account = self.account(vendor, line);
        if account.trunk.as_ref().is_some_and(|t| t.can_dial()) {
            return Some((account, false));
        }
        let simulated = Carrier {
            via: None,
            own: false,
            trunk: Some(self.deps.simulated.get(vendor.name)?.clone()),
        };
        Some((simulated, true))
    }

    /// Places a call; its task asks the vendor once the record exists.
    pub(super) fn place(self: &Arc<Self>, tenant: TenantId, request: &DialRequest) -> Result<Arc<Entry>, Fault> {
        let config = &self.deps.config;
        self.may_call(tenant, &request.to)?;
        let (vendor, line, simulated) = self.caller(tenant, request)?;
        let answers = || self.roster.answers(config, &self.deps.agents, tenant, line.as_deref());
        let profile = match &request.agent {
            Some(id) => {
                let asked = self.roster.agent(tenant, id).and_then(|a| a.profile.clone());
                // Examples name agents that a developer's own machine need not have.
                asked.or_else(|| config.dev.then(answers).flatten())
            }
            None => answers(),
        };
        let no_agent = || {
            let asked: String = request.agent.iter().flat_map(|a| a.chars()).take(64).collect();
            Fault::client(Kind::Invalid, format!("no agent {asked:?}"))
        };
        if request.to.starts_with("sip:") && !vendor.dials_sip {
            let message = format!("{NOT_E164}: {} calls no SIP addresses", vendor.title);
            return Err(Fault::client(Kind::Invalid, message));
        }
        let account = self
            .dials(vendor, line.as_deref())
            .and_then(|(carrier, _)| carrier.trunk);
        let trunk = account.map_or(Ok(None), |trunk| trunk.wished(&request.stream))?;
        let seed = Seed {
            vendor,
            inbound: false,
            call_sid: None,
            customer: request.to.clone(),
            ours: line
                .as_ref()
                .map_or_else(|| request.from.clone(), |l| l.row.number.clone()),
            served: Served {
                tenant,
                profile: self.keyed(tenant, profile.ok_or_else(no_agent)?),
                line,
                trunk,
            },
            facts: Facts {
                simulated,
                ..Facts::default()
            },
        };
        self.begin(seed, Some(config.ring_timeout))
            .map_err(|refusal| match refusal {
                Refusal::Draining | Refusal::StorageBehind | Refusal::Strained(_) => Fault::new(
                    Origin::Us,
                    Kind::Unavailable,
                    "no new calls are taken now: try again in a moment",
                ),
                Refusal::TenantDisabled => Fault::client(Kind::Forbidden, "the tenant is disabled"),
                refusal => match refusal.wait() {
                    Some(wait) => Fault::client(Kind::TooMany, "too many new calls: try again later").after(wait),
                    None => Fault::client(Kind::TooMany, "too many calls: try again when one has ended"),
                },
            })
    }

    /// Whether a tenant may have this number called, be it by a new call or by handing one over.
    pub(super) fn may_call(&self, tenant: TenantId, to: &str) -> Result<(), Fault> {
        let (config, own) = (&self.deps.config, self.deps.members.limits(tenant));
        let rules = Destinations {
            allowed: own.destinations.clone().unwrap_or_else(|| config.destinations.clone()),
            blocked: own
                .blocked_destinations
                .clone()
                .unwrap_or_else(|| config.blocked_destinations.clone()),
        };
        if rules.allow(to) {
            return Ok(());
        }
        metrics::refused("call", "destination");
        Err(Fault::client(Kind::Forbidden, "this destination may not be called"))
    }

    /// Who places a call: the vendor that was asked for, else that of `from`, else the one that dials by default; from
    /// `from`, else the tenant's first number there. Where any number is taken, it need not be the tenant's. Told with it is
    /// whether the vendor is simulated.
    fn caller(
        &self,
        tenant: TenantId,
        request: &DialRequest,
    ) -> Result<(&'static Descriptor, Option<Arc<Line>>, bool), Fault> {
        let invalid = |message: String| Fault::client(Kind::Invalid, message);
        let asked = match &request.vendor {
            Some(name) => Some(vendor::by_name(name).ok_or_else(|| invalid(format!("no vendor {name:?}")))?),
            None => None,
        };
        let by_default = vendor::all().iter().copied().find(|v| v.dials_by_default);
        let lines = self.roster.lines(tenant);
        let from = |line: &&Arc<Line>| request.from.is_empty() || request.from == line.row.number;
        let of = |vendor: &'static Descriptor| {
            let theirs = lines.iter().filter(from).filter(|l| l.vendor.name == vendor.name);
            theirs.max_by_key(|l| l.is_usable()).cloned()
        };
        let line = match asked {
            Some(vendor) => of(vendor),
            None => by_default.and_then(of).or_else(|| lines.iter().find(from).cloned()),
        };
        let vendor = match (&line, asked.or(by_default)) {
            (Some(line), _) => line.vendor,
            (None, Some(vendor)) if self.deps.config.dev && !request.from.is_empty() => vendor,
            (None, _) => return Err(invalid("from is not one of your numbers with this vendor".to_owned())),
        };
        if line.as_ref().is_some_and(|l| !l.is_usable()) {
            return Err(Fault::client(
                Kind::Conflict,
                "calls cannot be placed: the number is not active",
            ));
        }
        let Some((_, simulated)) = self.dials(vendor, line.as_deref()) else {
            let message = format!(
                "calls cannot be placed: {}'s REST credentials are not configured",
                vendor.name
            );
            return Err(Fault::client(Kind::Conflict, message));
        };
        Ok((vendor, line, simulated))
    }

    /// What the vendor of a call tells of it.
    pub(super) async fn details(&self, row: &CallRow) -> Result<CallDetails, Fault> {
        let conflict = |message: String| Fault::client(Kind::Conflict, message);
        let vendor = vendor::by_name(&row.vendor).ok_or_else(|| Fault::not_found("vendor"))?;
        let carrier = match self.directory.get(row.call_id) {
            Some(entry) => entry.carrier.clone(),
            None => {
                let line = self.roster.called(vendor.name, &row.organization_number);
                let line = line.filter(|l| l.row.tenant_id == row.tenant_id);
                self.dials(vendor, line.as_deref())
                    .map(|(carrier, _)| carrier)
                    .unwrap_or_default()
            }
        };
        let trunk = carrier.trunk.filter(|t| t.can_dial());
        let trunk = trunk.ok_or_else(|| conflict(format!("{}'s REST credentials are not configured", vendor.name)))?;
        let request = trunk.request(&row.call_sid, &CallAction::Details);
        let request = request.ok_or_else(|| conflict(format!("{} tells nothing of calls", vendor.name)))?;
        let http = self.deps.client(carrier.own);
        let (_, reply) = rest::ask(http, vendor, &*trunk, &CallAction::Details, request).await?;
        trunk.details(&reply.body)
    }
}
