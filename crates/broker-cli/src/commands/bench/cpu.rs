//! CPU time: what a benchmark took of it, here and in the broker's process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::figures::micros;

/// The process of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerProcess {
    /// This one.
    Own,
    /// Another one on this machine.
    Beside {
        /// Its number.
        pid: u32,
        /// What the system calls it.
        name: String,
    },
    /// On another machine, or hidden.
    Unknown,
}

impl ServerProcess {
    /// Looks a process of this machine up.
    pub(crate) fn find(pid: u32) -> Self {
        if pid == std::process::id() {
            return Self::Own;
        }
        // Its time is not shown to everybody.
        match (name(pid), seconds_of(pid)) {
            (Some(name), Some(_)) => Self::Beside { pid, name },
            _ => Self::Unknown,
        }
    }
}

/// Reads the clocks at the beginning of what is measured.
#[derive(Debug)]
pub(crate) struct Meter {
    server: ServerProcess,
    own: Duration,
    servers: Option<Duration>,
}

impl Meter {
    /// Begins.
    pub(crate) fn start(server: &ServerProcess) -> Self {
        Self {
            server: server.clone(),
            own: own_seconds(),
            servers: servers_seconds(server),
        }
    }

    /// Ends: so many of these were done meanwhile.
    pub(crate) fn stop(self, each: &'static str, count: u64) -> Cpu {
        let servers = servers_seconds(&self.server).zip(self.servers);
        Cpu {
            own: own_seconds().saturating_sub(self.own),
            servers: servers.map(|(after, before)| after.saturating_sub(before)),
            server: self.server,
            each,
            count,
        }
    }
}

/// CPU time, of user and system.
#[derive(Debug)]
pub(crate) struct Cpu {
    own: Duration,
    servers: Option<Duration>,
    server: ServerProcess,
    each: &'static str,
    count: u64,
}

impl Cpu {
    fn micros_each(&self, time: Duration) -> f64 {
        micros(time) / self.count.max(1) as f64
    }

    /// A line for people, without its name.
    pub(crate) fn text(&self) -> String {
        let used = |time: Duration| {
            let each = self.micros_each(time);
            format!("{:.2} s, {each:.2} us a {}", time.as_secs_f64(), self.each)
        };
        let own = used(self.own);
        match (&self.server, self.servers) {
            (ServerProcess::Own, _) => format!("client and server, one process: {own}"),
            (ServerProcess::Beside { pid, name }, Some(time)) => {
                format!("client {own}; server ({name}, pid {pid}) {}", used(time))
            }
            _ => format!("client {own}; that of the server's process is not known here"),
        }
    }

    /// The same for scripts.
    pub(crate) fn json(&self) -> Value {
        json!({
            "client_seconds": self.own.as_secs_f64(),
            "server_seconds": self.servers.map(|time| time.as_secs_f64()),
            "one_process": self.server == ServerProcess::Own,
            "per": self.each,
            "count": self.count,
            "client_us_per": self.micros_each(self.own),
            "server_us_per": self.servers.map(|time| self.micros_each(time)),
        })
    }
}

fn own_seconds() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

fn servers_seconds(server: &ServerProcess) -> Option<Duration> {
    match server {
        ServerProcess::Beside { pid, .. } => seconds_of(*pid),
        ServerProcess::Own | ServerProcess::Unknown => None,
    }
}

fn name(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// To a tick of the system, 10 ms.
fn seconds_of(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

/// User and system time in `/proc/PID/stat`: fields 14 and 15. The name in field 2 can hold anything,
/// also spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_process_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 9 1 2";
        assert_eq!(ticks(stat), Some(300));
        for wrong in ["", "7 (a) S 1 2 3", "7 a S"] {
            assert_eq!(ticks(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_a_process_that_is_there_is_found() {
        assert_eq!(ServerProcess::find(std::process::id()), ServerProcess::Own);
        assert_eq!(ServerProcess::find(u32::MAX), ServerProcess::Unknown);
    }

    #[test]
    fn time_is_divided_by_what_was_done() {
        let cpu = Cpu {
            own: Duration::from_secs(2),
            servers: Some(Duration::from_secs(1)),
            server: ServerProcess::Beside {
                pid: 7,
                name: "brokerd".to_owned(),
            },
            each: "message",
            count: 1_000_000,
        };
        assert_eq!(
            cpu.text(),
            "client 2.00 s, 2.00 us a message; server (brokerd, pid 7) 1.00 s, 1.00 us a message"
        );
        assert_eq!(cpu.json().pointer("/server_us_per"), Some(&1.0.into()));
    }
}
