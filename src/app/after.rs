//! What agents want done after their calls, for the jobs: read from the roster as it is when a job is run.

use crate::{
    base::ids::TenantId,
    control::Control,
    jobs::{Agents, Wishes},
    llm::Llm,
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
        let backends = match profile.service() {
            Some((name, _)) => (format!("{name}-realtime"), format!("{name}-realtime")),
            None => (profile.stt.clone(), profile.tts.clone()),
        };
        Wishes {
            schema: profile.schema.as_deref().cloned(),
            webhook_url: profile.webhook_url.clone(),
            min_messages: profile.min_messages_to_keep,
            chat: profile.reader(&self.llm),
            backends,
        }
    }
}
