//! [`Window`]: how many bytes of deliveries a subscriber has room for.
//!
//! The client grants bytes, deliveries spend them. A window above zero admits one whole message of
//! any size and may go negative by it, so that no window is too small for a large message and no
//! client needs to know the largest one.

/// The bytes that a subscriber still admits; negative after a message larger than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    bytes: i64,
    max: u32,
}

impl Window {
    /// A window of `bytes`, which grants never raise above `max`.
    pub(super) fn new(bytes: u32, max: u32) -> Self {
        Self {
            bytes: bytes.min(max).into(),
            max,
        }
    }

    /// Whether the next message may be delivered.
    pub(super) fn is_open(self) -> bool {
        self.bytes > 0
    }

    /// How many bytes to deliver, at most `most`; none when it is closed.
    pub(super) fn admits(self, most: usize) -> usize {
        usize::try_from(self.bytes).unwrap_or(0).min(most)
    }

    /// Takes the bytes of a delivery off.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes = self
            .bytes
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Adds what the client grants. More than the largest window is not kept: a client grants again
    /// what it has consumed, so it cannot starve by it.
    pub(super) fn grant(&mut self, bytes: u32) {
        self.bytes = self.bytes.saturating_add(bytes.into()).min(self.max.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_above_zero_admits_one_message_and_goes_negative() {
        let mut window = Window::new(1, 100);
        assert!(window.is_open());
        assert_eq!(window.admits(50), 1);
        window.spend(80);
        assert!(!window.is_open());
        assert_eq!(window.admits(50), 0);
        window.grant(79);
        assert!(!window.is_open(), "the debt is not paid yet");
        window.grant(1);
        assert!(window.is_open());
    }

    #[test]
    fn grants_stop_at_the_largest_window() {
        let mut window = Window::new(u32::MAX, 100);
        assert_eq!(window.admits(1000), 100);
        window.grant(u32::MAX);
        assert_eq!(window.admits(1000), 100);
    }
}
