//! [`Budget`]: what is left to send, when messages are sent as fast as the window allows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::load::Limit;

/// What is left to send, shared by all publishers. Its time begins when the first of them asks.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    duration: Option<Duration>,
    until: OnceLock<Option<Instant>>,
}

impl Budget {
    /// All of it.
    pub(crate) fn new(limit: Limit) -> Self {
        let (left, duration) = match limit {
            Limit::Count(count) => (count, None),
            Limit::Duration(duration) => (u64::MAX, Some(duration)),
        };
        Self {
            left: AtomicU64::new(left),
            duration,
            until: OnceLock::new(),
        }
    }

    /// Takes leave to send up to `wanted` messages; 0 means that it is enough.
    pub(crate) fn take(&self, wanted: u32) -> u32 {
        if let Some(duration) = self.duration {
            let now = Instant::now();
            let until = self.until.get_or_init(|| now.checked_add(duration));
            if until.is_some_and(|until| now >= until) {
                return 0;
            }
        }
        let take = |left: u64| Some(left.saturating_sub(wanted.into()));
        let before = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .unwrap_or_else(|left| left);
        u32::try_from(before.min(wanted.into())).unwrap_or(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let budget = Budget::new(Limit::Count(10));
        assert_eq!([(); 4].map(|()| budget.take(4)), [4, 4, 2, 0]);
        let over = Budget::new(Limit::Duration(Duration::ZERO));
        assert_eq!(over.take(1), 0);
    }
}
