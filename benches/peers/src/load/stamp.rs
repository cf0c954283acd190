//! What a live message carries: its number and when it was to be sent. So a subscriber knows what it misses.

use std::time::Instant;

use anyhow::{Result, bail};

use super::gate::Gate;
use super::{Meter, Phase};
use crate::stats::nanos;

/// The number of the message that ends a run; its time is the count of those before.
const END: u64 = u64::MAX;

/// Writes the number and the time of a message.
pub(crate) fn put(payload: &mut [u8], number: u64, nanos: u64) {
    let stamp = number.to_le_bytes().into_iter().chain(nanos.to_le_bytes());
    for (to, from) in payload.iter_mut().zip(stamp) {
        *to = from;
    }
}

/// Writes the stamp of the last message, after `count` others.
pub(crate) fn put_end(payload: &mut [u8], count: u64) {
    put(payload, END, count);
}

fn parse(payload: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = payload.split_first_chunk()?;
    let nanos = rest.first_chunk()?;
    Some((u64::from_le_bytes(*number), u64::from_le_bytes(*nanos)))
}

/// What one subscriber makes of its messages.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) meter: Meter,
    began: Instant,
    size: usize,
    /// Of so many messages the latency of one is taken.
    sample: u64,
    gate: Option<std::sync::Arc<Gate>>,
}

impl Sink {
    pub(crate) fn new(
        phase: &Phase,
        began: Instant,
        size: usize,
        sample: u64,
        gate: Option<std::sync::Arc<Gate>>,
    ) -> Self {
        Self {
            meter: Meter::new(phase),
            began,
            size,
            sample,
            gate,
        }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// Takes the next message; `now` is when it came, if that is known already. True for the last one.
    ///
    /// # Errors
    /// A message that is lost, doubled, out of order or foreign.
    pub(crate) fn take(&mut self, payload: &[u8], now: Option<u64>) -> Result<bool> {
        let Some((number, sent)) = parse(payload).filter(|_| payload.len() == self.size) else {
            bail!(
                "a message of {} bytes came, not one of {}",
                payload.len(),
                self.size
            );
        };
        if number == END {
            if sent != self.meter.total {
                bail!("{} of {sent} messages came", self.meter.total);
            }
            return Ok(true);
        }
        if number != self.meter.total {
            bail!("message {number} came instead of {}", self.meter.total);
        }
        let began = self.began;
        let latency = (number % self.sample == 0).then_some(|| {
            let now = now.unwrap_or_else(|| nanos(began.elapsed()));
            now.saturating_sub(sent)
        });
        self.meter.count_one(latency);
        if let Some(gate) = &self.gate {
            gate.passed(self.meter.total);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn payload(number: u64) -> [u8; 20] {
        let mut payload = [7; 20];
        put(&mut payload, number, 5);
        payload
    }

    #[test]
    fn a_sink_takes_what_comes_in_order_and_nothing_else() {
        let sink = || Sink::new(&Phase::default(), Instant::now(), 20, 1, None);
        let mut good = sink();
        for number in 0..3 {
            assert!(!good.take(&payload(number), Some(9)).unwrap());
        }
        let mut end = [0; 20];
        put_end(&mut end, 3);
        assert!(good.take(&end, None).unwrap());
        assert_eq!(good.meter.total, 3);
        assert_eq!(good.meter.measured, 0, "it is not measured yet");
        for wrong in [0, 2, 4] {
            let mut sink = sink();
            sink.take(&payload(0), None).unwrap();
            assert!(sink.take(&payload(wrong), None).is_err());
        }
        let mut lost = sink();
        lost.take(&payload(0), None).unwrap();
        let words = lost.take(&end, None).unwrap_err().to_string();
        assert_eq!(words, "1 of 3 messages came");
        assert!(sink().take(&[0; 19], None).is_err());
    }

    #[test]
    fn latencies_are_taken_while_it_is_measured() {
        let phase = Phase::default();
        phase.set(super::super::MEASURED);
        let mut sink = Sink::new(&phase, Instant::now(), 20, 2, None);
        for number in 0..5 {
            sink.take(&payload(number), Some(1_000_005)).unwrap();
        }
        assert_eq!(sink.meter.measured, 5);
        let quantiles = sink.meter.latencies.quantiles().unwrap();
        assert!((quantiles.p50 / 1000.0 - 1.0).abs() < 0.02);
    }
}
