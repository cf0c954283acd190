//! The peers' wire protocols, as much of them as the load needs.
//!
//! A codec works on what has come so far: it takes one event off its front or says that more has to come, and keeps
//! nothing of the bytes. So a read is parsed where it lies, whatever it holds: a part of a message, or hundreds of them.
//!
//! - [`nats`]: the text protocol of NATS, with JetStream's acknowledgements on reply subjects.
//! - [`resp`]: RESP2 of Redis.
//! - [`mqtt`]: MQTT 3.1.1, QoS 0.

pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod resp;

use anyhow::{Result, bail};

/// Longest line that a peer may send.
const LINE_BYTES_MAX: usize = 256 << 10;

/// One thing that a peer said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A message is answered: the oldest one, or the one that was sent with this mark.
    Ack(Option<u32>),
    /// A message, its payload.
    Message(&'a [u8]),
    /// The peer wants to be answered with these bytes.
    Answer(&'static [u8]),
    /// Nothing that counts.
    Nothing,
}

/// An event, and how many bytes it took.
pub(crate) type Taken<'a> = (Event<'a>, usize);

/// The reading side of one connection.
pub(crate) trait Decode: Send {
    /// The first event in `input`; `None` when it is not complete.
    ///
    /// # Errors
    /// When the peer refuses something or breaks its protocol.
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>>;
}

/// The writing side of one connection that publishes to one room.
pub(crate) trait Encode: Send {
    /// Appends a message. What acknowledges it may carry `mark`.
    fn encode(&mut self, out: &mut Vec<u8>, mark: u32, payload: &[u8]);
}

/// The first line without its end, and how many bytes it takes with it; `None` when its end has not come.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>> {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(end) => {
            let text = input.get(..end).unwrap_or_default();
            Ok(Some((text.strip_suffix(b"\r").unwrap_or(text), end + 1)))
        }
        None if input.len() > LINE_BYTES_MAX => bail!("a line of more than {LINE_BYTES_MAX} bytes"),
        None => Ok(None),
    }
}

/// A decimal number.
fn number(digits: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(digits)?;
    text.parse()
        .map_err(|_| anyhow::anyhow!("'{text}' is no number"))
}

/// Appends a decimal number.
fn put_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        // A remainder of ten fits.
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Text for an error, from bytes that a peer sent.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]

    use super::*;

    /// What a decoder finds when the bytes come all at once, and the same must come out when they come one by one.
    pub(crate) fn decode_all(make: &dyn Fn() -> Box<dyn Decode>, bytes: &[u8]) -> Vec<String> {
        let at_once = decode_in_parts(&mut *make(), bytes, bytes.len());
        for part in [1, 2, 3, 7, 64] {
            let in_parts = decode_in_parts(&mut *make(), bytes, part);
            assert_eq!(in_parts, at_once, "in parts of {part} bytes");
        }
        at_once
    }

    fn decode_in_parts(decoder: &mut dyn Decode, bytes: &[u8], part: usize) -> Vec<String> {
        let mut events = Vec::new();
        let (mut start, mut end) = (0, 0);
        while end < bytes.len() {
            end = (end + part).min(bytes.len());
            while let Some((event, taken)) = decoder.decode(&bytes[start..end]).unwrap() {
                let ends = matches!(event, Event::Ack(_));
                assert!((taken > 0 || ends) && start + taken <= end);
                start += taken;
                if event != Event::Nothing {
                    events.push(format!("{event:?}"));
                }
            }
        }
        assert_eq!(start, bytes.len(), "everything is used up");
        events
    }

    pub(crate) fn messages(payloads: &[&[u8]]) -> Vec<String> {
        let event = |payload: &&[u8]| format!("{:?}", Event::Message(payload));
        payloads.iter().map(event).collect()
    }

    #[test]
    fn numbers_go_there_and_back() {
        for value in [0, 7, 10, 128, 16_384, usize::MAX] {
            let mut out = b"x".to_vec();
            put_number(&mut out, value);
            assert_eq!(out, format!("x{value}").into_bytes());
            assert_eq!(number(&out[1..]).unwrap(), value);
        }
        for wrong in [&b""[..], b"-", b"1x", b"99999999999999999999999"] {
            assert!(number(wrong).is_err());
        }
    }

    #[test]
    fn lines_have_an_end_and_a_limit() {
        assert_eq!(line(b"ab\r\ncd").unwrap(), Some((&b"ab"[..], 4)));
        assert_eq!(line(b"ab\n").unwrap(), Some((&b"ab"[..], 3)));
        assert_eq!(line(b"ab\r").unwrap(), None);
        assert!(line(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
