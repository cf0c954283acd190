//! [`Fields`]: fixed-width values and short texts of bodies, one after the other, little-endian.
//!
//! A body that ends too early gives `None`; nothing is allocated before its bytes are there.

use bytes::{BufMut, Bytes, BytesMut};

use crate::seq::{Epoch, Micros, Seq};

/// What is left of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*value)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn epoch(&mut self) -> Option<Epoch> {
        self.u64().map(Epoch::new)
    }

    pub(super) fn seq(&mut self) -> Option<Seq> {
        self.u64().map(Seq::new)
    }

    pub(super) fn micros(&mut self) -> Option<Micros> {
        self.array().map(i64::from_le_bytes).map(Micros::new)
    }

    /// A text after its length in one byte; `None` also when it is not UTF-8.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        std::str::from_utf8(self.bytes(length.into())?).ok()
    }

    /// Bytes after their length in two.
    pub(super) fn list(&mut self) -> Option<&'a [u8]> {
        let length = self.array().map(u16::from_le_bytes)?;
        self.bytes(length.into())
    }
}

/// Appends a text after its length.
///
/// # Panics
/// When it is longer than 255 bytes, which no name is.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u8(u8::try_from(text.len()).expect("names are shorter than 256 bytes"));
    out.put_slice(text.as_bytes());
}

/// Appends bytes after their length.
///
/// # Panics
/// When they are more than 65,535, which no settings are.
pub(super) fn put_list(out: &mut BytesMut, list: &Bytes) {
    out.put_u16_le(u16::try_from(list.len()).expect("settings have at most 8,192 bytes"));
    out.put_slice(list);
}
