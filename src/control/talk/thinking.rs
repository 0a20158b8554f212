//! The model's side of a call: questions go out, pieces of answers come in, the web is asked where the model wants it.

use super::{Event, Talk};
use crate::{
    agent::{WebTool, act::Question},
    base::{secret::LastFour, time::Mono},
    control::{call::Now, config::ToolHosts},
    llm::{Answer, ChatError, Piece, Stop, ToolCall, Usage},
    net::client::{ApiRequest, HttpClient},
    wire::form::percent_encode,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Uri, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tracing::{info, warn};

/// Most of a web answer that the model is told, in bytes.
const MAX_RESULT: usize = 16 * 1024;

/// An answer on its way.
pub(super) struct Thinking {
    pub(super) answer: Answer,
    service: &'static str,
    /// The question, where its answer may be kept.
    common: Option<String>,
    text: String,
    called: bool,
}

impl Talk {
    /// Asks the model, or finds the answer that was kept.
    pub(super) fn think(&mut self, now: Now, question: Question) {
        let Question {
            prompt,
            fallback,
            common,
        } = question;
        self.waterfall.asked(now.mono);
        let kept = common.as_deref().and_then(|q| self.kept_answer(now.mono, q));
        if let Some(text) = kept {
            let end = Piece::End {
                stop: Stop::Said,
                usage: Usage::default(),
            };
            self.thinking = Some(Thinking {
                answer: stream::iter([Ok(Piece::Text(text)), Ok(end)]).boxed(),
                service: "cache",
                common: None,
                text: String::new(),
                called: false,
            });
            return;
        }
        let chat = self.profile.chat(&self.shared.deps.llm, fallback);
        let (service, answer) = match chat {
            Some(chat) => (chat.service(), chat.ask(prompt)),
            None => {
                let error = ChatError::NotConfigured("the agent's language model is not there".to_owned());
                ("none", stream::iter([Err(error)]).boxed())
            }
        };
        self.thinking = Some(Thinking {
            answer,
            service,
            common,
            text: String::new(),
            called: false,
        });
    }

    fn kept_answer(&self, now: Mono, question: &str) -> Option<String> {
        let ttl = self.profile.wits.cache_ttl;
        self.shared
            .replies
            .find(now, self.entry.tenant, &self.profile.name, question, ttl)
    }

    /// A piece of the answer; `None` when it broke off.
    pub(super) fn thought(&mut self, now: Now, piece: Option<Result<Piece, ChatError>>) {
        let piece = piece.unwrap_or(Err(ChatError::Garbled("the answer broke off")));
        let Some(thinking) = &mut self.thinking else { return };
        match &piece {
            Ok(Piece::Text(text)) => {
                self.waterfall.worded(now.mono);
                if thinking.common.is_some() {
                    thinking.text.push_str(text);
                }
            }
            Ok(Piece::Call(_)) => thinking.called = true,
            Ok(Piece::End { stop, usage }) => {
                self.call.thought(thinking.service, *usage);
                let whole = *stop == Stop::Said && !thinking.called && !thinking.text.trim().is_empty();
                if let Some(question) = thinking.common.take().filter(|_| whole) {
                    let replies = &self.shared.replies;
                    replies.keep(
                        now.mono,
                        self.entry.tenant,
                        &self.profile.name,
                        &question,
                        &thinking.text,
                    );
                }
                self.thinking = None;
            }
            Err(error) => {
                warn!(
                    service = thinking.service,
                    kind = error.kind(),
                    "the language model did not answer"
                );
                self.call.mind_failed(now, error.to_string());
                self.thinking = None;
            }
        }
        self.mind.piece(now.mono, piece);
    }

    /// Asks the web what the model wants to know.
    pub(super) fn fetch(&mut self, call: ToolCall) {
        let hosts = &self.shared.deps.config.tool_hosts;
        let request = match self.profile.wits.web.get(&call.name) {
            Some(tool) => request(tool, &call, hosts, self.entry.tenant.0),
            None => Err("There is no such tool."),
        };
        let http = self.shared.deps.tenant_http.clone();
        let job = async move {
            let content = match request {
                Ok(request) => answer(&http, request).await,
                Err(why) => why.to_owned(),
            };
            Event::Fetched(call, content)
        };
        self.jobs.push(job.boxed());
    }

    /// Gives the call to a person, who said so, or whom the agent asked for.
    pub(super) fn take_over(&mut self, now: Now, by: Option<String>) {
        let Some(person) = self.shared.deps.agents.get("human").filter(|_| !self.has_person()) else {
            return;
        };
        let why = if by.is_some() {
            "taken over"
        } else {
            "the agent said so"
        };
        self.profile = person.clone();
        self.thinking = None;
        self.mind.pause();
        if by.is_some() {
            self.call.cut(now);
        }
        self.call.hand_off(now, &person.name, why, by);
    }

    /// Gives the call back to its agent.
    pub(super) fn hand_back(&mut self, now: Now, by: String) {
        if !self.has_person() {
            return;
        }
        self.profile = self.own.clone();
        self.call.hand_off(now, &self.own.name, "handed back", Some(by));
        self.mind.resume(now.mono);
    }

    /// Whether a person has the call in place of its agent.
    pub(super) fn has_person(&self) -> bool {
        !std::sync::Arc::ptr_eq(&self.profile, &self.own)
    }
}

/// The request of a tool, or what the model is told instead. Only hosts on the tenant's list are asked.
fn request(tool: &WebTool, call: &ToolCall, hosts: &ToolHosts, tenant: i64) -> Result<ApiRequest, &'static str> {
    let uri: Uri = tool.url.parse().map_err(|_| "The tool's URL cannot be read.")?;
    let host = uri.host().unwrap_or_default();
    if !hosts.allow(tenant, host) {
        warn!(tool = call.name, "a tool's host is not on the tenant's list");
        return Err("The tool may not be used: its host is not allowed.");
    }
    info!(tool = call.name, call = %LastFour(&call.id), "a tool is used");
    let mut headers = HeaderMap::new();
    let (method, url, body) = match tool.post {
        true => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (Method::POST, tool.url.clone(), Bytes::from(call.arguments.to_string()))
        }
        false => (Method::GET, with_query(&tool.url, &call.arguments), Bytes::new()),
    };
    Ok(ApiRequest {
        method,
        url,
        headers,
        body,
        timeout: tool.timeout,
    })
}

fn with_query(url: &str, arguments: &Value) -> String {
    let mut url = url.to_owned();
    for (key, value) in arguments.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!("{}={}", percent_encode(key), percent_encode(&text)));
    }
    url
}

async fn answer(http: &HttpClient, request: ApiRequest) -> String {
    match http.send(request).await {
        Ok(reply) if (200..300).contains(&reply.status) => {
            let text = String::from_utf8_lossy(&reply.body);
            let end = text
                .char_indices()
                .map(|(at, _)| at)
                .take_while(|at| *at <= MAX_RESULT)
                .last();
            match text.len() > MAX_RESULT {
                true => text[..end.unwrap_or(0)].to_owned(),
                false => text.into_owned(),
            }
        }
        Ok(reply) => json!({ "error": format!("status {}", reply.status) }).to_string(),
        Err(error) => json!({ "error": error.to_string() }).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, time::Duration};

    fn tool(url: &str, post: bool) -> WebTool {
        WebTool {
            description: String::new(),
            url: url.to_owned(),
            post,
            parameters: json!({}),
            timeout: Duration::from_secs(1),
        }
    }

    fn call(arguments: Value) -> ToolCall {
        ToolCall {
            id: "c1".into(),
            name: "order".into(),
            arguments,
        }
    }

    #[test]
    fn only_hosts_on_the_tenants_list_are_asked() {
        let list = |hosts: &[&str]| hosts.iter().map(|h| (*h).to_owned()).collect();
        let hosts = ToolHosts {
            everyone: list(&["api.example.com"]),
            tenants: BTreeMap::from([(7, list(&["*.crm.example"]))]),
        };
        let ask = |url, tenant| request(&tool(url, true), &call(json!({})), &hosts, tenant).is_ok();
        assert!(ask("https://api.example.com/x", 1) && ask("https://API.example.com/x", 7));
        assert!(ask("https://eu.crm.example/", 7) && !ask("https://eu.crm.example/", 1));
        for foreign in [
            "https://api.example.com.evil.example/",
            "https://crm.example/",
            "https://evilcrm.example/",
            "https://169.254.169.254/",
            "https://api.example.com@evil.example/",
        ] {
            assert!(!ask(foreign, 7), "{foreign}");
        }
    }

    #[test]
    fn arguments_are_posted_as_json_or_are_the_query() {
        let hosts = ToolHosts {
            everyone: vec!["a.example".to_owned()],
            tenants: BTreeMap::new(),
        };
        let arguments = json!({ "n": 7, "who": "A & B/é" });
        let posted = request(&tool("https://a.example/o", true), &call(arguments.clone()), &hosts, 1).unwrap();
        assert_eq!(&posted.body[..], arguments.to_string().as_bytes());
        let got = request(&tool("https://a.example/o?v=1", false), &call(arguments), &hosts, 1).unwrap();
        assert_eq!(got.url, "https://a.example/o?v=1&n=7&who=A%20%26%20B%2F%C3%A9");
    }
}
