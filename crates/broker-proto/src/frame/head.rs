//! What all frames share: length, kind, head length, and the head's postcard header and extensions.
//!
//! ```text
//! u32 BE length | u8 kind | [hello: "BRKR", u16 LE version] | u16 LE head_bytes | header, extensions | body
//! ```
//! Headers are frozen structs: nothing is ever added to a released one, growth is extensions.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::decode::DecodeError;
use crate::extension;
use crate::limits::{
    EXTENSIONS_BYTES_MAX, FRAME_BYTES_MAX, LENGTH_FIELD_BYTES, MAGIC, PROTOCOL_VERSION,
};
use crate::name::NameCache;

/// A frame's way to the wire and back.
pub(crate) trait Wire: Sized {
    /// Its number on the wire.
    const KIND: Kind;

    /// Appends the whole frame.
    fn put(&self, out: &mut BytesMut);

    /// Reads the frame from its head and body.
    fn take(parts: Parts, names: &mut NameCache) -> Result<Self, DecodeError>;
}

/// A complete frame, split into head and body.
#[derive(Debug)]
pub(crate) struct Parts {
    kind: Kind,
    /// Head and body.
    bytes: Bytes,
    head_bytes: usize,
}

impl Parts {
    /// Splits a frame given with its length field; the caller has checked length, kind, magic and version.
    pub(crate) fn split(kind: Kind, mut bytes: Bytes) -> Result<Self, DecodeError> {
        let short = DecodeError::Malformed {
            frame: kind,
            what: "the frame ends inside its head",
        };
        let prefix = LENGTH_FIELD_BYTES
            + 1
            + if kind == Kind::Hello {
                MAGIC.len() + 2
            } else {
                0
            };
        let Some((head_bytes, rest)) = bytes.get(prefix..).and_then(<[u8]>::split_first_chunk)
        else {
            return Err(short);
        };
        let head_bytes = usize::from(u16::from_le_bytes(*head_bytes));
        if rest.len() < head_bytes {
            return Err(short);
        }
        bytes.advance(prefix + 2);
        Ok(Self {
            kind,
            bytes,
            head_bytes,
        })
    }

    /// The kind of the frame.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads the header; what is left of the head are extensions, which the caller passes to [`extensions`](Self::extensions).
    pub(crate) fn header<'a, H: Deserialize<'a>>(&'a self) -> Result<(H, &'a [u8]), DecodeError> {
        let head = self.bytes.get(..self.head_bytes).unwrap_or_default();
        postcard::take_from_bytes(head)
            .map_err(|_| self.malformed("the header is cut short or malformed"))
    }

    /// Checks a list of extensions of which `known` are understood, and gives its entries.
    pub(crate) fn extensions<'a>(
        &self,
        list: &'a [u8],
        known: &[u16],
    ) -> Result<extension::Iter<'a>, DecodeError> {
        extension::check(list, EXTENSIONS_BYTES_MAX, known)
            .map_err(|cause| self.extension_error(cause))?;
        Ok(extension::iter(list))
    }

    /// Reads the header of a frame that knows no extensions.
    pub(crate) fn plain_header<'a, H: Deserialize<'a>>(&'a self) -> Result<H, DecodeError> {
        let (header, list) = self.header()?;
        self.extensions(list, &[])?;
        Ok(header)
    }

    /// Refuses a body, for frames that have none.
    pub(crate) fn no_body(&self) -> Result<(), DecodeError> {
        if self.bytes.len() > self.head_bytes {
            return Err(self.malformed("bytes follow the head of a frame without a body"));
        }
        Ok(())
    }

    /// Reads the header of a frame that knows no extensions and has no body.
    pub(crate) fn only_header<'a, H: Deserialize<'a>>(&'a self) -> Result<H, DecodeError> {
        self.no_body()?;
        self.plain_header()
    }

    /// The body, borrowed.
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(self.head_bytes..).unwrap_or_default()
    }

    /// The body, sharing the frame's bytes.
    pub(crate) fn into_body(mut self) -> Bytes {
        self.bytes.advance(self.head_bytes);
        self.bytes
    }

    /// A text of the header, refused when it is longer than `max` bytes.
    pub(crate) fn text(&self, text: &str, max: usize) -> Result<String, DecodeError> {
        if text.len() > max {
            return Err(self.malformed("a text is longer than its limit"));
        }
        Ok(text.to_owned())
    }

    /// Refuses bits that no version up to this one has given a meaning.
    pub(crate) fn flags(&self, flags: u32, known: u32) -> Result<u32, DecodeError> {
        if flags & !known != 0 {
            return Err(self.malformed("an unknown flag is set"));
        }
        Ok(flags)
    }

    /// Refuses a range of numbers that is empty, begins below 1, or goes beyond the last number.
    pub(crate) fn numbers(&self, first: u64, count: u32) -> Result<(), DecodeError> {
        if first == 0 || count == 0 {
            return Err(self.malformed("a range of numbers is empty or begins at zero"));
        }
        if first.checked_add(count.into()).is_none() {
            return Err(self.malformed("a range of numbers overflows"));
        }
        Ok(())
    }

    /// An error of this frame's layout.
    pub(crate) const fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed {
            frame: self.kind,
            what,
        }
    }

    /// An error of this frame's extensions.
    pub(crate) const fn extension_error(&self, cause: extension::ExtensionError) -> DecodeError {
        DecodeError::Extension {
            frame: self.kind,
            cause,
        }
    }

    /// An error of a name in this frame.
    pub(crate) const fn name_error(&self, cause: crate::name::NameError) -> DecodeError {
        DecodeError::Name {
            frame: self.kind,
            cause,
        }
    }
}

/// Lets postcard write at the end of any buffer, so that a header needs none of its own.
struct Sink<'a, B>(&'a mut B);

impl<B: BufMut> Flavor for Sink<'_, B> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a postcard header.
pub(crate) fn put_header<H: Serialize>(out: &mut impl BufMut, header: &H) {
    postcard::serialize_with_flavor::<H, _, ()>(header, Sink(out))
        .expect("a flat struct always goes into a growing buffer");
}

/// Appends everything of a frame but its body, which the caller sends after it.
///
/// # Panics
/// When head or body are over the limits of a frame, which callers keep.
pub(crate) fn put_head<'a, H: Serialize>(
    out: &mut BytesMut,
    kind: Kind,
    header: &H,
    extensions: impl IntoIterator<Item = (u16, &'a [u8])>,
    body_len: usize,
) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind.get());
    if kind == Kind::Hello {
        out.put_slice(&MAGIC);
        out.put_u16_le(PROTOCOL_VERSION);
    }
    let head_at = out.len();
    out.put_u16_le(0);
    put_header(out, header);
    for (key, value) in extensions {
        extension::push(out, key, value);
    }
    let head_bytes = u16::try_from(out.len() - head_at - 2)
        .expect("texts and extensions are within their limits");
    let length = out.len() - start - LENGTH_FIELD_BYTES + body_len;
    assert!(
        length <= FRAME_BYTES_MAX,
        "a frame of {length} bytes is over the limit"
    );
    let length = u32::try_from(length).expect("just compared");
    patch(out, head_at, &head_bytes.to_le_bytes());
    patch(out, start, &length.to_be_bytes());
}

/// Appends a frame that has neither extensions nor body.
pub(crate) fn put_plain<H: Serialize>(out: &mut BytesMut, kind: Kind, header: &H) {
    put_head(out, kind, header, [], 0);
}

/// Writes over bytes that were put before.
fn patch(out: &mut BytesMut, at: usize, bytes: &[u8]) {
    if let Some(place) = out.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// The start of a text, cut at a character so that it has at most `max` bytes.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max))
        .unwrap_or_default()
}

/// Makes a frame of a public struct that is itself the frozen header: no extensions, no body, no rule of its own.
macro_rules! plain_frame {
    ($name:ident) => {
        impl $crate::frame::head::Wire for $name {
            const KIND: $crate::frame::Kind = $crate::frame::Kind::$name;

            fn put(&self, out: &mut bytes::BytesMut) {
                $crate::frame::head::put_plain(out, Self::KIND, self);
            }

            fn take(
                parts: $crate::frame::head::Parts,
                _: &mut $crate::name::NameCache,
            ) -> Result<Self, $crate::decode::DecodeError> {
                parts.only_header()
            }
        }
    };
}
pub(crate) use plain_frame;
