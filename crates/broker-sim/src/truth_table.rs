//! Torn or rotten: what a bad batch is taken for, at every byte of it.
//!
//! | what lies behind the bad batch | it is | what a new leader does |
//! |---|---|---|
//! | a batch, or a mark, that vouches for it | rot: it was acknowledged | tells readers, counts damage, serves all else |
//! | batches that do not vouch for it | never acknowledged, and written in another order | sets the bytes aside, drops it and what follows |
//! | nothing | a write that was cut short | sets the bytes aside, drops it |
//! | nothing, and yet it was acknowledged a moment ago | not to be told from the row above | the same; who had the acknowledgement finds the loss |
//!
//! Each row is tried with every byte of the batch changed, and with everything from each byte on missing.

use std::collections::BTreeSet;
use std::ops::{AddAssign, Range};

use broker_core::log::batch::BatchHead;
use broker_core::log::segment::{DATA_OFFSET, SegmentHeader, SegmentName};
use broker_core::log::storage::Storage;
use broker_core::store::{Claims, Mailbox, Notice, Store};
use broker_proto::{KnownHead, KnownHeads, Position, Seq, Term};
use bytes::Bytes;

use crate::campaign::{Broken, Harm};
use crate::crash_matrix::Failure;
use crate::disk::SimDisk;
use crate::oracle::{Fate, Ledger, MessageId, Verdict, room_name};
use crate::rig::{Limits, Rig, store_id};
use crate::rng::Rng;

const LIMITS: Limits = Limits {
    segment_bytes_min: 64 << 10,
    segment_bytes_max: 64 << 10,
    checkpoint_bytes_min: 1 << 30,
    batch_bytes_max: 16 << 10,
    tail_bytes_max: 0,
};

/// Batches of each story, with one message each.
const BATCHES: u64 = 5;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// Later batches vouch for it.
    VouchedByBatch,
    /// It is the last one, and a mark vouches for it.
    VouchedByMark,
    /// A later batch is whole and does not vouch for it.
    Reordered,
    /// It was never acknowledged.
    Torn,
    /// It was, and nothing tells.
    JustAcknowledged,
}

impl Row {
    const ALL: [Self; 5] = [
        Self::VouchedByBatch,
        Self::VouchedByMark,
        Self::Reordered,
        Self::Torn,
        Self::JustAcknowledged,
    ];

    /// The batch that goes bad, from 0.
    const fn bad(self) -> usize {
        match self {
            Self::VouchedByBatch => 2,
            Self::Reordered => 3,
            Self::VouchedByMark | Self::Torn | Self::JustAcknowledged => 4,
        }
    }

    const fn is_rot(self) -> bool {
        matches!(self, Self::VouchedByBatch | Self::VouchedByMark)
    }
}

/// How much was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Table {
    /// Bad batches.
    pub cases: u64,
    /// Told as rot.
    pub rotten: u64,
    /// Dropped as never acknowledged.
    pub dropped: u64,
    /// Whole all the same: the byte says nothing.
    pub whole: u64,
}

impl AddAssign for Table {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.rotten += other.rotten;
        self.dropped += other.dropped;
        self.whole += other.whole;
    }
}

const fn id(batch: u64) -> MessageId {
    MessageId {
        producer: 1,
        number: batch + 1,
    }
}

const fn room(batch: u64) -> u16 {
    if batch.is_multiple_of(2) { 1 } else { 2 }
}

/// A store as a leader left it who was killed, with a batch that is to go bad.
struct Story {
    row: Row,
    disk: SimDisk,
    ledger: Ledger,
    file: String,
    bad: Range<u64>,
}

impl Story {
    fn write(row: Row, rng: &mut Rng) -> Verdict<Self> {
        let disk = SimDisk::new(rng.next());
        let mut ledger = Ledger::default();
        let mut rig = Rig::open(&disk, LIMITS, rng).map_err(|error| error.to_string())?;
        let acked = match row {
            Row::Reordered => 3,
            Row::Torn => 4,
            _ => BATCHES,
        };
        let mut known = ledger.clone();
        for batch in 0..BATCHES {
            let payload: Vec<u8> = (0..300).map(|_| rng.next().to_le_bytes()[0]).collect();
            ledger.send(id(batch), room(batch), Bytes::from(payload));
            rig.send(&ledger, id(batch), 1)?;
            rig.work();
            rig.answers(&mut ledger)?;
            if batch + 1 == acked {
                known = ledger.clone();
            }
        }
        known.learn_what_was_sent(&ledger);
        if row == Row::VouchedByMark {
            rig.engine.idle();
        }
        let disk = disk.kill();
        let (file, heads) = heads(&disk)?;
        let range = |at: usize| {
            let (offset, head) = heads.get(at).ok_or("a batch is missing")?;
            Ok::<_, Broken>(*offset..offset + u64::from(head.length))
        };
        if row == Row::Reordered {
            unvouch(&disk, &file, &heads)?;
        }
        Ok(Self {
            row,
            bad: range(row.bad())?,
            disk,
            ledger: known,
            file,
        })
    }

    /// Puts bytes into the bad batch, and looks at what a new leader makes of it.
    fn look(&self, at: u64, bytes: &[u8], rng: &mut Rng) -> Verdict<Table> {
        let disk = self.disk.kill();
        if !disk.corrupt(&self.file, at, bytes) {
            return Err("the segment is not there".into());
        }
        let mut ledger = self.ledger.clone();
        ledger.lied_to = self.row == Row::JustAcknowledged;
        let rig = Rig::open(&disk, LIMITS, rng)
            .map_err(|error| format!("the store cannot be opened: {error}"))?;
        let (mut served, mut skipped) = (BTreeSet::new(), Vec::new());
        for number in [1, 2] {
            let shown = rig.read(&mut ledger, number, 1, 1 << 20)?;
            let shown = shown.unwrap_or_default();
            served.extend(shown.messages.iter().map(|(_, id)| *id));
            skipped.extend(shown.skips.iter().map(|skip| (number, *skip)));
        }
        let bad = u64::try_from(self.row.bad()).unwrap_or(0);
        let is_served = served.contains(&id(bad));
        let seq = bad / 2 + 1;
        let is_told = skipped
            .iter()
            .any(|(number, (from, to))| *number == room(bad) && (*from..=*to).contains(&seq));
        let is_damaged = rig.store.info().damaged > 0;
        // There is nothing to set aside where nothing is left.
        let is_gone = at == self.bad.start && bytes.len() > 1;
        let is_aside = disk
            .list()
            .map_err(|error| error.to_string())?
            .iter()
            .any(|name| name.starts_with("torn-"));
        let seen = format!(
            "served: {is_served}, told as damaged: {is_told}, counted: {is_damaged}, set aside: {is_aside}"
        );
        let class = if self.row.is_rot() {
            // A byte that only helps to find things may be gone, and the message is served all the same.
            self.others_are_there(&served, |batch| batch != bad)?;
            match (is_served, is_told, is_damaged, is_aside) {
                (true, false, _, false) => Table {
                    whole: 1,
                    ..Table::default()
                },
                (false, true, true, false) => Table {
                    rotten: 1,
                    ..Table::default()
                },
                _ => return Err(self.wrong("rot", &seen)),
            }
        } else {
            self.others_are_there(&served, |batch| batch < bad)?;
            match (is_served, is_told, is_damaged, is_aside) {
                (true, false, false, false) => Table {
                    whole: 1,
                    ..Table::default()
                },
                (false, false, false, aside) if aside || is_gone => {
                    let later = (bad + 1..BATCHES).any(|batch| served.contains(&id(batch)));
                    if later {
                        return Err(self.wrong("never acknowledged, with what follows", &seen));
                    }
                    Table {
                        dropped: 1,
                        ..Table::default()
                    }
                }
                _ => return Err(self.wrong("never acknowledged", &seen)),
            }
        };
        if self.row == Row::JustAcknowledged && class.dropped == 1 {
            self.is_found_by_who_heard_of_it(&rig)?;
        }
        self.go_on(rig, &mut ledger)?;
        Ok(Table { cases: 1, ..class })
    }

    fn others_are_there(
        &self,
        served: &BTreeSet<MessageId>,
        wanted: impl Fn(u64) -> bool,
    ) -> Verdict {
        match (0..BATCHES)
            .filter(|batch| wanted(*batch))
            .find(|batch| !served.contains(&id(*batch)))
        {
            None => Ok(()),
            Some(batch) => Err(Broken::new(
                Harm::LostAck,
                format!("{:?}: batch {batch} is whole and is not served", self.row),
            )),
        }
    }

    fn wrong(&self, class: &str, seen: &str) -> Broken {
        let what = format!("{:?} should be taken for {class}; {seen}", self.row);
        let harm = match self.row.is_rot() {
            true => Harm::SilentCorruption,
            false => Harm::Other,
        };
        Broken::new(harm, what)
    }

    /// The loss that nothing in the log tells of is told to whoever had the acknowledgement.
    fn is_found_by_who_heard_of_it(&self, rig: &Rig) -> Verdict {
        let last = BATCHES - 1;
        let epoch = self
            .ledger
            .rooms
            .get(&room(last))
            .and_then(|room| room.epoch);
        let claims = Claims {
            store: store_id(),
            known: KnownHeads {
                term: Term::new(self.ledger.term),
                heads: [KnownHead {
                    room: room_name(room(last))?,
                    at: Position::new(epoch.ok_or("no epoch")?, Seq::new(last / 2 + 1)),
                }]
                .into(),
            },
        };
        let mailbox = Mailbox::new();
        rig.store.verify(&claims, &mailbox);
        let mut notices = Vec::new();
        mailbox.drain(&mut notices);
        match notices.as_slice() {
            [Notice::Verified { losses }] if losses.len() == 1 => Ok(()),
            other => {
                let what = format!("the lost suffix is not told: {other:?}");
                Err(Broken::new(Harm::SilentCorruption, what))
            }
        }
    }

    /// More is stored, under a seq that nobody had, and the next leader has it.
    fn go_on(&self, mut rig: Rig, ledger: &mut Ledger) -> Verdict {
        let next = id(BATCHES + 10);
        ledger.send(next, 1, Bytes::from_static(b"more"));
        rig.send(ledger, next, 1)?;
        rig.work();
        rig.answers(ledger)?;
        match ledger.sent.get(&next).map(|sent| sent.fate) {
            Some(Fate::Acked(_)) => {}
            other => return Err(format!("the next message is {other:?}").into()),
        }
        let left = rig.disk.kill();
        let rig = Rig::open(&left, LIMITS, &mut Rng::new(1))
            .map_err(|error| format!("the next leader: {error}"))?;
        let shown = rig.read(ledger, 1, 1, 1 << 20)?.unwrap_or_default();
        if !shown.messages.iter().any(|(_, id)| *id == next) {
            return Err(Broken::new(Harm::LostAck, "the next leader lost a message"));
        }
        Ok(())
    }
}

/// The segment, and the heads of its batches with where they lie in the file.
fn heads(disk: &SimDisk) -> Verdict<(String, Vec<(u64, BatchHead)>)> {
    let names = disk.list().map_err(|error| error.to_string())?;
    let file = names
        .into_iter()
        .find(|name| SegmentName::parse(name).is_some())
        .ok_or("there is no segment")?;
    let content = disk.content(&file).unwrap_or_default();
    let header = SegmentHeader::parse(&content).map_err(|_| "the header cannot be read")?;
    let mut heads = Vec::new();
    let mut at = DATA_OFFSET;
    while let Some(head) = usize::try_from(at)
        .ok()
        .and_then(|at| content.get(at..))
        .and_then(|bytes| BatchHead::parse_any(bytes, header.marker))
    {
        let length = u64::from(head.length);
        if !head.kind.is_mark() {
            heads.push((at, head));
        }
        at += length;
    }
    Ok((file, heads))
}

/// Makes the last two batches look as if both had been on their way when the power went: neither vouches for the other.
fn unvouch(disk: &SimDisk, file: &str, heads: &[(u64, BatchHead)]) -> Verdict {
    let content = disk.content(file).unwrap_or_default();
    let header = SegmentHeader::parse(&content).map_err(|_| "the header cannot be read")?;
    let [.., (_, bad), (at, last)] = heads else {
        return Err("there are too few batches".into());
    };
    let mut last = *last;
    last.durable_upto = bad.position;
    if !disk.corrupt(file, *at, &last.encode(header.marker)) {
        return Err("the segment is not there".into());
    }
    Ok(())
}

/// Tries every row at every byte.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64) -> Result<Vec<(String, Table)>, Failure> {
    let mut rng = Rng::new(seed);
    let mut table = Vec::new();
    for row in Row::ALL {
        let failure = |what, place| Failure {
            seed,
            place,
            what,
            history: String::new(),
        };
        let story = Story::write(row, &mut rng)
            .map_err(|what| failure(what, format!("{row:?}, writing it")))?;
        let content = story.disk.content(&story.file).unwrap_or_default();
        let mut total = Table::default();
        for at in story.bad.clone() {
            let place = usize::try_from(at).unwrap_or(usize::MAX);
            let byte = content.get(place).copied().unwrap_or(0);
            let end = usize::try_from(story.bad.end).unwrap_or(0);
            let missing = vec![0; end.saturating_sub(place)];
            for bytes in [&[byte ^ 1] as &[u8], &[byte ^ 0x80], &[!byte], &missing] {
                total += story.look(at, bytes, &mut rng).map_err(|what| {
                    let place = at - story.bad.start;
                    failure(
                        what,
                        format!("{row:?}, byte {place} and {} more", bytes.len() - 1),
                    )
                })?;
            }
        }
        table.push((format!("{row:?}"), total));
    }
    Ok(table)
}
