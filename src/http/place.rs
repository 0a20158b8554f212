//! Calls to place, end and simulate, in the words of both families of frontends: `to` or `to_number`, `agentId` or `agent`.

use super::{
    Shared, SimulateRequest,
    body::{self, either, required},
    calls::{Call, CallIds, shown, stored},
    respond::{Answer, Failure, data, done},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
        time::Wall,
    },
    control::{DialRequest, Mute},
    store::CallRow,
    vendor::{self, Descriptor},
};
use axum::{
    Extension,
    extract::{Path, Request, State},
};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

struct Asked {
    dial: DialRequest,
    flow_url: Option<String>,
    callback: bool,
}

/// A call to place. Fields that mean the same may not differ.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct DialBody {
    /// Who is called: E.164, or `sip:` where the vendor takes it. Required, as this or `to`.
    to_number: Option<String>,
    /// As `to_number`.
    to: Option<String>,
    /// One of the tenant's numbers; without one, the first.
    from_number: Option<String>,
    /// As `from_number`.
    from: Option<String>,
    /// Who carries the call; without one, the vendor of `from_number`.
    provider: Option<String>,
    /// Id or name of the agent that serves it; without one, the number's.
    #[serde(rename = "agentId")]
    agent_id_too: Option<String>,
    /// As `agentId`.
    agent_id: Option<String>,
    /// As `agentId`.
    agent: Option<String>,
    /// Taken and shown: the daemon's own flow serves the call.
    flow_url: Option<String>,
    /// Taken with a warning: it is not called.
    status_callback_url: Option<String>,
    /// Whose audio the vendor streams: `inbound_track`, `outbound_track`, `both_tracks`. This and the fields that follow are
    /// for vendors whose API knows them; without them the account's settings hold.
    stream_track: Option<Loose>,
    /// In what it comes.
    stream_codec: Option<Loose>,
    /// Its rate in Hz.
    stream_sample_rate: Option<Loose>,
    /// `rtp`.
    stream_bidirectional_mode: Option<Loose>,
    /// In what we send audio.
    stream_bidirectional_codec: Option<Loose>,
    /// Its rate in Hz.
    stream_bidirectional_sampling_rate: Option<Loose>,
    /// As `stream_bidirectional_sampling_rate`.
    stream_bidirectional_sample_rate: Option<Loose>,
}

/// A text, or a number that means its text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Loose {
    Text(String),
    Number(i64),
}

impl DialBody {
    /// What the call's stream shall be other than configured.
    fn stream(&mut self) -> Vec<(&'static str, String)> {
        let named = [
            ("stream_track", self.stream_track.take()),
            ("stream_codec", self.stream_codec.take()),
            ("stream_sample_rate", self.stream_sample_rate.take()),
            ("stream_bidirectional_mode", self.stream_bidirectional_mode.take()),
            ("stream_bidirectional_codec", self.stream_bidirectional_codec.take()),
            (
                "stream_bidirectional_sampling_rate",
                self.stream_bidirectional_sampling_rate.take(),
            ),
            (
                "stream_bidirectional_sample_rate",
                self.stream_bidirectional_sample_rate.take(),
            ),
        ];
        let text = |value| match value {
            Loose::Text(text) => text,
            Loose::Number(number) => number.to_string(),
        };
        let given = named.into_iter().filter_map(|(name, value)| Some((name, text(value?))));
        given.filter(|(_, value)| !value.is_empty()).collect()
    }
}

fn read_dial(mut b: DialBody, vendor: Option<&'static Descriptor>, dev: bool) -> Result<Asked, Fault> {
    if let Some(vendor) = vendor
        && b.provider.as_ref().is_some_and(|p| p != vendor.name)
    {
        return Err(Fault::client(Kind::Invalid, "provider is another than the path's"));
    }
    let stream = b.stream();
    let dial = DialRequest {
        to: required("to_number", [("to_number", b.to_number), ("to", b.to)])?,
        from: either([("from_number", b.from_number), ("from", b.from)])?.unwrap_or_default(),
        vendor: match vendor {
            Some(vendor) => Some(vendor.name.to_owned()),
            None => either([("provider", b.provider)])?,
        },
        agent: either([
            ("agentId", b.agent_id_too),
            ("agent_id", b.agent_id),
            ("agent", b.agent),
        ])?,
        stream,
    };
    if let Some(name) = dial.vendor.as_ref().filter(|n| vendor::by_name(n).is_none()) {
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Fault::client(Kind::Invalid, format!("provider is not known: {name}")));
    }
    Ok(Asked {
        dial,
        flow_url: url("flow_url", b.flow_url, dev)?,
        callback: url("status_callback_url", b.status_callback_url, dev)?.is_some(),
    })
}

/// An URL that a vendor could call; an empty one is none. Without TLS it will do on a developer's own machine.
fn url(name: &'static str, text: Option<String>, dev: bool) -> Result<Option<String>, Fault> {
    let text = either([(name, text)])?;
    let fits = |text: &String| {
        let uri = text.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(|uri| uri.scheme_str());
        let safe = scheme == Some("https") || (dev && scheme == Some("http"));
        safe && uri.is_some_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
    };
    match text {
        Some(text) if !fits(&text) => {
            let message = format!("{name} must be an absolute https URL, such as https://example.com/flow");
            Err(Fault::client(Kind::Invalid, message))
        }
        text => Ok(text),
    }
}

/// A call that was placed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlacedCall")]
pub(super) struct Placed {
    #[serde(flatten)]
    call: Named,
    direction: &'static str,
    /// Who carries it.
    provider: String,
    from_number: String,
    to_number: String,
    /// As it was given.
    flow_url: Option<String>,
    /// Where its audio is streamed to, without the token.
    #[serde(rename = "streamUrl")]
    stream_url: Option<String>,
    timestamp: Wall,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<&'static str>>,
    /// Its record.
    #[serde(rename = "dbRecord")]
    db_record: Call,
}

/// Names of the call to end.
pub(super) const CALL_IDS: [&str; 6] = ["call_control_id", "call_id", "callId", "call_sid", "callSid", "id"];

/// Which call to end, by either id.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EndBody {
    call_control_id: Option<String>,
    call_id: Option<String>,
    #[serde(rename = "callId")]
    call_id_too: Option<String>,
    call_sid: Option<String>,
    #[serde(rename = "callSid")]
    call_sid_too: Option<String>,
    id: Option<String>,
}

/// A call that has ended.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EndedCall")]
pub(super) struct Ended {
    #[serde(flatten)]
    call: Named,
    /// Why it ended.
    end_reason: Option<&'static str>,
    /// Seconds from answer to end.
    duration: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<Vec<String>>,
}

/// A call that did as it was asked.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NamedCall")]
pub(super) struct Named {
    #[serde(flatten)]
    ids: CallIds,
    /// Where it stands.
    status: &'static str,
}

impl From<&CallRow> for Named {
    fn from(row: &CallRow) -> Self {
        Self {
            ids: row.into(),
            status: row.status.as_str(),
        }
    }
}

/// Which way to mute or unmute.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct MuteBody {
    /// `inbound` (the caller is not heard), `outbound` (the caller hears silence) or `both`; without one, muting is of our
    /// side and unmuting of both.
    #[schemars(extend("enum" = ["inbound", "outbound", "both", "", null]))]
    direction: Option<String>,
}

/// How a call is muted now.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MutedCall")]
pub(super) struct Muted {
    #[serde(flatten)]
    ids: CallIds,
    muted: Ways,
}

/// Each way of a call's audio.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ways {
    /// The caller is not heard.
    inbound: Option<bool>,
    /// The caller hears silence.
    outbound: Option<bool>,
}

/// Keys for the far end.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct DigitsBody {
    /// `0-9`, `*`, `#`, `A-D`. Required.
    digits: Option<String>,
}

/// Where to transfer a call.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TransferBody {
    /// E.164, or `sip:` where the vendor takes it. Required, as this or `to`.
    to_number: Option<String>,
    /// As `to_number`.
    to: Option<String>,
}

/// A simulated incoming call.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct SimulateBody {
    /// Whose dialect is spoken; without one, the first's.
    provider: Option<String>,
    /// As `provider`.
    vendor: Option<String>,
    /// The caller's number; without one, one is made up.
    from_number: Option<String>,
    /// As `from_number`.
    from: Option<String>,
    /// The called number; without one, one is made up.
    to_number: Option<String>,
    /// As `to_number`.
    to: Option<String>,
    /// What the caller says; without words, a ringing tone.
    text: Option<String>,
    /// As `text`.
    message: Option<String>,
}

/// `POST /api/calls/initiate`
pub(super) async fn initiate(State(shared): State<Shared>, request: Request) -> Answer {
    place(&shared, request, None).await
}

/// `POST /api/calls/{provider}/initiate`
pub(super) async fn initiate_by(vendor: &'static Descriptor, State(shared): State<Shared>, request: Request) -> Answer {
    place(&shared, request, Some(vendor)).await
}

async fn place(shared: &Shared, request: Request, vendor: Option<&'static Descriptor>) -> Answer {
    let (who, body) = body::of(shared, request).await?;
    let asked = read_dial(body, vendor, shared.dev)?;
    let row = shared.control.dial(who.tenant, asked.dial).await?;
    let stream_url = vendor::by_name(&row.vendor).map(|v| {
        // Without its token: whoever reads the answer needs to know where, not how to get in.
        format!("{}{}", shared.public_url.replacen("http", "ws", 1), v.stream_path)
    });
    let warning = "status_callback_url is not called: watch the call over the frontend socket";
    let answer = Placed {
        call: Named::from(&row),
        direction: "outbound-dial",
        provider: row.vendor.clone(),
        from_number: row.organization_number.clone(),
        to_number: row.customer_number.clone(),
        flow_url: asked.flow_url,
        stream_url,
        timestamp: Wall::now(),
        warnings: asked.callback.then(|| vec![warning]),
        db_record: shown(&stored(row)),
    };
    Ok(done(answer, "Call initiated successfully"))
}

/// `POST /api/calls/{provider}/end`
pub(super) async fn end(vendor: &'static Descriptor, State(shared): State<Shared>, request: Request) -> Answer {
    let (who, b) = body::of::<EndBody>(&shared, request).await?;
    let [control, id, id_too, sid, sid_too, plain] = CALL_IDS;
    let names = [
        (control, b.call_control_id),
        (id, b.call_id),
        (id_too, b.call_id_too),
        (sid, b.call_sid),
        (sid_too, b.call_sid_too),
        (plain, b.id),
    ];
    let id = required(control, names)?;
    of_vendor(&shared, who.tenant, vendor, &id).await?;
    let rings_on = shared.control.rings_on(who.tenant, &id);
    let row = shared.control.hang_up(who.tenant, &id).await?;
    let warning = || {
        let title = vendor.title;
        format!(
            "{title} has no command that ends a call which rings: the phone rings on, and whoever answers is hung up on"
        )
    };
    let answer = Ended {
        warnings: rings_on.then(|| vec![warning()]),
        call: Named::from(&row),
        end_reason: row.end_reason.map(|r| r.as_str()),
        duration: row.duration,
    };
    Ok(done(answer, "Call ended"))
}

/// The call of `id`, if it is one of `vendor`'s.
async fn of_vendor(shared: &Shared, tenant: TenantId, vendor: &Descriptor, id: &str) -> Result<CallRow, Fault> {
    let row = shared.control.call(tenant, id).await?.row;
    match row.vendor == vendor.name {
        true => Ok(row),
        false => Err(Fault::not_found("call")),
    }
}

/// `POST /api/calls/{provider}/{id}/mute` (`on`) and `/unmute`: audio is stopped at the relay. `direction` is `inbound` (the caller
/// is not heard), `outbound` (the caller hears silence) or `both`; without one, muting is of our side and unmuting of both.
pub(super) async fn mute(
    vendor: &'static Descriptor,
    on: bool,
    Path(id): Path<String>,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let (who, b) = body::of::<MuteBody>(&shared, request).await?;
    let direction = either([("direction", b.direction)])?;
    let way = |word: &str| match direction.as_deref() {
        None => (!on || word == "outbound").then_some(on),
        Some(direction) => (direction == word || direction == "both").then_some(on),
    };
    if direction
        .as_deref()
        .is_some_and(|d| !["inbound", "outbound", "both"].contains(&d))
    {
        return Err(Fault::client(Kind::Invalid, "direction is inbound, outbound or both").into());
    }
    let wanted = Mute {
        inbound: way("inbound"),
        outbound: way("outbound"),
    };
    let row = of_vendor(&shared, who.tenant, vendor, &id).await?;
    let muted = shared.control.mute(who.tenant, &id, wanted).await?;
    let answer = Muted {
        ids: (&row).into(),
        muted: Ways {
            inbound: muted.inbound,
            outbound: muted.outbound,
        },
    };
    Ok(done(answer, if on { "Call muted" } else { "Call unmuted" }))
}

/// `POST /api/calls/{provider}/{id}/digits`: keys for the far end.
pub(super) async fn digits(
    vendor: &'static Descriptor,
    Path(id): Path<String>,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let (who, b) = body::of::<DigitsBody>(&shared, request).await?;
    let digits = required("digits", [("digits", b.digits)])?.to_ascii_uppercase();
    let row = of_vendor(&shared, who.tenant, vendor, &id).await?;
    shared.control.digits(who.tenant, &id, digits).await?;
    Ok(done(Named::from(&row), "Digits sent"))
}

/// `POST /api/calls/{id}/takeover`: a person has the call from now on.
pub(super) async fn take_over(
    Path(id): Path<String>,
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
) -> Answer {
    let row = shared.control.take_over(who.tenant, &id, who.subject).await?;
    Ok(done(Named::from(&row), "Call taken over"))
}

/// `POST /api/calls/{id}/handback`: its agent has it again.
pub(super) async fn hand_back(
    Path(id): Path<String>,
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
) -> Answer {
    let row = shared.control.hand_back(who.tenant, &id, who.subject).await?;
    Ok(done(Named::from(&row), "Call handed back"))
}

/// `POST /api/calls/{provider}/{id}/transfer`: hands the call to a number.
pub(super) async fn transfer(
    vendor: &'static Descriptor,
    Path(id): Path<String>,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let (who, b) = body::of::<TransferBody>(&shared, request).await?;
    let to = required("to_number", [("to_number", b.to_number), ("to", b.to)])?;
    let row = of_vendor(&shared, who.tenant, vendor, &id).await?;
    shared.control.transfer(who.tenant, &id, to).await?;
    Ok(done(Named::from(&row), "Call transferred"))
}

/// `POST /api/calls/simulate`
pub(super) async fn simulate(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, b) = body::of::<SimulateBody>(&shared, request).await?;
    let request = SimulateRequest {
        vendor: either([("provider", b.provider), ("vendor", b.vendor)])?,
        from: either([("from_number", b.from_number), ("from", b.from)])?,
        to: either([("to_number", b.to_number), ("to", b.to)])?,
        text: either([("text", b.text), ("message", b.message)])?,
    };
    let Some(simulate) = &shared.simulate else {
        return Err(Failure::with_status(
            StatusCode::NOT_FOUND,
            "simulation is not offered here",
        ));
    };
    let row = simulate.simulate(who.tenant, request).await?;
    Ok(data(shown(&stored(row))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<Asked, Fault> {
        read_dial(body::typed(serde_json::from_str(body).unwrap())?.value, None, false)
    }

    #[test]
    fn both_families_of_frontends_place_calls() {
        let first = r#"{"from_number":"+918065193776","to_number":"+916360154904","flow_url":"https://x.example/flow","status_callback_url":""}"#;
        let second = r#"{"to":"+916360154904","from":"+918065193776","agentId":"support"}"#;
        for body in [first, second] {
            let asked = asked(body).unwrap();
            assert_eq!(
                (asked.dial.to.as_str(), asked.dial.from.as_str()),
                ("+916360154904", "+918065193776")
            );
            assert!(!asked.callback);
        }
        assert_eq!(asked(second).unwrap().dial.agent.as_deref(), Some("support"));
    }

    #[test]
    fn the_stream_of_a_call_is_wished_for_in_texts_and_numbers() {
        let body = r#"{"to":"+1","stream_track":"both_tracks","stream_sample_rate":"8000",
            "stream_bidirectional_sample_rate":8000,"stream_codec":""}"#;
        let wished = asked(body).unwrap().dial.stream;
        let wished: Vec<_> = wished.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(
            wished,
            [
                ("stream_track", "both_tracks"),
                ("stream_sample_rate", "8000"),
                ("stream_bidirectional_sample_rate", "8000"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_placed_is_named() {
        for (body, why) in [
            ("{}", "to_number is required"),
            (r#"{"to":"+1","provider":"acme"}"#, "provider is not known: acme"),
            (r#"{"to":"+1","tenant_id":2}"#, "unknown field: tenant_id"),
            (
                r#"{"to":"+1","flow_url":"http://x.example/flow"}"#,
                "flow_url must be an absolute https URL, such as https://example.com/flow",
            ),
            (
                r#"{"to":"+1","status_callback_url":"javascript:alert(1)"}"#,
                "status_callback_url must be an absolute https URL, such as https://example.com/flow",
            ),
        ] {
            assert_eq!(asked(body).err().unwrap().message, why);
        }
    }
}
