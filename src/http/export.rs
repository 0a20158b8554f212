//! The history as a file: CSV (RFC 4180) for spreadsheets, JSON lines for programs. Streamed a page at a time, so that however
//! long it is, one page is in memory, and who reads slowly holds no more.
//!
//! A cell that a spreadsheet would take for a formula begins with an apostrophe; telephone numbers stay as they are.

use super::{
    Shared,
    calls::{read_filter, shown, stored},
    respond::Answer,
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
    },
    store::{CallFilter, CallRow, MessageRow},
    wire::form::Form,
};
use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    response::IntoResponse,
};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde_json::{Value, json};
use std::io;

/// Calls that are read at once.
const PAGE: usize = 200;
/// Bytes after which a piece is sent.
const PIECE: usize = 64 * 1024;

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Lines,
}

/// What is asked for.
#[derive(Debug)]
struct Asked {
    format: Format,
    /// Whether what was said is in it.
    transcript: bool,
    filter: CallFilter,
}

/// `GET /api/calls/export?format&transcript&…`: the filters are those of the history.
pub(super) async fn export(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let asked = read(query.as_deref().unwrap_or_default())?;
    let (kind, name) = match asked.format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "calls.csv"),
        Format::Lines => ("application/x-ndjson", "calls.jsonl"),
    };
    let mut writer = Writer::new(shared, who.tenant, asked);
    // The first page is read before anything is promised.
    let first = writer.piece().await?;
    let rest = stream::try_unfold(writer, |mut writer| async move {
        let piece = writer.piece().await.map_err(|fault| {
            tracing::warn!(%fault, "an export breaks off");
            io::Error::other("the rest could not be read")
        })?;
        Ok::<_, io::Error>(piece.map(|piece| (piece, writer)))
    });
    let all = stream::StreamExt::chain(stream::iter(first.map(Ok)), rest);
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, Body::from_stream(all)).into_response())
}

fn read(query: &str) -> Result<Asked, Fault> {
    let form = Form::parse(query.as_bytes()).map_err(|e| Fault::client(Kind::Malformed, e.to_string()))?;
    let invalid = |message: &'static str| Fault::client(Kind::Invalid, message);
    let format = match form.get("format") {
        None | Some("" | "csv") => Format::Csv,
        Some("jsonl") => Format::Lines,
        Some(_) => return Err(invalid("format is csv or jsonl")),
    };
    let transcript = match form.get("transcript") {
        None | Some("" | "false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("transcript is true or false")),
    };
    let mut filter = read_filter(query, &["format", "transcript"])?;
    if form.get("limit").is_some() {
        return Err(invalid(
            "an export has no limit: it is as long as its filters let it be",
        ));
    }
    filter.limit = PAGE;
    Ok(Asked {
        format,
        transcript,
        filter,
    })
}

/// Writes an export piece by piece.
struct Writer {
    shared: Shared,
    tenant: TenantId,
    asked: Asked,
    /// Calls that were read and not written yet, the next one last.
    read: Vec<CallRow>,
    more: bool,
    head: bool,
}

impl Writer {
    fn new(shared: Shared, tenant: TenantId, asked: Asked) -> Self {
        Self {
            shared,
            tenant,
            head: asked.format == Format::Csv,
            asked,
            read: Vec::new(),
            more: true,
        }
    }

    /// The next piece; `None` behind the last.
    async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        let mut out = String::new();
        if std::mem::take(&mut self.head) {
            line(
                &mut out,
                COLUMNS
                    .iter()
                    .copied()
                    .chain(self.asked.transcript.then_some("transcript")),
            );
        }
        while out.len() < PIECE {
            let Some(call) = self.next().await? else { break };
            let said = match self.asked.transcript {
                true => Some(self.shared.store.messages(self.tenant, call.call_id).await?),
                false => None,
            };
            match self.asked.format {
                Format::Csv => csv(&mut out, &call, said.as_deref()),
                Format::Lines => json_line(&mut out, call, said.as_deref()),
            }
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    async fn next(&mut self) -> Result<Option<CallRow>, Fault> {
        if self.read.is_empty() && self.more {
            let page = self.shared.store.calls(self.tenant, self.asked.filter.clone()).await?;
            self.more = page.next.is_some();
            self.asked.filter.after = page.next;
            self.read = page.calls;
            self.read.reverse();
        }
        Ok(self.read.pop())
    }
}

const COLUMNS: [&str; 18] = [
    "id",
    "call_sid",
    "session_id",
    "provider",
    "direction",
    "customer_number",
    "organization_number",
    "status",
    "end_reason",
    "started_at",
    "answered_at",
    "ended_at",
    "duration",
    "agent",
    "has_recording",
    "legal_hold",
    "cost",
    "currency",
];

fn csv(out: &mut String, row: &CallRow, said: Option<&[MessageRow]>) {
    let time = |t: Option<crate::base::time::Wall>| t.map(|t| t.to_string()).unwrap_or_default();
    let cost = row.metadata.pointer("/cost/total").map(Value::to_string);
    let currency = row.metadata.pointer("/cost/currency").and_then(Value::as_str);
    let cells = [
        row.call_id.to_string(),
        row.call_sid.clone(),
        row.session_id.clone(),
        row.vendor.clone(),
        if row.inbound { "inbound" } else { "outbound" }.to_owned(),
        row.customer_number.clone(),
        row.organization_number.clone(),
        row.status.as_str().to_owned(),
        row.end_reason.map(|r| r.as_str()).unwrap_or_default().to_owned(),
        time(Some(row.start_time)),
        time(row.answered_at),
        time(row.end_time),
        row.duration.map(|d| d.to_string()).unwrap_or_default(),
        row.agent.clone(),
        row.recording.is_some().to_string(),
        row.legal_hold.to_string(),
        cost.unwrap_or_default(),
        currency.unwrap_or_default().to_owned(),
    ];
    let said = said.map(|said| {
        let lines = said
            .iter()
            .map(|m| format!("{}: {}", m.sender_type.as_str(), m.content));
        lines.collect::<Vec<_>>().join("\n")
    });
    line(out, cells.iter().map(String::as_str).chain(said.as_deref()));
}

fn line<'a>(out: &mut String, cells: impl Iterator<Item = &'a str>) {
    for (n, text) in cells.enumerate() {
        if n > 0 {
            out.push(',');
        }
        cell(out, text);
    }
    out.push_str("\r\n");
}

/// A cell as it is, or quoted where it must be, or kept from being a formula.
fn cell(out: &mut String, text: &str) {
    let formula = text.starts_with([
        '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
    ]);
    let number = text
        .strip_prefix('+')
        .is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    let guard = if formula && !number { "'" } else { "" };
    if guard.is_empty() && !text.contains([',', '"', '\r', '\n']) {
        return out.push_str(text);
    }
    out.push('"');
    out.push_str(guard);
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

fn json_line(out: &mut String, row: CallRow, said: Option<&[MessageRow]>) {
    let mut call = serde_json::to_value(shown(&stored(row))).unwrap_or_default();
    if let Some(said) = said {
        let turn = |m: &MessageRow| {
            json!({
                "seq": m.seq,
                "sender": m.sender_type.as_str(),
                "name": m.sender_name,
                "text": m.content,
                "timestamp": m.created_at,
                "confidence": m.confidence,
                "language": m.detected_language,
                "delivery": m.delivery,
                "heard_ms": m.heard_ms,
            })
        };
        call["conversation"] = said.iter().map(turn).collect();
    }
    out.push_str(&call.to_string());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = String::new();
        cell(&mut out, text);
        out
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_are_never_formulas() {
        for (text, expected) in [
            ("", ""),
            ("plain words", "plain words"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("+15550100", "+15550100"),
            ("+", "\"'+\""),
            ("+1+cmd|' /C calc'!A0", "\"'+1+cmd|' /C calc'!A0\""),
            ("=1+1", "\"'=1+1\""),
            ("-2", "\"'-2\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\t=1\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("a=1", "a=1"),
        ] {
            assert_eq!(written(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_read_and_what_is_not_offered_is_said() {
        let asked = read("format=jsonl&transcript=true&number=+15550100&status=all").unwrap();
        assert_eq!((asked.format, asked.transcript), (Format::Lines, true));
        assert_eq!(asked.filter.number.as_deref(), Some("+15550100"));
        assert_eq!(read("").unwrap().format, Format::Csv);
        for query in ["format=xls", "transcript=maybe", "limit=3", "tenant_id=2"] {
            assert_eq!(read(query).unwrap_err().kind, Kind::Invalid, "{query}");
        }
    }
}
