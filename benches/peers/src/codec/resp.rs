//! RESP2, the protocol of Redis: commands out, replies in.
//!
//! Replies are taken apart token by token, an array being a token that says how many values follow. So a reply of a
//! megabyte is never scanned twice, and no tree of it is built.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};

use super::{Decode, Encode, Event, Taken, line, lossy, number, put_number};

/// Largest value that is taken.
const BULK_BYTES_MAX: usize = 64 << 20;

/// One token of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `+text`
    Text(&'a [u8]),
    /// `-text`
    Error(&'a [u8]),
    /// `:number`
    Number(&'a [u8]),
    /// A string of bytes.
    Bulk(&'a [u8]),
    /// No value.
    Null,
    /// So many values follow.
    Array(usize),
}

/// The first token in `input` and its length; `None` when it is not complete.
pub(crate) fn token(input: &[u8]) -> Result<Option<(Token<'_>, usize)>> {
    let Some((text, head)) = line(input)? else {
        return Ok(None);
    };
    let Some((&kind, rest)) = text.split_first() else {
        bail!("an empty line from Redis");
    };
    let token = match kind {
        b'+' => Token::Text(rest),
        b'-' => Token::Error(rest),
        b':' => Token::Number(rest),
        b'*' | b'$' if rest == b"-1" => Token::Null,
        b'*' => Token::Array(number(rest)?),
        b'$' => return bulk(input, head, number(rest)?),
        _ => bail!("'{}' is no reply of Redis", lossy(text)),
    };
    Ok(Some((token, head)))
}

fn bulk(input: &[u8], head: usize, len: usize) -> Result<Option<(Token<'_>, usize)>> {
    if len > BULK_BYTES_MAX {
        bail!("Redis sends a value of {len} bytes");
    }
    let end = head + len;
    match (input.get(head..end), input.get(end..end + 2)) {
        (Some(value), Some(b"\r\n")) => Ok(Some((Token::Bulk(value), end + 2))),
        (Some(_), Some(_)) => bail!("a value of Redis is longer than it says"),
        _ => Ok(None),
    }
}

/// A command of several words.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, b'*', words.len());
    for word in words {
        put_bulk(&mut out, word);
    }
    out
}

fn put_head(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    put_number(out, len);
    out.extend_from_slice(b"\r\n");
}

fn put_bulk(out: &mut Vec<u8>, word: &[u8]) {
    put_head(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// A command whose last word is the payload.
#[derive(Debug)]
pub(crate) struct Publish {
    prefix: Vec<u8>,
}

impl Publish {
    /// `XADD room * d payload`
    pub(crate) fn to_stream(room: &str) -> Self {
        Self::with(&[b"XADD", room.as_bytes(), b"*", b"d"])
    }

    /// `PUBLISH room payload`
    pub(crate) fn to_channel(room: &str) -> Self {
        Self::with(&[b"PUBLISH", room.as_bytes()])
    }

    fn with(words: &[&[u8]]) -> Self {
        let mut prefix = Vec::new();
        put_head(&mut prefix, b'*', words.len() + 1);
        for word in words {
            put_bulk(&mut prefix, word);
        }
        Self { prefix }
    }
}

impl Encode for Publish {
    fn encode(&mut self, out: &mut Vec<u8>, _mark: u32, payload: &[u8]) {
        out.extend_from_slice(&self.prefix);
        put_bulk(out, payload);
    }
}

/// Replies of which each answers one command.
#[derive(Debug)]
pub(crate) struct Replies;

impl Decode for Replies {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        Ok(match token(input)? {
            None => None,
            Some((Token::Bulk(_) | Token::Number(_), len)) => Some((Event::Ack(None), len)),
            Some((Token::Error(text), _)) => bail!("Redis refuses: {}", lossy(text)),
            Some((other, _)) => bail!("{other:?} is no answer to a publish"),
        })
    }
}

/// What a subscriber of one channel gets.
#[derive(Debug)]
pub(crate) struct Pushes {
    /// How each message begins.
    prefix: Vec<u8>,
}

impl Pushes {
    /// Of one channel.
    pub(crate) fn of(room: &str) -> Self {
        let mut prefix = b"*3\r\n".to_vec();
        put_bulk(&mut prefix, b"message");
        put_bulk(&mut prefix, room.as_bytes());
        Self { prefix }
    }
}

impl Decode for Pushes {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        let Some(rest) = input.strip_prefix(self.prefix.as_slice()) else {
            if self.prefix.starts_with(input) {
                return Ok(None);
            }
            // The answer to SUBSCRIBE, token by token.
            return Ok(match token(input)? {
                None => None,
                Some((Token::Error(text), _)) => bail!("Redis refuses: {}", lossy(text)),
                Some((Token::Number(_), len)) => Some((Event::Ack(None), len)),
                Some((_, len)) => Some((Event::Nothing, len)),
            });
        };
        Ok(match token(rest)? {
            None => None,
            Some((Token::Bulk(payload), len)) => {
                Some((Event::Message(payload), self.prefix.len() + len))
            }
            Some((other, _)) => bail!("{other:?} is no message"),
        })
    }
}

/// The entries that XRANGE answers with: each an id and one field with its value. The end of a page is an
/// [`Event::Ack`] whose mark says how many entries it had.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Entries that this page has, and those that have not come.
    page: Option<(usize, usize)>,
    /// Place within an entry.
    place: u8,
    /// The id of the newest entry.
    last: Vec<u8>,
    /// The same at the end of a page.
    told: LastId,
}

/// The id of the last entry of the last page.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastId(Arc<Mutex<Vec<u8>>>);

impl LastId {
    /// Where the next page begins: behind it, or at the start.
    pub(crate) fn next_start(&self) -> Vec<u8> {
        let id = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if id.is_empty() {
            b"-".to_vec()
        } else {
            [b"(", id.as_slice()].concat()
        }
    }

    fn set(&self, id: &[u8]) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.clear();
        told.extend_from_slice(id);
    }
}

impl Entries {
    /// What tells where the next page begins.
    pub(crate) fn last_id(&self) -> LastId {
        self.told.clone()
    }

    fn take<'a>(&mut self, token: &Token<'a>) -> Result<Event<'a>> {
        let Some((_, left)) = &mut self.page else {
            let Token::Array(count) = *token else {
                bail!("{token:?} is no page of entries");
            };
            self.page = Some((count, count));
            return Ok(Event::Nothing);
        };
        self.place = (self.place + 1) % 5;
        Ok(match (self.place, token) {
            (1 | 3, Token::Array(2)) | (4, Token::Bulk(b"d")) => Event::Nothing,
            (2, Token::Bulk(id)) => {
                self.last.clear();
                self.last.extend_from_slice(id);
                Event::Nothing
            }
            (0, Token::Bulk(payload)) => {
                *left -= 1;
                Event::Message(payload)
            }
            (_, other) => bail!("{other:?} at place {} of an entry", self.place),
        })
    }
}

impl Decode for Entries {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        if let Some((count, 0)) = self.page {
            self.page = None;
            self.told.set(&self.last);
            return Ok(Some((Event::Ack(u32::try_from(count).ok()), 0)));
        }
        match token(input)? {
            None => Ok(None),
            Some((Token::Error(text), _)) => bail!("Redis refuses: {}", lossy(text)),
            Some((token, len)) => Ok(Some((self.take(&token)?, len))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::tests::{decode_all, messages};
    use super::*;

    #[test]
    fn commands_are_what_redis_documents() {
        assert_eq!(
            command(&[b"XLEN", b"r"]),
            b"*2\r\n$4\r\nXLEN\r\n$1\r\nr\r\n"
        );
        let mut out = Vec::new();
        Publish::to_stream("r").encode(&mut out, 0, b"hi");
        let expected = b"*5\r\n$4\r\nXADD\r\n$1\r\nr\r\n$1\r\n*\r\n$1\r\nd\r\n$2\r\nhi\r\n";
        assert_eq!(out, expected);
        out.clear();
        Publish::to_channel("r").encode(&mut out, 0, b"\r\n");
        assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nr\r\n$2\r\n\r\n\r\n");
    }

    #[test]
    fn replies_in_any_parts_are_one_ack_each() {
        let events = decode_all(
            &|| Box::new(Replies),
            b"$15\r\n1700000000000-0\r\n:3\r\n$3\r\n1-1\r\n",
        );
        assert_eq!(events, ["Ack(None)"; 3]);
        let error = Replies.decode(b"-ERR no\r\n").unwrap_err().to_string();
        assert_eq!(error, "Redis refuses: ERR no");
        assert!(Replies.decode(b"$3\r\nabcd\r\n").is_err());
        assert!(Replies.decode(b"?\r\n").is_err());
    }

    #[test]
    fn a_subscriber_gets_payloads_whatever_they_hold() {
        let payloads: [&[u8]; 4] = [b"one", b"", b"*3\r\n$7\r\nmessage\r\n", b"x"];
        let mut bytes = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nroom\r\n:1\r\n".to_vec();
        for payload in payloads {
            bytes.extend_from_slice(&command(&[b"message", b"room", payload]));
        }
        let mut expected = vec!["Ack(None)".to_owned()];
        expected.extend(messages(&payloads));
        assert_eq!(
            decode_all(&|| Box::new(Pushes::of("room")), &bytes),
            expected
        );
    }

    #[test]
    fn pages_of_entries_have_their_ends() {
        let mut bytes = b"*2\r\n".to_vec();
        for (id, payload) in [(&b"1-0"[..], &b"one"[..]), (b"2-0", b"")] {
            put_head(&mut bytes, b'*', 2);
            put_bulk(&mut bytes, id);
            bytes.extend_from_slice(&command(&[b"d", payload]));
        }
        bytes.extend_from_slice(b"*0\r\n");
        let mut expected = messages(&[b"one", b""]);
        expected.push("Ack(Some(2))".to_owned());
        expected.push("Ack(Some(0))".to_owned());
        let last_id = Arc::new(Mutex::new(LastId::default()));
        let make = || -> Box<dyn Decode> {
            let entries = Entries::default();
            *last_id.lock().unwrap() = entries.last_id();
            assert_eq!(last_id.lock().unwrap().next_start(), b"-");
            Box::new(entries)
        };
        assert_eq!(decode_all(&make, &bytes), expected);
        assert_eq!(last_id.lock().unwrap().next_start(), b"(2-0");
    }
}
