//! MQTT 3.1.1 with QoS 0: a packet is a kind, a length of one to four bytes, and a body.

use anyhow::{Result, bail};

use super::{Decode, Encode, Event, Taken};

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const SUBACK: u8 = 9;

/// Length of the body and of what comes before it; `None` when that is not complete.
fn head(input: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut len = 0;
    for (at, &byte) in input.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((len, at + 2)));
        }
    }
    if input.len() > 4 {
        bail!("an MQTT packet without a length");
    }
    Ok(None)
}

fn put_head(out: &mut Vec<u8>, first: u8, len: usize) {
    out.push(first);
    let mut rest = len;
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or(0);
        rest >>= 7;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The packet that begins a session without keep-alive.
pub(crate) fn connect(client: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    // Level 4, clean session, no keep-alive.
    body.extend_from_slice(&[4, 2, 0, 0]);
    put_text(&mut body, client);
    packet(0x10, &body)
}

/// The packet that subscribes to one topic with QoS 0.
pub(crate) fn subscribe(topic: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    put_text(&mut body, topic);
    body.push(0);
    packet(0x82, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, first, body.len());
    out.extend_from_slice(body);
    out
}

/// Publishes to one topic with QoS 0.
#[derive(Debug)]
pub(crate) struct Publish {
    topic: Vec<u8>,
}

impl Publish {
    /// To this topic.
    pub(crate) fn to(topic: &str) -> Self {
        let mut text = Vec::new();
        put_text(&mut text, topic);
        Self { topic: text }
    }
}

impl Encode for Publish {
    fn encode(&mut self, out: &mut Vec<u8>, _mark: u32, payload: &[u8]) {
        put_head(out, 0x30, self.topic.len() + payload.len());
        out.extend_from_slice(&self.topic);
        out.extend_from_slice(payload);
    }
}

/// What a client of QoS 0 gets. CONNACK and SUBACK are acks.
#[derive(Debug)]
pub(crate) struct Packets;

impl Decode for Packets {
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<Taken<'a>>> {
        let Some((len, head)) = head(input)? else {
            return Ok(None);
        };
        let Some(body) = input.get(head..head + len) else {
            return Ok(None);
        };
        let kind = input.first().map_or(0, |first| first >> 4);
        let event = match (kind, body) {
            (PUBLISH, [high, low, rest @ ..]) => {
                let topic = usize::from(u16::from_be_bytes([*high, *low]));
                match rest.get(topic..) {
                    Some(payload) => Event::Message(payload),
                    None => bail!("an MQTT message is shorter than its topic"),
                }
            }
            (CONNACK, [_, 0]) | (SUBACK, [_, _, 0]) => Event::Ack(None),
            (CONNACK | SUBACK, _) => bail!("the MQTT broker refuses: {body:?}"),
            _ => bail!("an MQTT packet of kind {kind} was not asked for"),
        };
        Ok(Some((event, head + len)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::super::tests::{decode_all, messages};
    use super::*;

    #[test]
    fn packets_are_what_the_standard_says() {
        let expected = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
        assert_eq!(connect("a"), expected);
        assert_eq!(subscribe("t"), b"\x82\x06\x00\x01\x00\x01t\x00");
        let mut out = Vec::new();
        Publish::to("t").encode(&mut out, 0, b"hi");
        assert_eq!(out, b"\x30\x05\x00\x01thi");
    }

    #[test]
    fn lengths_of_one_to_three_bytes_in_any_parts() {
        let payloads: Vec<Vec<u8>> = [0, 100, 124, 125, 16_380, 16_381, 20_000]
            .iter()
            .map(|&len| vec![b'x'; len])
            .collect();
        let mut bytes = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00".to_vec();
        let mut publish = Publish::to("t");
        for payload in &payloads {
            publish.encode(&mut bytes, 0, payload);
        }
        let mut expected = vec!["Ack(None)".to_owned(); 2];
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        expected.extend(messages(&payloads));
        assert_eq!(decode_all(&|| Box::new(Packets), &bytes), expected);
    }

    #[test]
    fn refusals_and_nonsense_are_errors() {
        for wrong in [
            &b"\x20\x02\x00\x05"[..],
            b"\x90\x03\x00\x01\x80",
            b"\x30\x03\x00\x09t",
            b"\x30\xff\xff\xff\xff\xff",
            b"\xd0\x00",
        ] {
            assert!(Packets.decode(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Packets.decode(b"\x30\x80").unwrap(), None);
    }
}
