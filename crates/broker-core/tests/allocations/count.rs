//! Counts the allocations of this thread, and tells what a message costs from what a batch costs.

use allocation_counter::{measure, opt_out};

/// Messages of a small batch.
pub(crate) const SMALL: u32 = 16;
/// Messages of a large batch.
pub(crate) const LARGE: u32 = 256;
/// Batches of each size after which buffers have grown as large as they get.
const WARM_UP: u32 = 24;
/// Batches of each size that are counted, enough for what happens once in many batches.
const ROUNDS: u32 = 64;

/// What a path costs, in allocations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Of a batch, however many messages are in it.
    per_batch: f64,
    /// Of each message more in a batch.
    per_message: f64,
}

/// Runs batches of two sizes and tells their allocations apart: those that grow with the size are the messages'.
pub(crate) fn cost(mut batch: impl FnMut(u32)) -> Cost {
    for _ in 0..WARM_UP {
        batch(SMALL);
        batch(LARGE);
    }
    let mut of = |size| {
        let counted = measure(|| (0..ROUNDS).for_each(|_| batch(size)));
        f64::from(u32::try_from(counted.count_total).unwrap()) / f64::from(ROUNDS)
    };
    let (small, large) = (of(SMALL), of(LARGE));
    let per_message = (large - small) / f64::from(LARGE - SMALL);
    Cost {
        per_batch: small - per_message * f64::from(SMALL),
        per_message,
    }
}

impl Cost {
    /// Fails when a batch allocates more than `per_batch` times, or a message more than `per_message` times.
    pub(crate) fn expect(self, path: &str, per_batch: f64, per_message: f64) {
        println!(
            "{path}: {:.2} allocations a batch, {:.4} a message",
            self.per_batch, self.per_message
        );
        assert!(
            self.per_message <= per_message,
            "{path}: {self:?}, at most {per_message} a message are allowed: something allocates for each message"
        );
        assert!(
            self.per_batch <= per_batch,
            "{path}: {self:?}, at most {per_batch} a batch are allowed"
        );
    }
}

/// Does what is not counted.
pub(crate) fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    let mut result = None;
    opt_out(|| result = Some(work()));
    result.unwrap()
}

#[test]
fn an_allocation_a_message_is_found_and_one_a_batch_is_told_apart() {
    let cost = cost(|messages| {
        let batch: Vec<Box<u32>> = (0..messages).map(Box::new).collect();
        uncounted(|| drop(vec![0_u8; 9]));
        drop(std::hint::black_box(batch));
    });
    assert!((cost.per_message - 1.0).abs() < 1e-9, "{cost:?}");
    assert!((cost.per_batch - 1.0).abs() < 1e-9, "{cost:?}");
}
