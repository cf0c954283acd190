//! Which protocol a peer speaks, told from its first byte, and the answer of the doors that are not
//! served.
//!
//! | first byte | protocol | served |
//! |---|---|---|
//! | `0x00` | native: the length of a frame is below 2^24 | yes |
//! | `{` or white space | lines of JSON | one line in JSON |
//! | a letter | HTTP | status 501 |
//! | `0x16` | TLS | a fatal alert |
//! | anything else | unknown | one line of text |
//!
//! A door that is not served answers once in its own language and closes. Nothing that it reads is
//! looked at beyond the first byte.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::transport::Stream;

/// Most bytes that are read before a peer is known.
pub(super) const UNKNOWN_BYTES_MAX: usize = 4096;

/// How long the rest of what a peer sends is thrown away after the last answer. Closing with unread
/// bytes makes the kernel reset the connection, and the answer may be lost with it.
const LINGER: Duration = Duration::from_millis(500);

/// Most bytes that are thrown away.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Fatal handshake failure: 21 alert, version 3.3, two bytes, level 2, description 40.
const TLS_ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

const JSON_LINE: &[u8] =
    b"{\"status\":\"error\",\"message\":\"this broker does not serve the JSON protocol; use its native protocol\"}\n";

const HTTP_ANSWER: &[u8] = b"HTTP/1.1 501 Not Implemented\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
Content-Length: 70\r\n\
Connection: close\r\n\
\r\n\
this broker does not serve HTTP at this port; use its native protocol\n";

const TEXT_LINE: &[u8] =
    b"this is a room broker; the first bytes are not a frame of its protocol\n";

/// What to answer a peer that begins with this byte; `None` for the native protocol.
fn answer(first: u8) -> Option<&'static [u8]> {
    match first {
        0 => None,
        b'{' | b' ' | b'\t' | b'\r' | b'\n' => Some(JSON_LINE),
        b'a'..=b'z' | b'A'..=b'Z' => Some(HTTP_ANSWER),
        0x16 => Some(TLS_ALERT),
        _ => Some(TEXT_LINE),
    }
}

/// Reads the first bytes into `buf` and says what to answer: `None` for the native protocol, an
/// empty answer when the peer left without a byte.
pub(super) async fn recognise(
    io: &mut impl Stream,
    buf: &mut BytesMut,
) -> io::Result<Option<&'static [u8]>> {
    buf.reserve(UNKNOWN_BYTES_MAX);
    io.read_buf(buf).await?;
    Ok(match buf.first() {
        None => Some(&[]),
        Some(first) => answer(*first),
    })
}

/// Says that a door is not served, and closes.
pub(super) async fn refuse(io: &mut impl Stream, answer: &[u8]) -> io::Result<()> {
    let said = timeout(LINGER, async {
        io.write_all(answer).await?;
        io.flush().await
    });
    said.await??;
    close(io).await;
    Ok(())
}

/// Closes a connection so that the peer can read what was written last.
pub(super) async fn close(io: &mut impl Stream) {
    let discard = async {
        io.shutdown().await?;
        let mut left = LINGER_BYTES_MAX;
        let mut scratch = [0; 1024];
        while left > 0 {
            match io.read(&mut scratch).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // However it ends, the connection is given up.
    let _ended = timeout(LINGER, discard).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn only_a_zero_is_native() {
        for first in 0..=u8::MAX {
            assert_eq!(
                answer(first).is_none(),
                first == 0,
                "first byte {first:#04x}"
            );
        }
    }

    #[test]
    fn the_http_answer_has_the_length_it_says() {
        let text = std::str::from_utf8(HTTP_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
    }
}
