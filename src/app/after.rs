//! What agents want done after their calls, for the jobs: read from the roster as it is when a job is run.

use crate::{
    base::ids::TenantId,
    control::Control,
    jobs::{Agents, Wishes},
    llm::{self, Llm},
};

/// The roster as the jobs see it.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) control: Control,
    pub(super) llm: Llm,
}

impl Agents for Roster {
    fn wishes(&self, tenant: TenantId, agent: &str) -> Wishes {
        let Some(profile) = self.control.agent_of_call(tenant, agent) else {
            return Wishes::default();
        };
        // Rules cannot read: then the configured model does.
        let (service, model) = llm::split(&profile.wits.llm);
        let own = self
            .llm
            .service(service)
            .cloned()
            .map(|c| (c, model.map(str::to_owned)));
        Wishes {
            schema: profile.schema.as_deref().cloned(),
            webhook_url: profile.webhook_url.clone(),
            min_messages: profile.min_messages_to_keep,
            chat: own.or_else(|| Some((self.llm.default()?.clone(), None))),
            backends: (profile.stt.clone(), profile.tts.clone()),
        }
    }
}
