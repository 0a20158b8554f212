//! A call's recording, whole or a range of it (RFC 9110 §14): players seek; and its pause, for what must not be recorded.
//!
//! Files are read in pieces on the blocking pool, each when the client has taken the one before: who reads slowly holds no thread.

use super::{
    Shared,
    respond::{Answer, Failure, data},
};
use crate::{
    access::Identity,
    base::fault::Fault,
    record::{Format, Reading},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path as Segment, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs::File,
    io,
    ops::Range as Span,
    path::{Component, Path, PathBuf},
};
use tokio::task::spawn_blocking;

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// `GET /api/calls/{id}/recording`
pub(super) async fn recording(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Segment(id): Segment<String>,
    headers: HeaderMap,
) -> Answer {
    let row = shared.control.call(who.tenant, &id).await?.row;
    let name = row.recording.ok_or_else(|| Fault::not_found("recording"))?;
    let path = inside(&shared.data_root, &shared.recordings.folder, &name);
    let path = path.ok_or_else(|| Fault::internal("a recording lies outside its folder"))?;
    let keys = shared.recordings.keys.clone();
    let open = move || Reading::new(File::open(path)?, &keys);
    let file = match spawn_blocking(open).await {
        Ok(Ok(file)) => file,
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => return Err(Fault::not_found("recording").into()),
        Ok(Err(e)) => return Err(Fault::internal(format!("a recording cannot be read: {e}")).into()),
        Err(_) => return Err(Fault::internal("a recording cannot be read").into()),
    };
    let size = file.len();
    let kind = Format::media_type(&name);
    match read_range(&headers, size) {
        Range::All => Ok(send(file, kind, 0..size, size, StatusCode::OK)),
        Range::Part { from, to } => Ok(send(file, kind, from..to, size, StatusCode::PARTIAL_CONTENT)),
        Range::None => {
            let mut response = Failure::with_status(StatusCode::RANGE_NOT_SATISFIABLE, "no such range").into_response();
            if let Ok(value) = format!("bytes */{size}").parse() {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            Ok(response)
        }
    }
}

/// Whether a call's recording goes on.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Standing {
    /// Our id of the call.
    id: String,
    /// Whether it is stopped.
    paused: bool,
}

/// `POST /api/calls/{id}/recording/pause`: while a card number is read out. What is said meanwhile is silence in the file.
pub(super) async fn pause(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Segment(id): Segment<String>,
) -> Answer {
    steer(&shared, &who, &id, false).await
}

/// `POST /api/calls/{id}/recording/resume`
pub(super) async fn resume(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    Segment(id): Segment<String>,
) -> Answer {
    steer(&shared, &who, &id, true).await
}

async fn steer(shared: &Shared, who: &Identity, id: &str, on: bool) -> Answer {
    let row = shared.control.call(who.tenant, id).await?.row;
    shared.control.record(who.tenant, id, on).await?;
    Ok(data(Standing {
        id: row.call_id.to_string(),
        paused: !on,
    }))
}

/// `name` under `root`, or under a `folder` elsewhere, unless it leads out of them.
fn inside(root: &Path, folder: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    let under = match name.is_absolute() {
        true => name.strip_prefix(folder).ok()?,
        false => name,
    };
    let straight = under.components().all(|c| matches!(c, Component::Normal(_)));
    straight.then(|| root.join(name))
}

#[derive(Debug, PartialEq)]
enum Range {
    All,
    /// From the first byte up to, not including, the second.
    Part {
        from: u64,
        to: u64,
    },
    None,
}

/// One range of bytes. What is no such request asks for everything, as the RFC has it.
fn read_range(headers: &HeaderMap, size: u64) -> Range {
    let asked = headers
        .get(header::RANGE)
        .and_then(|v| v.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = asked
        .and_then(|r| r.trim().split_once('-'))
        .filter(|(_, l)| !l.contains(','))
    else {
        return Range::All;
    };
    let (from, to) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(suffix)) if first.is_empty() && suffix > 0 => (size.saturating_sub(suffix), size),
        (Err(_), Ok(0)) if first.is_empty() => return Range::None,
        _ => return Range::All,
    };
    if from < to {
        Range::Part { from, to }
    } else {
        Range::None
    }
}

fn send(
    file: Reading,
    kind: &'static str,
    Span { start: from, end: to }: Span<u64>,
    size: u64,
    status: StatusCode,
) -> Response {
    let pieces = stream::try_unfold((file, from), move |(file, at)| async move {
        if at == to {
            return Ok(None);
        }
        let (piece, file) = spawn_blocking(move || read_piece(file, at, to))
            .await
            .map_err(io::Error::other)??;
        let next = at + piece.len() as u64;
        Ok::<_, io::Error>(Some((piece, (file, next))))
    });
    let mut response = (status, Body::from_stream(pieces)).into_response();
    let mut set = |name, value: String| {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, kind.to_owned());
    set(header::ACCEPT_RANGES, "bytes".to_owned());
    set(header::CONTENT_LENGTH, (to - from).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        set(header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1));
    }
    response
}

fn read_piece(file: Reading, at: u64, to: u64) -> io::Result<(Bytes, Reading)> {
    let piece = file.read(at, PIECE.min(usize::try_from(to - at).unwrap_or(PIECE)))?;
    Ok((piece.into(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        let range = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            read_range(&headers, 1000)
        };
        let part = |from, to| Range::Part { from, to };
        for (text, expected) in [
            ("bytes=0-499", part(0, 500)),
            ("bytes=500-999", part(500, 1000)),
            ("bytes=-500", part(500, 1000)),
            ("bytes=-5000", part(0, 1000)),
            ("bytes=990-", part(990, 1000)),
            ("bytes=990-5000", part(990, 1000)),
            ("bytes=999-18446744073709551615", part(999, 1000)),
            ("bytes=1000-", Range::None),
            ("bytes=-0", Range::None),
            ("bytes=5-4", Range::All),
            ("bytes=0-1,5-6", Range::All),
            ("bytes=x-y", Range::All),
            ("items=0-1", Range::All),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
        assert_eq!(read_range(&HeaderMap::new(), 1000), Range::All);
    }

    #[test]
    fn a_recording_lies_under_the_data_root_or_in_its_own_folder() {
        let (root, folder) = (Path::new("/data"), Path::new("/sound"));
        let inside = |name| inside(root, folder, name);
        assert_eq!(inside("recordings/a.wav"), Some("/data/recordings/a.wav".into()));
        assert_eq!(inside("/sound/a.wav"), Some("/sound/a.wav".into()));
        for bad in [
            "../etc/passwd",
            "/etc/passwd",
            "recordings/../../x",
            "/sound/../etc/passwd",
        ] {
            assert_eq!(inside(bad), None, "{bad}");
        }
    }
}
