//! Who holds the lock: the content of the file `lock`.
//!
//! One block of 512 bytes, written at once by the holder, integers little-endian:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `BRKRLOCK` |
//! | 8 | 2 | version of this layout: 1 |
//! | 10 | 1 | role, see [`role`] |
//! | 11 | 1 | whether the holder may be killed when it hangs: 0 or 1 |
//! | 12 | 4 | process id |
//! | 16 | 8 | start time of the process: clock ticks after the machine started |
//! | 24 | 16 | boot id of the machine |
//! | 40 | 8 | inode of the process id namespace |
//! | 48 | 8 | term |
//! | 56 | 16 | store id |
//! | 72 | 8 | since when it leads: microseconds since 1970, signed |
//! | 80 | 1 | bytes of `build` |
//! | 81 | 1 | bytes of `tcp` |
//! | 82 | 1 | bytes of `socket` |
//! | 83 | 1 | bytes of `successor` |
//! | 84 | up to 424 | the four, in that order, UTF-8, without space between; then zeros |
//! | 508 | 4 | CRC-32C of bytes 0 to 507 |
//!
//! It informs, it does not decide: only the lock itself says who leads. It stays when the holder goes, and a reader that meets it
//! half written sees a wrong checksum and takes it for nothing.

use std::fmt;
use std::fs;
use std::io;

use broker_proto::{Micros, StoreId, Term};

use super::block::{Block, CRC_AT};

/// What a holder is, as a number in the file.
pub mod role {
    /// An application or a long command: hands over to a daemon when asked.
    pub const ELIGIBLE: u8 = 1;
    /// A daemon: serves as long as it lives.
    pub const SERVE_ALWAYS: u8 = 2;
    /// A short command: leaves as soon as its work is done.
    pub const ONE_SHOT: u8 = 3;
}

/// Longest of each of the four texts, in bytes; together they fit before the checksum.
const TEXT_BYTES_MAX: [usize; 4] = [64, 64, 107, 128];
const TEXT_NAMES: [&str; 4] = ["build", "tcp", "socket", "successor"];
const _: () = assert!(TEXT_AT + 64 + 64 + 107 + 128 <= CRC_AT);

const MAGIC: [u8; 8] = *b"BRKRLOCK";
const VERSION: u16 = 1;
const VERSION_AT: usize = 8;
const ROLE_AT: usize = 10;
const FENCING_AT: usize = 11;
const PID_AT: usize = 12;
const START_AT: usize = 16;
const BOOT_AT: usize = 24;
const NAMESPACE_AT: usize = 40;
const TERM_AT: usize = 48;
const STORE_AT: usize = 56;
const SINCE_AT: usize = 72;
const LENGTHS_AT: usize = 80;
const TEXT_AT: usize = 84;

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub process: ProcessId,
    /// Its term.
    pub term: Term,
    /// What it is, see [`role`].
    pub role: u8,
    /// Whether it may be killed when it hangs.
    pub fencing_allowed: bool,
    /// Since when it leads.
    pub since: Micros,
    /// The store it leads.
    pub store: StoreId,
    /// Program and version, as `brokerd 0.1.0`; at most 64 bytes.
    pub build: String,
    /// Address it listens on, as `127.0.0.1:9876`, or nothing; at most 64 bytes.
    pub tcp: String,
    /// Path of its Unix socket, or nothing; at most 107 bytes.
    pub socket: String,
    /// Who shall lead next, after a clean hand-over, or nothing; at most 128 bytes.
    pub successor: String,
}

impl Holder {
    /// Lays the block out, without its checksum.
    pub(super) fn encode(&self) -> Result<Block, HolderError> {
        let mut block = Block::new();
        block.put(0, &MAGIC);
        block.put(VERSION_AT, &VERSION.to_le_bytes());
        block.put(ROLE_AT, &[self.role]);
        block.put(FENCING_AT, &[u8::from(self.fencing_allowed)]);
        block.put(PID_AT, &self.process.pid.to_le_bytes());
        block.put(START_AT, &self.process.start_ticks.to_le_bytes());
        block.put(BOOT_AT, &self.process.boot_id);
        block.put(NAMESPACE_AT, &self.process.pid_namespace.to_le_bytes());
        block.put(TERM_AT, &self.term.get().to_le_bytes());
        block.put(STORE_AT, self.store.as_bytes());
        block.put(SINCE_AT, &self.since.get().to_le_bytes());
        let mut at = TEXT_AT;
        let texts = [&self.build, &self.tcp, &self.socket, &self.successor];
        for (index, ((text, max), name)) in texts
            .into_iter()
            .zip(TEXT_BYTES_MAX)
            .zip(TEXT_NAMES)
            .enumerate()
        {
            let len = u8::try_from(text.len()).ok().filter(|_| text.len() <= max);
            let len = len.ok_or(HolderError {
                field: name,
                bytes: text.len(),
                bytes_max: max,
            })?;
            block.put(LENGTHS_AT.saturating_add(index), &[len]);
            block.put(at, text.as_bytes());
            at = at.saturating_add(text.len());
        }
        Ok(block)
    }

    /// Reads a block; `None` if it is not whole, or of a layout that this build does not know.
    pub(super) fn decode(block: &Block) -> Option<Self> {
        if block.array(0) != MAGIC
            || !block.is_whole()
            || u16::from_le_bytes(block.array(VERSION_AT)) != VERSION
        {
            return None;
        }
        let mut at = TEXT_AT;
        let mut text = |len: u8| {
            let bytes = block
                .slice(at, usize::from(len))
                .filter(|_| at.saturating_add(usize::from(len)) <= CRC_AT)?;
            at = at.saturating_add(bytes.len());
            String::from_utf8(bytes.to_vec()).ok()
        };
        let [build, tcp, socket, successor] = block.array(LENGTHS_AT);
        let [role, fencing] = block.array(ROLE_AT);
        Some(Self {
            build: text(build)?,
            tcp: text(tcp)?,
            socket: text(socket)?,
            successor: text(successor)?,
            process: ProcessId {
                pid: u32::from_le_bytes(block.array(PID_AT)),
                start_ticks: u64::from_le_bytes(block.array(START_AT)),
                boot_id: block.array(BOOT_AT),
                pid_namespace: u64::from_le_bytes(block.array(NAMESPACE_AT)),
            },
            term: Term::new(u64::from_le_bytes(block.array(TERM_AT))),
            role,
            fencing_allowed: fencing != 0,
            since: Micros::new(i64::from_le_bytes(block.array(SINCE_AT))),
            store: StoreId::new(block.array(STORE_AT)),
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.process.pid, self.build)?;
        let door = if self.tcp.is_empty() {
            &self.socket
        } else {
            &self.tcp
        };
        if !door.is_empty() {
            write!(f, ", listening on {door}")?;
        }
        write!(f, ", since {}", Utc(self.since))
    }
}

/// A text of a [`Holder`] does not fit into the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} of the lock's holder has {bytes} bytes, and at most {bytes_max} fit")]
pub struct HolderError {
    /// Which text.
    pub field: &'static str,
    /// How long it is.
    pub bytes: usize,
    /// How long it may be.
    pub bytes_max: usize,
}

impl From<HolderError> for io::Error {
    fn from(error: HolderError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// A process, told apart from a later one that was given the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    /// Its number, in its namespace.
    pub pid: u32,
    /// When it started: clock ticks after the machine did. 0 where the system does not say.
    pub start_ticks: u64,
    /// Identity of the machine's run. Zero where the system does not say.
    pub boot_id: [u8; 16],
    /// Inode of the process id namespace. 0 where the system does not say.
    pub pid_namespace: u64,
}

/// Whether a process still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Liveness {
    /// It runs.
    Running,
    /// It ended.
    Gone,
    /// It cannot be told from here: another namespace, or a system without `/proc`.
    Unknown,
}

/// What keeps a process from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Halt {
    /// It was sent a signal that stops it, and none that continues it.
    Signal,
    /// A debugger has stopped it, perhaps for a moment only.
    Debugger,
}

impl ProcessId {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        Self {
            pid: std::process::id(),
            start_ticks: start_ticks("self").unwrap_or(0),
            boot_id: boot_id().unwrap_or([0; 16]),
            pid_namespace: pid_namespace().unwrap_or(0),
        }
    }

    /// Whether it still runs, as far as this process can tell.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        let here = Self::current();
        if self.boot_id == [0; 16] || here.boot_id == [0; 16] || self.start_ticks == 0 {
            return Liveness::Unknown;
        }
        if self.boot_id != here.boot_id {
            return Liveness::Gone;
        }
        if self.pid_namespace != here.pid_namespace {
            return Liveness::Unknown;
        }
        if start_ticks(&self.pid.to_string()) == Some(self.start_ticks) {
            Liveness::Running
        } else {
            Liveness::Gone
        }
    }

    /// What keeps it from running, if it is known to be kept from it.
    #[must_use]
    pub fn halted(&self) -> Option<Halt> {
        if self.liveness() != Liveness::Running {
            return None;
        }
        parse_halt(&fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?)
    }
}

/// Field 3 of `/proc/PID/stat`.
fn parse_halt(stat: &str) -> Option<Halt> {
    let (_, fields) = stat.rsplit_once(") ")?;
    match fields.split(' ').next()? {
        "T" => Some(Halt::Signal),
        "t" => Some(Halt::Debugger),
        _ => None,
    }
}

fn start_ticks(process: &str) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat`. Field 2, the name, is in brackets and may hold blanks and brackets itself.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(22 - 3)?.parse().ok()
}

fn boot_id() -> Option<[u8; 16]> {
    parse_uuid(&fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.len() == 32)?;
    Some(number.to_be_bytes())
}

fn pid_namespace() -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/pid")
        .ok()
        .map(|metadata| metadata.ino())
}

/// A time as people write it, to the second: `2026-01-31T23:59:58Z`.
struct Utc(Micros);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.get().div_euclid(1_000_000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day comes last.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn holder() -> Holder {
        Holder {
            process: ProcessId {
                pid: 1234,
                start_ticks: 567_890,
                boot_id: [7; 16],
                pid_namespace: 4_026_531_836,
            },
            term: Term::new(3),
            role: role::SERVE_ALWAYS,
            fencing_allowed: true,
            since: Micros::new(1_769_903_998_000_000),
            store: StoreId::new([9; 16]),
            build: "brokerd 0.1.0".into(),
            tcp: "127.0.0.1:9876".into(),
            socket: "/data/sock".into(),
            successor: String::new(),
        }
    }

    fn sealed(holder: &Holder) -> Block {
        let mut block = holder.encode().unwrap();
        block.put(CRC_AT, &block.crc().to_le_bytes());
        block
    }

    #[test]
    fn it_says_who_where_and_since_when() {
        assert_eq!(
            holder().to_string(),
            "pid 1234 (brokerd 0.1.0), listening on 127.0.0.1:9876, since 2026-01-31T23:59:58Z"
        );
        let quiet = Holder {
            tcp: String::new(),
            ..holder()
        };
        assert_eq!(
            quiet.to_string(),
            "pid 1234 (brokerd 0.1.0), listening on /data/sock, since 2026-01-31T23:59:58Z"
        );
    }

    #[test]
    fn the_layout_is_the_one_in_the_table() {
        let block = sealed(&holder());
        assert_eq!(
            block.slice(0, 16).unwrap(),
            b"BRKRLOCK\x01\0\x02\x01\xd2\x04\0\0"
        );
        assert_eq!(block.slice(16, 8).unwrap(), 567_890_u64.to_le_bytes());
        assert_eq!(block.slice(24, 16).unwrap(), [7; 16]);
        assert_eq!(block.slice(40, 8).unwrap(), 4_026_531_836_u64.to_le_bytes());
        assert_eq!(block.slice(48, 8).unwrap(), 3_u64.to_le_bytes());
        assert_eq!(block.slice(56, 16).unwrap(), [9; 16]);
        assert_eq!(
            block.slice(72, 8).unwrap(),
            1_769_903_998_000_000_i64.to_le_bytes()
        );
        assert_eq!(block.slice(80, 4).unwrap(), [13, 14, 10, 0]);
        assert_eq!(
            block.slice(84, 37).unwrap(),
            b"brokerd 0.1.0127.0.0.1:9876/data/sock"
        );
        assert!(
            block
                .slice(121, 508 - 121)
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
        assert_eq!(
            block.slice(508, 4).unwrap(),
            crc32c::crc32c(block.slice(0, 508).unwrap()).to_le_bytes()
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let block = sealed(&holder());
        assert_eq!(Holder::decode(&block), Some(holder()));
        for at in 0..512 {
            for bit in 0..8 {
                let mut changed = block.clone();
                let [byte] = changed.array(at);
                changed.put(at, &[byte ^ (1 << bit)]);
                assert_eq!(Holder::decode(&changed), None, "byte {at} bit {bit}");
            }
        }
        assert_eq!(Holder::decode(&Block::new()), None);
    }

    #[test]
    fn texts_that_do_not_fit_are_refused_by_name() {
        let long = Holder {
            socket: "x".repeat(108),
            ..holder()
        };
        assert_eq!(
            long.encode().err(),
            Some(HolderError {
                field: "socket",
                bytes: 108,
                bytes_max: 107
            })
        );
        let huge = Holder {
            build: "x".repeat(1000),
            ..holder()
        };
        assert_eq!(huge.encode().err().map(|error| error.field), Some("build"));
    }

    #[test]
    fn this_process_runs_and_others_are_told_apart() {
        let here = ProcessId::current();
        assert_eq!(here.pid, std::process::id());
        if cfg!(target_os = "linux") {
            assert_eq!(here.liveness(), Liveness::Running);
            assert_eq!(
                ProcessId {
                    start_ticks: here.start_ticks + 1,
                    ..here
                }
                .liveness(),
                Liveness::Gone,
                "a number used again"
            );
            assert_eq!(
                ProcessId {
                    boot_id: [1; 16],
                    ..here
                }
                .liveness(),
                Liveness::Gone
            );
            assert_eq!(
                ProcessId {
                    pid_namespace: 1,
                    ..here
                }
                .liveness(),
                Liveness::Unknown
            );
        }
        assert_eq!(
            ProcessId {
                boot_id: [0; 16],
                ..here
            }
            .liveness(),
            Liveness::Unknown
        );
    }

    #[test]
    fn the_files_of_the_kernel_are_parsed() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998877 9 9";
        assert_eq!(parse_start_ticks(stat), Some(998_877));
        assert_eq!(parse_start_ticks("12 (a"), None);
        assert_eq!(
            parse_uuid("00112233-4455-6677-8899-aabbccddeeff\n").unwrap()[..3],
            [0, 0x11, 0x22]
        );
        assert_eq!(parse_uuid("0011"), None);
    }

    #[test]
    fn times_are_civil() {
        let text = |seconds: i64| Utc(Micros::new(seconds * 1_000_000)).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
        let _ = Utc(Micros::new(i64::MIN)).to_string() + &Utc(Micros::new(i64::MAX)).to_string();
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pid: u32, start_ticks: u64, boot_id: [u8; 16], term: u64, role: u8, fencing: bool, since: i64,
            build in ".{0,16}", tcp in "[0-9.:]{0,64}", socket in "[ -~]{0,107}", successor in "[ -~]{0,128}") {
            let holder = Holder {
                process: ProcessId { pid, start_ticks, boot_id, pid_namespace: start_ticks ^ 5 },
                term: Term::new(term), role, fencing_allowed: fencing, since: Micros::new(since), store: StoreId::new(boot_id),
                build, tcp, socket, successor,
            };
            prop_assert_eq!(Holder::decode(&sealed(&holder)), Some(holder));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 508)) {
            let mut block = Block::new();
            block.put(0, &bytes);
            block.put(0, &MAGIC);
            block.put(VERSION_AT, &VERSION.to_le_bytes());
            block.put(CRC_AT, &block.crc().to_le_bytes());
            let _ = Holder::decode(&block);
        }
    }
}
