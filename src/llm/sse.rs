//! Server-sent events (WHATWG HTML §9.2) out of a byte stream that is cut anywhere: comments skipped, `data` lines joined.
//!
//! Only the data is kept: every service that is read here repeats the event's name in it.

use super::ChatError;

/// The longest event that is taken, in bytes: a tool's arguments come in one.
const MAX_EVENT: usize = 1024 * 1024;

/// The reader of one stream.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    /// The data of an event that has not ended.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return, whose line feed may follow.
    returned: bool,
}

impl Events {
    /// Takes bytes, and gives the data of each event that ends in them to `each`.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&str) -> Result<(), ChatError>,
    ) -> Result<(), ChatError> {
        for byte in bytes {
            let returned = std::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if returned => {}
                b'\n' | b'\r' => self.end_line(&mut each)?,
                _ if self.line.len() + self.data.len() >= MAX_EVENT => {
                    return Err(ChatError::Garbled("an event is longer than 1 MiB"));
                }
                _ => self.line.push(*byte),
            }
        }
        Ok(())
    }

    /// The stream has ended: an event that no empty line followed counts too.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&str) -> Result<(), ChatError>) -> Result<(), ChatError> {
        if !self.line.is_empty() {
            self.end_line(&mut each)?;
        }
        self.end_event(&mut each)
    }

    fn end_line(&mut self, each: &mut impl FnMut(&str) -> Result<(), ChatError>) -> Result<(), ChatError> {
        if self.line.is_empty() {
            return self.end_event(each);
        }
        if let Some(value) = self.line.strip_prefix(b"data").and_then(|rest| match rest {
            [] => Some(rest),
            [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
            _ => None,
        }) {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        }
        self.line.clear();
        Ok(())
    }

    fn end_event(&mut self, each: &mut impl FnMut(&str) -> Result<(), ChatError>) -> Result<(), ChatError> {
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        let text = std::str::from_utf8(&data).map_err(|_| ChatError::Garbled("an event is not UTF-8"))?;
        each(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        for piece in pieces {
            events
                .feed(piece, |data| {
                    seen.push(data.to_owned());
                    Ok(())
                })
                .unwrap();
        }
        events
            .finish(|data| {
                seen.push(data.to_owned());
                Ok(())
            })
            .unwrap();
        seen
    }

    const STREAM: &[u8] =
        ": hello\r\n\r\nevent: a\r\ndata: {\"x\":\"é\"}\r\n\r\ndata:one\ndata:two\n\nid: 7\n\ndata: [DONE]".as_bytes();

    #[test]
    fn comments_and_other_fields_are_skipped_and_data_lines_joined() {
        assert_eq!(read([STREAM]), ["{\"x\":\"é\"}", "one\ntwo", "[DONE]"]);
    }

    #[test]
    fn an_event_without_end_is_refused_and_not_kept() {
        let mut events = Events::default();
        let piece = vec![b'x'; 64 * 1024];
        let refused = (0..17).find_map(|_| events.feed(&piece, |_| Ok(())).err());
        assert!(matches!(refused, Some(ChatError::Garbled(_))));
        assert!(events.line.len() <= MAX_EVENT);
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_does_not_matter(cuts in prop::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|w| &STREAM[w[0]..w[1]]);
            prop_assert_eq!(read(pieces), read([STREAM]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut events = Events::default();
            let _ = events.feed(&bytes, |_| Ok(())).and_then(|()| events.finish(|_| Ok(())));
        }
    }
}
