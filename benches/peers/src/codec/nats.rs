//! The text protocol of NATS, and JetStream on top of it.
//!
//! A publish to a stream names a subject for its answer, `_INBOX.<connection>.<mark>`, so that one subscription with a
//! wildcard gets all answers of a connection. The mark has eight hexadecimal digits.

use anyhow::{Result, bail};

use super::{Decode, Encode, Event, Taken, line, lossy, number, put_number};

/// Largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Digits of a mark.
const MARK_DIGITS: usize = 8;

/// What ends the greeting of every connection here.
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
     \"lang\":\"rust\",\"version\":\"0\",\"protocol\":1,\"name\":\"broker-peers\"}\r\n";

/// One operation of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// A message.
    Message(Message<'a>),
    /// Wants a PONG.
    Ping,
    /// Answers a PING.
    Pong,
    /// INFO or +OK.
    Other,
}

/// A message as it arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Where it was sent.
    pub(crate) subject: &'a [u8],
    /// Where an answer goes; empty when none is wanted.
    pub(crate) reply: &'a [u8],
    /// Its headers; empty when there are none.
    pub(crate) headers: &'a [u8],
    /// The rest.
    pub(crate) payload: &'a [u8],
}

/// The first operation in `input` and its length; `None` when it is not complete.
pub(crate) fn op(input: &[u8]) -> Result<Option<(Op<'_>, usize)>> {
    let Some((text, head)) = line(input)? else {
        return Ok(None);
    };
    let mut words = text.split(|&byte| byte == b' ').filter(|w| !w.is_empty());
    let op = match words.next() {
        Some(b"MSG") => return message(input, head, words, false),
        Some(b"HMSG") => return message(input, head, words, true),
        Some(b"PING") => Op::Ping,
        Some(b"PONG") => Op::Pong,
        Some(b"INFO" | b"+OK") => Op::Other,
        Some(b"-ERR") => bail!("NATS refuses: {}", lossy(text)),
        _ => bail!("'{}' is no operation of NATS", lossy(text)),
    };
    Ok(Some((op, head)))
}

/// `MSG subject sid [reply] len` or `HMSG subject sid [reply] header-len len`, then that many bytes.
fn message<'a>(
    input: &'a [u8],
    head: usize,
    words: impl Iterator<Item = &'a [u8]>,
    has_headers: bool,
) -> Result<Option<(Op<'a>, usize)>> {
    let words: Vec<&[u8]> = words.collect();
    let (subject, reply, header_len, len) = match (has_headers, words.as_slice()) {
        (false, [subject, _, len]) => (*subject, &b""[..], 0, number(len)?),
        (false, [subject, _, reply, len]) => (*subject, *reply, 0, number(len)?),
        (true, [subject, _, first, len]) => (*subject, &b""[..], number(first)?, number(len)?),
        (true, [subject, _, reply, first, len]) => (*subject, *reply, number(first)?, number(len)?),
        _ => bail!("NATS sends a message with {} words", words.len()),
    };
    Ok(body(input, head, len)?.map(|(body, taken)| {
        let (headers, payload) = body.split_at(header_len.min(len));
        let message = Message {
            subject,
            reply,
            headers,
            payload,
        };
        (Op::Message(message), taken)
    }))
}

fn body(input: &[u8], head: usize, len: usize) -> Result<Option<(&[u8], usize)>> {
    if len > MESSAGE_BYTES_MAX {
        bail!("NATS sends a message of {len} bytes");
    }
    let end = head + len;
    match (input.get(head..end), input.get(end..end + 2)) {
        (Some(body), Some(b"\r\n")) => Ok(Some((body, end + 2))),
        (Some(_), Some(_)) => bail!("a message of NATS is longer than it says"),
        _ => Ok(None),
    }
}

/// The subscription that gets all answers of a connection.
pub(crate) fn subscribe_answers(connection: usize) -> String {
    format!("SUB _INBOX.{connection}.* 1\r\n")
}

/// Publishes to one subject.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Up to the mark, or up to the length.
    prefix: Vec<u8>,
    wants_answers: bool,
}

impl Publish {
    /// For a stream, which acknowledges.
    pub(crate) fn to_stream(subject: &str, connection: usize) -> Self {
        Self {
            prefix: format!("PUB {subject} _INBOX.{connection}.").into_bytes(),
            wants_answers: true,
        }
    }

    /// For those who listen now.
    pub(crate) fn to_listeners(subject: &str) -> Self {
        Self {
            prefix: format!("PUB {subject} ").into_bytes(),
            wants_answers: false,
        }
    }
}

impl Encode for Publish {
    fn encode(&mut self, out: &mut Vec<u8>, mark: u32, payload: &[u8]) {
        out.extend_from_slice(&self.prefix);
        if self.wants_answers {
            for place in (0..MARK_DIGITS).rev() {
                let digit = (mark >> (4 * place)) & 15;
                out.extend(b"0123456789abcdef".get(digit as usize));
            }
            out.push(b' ');
        }
        put_number(out, payload.len());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}

/// JetStream's answers to publishes.
#[derive(Debug)]
pub(crate) struct Answers;

impl Answers {
    fn judge(message: &Message<'_>) -> Result<u32> {
        if !message.headers.is_empty() {
            bail!(
                "no stream takes the message: {}",
                lossy(message.headers).trim_end()
            );
        }
        if message.payload.starts_with(b"{\"error\"") {
            bail!("JetStream refuses: {}", lossy(message.payload));
        }
        let subject = std::str::from_utf8(message.subject)?;
        let mark = subject.rsplit('.').next().unwrap_or_default();
        Ok(u32::from_str_radix(mark, 16)?)
    }
}

impl Decode for Answers {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        Ok(match op(input)? {
            None => None,
            Some((Op::Message(message), len)) => {
                Some((Event::Ack(Some(Self::judge(&message)?)), len))
            }
            Some((Op::Ping, len)) => Some((Event::Answer(b"PONG\r\n"), len)),
            Some((Op::Pong | Op::Other, len)) => Some((Event::Nothing, len)),
        })
    }
}

/// What a subscriber of one subject gets. A PONG is an ack.
#[derive(Debug)]
pub(crate) struct Messages {
    /// How a message without headers and without a reply begins.
    prefix: Vec<u8>,
}

impl Messages {
    /// Of one subject, subscribed with id 1.
    pub(crate) fn of(subject: &str) -> Self {
        Self {
            prefix: format!("MSG {subject} 1 ").into_bytes(),
        }
    }
}

impl Decode for Messages {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        if let Some(rest) = input.strip_prefix(self.prefix.as_slice()) {
            let Some((len, head)) = line(rest)? else {
                return Ok(None);
            };
            let head = self.prefix.len() + head;
            return Ok(
                body(input, head, number(len)?)?.map(|(body, len)| (Event::Message(body), len))
            );
        }
        Ok(match op(input)? {
            None => None,
            Some((Op::Message(message), _)) => bail!("{message:?} was not expected"),
            Some((Op::Ping, len)) => Some((Event::Answer(b"PONG\r\n"), len)),
            Some((Op::Pong, len)) => Some((Event::Ack(None), len)),
            Some((Op::Other, len)) => Some((Event::Nothing, len)),
        })
    }
}

/// What a pull consumer gets. The end of a request is an [`Event::Ack`].
#[derive(Debug)]
pub(crate) struct Pulled;

impl Decode for Pulled {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        Ok(match op(input)? {
            None => None,
            Some((Op::Message(message), len)) => {
                let event = match message.headers {
                    [] => Event::Message(message.payload),
                    // 404 no messages, 408 the request ended, 100 idle.
                    headers
                        if headers.starts_with(b"NATS/1.0 404")
                            || headers.starts_with(b"NATS/1.0 408") =>
                    {
                        Event::Ack(None)
                    }
                    headers if headers.starts_with(b"NATS/1.0 100") => Event::Nothing,
                    headers => bail!("the consumer ends: {}", lossy(headers).trim_end()),
                };
                Some((event, len))
            }
            Some((Op::Ping, len)) => Some((Event::Answer(b"PONG\r\n"), len)),
            Some((Op::Pong | Op::Other, len)) => Some((Event::Nothing, len)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{decode_all, messages};
    use super::*;

    #[test]
    fn publishes_are_what_nats_documents() {
        let mut out = Vec::new();
        Publish::to_stream("r.1", 7).encode(&mut out, 0x2a, b"hi");
        assert_eq!(out, b"PUB r.1 _INBOX.7.0000002a 2\r\nhi\r\n");
        out.clear();
        Publish::to_listeners("r").encode(&mut out, 0, b"");
        assert_eq!(out, b"PUB r 0\r\n\r\n");
        assert_eq!(subscribe_answers(7), "SUB _INBOX.7.* 1\r\n");
    }

    #[test]
    fn answers_carry_their_marks_in_any_parts() {
        let bytes = b"INFO {\"x\":1}\r\nMSG _INBOX.7.0000002a 1 26\r\n{\"stream\":\"rooms\",\"seq\":1}\r\nPING\r\nPONG\r\n\
            MSG _INBOX.7.00000001 1 _R_ 2\r\n{}\r\n";
        let expected = [
            "Ack(Some(42))".to_owned(),
            format!("{:?}", Event::Answer(b"PONG\r\n")),
            "Ack(Some(1))".to_owned(),
        ];
        assert_eq!(decode_all(&|| Box::new(Answers), bytes), expected);
    }

    #[test]
    fn refusals_are_errors() {
        for wrong in [
            &b"-ERR 'Unknown Protocol Operation'\r\n"[..],
            b"HMSG _INBOX.7.00000001 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
            b"MSG _INBOX.7.00000001 1 19\r\n{\"error\":{\"code\":1}}\r\n",
            b"MSG _INBOX.7.xyz 1 2\r\n{}\r\n",
            b"MSG _INBOX.7.1 1 2\r\n{}..\r\n",
            b"MSG a\r\n",
            b"WHAT\r\n",
        ] {
            assert!(Answers.decode(wrong).is_err(), "{}", lossy(wrong));
        }
    }

    #[test]
    fn a_subscriber_gets_payloads_whatever_they_hold() {
        let payloads: [&[u8]; 4] = [b"one", b"", b"MSG r 1 3\r\nxyz\r\n", b"\r\n"];
        let mut bytes = b"INFO {}\r\nPONG\r\n".to_vec();
        for payload in payloads {
            bytes.extend_from_slice(format!("MSG r 1 {}\r\n", payload.len()).as_bytes());
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(b"\r\n");
        }
        let mut expected = vec!["Ack(None)".to_owned()];
        expected.extend(messages(&payloads));
        assert_eq!(
            decode_all(&|| Box::new(Messages::of("r")), &bytes),
            expected
        );
    }

    /// A message without a payload whose headers say this.
    fn status(text: &str) -> String {
        let headers = format!("NATS/1.0 {text}\r\n\r\n");
        let len = headers.len();
        format!("HMSG _I.p 1 {len} {len}\r\n{headers}\r\n")
    }

    #[test]
    fn a_consumer_gets_messages_and_the_ends_of_its_requests() {
        let mut bytes = "MSG rooms.0 1 $JS.ACK.rooms.c.1.1.1.0.2 3\r\none\r\n".to_owned();
        bytes.push_str(&status("404 No Messages"));
        bytes.push_str(&status("100 Idle Heartbeat"));
        bytes.push_str("MSG rooms.0 1 $JS.ACK.x 0\r\n\r\n");
        let mut expected = messages(&[b"one"]);
        expected.push("Ack(None)".to_owned());
        expected.extend(messages(&[b""]));
        assert_eq!(decode_all(&|| Box::new(Pulled), bytes.as_bytes()), expected);
        let gone = status("409 Consumer Deleted");
        assert!(Pulled.decode(gone.as_bytes()).is_err());
    }
}
