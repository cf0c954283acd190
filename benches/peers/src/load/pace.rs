//! [`Pace`]: points in time at a fixed rate, to a few microseconds.
//!
//! The timers of the runtime count milliseconds, which is as much as there is between two messages. So the kernel's are used.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks at a fixed rate.
#[derive(Debug)]
pub(crate) struct Pace {
    timer: AsyncFd<OwnedFd>,
    period: Duration,
    began: Instant,
    ticks: u32,
}

impl Pace {
    /// Ticks this often, the first time one period from now.
    pub(crate) fn new(per_second: u32) -> Result<Self> {
        let period = Duration::from_secs(1) / per_second.max(1);
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)
            .context("cannot make a timer")?;
        let each = Timespec::try_from(period)?;
        let times = Itimerspec {
            it_interval: each,
            it_value: each,
        };
        // Before the timer is set, so that what it says has come has come.
        let began = Instant::now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an owned descriptor is what that asks for"
        )]
        let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
        Ok(Self {
            timer,
            period,
            began,
            ticks: 0,
        })
    }

    /// Waits for the next tick and tells when it was due, which may be a while ago.
    pub(crate) async fn tick(&mut self) -> Result<Instant> {
        let due = self.began + self.period * (self.ticks + 1);
        while Instant::now() < due {
            let mut guard = self.timer.readable().await?;
            let mut count = [0; 8];
            let read = guard.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?));
            if let Ok(read) = read {
                read.context("cannot read a timer")?;
            }
        }
        self.ticks += 1;
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn no_tick_is_early_or_left_out() {
        let runtime = super::super::runtime(1).unwrap();
        runtime.block_on(async {
            let mut pace = Pace::new(2000).unwrap();
            let began = pace.began;
            for tick in 1..=20 {
                let due = pace.tick().await.unwrap();
                assert_eq!(due, began + Duration::from_micros(500) * tick);
                assert!(Instant::now() >= due);
            }
        });
    }
}
