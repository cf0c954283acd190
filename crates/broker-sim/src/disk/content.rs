//! The bytes of a file, in pages that copies share until one of them changes.
//!
//! A disk is copied before every call that changes something, and cut off in many ways; most of those copies never differ in more
//! than a page. A page that was never written is not there: it is zeros.

use std::sync::Arc;

use super::state::{count, index};

/// Bytes of a page.
const PAGE: usize = 4096;

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: usize,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.len).unwrap_or(u64::MAX)
    }

    /// All bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Fills `buf` from `at` on, as far as the file goes; how many bytes that were.
    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> usize {
        let at = index(at);
        let len = self.len.saturating_sub(at).min(buf.len());
        let mut rest = buf.get_mut(..len).unwrap_or_default();
        let mut at = at;
        while !rest.is_empty() {
            let within = at % PAGE;
            let piece = rest.len().min(PAGE - within);
            let (to, after) = rest.split_at_mut(piece);
            let page = self.pages.get(at / PAGE).and_then(Option::as_deref);
            match page.and_then(|page| page.get(within..within + piece)) {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0),
            }
            at += piece;
            rest = after;
        }
        len
    }

    /// Overwrites from `at` on; the file grows if it must.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.grow(at.saturating_add(count(bytes)));
        let (mut at, mut rest) = (index(at), bytes);
        while !rest.is_empty() {
            let within = at % PAGE;
            let (from, after) = rest.split_at(rest.len().min(PAGE - within));
            if let Some(page) = self.page(at / PAGE)
                && let Some(to) = page.get_mut(within..within + from.len())
            {
                to.copy_from_slice(from);
            }
            at += from.len();
            rest = after;
        }
    }

    /// Writes zeros.
    pub(super) fn zero(&mut self, from: u64, to: u64) {
        self.grow(to);
        let (mut at, to) = (index(from), index(to));
        while at < to {
            let within = at % PAGE;
            let piece = (to - at).min(PAGE - within);
            if let Some(slot) = self.pages.get_mut(at / PAGE) {
                if piece == PAGE {
                    *slot = None;
                } else if let Some(page) = slot
                    && let Some(zeros) = Arc::make_mut(page).get_mut(within..within + piece)
                {
                    zeros.fill(0);
                }
            }
            at += piece;
        }
    }

    /// Makes it at least so long.
    pub(super) fn grow(&mut self, len: u64) {
        let len = index(len);
        if self.len < len {
            self.len = len;
            self.pages.resize(len.div_ceil(PAGE), None);
        }
    }

    /// Makes it exactly so long; what is new is zeros.
    pub(super) fn resize(&mut self, len: u64) {
        if index(len) < self.len {
            // What was cut off must not come back when the file grows again.
            self.zero(len, self.len());
            self.len = index(len);
            self.pages.truncate(self.len.div_ceil(PAGE));
        }
        self.grow(len);
    }

    fn page(&mut self, number: usize) -> Option<&mut [u8; PAGE]> {
        let slot = self.pages.get_mut(number)?;
        Some(Arc::make_mut(
            slot.get_or_insert_with(|| Arc::new([0; PAGE])),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn it_does_what_a_vector_does() {
        let mut rng = Rng::new(1);
        for _ in 0..200 {
            let (mut content, mut model) = (Content::default(), Vec::new());
            for _ in 0..40 {
                let (at, len) = (index(rng.below(20_000)), index(rng.below(9_000)));
                match rng.below(4) {
                    0 | 1 => {
                        let bytes = vec![u8::try_from(1 + rng.below(255)).unwrap_or(1); len];
                        content.write(at as u64, &bytes);
                        if len > 0 {
                            model.resize(model.len().max(at + len), 0);
                            model.splice(at..at + len, bytes);
                        }
                    }
                    2 => {
                        content.zero(at as u64, (at + len) as u64);
                        model.resize(model.len().max(at + len), 0);
                        model.splice(at..at + len, vec![0; len]);
                    }
                    _ => {
                        content.resize(at as u64);
                        model.resize(at, 0);
                    }
                }
                assert_eq!(content.to_vec(), model);
                // What is done to a copy is not done to this.
                content.clone().write(0, &[255; 10]);
                assert_eq!(content.to_vec(), model);
                let mut part = vec![9; len];
                let read = content.read(at as u64, &mut part);
                assert_eq!(part.get(..read), model.get(at..at + read));
            }
        }
    }
}
