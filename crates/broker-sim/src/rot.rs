//! Damages what was stored, and looks at what is served.
//!
//! A [`Map`] says what lies where: it is made from the files, with the formats' own parsers. From the bytes that were changed it
//! tells which messages *must* be told as damaged (their own bytes were hit) and which *may* be, because nobody can know any more
//! where they are. All others have to be served as if nothing had happened, no seq may be given out again, and the same must be
//! true for the leader after.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use broker_core::log::RecoveryError;
use broker_core::log::batch::{BatchHead, HEAD_BYTES, TRAILER_BYTES, Table};
use broker_core::log::segment::{DATA_OFFSET, SegmentHeader, SegmentName};
use broker_core::log::storage::Storage;
use broker_core::store::Store;
use broker_proto::record::{RECORD_FIXED_BYTES, next_record};
use bytes::Bytes;

use crate::campaign::{Broken, Harm as Kind};
use crate::crash_matrix::Failure;
use crate::disk::{CrashMode, SimDisk};
use crate::oracle::{Fate, Ledger, MessageId, Verdict};
use crate::rig::{Limits, Rig};
use crate::rng::Rng;
use crate::workload::Workload;

/// What a stretch of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// One of the two copies of a segment's header.
    Header,
    /// The head of a batch.
    Head,
    /// A record of the store's state, of this kind.
    State(u16),
    /// The checked head of a message's record.
    RecordHead,
    /// Its payload.
    Payload,
    /// The room table of a batch, up to the trailer.
    Table,
    /// The trailer of a batch.
    Trailer,
    /// A mark.
    Mark,
}

/// One stretch.
#[derive(Debug, Clone)]
pub struct Place {
    /// In which file.
    pub file: String,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// What it is.
    pub part: Part,
    /// Which batch, counted over all files; headers have none.
    pub batch: Option<usize>,
    /// Which message.
    pub message: Option<MessageId>,
    /// It lies in the last segment.
    pub in_last: bool,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// All stretches, in order.
    pub places: Vec<Place>,
}

/// Damage: a file, a place, and the bytes put there.
#[derive(Debug, Clone)]
pub struct Blow {
    /// In which file.
    pub file: String,
    /// Where.
    pub at: u64,
    /// What is there now.
    pub bytes: Vec<u8>,
}

/// What blows do to messages.
#[derive(Debug, Clone, Default)]
struct Harm {
    must: BTreeSet<MessageId>,
    may: BTreeSet<MessageId>,
    /// Rooms may have lost their names.
    names: bool,
    /// A leader was there that still had the last block in memory and may write it again, right.
    live: bool,
    /// A segment has lost all that says what it is.
    unreadable: bool,
    /// The last batch may be gone without a word: all that vouched for it was hit as well.
    end: bool,
}

impl Map {
    /// Looks at all segments of a disk.
    ///
    /// # Errors
    /// When the files are not as the log writes them.
    pub fn of(disk: &SimDisk) -> Verdict<Self> {
        let mut map = Self::default();
        let mut batches = 0;
        let names: Vec<String> = disk
            .list()
            .map_err(|error| error.to_string())?
            .into_iter()
            .filter(|name| SegmentName::parse(name).is_some())
            .collect();
        let read = |name: &str| disk.content(name).unwrap_or_default();
        let headers: Vec<SegmentHeader> = names
            .iter()
            .filter_map(|name| SegmentHeader::parse(&read(name)).ok())
            .collect();
        for (n, (name, header)) in names.iter().zip(&headers).enumerate() {
            let limit = headers.get(n + 1).map(|next| next.base);
            map.segment(
                name,
                header,
                &read(name),
                limit.map(|at| header.offset_of(at)),
                &mut batches,
            )?;
        }
        Ok(map)
    }

    fn segment(
        &mut self,
        file: &str,
        header: &SegmentHeader,
        content: &[u8],
        limit: Option<u64>,
        batches: &mut usize,
    ) -> Verdict {
        let place = |part, bytes: Range<u64>, batch, message| Place {
            file: file.to_owned(),
            bytes,
            part,
            batch,
            message,
            in_last: limit.is_none(),
        };
        self.places.push(place(Part::Header, 0..256, None, None));
        self.places
            .push(place(Part::Header, 2048..2304, None, None));
        let mut at = DATA_OFFSET;
        while limit.is_none_or(|limit| at < limit) {
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            let Some(head) = content
                .get(start..)
                .and_then(|bytes| BatchHead::parse_any(bytes, header.marker))
            else {
                break;
            };
            let end = at + u64::from(head.length);
            if head.kind.is_mark() {
                self.places.push(place(Part::Mark, at..end, None, None));
                break;
            }
            let batch = Some(*batches);
            *batches += 1;
            let bytes = content
                .get(start..start + head.length as usize)
                .ok_or("a batch is longer than its file")?;
            let table = Table::parse(bytes, head.position).ok_or("a table cannot be read")?;
            self.places
                .push(place(Part::Head, at..at + HEAD_BYTES as u64, batch, None));
            for run in table.runs() {
                let mut offset = u64::from(run.offset);
                for length in table.lengths(&run) {
                    let from = usize::try_from(offset).unwrap_or(usize::MAX);
                    let (record, _) = bytes
                        .get(from..)
                        .and_then(|bytes| next_record(bytes).ok().flatten())
                        .ok_or("a record cannot be read")?;
                    let (from, to) = (at + offset, at + offset + u64::from(length));
                    offset += u64::from(length);
                    if run.room.is_none() {
                        let state = Part::State(record.fixed.kind);
                        self.places.push(place(state, from..to, batch, None));
                        continue;
                    }
                    let message = record
                        .message()
                        .ok()
                        .and_then(|message| MessageId::parse(message.extensions));
                    let payload =
                        from + RECORD_FIXED_BYTES as u64 + u64::from(record.fixed.head_bytes);
                    self.places
                        .push(place(Part::RecordHead, from..payload, batch, message));
                    if payload < to {
                        self.places
                            .push(place(Part::Payload, payload..to, batch, message));
                    }
                }
            }
            let trailer = end - TRAILER_BYTES as u64;
            // With the padding behind its rows, which its checksum is over as well.
            let rows = at + u64::from(head.table)..trailer;
            self.places.push(place(Part::Table, rows, batch, None));
            self.places
                .push(place(Part::Trailer, trailer..end, batch, None));
            at = end;
        }
        Ok(())
    }

    /// What a blow is aimed at, for people.
    #[must_use]
    pub fn describe(&self, blow: &Blow) -> String {
        let end = blow.at + blow.bytes.len() as u64;
        let places = self.places.iter().filter(|place| {
            place.file == blow.file && place.bytes.start < end && blow.at < place.bytes.end
        });
        let parts: Vec<String> = places
            .map(|place| {
                format!(
                    "{:?} {:?} of batch {:?} {:?}",
                    place.part, place.bytes, place.batch, place.message
                )
            })
            .collect();
        format!("{} {}+{} {parts:?}", blow.file, blow.at, blow.bytes.len())
    }

    fn harm(&self, changed: &Changed) -> Harm {
        let mut harm = Harm::default();
        // What was hit, by batch; and headers and first heads, by file.
        let mut hit: BTreeMap<usize, BTreeSet<Part>> = BTreeMap::new();
        let mut begins: BTreeMap<&str, usize> = BTreeMap::new();
        let mut mark = false;
        for place in self.places.iter().filter(|place| changed.hits(place)) {
            harm.must.extend(place.message);
            harm.names |= matches!(place.part, Part::State(_));
            mark |= place.part == Part::Mark && place.in_last;
            if place.part == Part::Header || place.bytes.start == DATA_OFFSET {
                *begins.entry(&place.file).or_default() += 1;
            }
            if let Some(batch) = place.batch {
                hit.entry(batch).or_default().insert(place.part);
            }
        }
        harm.unreadable = begins.values().any(|hits| *hits == 3);
        let gone = if mark { self.unvouched(&hit) } else { None };
        harm.end = gone.is_some();
        let is_table = |part: &Part| matches!(part, Part::Table | Part::Trailer);
        for (batch, parts) in &hit {
            let mut is_unknown = parts.iter().any(is_table) && !parts.iter().all(is_table);
            // Without its head a batch is found from behind, by its table; but not across one that has lost both.
            let mut next = *batch;
            while let Some(parts) = hit.get(&next).filter(|parts| parts.contains(&Part::Head)) {
                is_unknown |= parts.iter().any(is_table);
                next += 1;
            }
            if is_unknown {
                harm.names = true;
                harm.may.extend(self.messages(|other| other == *batch));
            }
        }
        if let Some(gone) = gone {
            harm.names = true;
            harm.may.extend(self.messages(|batch| batch >= gone));
        }
        harm
    }

    fn messages(&self, of: impl Fn(usize) -> bool) -> impl Iterator<Item = MessageId> {
        self.places
            .iter()
            .filter(move |place| place.batch.is_some_and(&of))
            .filter_map(|place| place.message)
    }

    /// Without a mark, what was acknowledged last is vouched for by nothing but itself. From the first batch there that was hit, it
    /// looks like a write that was cut short.
    fn unvouched(&self, hit: &BTreeMap<usize, BTreeSet<Part>>) -> Option<usize> {
        let in_last = self.places.iter().filter(|place| place.in_last);
        let batches: BTreeSet<usize> = in_last.filter_map(|place| place.batch).collect();
        let has_head = |batch: &&usize| {
            hit.get(batch)
                .is_none_or(|parts| !parts.contains(&Part::Head))
        };
        let newest = batches.iter().rfind(has_head).or(batches.first())?;
        batches
            .range(newest..)
            .find(|batch| hit.contains_key(batch))
            .copied()
    }
}

impl Map {
    /// A bit of one byte turned, as a blow against `disk`.
    #[must_use]
    pub fn flip(disk: &SimDisk, file: &str, at: u64) -> Blow {
        let content = disk.content(file).unwrap_or_default();
        let byte = usize::try_from(at).ok().and_then(|at| content.get(at));
        Blow {
            file: file.to_owned(),
            at,
            bytes: vec![byte.copied().unwrap_or(0) ^ 0x10],
        }
    }
}

/// A part of a file that blows changed: where it begins, with the bytes before and after.
type Stretch = (u64, Vec<u8>, Vec<u8>);

/// All of them, by file.
struct Changed(BTreeMap<String, Vec<Stretch>>);

impl Changed {
    /// What the blows did, from the files before and after all of them.
    fn between(before: &SimDisk, after: &SimDisk, blows: &[Blow]) -> Self {
        let mut changed: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let files: BTreeSet<&String> = blows.iter().map(|blow| &blow.file).collect();
        for file in files {
            let (Some(old), Some(new)) = (before.content(file), after.content(file)) else {
                continue;
            };
            if old != new {
                changed.insert(file.clone(), vec![(0, old, new)]);
            }
        }
        Self(changed)
    }

    /// What one blow does to the bytes that were there.
    fn by(blow: &Blow, before: &[u8]) -> Self {
        let stretch = (blow.at, before.to_vec(), blow.bytes.clone());
        Self(BTreeMap::from([(blow.file.clone(), vec![stretch])]))
    }

    fn hits(&self, place: &Place) -> bool {
        self.0.get(&place.file).is_some_and(|stretches| {
            stretches.iter().any(|(at, before, after)| {
                let len = before.len().min(after.len());
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(len);
                let from = index(place.bytes.start.saturating_sub(*at));
                let to = index(place.bytes.end.saturating_sub(*at));
                before.get(from..to) != after.get(from..to)
            })
        })
    }
}

/// A store that was written and closed, and what everybody knows of it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Where it lies.
    pub disk: SimDisk,
    /// What was acknowledged.
    pub ledger: Ledger,
    /// What lies where.
    pub map: Map,
    limits: Limits,
}

impl Subject {
    /// Writes a store, over a few leaders.
    ///
    /// # Errors
    /// When a promise is broken already.
    pub fn write(rng: &mut Rng, limits: Limits, acts: u32) -> Verdict<Self> {
        let disk = SimDisk::new(rng.next());
        let mut ledger = Ledger::default();
        let mut workload = Workload::new(rng.fork());
        for _ in 0..3 {
            let mut rig =
                Rig::open(&disk, limits, rng).map_err(|error| format!("at the start: {error}"))?;
            for _ in 0..acts {
                workload.act(&mut rig, &mut ledger)?;
            }
            rig.work();
            rig.engine.keep_house();
            rig.engine.close();
            rig.answers(&mut ledger)?;
        }
        Self::of(disk, ledger, limits)
    }

    /// A store that was written by somebody else, and closed.
    ///
    /// # Errors
    /// When the files are not as the log writes them.
    pub fn of(disk: SimDisk, ledger: Ledger, limits: Limits) -> Verdict<Self> {
        let map = Map::of(&disk)?;
        Ok(Self {
            disk,
            ledger,
            map,
            limits,
        })
    }

    /// Strikes where these bytes were before, and checks what the next leader serves; true when messages were hit.
    ///
    /// # Errors
    /// When a promise is broken.
    pub fn glance(&self, blow: &Blow, before: &[u8], rng: &mut Rng) -> Verdict<bool> {
        let disk = self.disk.kill();
        if !disk.corrupt(&blow.file, blow.at, &blow.bytes) {
            return Err(format!("there is no file {}", blow.file).into());
        }
        let harm = self.map.harm(&Changed::by(blow, before));
        let mut ledger = self.ledger.clone();
        ledger.lied_to |= harm.end;
        let rig = self
            .open(&disk, rng)
            .map_err(|error| format!("the store cannot be opened: {error}"))?;
        serve(&rig, &mut ledger, &harm)?;
        is_counted(&rig, &ledger, &harm)?;
        Ok(!harm.must.is_empty())
    }

    /// Strikes, and checks what is served: by the leader that was there already if `live`, by the next one, and, after more was
    /// stored and the power was cut, by the one after that.
    ///
    /// # Errors
    /// When a promise is broken.
    pub fn strike(&self, blows: &[Blow], live: bool, rng: &mut Rng) -> Verdict {
        let disk = self.disk.kill();
        let mut ledger = self.ledger.clone();
        let early = live.then(|| self.open(&disk, rng));
        let after = self.disk.kill();
        for disk in [&disk, &after] {
            for blow in blows {
                if !disk.corrupt(&blow.file, blow.at, &blow.bytes) {
                    return Err(format!("there is no file {}", blow.file).into());
                }
            }
        }
        let mut harm = self.map.harm(&Changed::between(&self.disk, &after, blows));
        harm.live = live;
        ledger.lied_to |= harm.end;
        forget_trims(&mut ledger);
        let rig = match early.unwrap_or_else(|| self.open(&disk, rng)) {
            Ok(rig) => rig,
            Err(RecoveryError::Unreadable { .. }) if harm.unreadable => return Ok(()),
            Err(error) => return Err(format!("the store cannot be opened: {error}").into()),
        };
        serve(&rig, &mut ledger, &harm).map_err(|why| why.at("the first leader"))?;
        is_counted(&rig, &ledger, &harm)?;
        let mut rig = rig;
        go_on(&mut rig, &mut ledger, &harm)?;
        let mode = CrashMode::draw(rng);
        let again = disk.crash(rng, mode);
        let rig = match self.open(&again, rng) {
            Ok(rig) => rig,
            Err(RecoveryError::Unreadable { .. }) if harm.unreadable => return Ok(()),
            Err(error) => {
                return Err(format!("after {mode:?} the store cannot be opened: {error}").into());
            }
        };
        forget_trims(&mut ledger);
        serve(&rig, &mut ledger, &harm).map_err(|why| why.at(format!("the leader after {mode:?}")))
    }

    fn open(&self, disk: &SimDisk, rng: &mut Rng) -> Result<Rig, RecoveryError> {
        Rig::open(disk, self.limits, rng)
    }
}

/// With the record that trimmed a room, it may have more again; that is told as damage.
fn forget_trims(ledger: &mut Ledger) {
    for kept in ledger.kept.values_mut() {
        kept.told = 0;
    }
}

/// Whether the store says that it met damage, if it must have.
fn is_counted(rig: &Rig, ledger: &Ledger, harm: &Harm) -> Verdict {
    // Nobody reads what is not kept any more.
    let is_kept = |id: &MessageId| {
        ledger.sent.get(id).is_some_and(|sent| match sent.fate {
            Fate::Acked(seq) => seq > ledger.may_be_gone(sent.room),
            _ => false,
        })
    };
    if harm.must.iter().any(is_kept) && rig.store.info().damaged == 0 && !harm.names && !harm.end {
        return Err(Broken::new(
            Kind::SilentCorruption,
            "damage was met and not counted",
        ));
    }
    Ok(())
}

/// Reads everything and compares it with what should be there.
fn serve(rig: &Rig, ledger: &mut Ledger, harm: &Harm) -> Verdict {
    let listed: BTreeSet<u16> = rig.rooms()?.into_iter().map(|(room, _)| room).collect();
    let mut served = BTreeSet::new();
    let mut skipped: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    for room in &listed {
        if let Some(shown) = rig.read(ledger, *room, 1, 1 << 20)? {
            served.extend(shown.messages.into_iter().map(|(_, id)| id));
            skipped.insert(*room, shown.skips);
        }
    }
    for (id, sent) in &ledger.sent {
        let Fate::Acked(seq) = sent.fate else {
            continue;
        };
        if served.contains(id) {
            if harm.must.contains(id) && !harm.live {
                let what = format!("{id:?} was hit and is served");
                return Err(Broken::new(Kind::SilentCorruption, what));
            }
            continue;
        }
        let is_nameless = !listed.contains(&sent.room) && harm.names;
        if is_nameless || seq <= ledger.may_be_gone(sent.room) {
            continue;
        }
        if !harm.must.contains(id) && !harm.may.contains(id) {
            let what = format!(
                "{id:?} at seq {seq} of room {} was not hit and is not served; skipped are {skipped:?}",
                sent.room
            );
            return Err(Broken::new(Kind::LostAck, what));
        }
        let told = skipped
            .get(&sent.room)
            .is_some_and(|skips| skips.iter().any(|(from, to)| (from..=to).contains(&&seq)));
        if !told && !harm.end {
            let what = format!(
                "{id:?} at seq {seq} of room {} is neither served nor told as damaged; skipped are {skipped:?}",
                sent.room
            );
            return Err(Broken::new(Kind::SilentCorruption, what));
        }
    }
    Ok(())
}

/// Stores a message in every room that still has its name; each gets a seq that nobody had.
fn go_on(rig: &mut Rig, ledger: &mut Ledger, harm: &Harm) -> Verdict {
    for (room, _) in rig.rooms()? {
        let id = MessageId {
            producer: 1000 + room,
            number: 1,
        };
        let newest = ledger
            .sent
            .values()
            .filter(|sent| sent.room == room)
            .filter_map(|sent| match sent.fate {
                Fate::Acked(seq) => Some(seq),
                _ => None,
            })
            .max();
        ledger.send(id, room, Bytes::from_static(b"after the damage"));
        rig.send(ledger, id, 1)?;
        rig.work();
        rig.answers(ledger)?;
        let fate = ledger.sent.get(&id).map(|sent| sent.fate);
        match fate {
            Some(Fate::Acked(seq)) if Some(seq) > newest || harm.end => {}
            other => {
                let what = format!(
                    "room {room} went up to seq {newest:?}, and the next message is {other:?}"
                );
                return Err(Broken::new(Kind::Doubled, what));
            }
        }
    }
    Ok(())
}

/// Strikes so many times at random: bits, blocks of zeros, blocks that changed places.
///
/// # Errors
/// The first [`Failure`].
pub fn explore(seed: u64, strikes: u64) -> Result<u64, Failure> {
    const STRIKES_EACH: u64 = 60;
    let mut rng = Rng::new(seed);
    let mut done = 0;
    let failure = |what: Broken, place: String| Failure {
        seed,
        place,
        what,
        history: String::new(),
    };
    while done < strikes {
        let limits = Limits::draw(&mut rng);
        let subject = Subject::write(&mut rng, limits, 14)
            .map_err(|what| failure(what, format!("strike {done}, before it")))?;
        for _ in 0..STRIKES_EACH {
            done += 1;
            let blows = draw(&subject, &mut rng);
            let live = rng.chance(1, 4);
            let told: Vec<String> = blows
                .iter()
                .map(|blow| subject.map.describe(blow))
                .collect();
            subject.strike(&blows, live, &mut rng).map_err(|mut what| {
                if let Some(id) = MessageId::find(&what.what) {
                    for place in subject
                        .map
                        .places
                        .iter()
                        .filter(|place| place.message == Some(id))
                    {
                        what.what += &format!(
                            "\n  {} {:?} {:?} of batch {:?}",
                            place.file, place.part, place.bytes, place.batch
                        );
                    }
                }
                failure(what, format!("strike {done} (live: {live}) at {told:?}"))
            })?;
        }
    }
    Ok(done)
}

/// One act of an ageing disk.
fn draw(subject: &Subject, rng: &mut Rng) -> Vec<Blow> {
    let files: Vec<String> = subject.disk.list().unwrap_or_default();
    let spot = |rng: &mut Rng, unit: u64| {
        // Mostly where something is.
        if let Some(place) = rng.pick(&subject.map.places)
            && !rng.chance(1, 8)
        {
            let at = place.bytes.start + rng.below(place.bytes.end - place.bytes.start);
            return (place.file.clone(), at / unit * unit);
        }
        let file = rng.pick(&files).cloned().unwrap_or_default();
        let len = subject
            .disk
            .content(&file)
            .map_or(1, |content| content.len()) as u64;
        (file, rng.below(len) / unit * unit)
    };
    let bytes_at = |file: &str, at: u64, len: u64| {
        let content = subject.disk.content(file).unwrap_or_default();
        let from = usize::try_from(at).unwrap_or(0);
        let to = content.len().min(from + usize::try_from(len).unwrap_or(0));
        content.get(from..to).unwrap_or_default().to_vec()
    };
    match rng.below(6) {
        // A bit, or a few bits here and there.
        kind @ 0..3 => (0..=kind)
            .map(|_| {
                let (file, at) = spot(rng, 1);
                let bit = 1 << rng.below(8);
                let bytes = bytes_at(&file, at, 1)
                    .iter()
                    .map(|byte| byte ^ bit)
                    .collect();
                Blow { file, at, bytes }
            })
            .collect(),
        // Blocks of zeros.
        3 | 4 => {
            let unit = if rng.coin() { 512 } else { 4096 };
            let (file, at) = spot(rng, unit);
            let bytes = vec![0; usize::try_from(unit).unwrap_or(512)];
            vec![Blow { file, at, bytes }]
        }
        // Two blocks that changed places, or a block that was written to a second place as well.
        _ => {
            let unit = if rng.coin() { 512 } else { 4096 };
            let (one, other) = (spot(rng, unit), spot(rng, unit));
            let first = Blow {
                bytes: bytes_at(&other.0, other.1, unit),
                file: one.0.clone(),
                at: one.1,
            };
            let second = Blow {
                bytes: bytes_at(&one.0, one.1, unit),
                file: other.0,
                at: other.1,
            };
            if rng.coin() {
                vec![first, second]
            } else {
                vec![first]
            }
        }
    }
}
