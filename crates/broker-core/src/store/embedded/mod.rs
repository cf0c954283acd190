//! The store on disk: one log for all rooms, one writer, any number of readers.

mod checkpoint;
mod config;
mod engine;
mod inbox;
mod keep;
mod pulse;
mod retention;
mod scrub;
mod settler;
mod shared;
mod space;
mod threads;

use broker_proto::record::RECORD_FIXED_BYTES;
use broker_proto::{ErrorCode, RoomId, RoomName, Seq, StoreId, Term};

use super::losses::losses;
use super::rooms::RoomTable;
use super::{
    Answer, Append, Ask, Busy, Claims, Mailbox, Notice, ProducerKey, ReadRange, ReadReply,
    SessionId, SetCursor, Settling, Store, StoreError, StoreInfo, StoreState, Versioned,
};
use crate::clock::Random;
use crate::log::batch::BATCH_BYTES_MAX;
use crate::log::position::LogPosition;
use crate::log::recovery::{Progress, Recovered, recover, set_aside};
use crate::log::storage::Storage;
use crate::log::{FEATURE_LEVEL, LogWriter, RecoveryError, Segments, Start, delete_spares, state};
use crate::planted::{Bug, planted};
use crate::store::InDoubt;
use crate::store::sequencer::Sequencer;
use crate::sync::{Arc, Mutex, Ordering, Weak, lock, read};

pub use config::{EmbeddedConfig, SCRUB_EVERY_DEFAULT};
pub use engine::Engine;
pub use pulse::{Beat, Pulse};

use engine::EngineParts;
use inbox::{Done, Inbox, NotQueued, Request, TrimAsked};
use keep::Keep;
use settler::Settler;
use shared::{Attempt, Shared};
use space::Space;
use threads::{Threads, Writing};

/// A reader this close to the end of the log follows along, in bytes.
const NEAR_END_BYTES: u64 = 4 << 20;

/// A replay of so many segments is worth a checkpoint, however little lies in them.
const SCATTERED_SEGMENTS: usize = 8;

/// Largest append, in bytes of the log: what a batch may hold beside other appends and a piece of a
/// checkpoint.
const APPEND_BYTES_MAX: usize = BATCH_BYTES_MAX * 5 / 8;

/// What an append takes in the log, at most.
fn append_bytes(append: &Append) -> usize {
    let per_message = RECORD_FIXED_BYTES + append.head.len() + 4;
    let heads = per_message.saturating_mul(append.count as usize);
    append.entries.len().saturating_add(heads)
}

/// Less would make a checkpoint due by the writing of the one before.
const CHECKPOINT_BYTES_LEAST: u64 = 4 << 10;

/// A store that was opened, its writer, and the spares of leaders before.
type Opened<S> = (Arc<EmbeddedStore<S>>, Engine<S>, Vec<String>);

/// See the module's documentation.
#[derive(Debug)]
pub struct EmbeddedStore<S: Storage> {
    shared: Arc<Shared<S>>,
    store: StoreId,
    term: Term,
    payload_bytes_max: u32,
    producer_window_secs: u32,
    direct_io: std::sync::OnceLock<bool>,
    threads: Mutex<Option<Threads>>,
    /// Gone when nobody writes, or somebody does by hand.
    writing: Mutex<Weak<Writing<S>>>,
    /// Held by whoever closes the store, until it is closed.
    closing: Mutex<()>,
}

impl<S: Storage> EmbeddedStore<S> {
    /// Opens a store whose writer is driven by hand: nothing happens until [`Engine::step`].
    ///
    /// `progress` is told how far the replay of the log is: bytes done, bytes in all.
    ///
    /// # Errors
    /// [`RecoveryError`]; nothing is lost then.
    pub fn open_manual(
        storage: Arc<S>,
        config: EmbeddedConfig,
        progress: Progress<'_>,
    ) -> Result<(Arc<Self>, Engine<S>), RecoveryError> {
        let (store, engine, spares) = Self::prepare(storage, config, progress)?;
        delete_spares(&**store.shared.segments.storage(), &spares);
        Ok((store, engine))
    }

    /// Reads the log and makes its end safe. What is left is to delete the spares of leaders before, which takes long and nobody
    /// waits for.
    fn prepare(
        storage: Arc<S>,
        mut config: EmbeddedConfig,
        progress: Progress<'_>,
    ) -> Result<Opened<S>, RecoveryError> {
        let mut found = recover(&*storage, config.log, config.last_leader, progress)?;
        let last = found.last_term.max(config.term_floor);
        let term = last
            .checked_add(u64::from(!planted(Bug::TermNotRaised)))
            .ok_or(RecoveryError::TermsUsedUp)?;
        let in_place = resume_in_place(&found).is_some();
        let mut writer = start_writer(&storage, &mut config, &found, term)?;
        let segments = Segments::new(
            Arc::clone(&storage),
            found.segments.clone(),
            std::mem::take(&mut found.last_index),
            true,
        );
        segments.note_found_at_start(&found.state.places);
        if found.early != LogPosition::NONE {
            segments.note_early(found.early);
        }
        let mut sealed = Vec::new();
        if !found.segments.is_empty() && !in_place {
            sealed.extend(make_tail_safe(
                &*storage,
                &found,
                &mut writer,
                &segments,
                config.clock.now().get(),
            )?);
        }
        let scattered = is_scattered(&found);
        let spares = std::mem::take(&mut found.spares);
        let mentioned_from = mentioned_from(&found, in_place, &writer);
        let mut in_doubt = found.state.in_doubt;
        in_doubt.expire(config.clock.now(), config.producer_idle_secs);
        let mut pending: Vec<Vec<u8>> = found.state.doubt.map(doubt_record).into_iter().collect();
        pending.extend(untold(&in_doubt));
        let mut sequencer = Sequencer::new(config.producer_idle_secs);
        sequencer.settings = found.state.settings;
        let keep = Keep::new(sequencer.settings.clone());
        sequencer.in_doubt = in_doubt;
        sequencer.producers = found.state.producers;
        sequencer.cursors = found.state.cursors;
        let inbox = Inbox::new(config.queue_bytes_max, config.lone_min);
        let rooms_made = found.state.rooms_made;
        let checkpoint_bytes = found.state.checkpoint_bytes;
        let mut rooms = found.state.rooms;
        rooms.begin_term();
        let shared = Arc::new(Shared::new(
            inbox,
            config.tail_bytes_max,
            rooms,
            segments,
            writer.end(),
            Pulse::new(Arc::clone(&config.clock)),
            (keep, Space::new(found.covered)),
        ));
        let markers = MarkerSource::draw(&mut *config.random);
        let mut engine = Engine::new(EngineParts {
            shared: Arc::clone(&shared),
            writer,
            sequencer,
            clock: Arc::clone(&config.clock),
            random: config.random,
            // Readers believe in no batch above a limit, and one append may be larger than this.
            batch_bytes_max: config.batch_bytes_max.min(BATCH_BYTES_MAX / 4),
            checkpoint_bytes_min: config.checkpoint_bytes_min.max(CHECKPOINT_BYTES_LEAST),
            mentioned_from,
            pending,
            scattered,
            checkpoint_bytes,
            rooms_made,
            sealed,
            term,
            markers: Box::new(markers),
            segment_bytes_max: config.segment_bytes_max,
        });
        if config.renew_epochs {
            engine
                .renew_epochs()
                .map_err(|source| RecoveryError::Write {
                    file: "the new epochs of the rooms".to_owned(),
                    source,
                })?;
        }
        let store = Arc::new(Self {
            shared,
            store: config.store,
            term: Term::new(term),
            payload_bytes_max: config.payload_bytes_max,
            producer_window_secs: config.producer_idle_secs,
            direct_io: std::sync::OnceLock::new(),
            threads: Mutex::new(None),
            writing: Mutex::new(Weak::new()),
            closing: Mutex::new(()),
        });
        Ok((store, engine, spares))
    }

    /// Opens a store with a writer thread of its own.
    ///
    /// # Errors
    /// [`RecoveryError`]; nothing is lost then.
    pub fn open(
        storage: Arc<S>,
        config: EmbeddedConfig,
        progress: Progress<'_>,
    ) -> Result<Arc<Self>, RecoveryError> {
        let every = config.scrub_every;
        let (store, engine, spares) = Self::prepare(storage, config, progress)?;
        let threads = Threads::start(Arc::clone(&store.shared), engine, every, spares);
        let (threads, writing) = threads.map_err(|source| RecoveryError::Io {
            file: "a thread".to_owned(),
            source,
        })?;
        *lock(&store.threads) = Some(threads);
        *lock(&store.writing) = writing;
        Ok(store)
    }

    /// Stores what is queued, ends the log with a mark and stops the threads; blocks until that is
    /// done, also when somebody else does it. Appends after this are refused.
    pub fn close(&self) {
        self.shared.inbox.close();
        self.shared.scrub.stop();
        self.shared.keep.stop();
        let _until_done = lock(&self.closing);
        let threads = lock(&self.threads).take();
        if let Some(threads) = threads {
            threads.join();
        }
    }

    /// Leaves little for the next leader to read, while this one goes on serving: the log goes on in
    /// a new segment, which begins with a checkpoint. `done` is called on the writer's thread, also
    /// when there was nothing to do; it is dropped when the store is closed first.
    pub fn shorten_replay(&self, done: impl FnOnce() + Send + 'static) {
        self.shared.inbox.push(Request::Shorten {
            done: Done(Box::new(done)),
        });
    }

    /// What the writer's thread is doing, for those who must not wait for it.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.shared.pulse)
    }

    /// Whether the directory has been moved or replaced under the store.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.shared.has_moved()
    }

    /// Has `tell` called, on the writer's thread, when the directory is found to have been moved or
    /// replaced; at once if it was already. Nothing is written any more then.
    pub fn when_moved(&self, tell: impl FnOnce() + Send + 'static) {
        self.shared.when_moved(Box::new(tell));
    }

    /// Whether the log is written past the page cache. Known from the first segment on, and looked
    /// up once.
    fn is_direct(&self) -> bool {
        if self.shared.segments.len() == 0 {
            return false;
        }
        let segments = &self.shared.segments;
        *self.direct_io.get_or_init(|| segments.is_direct())
    }

    /// Answers from the rooms in order, which a reading thread brings into order when there are many.
    fn list<T: 'static>(
        &self,
        answer: impl Fn(&RoomTable) -> T + Send + 'static,
        post: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        if let Some(found) = self.shared.list(&answer) {
            return post(Ok(found));
        }
        let shared = Arc::clone(&self.shared);
        let job = move || {
            loop {
                if let Some(found) = shared.list(&answer) {
                    return post(Ok(found));
                }
            }
        };
        match &*lock(&self.threads) {
            Some(threads) => threads.call(Box::new(job)),
            // Driven by hand: there is nobody else.
            None => job(),
        }
    }

    fn refuse_cursor(tag: u64, to: &Arc<Mailbox>) {
        let result = Err(StoreError::Closed);
        to.post(Notice::Cursor { tag, result });
    }

    fn refuse(append: &Append, to: &Arc<Mailbox>, code: ErrorCode, detail: String) {
        to.post(Notice::Refused {
            producer: append.key.producer,
            first_number: append.first_number,
            count: append.count,
            code,
            detail,
            retry_after_ms: 0,
        });
    }
}

impl<S: Storage> Drop for EmbeddedStore<S> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Draws markers from a seed, by a generator that a simulator can repeat (`SplitMix64`); the seed
/// comes from the system's randomness in production.
struct MarkerSource([u64; 2]);

impl MarkerSource {
    fn new(seed: [u8; 16]) -> Self {
        let fields = crate::log::Fields(&seed);
        Self([fields.u64(0), fields.u64(8)])
    }

    /// A source with a seed of its own.
    fn draw(random: &mut dyn Random) -> impl FnMut() -> u64 + Send + use<> {
        let mut seed = [0; 16];
        random.fill(&mut seed);
        let mut source = Self::new(seed);
        move || source.next()
    }

    fn next(&mut self) -> u64 {
        let [state, key] = &mut self.0;
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state ^ *key;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Never 0: zeros are what fresh space reads as.
        (z ^ (z >> 31)).max(1)
    }
}

/// A writer that goes on where the log ends.
fn start_writer<S: Storage>(
    storage: &Arc<S>,
    config: &mut EmbeddedConfig,
    found: &Recovered,
    term: u64,
) -> Result<LogWriter<S>, RecoveryError> {
    let markers = MarkerSource::draw(&mut *config.random);
    let start = Start {
        store: config.log,
        term,
        feature_level: FEATURE_LEVEL,
        end: end_of(found),
        checkpoint: found.checkpoint,
        last_segment: found.last_segment,
        segment_bytes: (config.segment_bytes_min, config.segment_bytes_max),
        resume: resume_in_place(found),
        spares_made: found.spares_made(),
    };
    LogWriter::start(Arc::clone(storage), start, Box::new(markers)).map_err(|source| {
        RecoveryError::Io {
            file: "the active segment".to_owned(),
            source,
        }
    })
}

/// After a mark, writing goes on where it stands.
fn resume_in_place(found: &Recovered) -> Option<(crate::log::segment::SegmentHeader, u64)> {
    let (header, _) = found.segments.last()?;
    let trusted = found.clean || planted(Bug::TrustTail) || is_torn_only(found);
    trusted.then(|| (header.clone(), found.last_file_bytes))
}

/// Where the first batch of this leader goes, unless a tail is copied before.
fn end_of(found: &Recovered) -> LogPosition {
    if is_torn_only(found) {
        return found.proven.plus(found.torn_bytes.next_multiple_of(8));
    }
    found.proven
}

/// Whether torn bytes are to be left where they are.
fn is_torn_only(found: &Recovered) -> bool {
    planted(Bug::AppendBehindTornTail) && found.torn_bytes > 0 && found.tail.is_empty()
}

/// Whether what was replayed lay in many segments.
fn is_scattered(found: &Recovered) -> bool {
    let from = match found.checkpoint {
        LogPosition::NONE => LogPosition::START,
        begin => begin,
    };
    let replayed = found.segments.iter().filter(|(_, end)| *end > from);
    replayed.count() >= SCATTERED_SEGMENTS
}

/// From where on the active segment names every room that it mentions.
fn mentioned_from<S: Storage>(
    found: &Recovered,
    in_place: bool,
    writer: &LogWriter<S>,
) -> LogPosition {
    let last = found.segments.last().filter(|_| in_place);
    match last {
        Some((header, _)) => header.base,
        None if in_place => LogPosition::START,
        None => writer.end(),
    }
}

/// Tells later leaders of the doubt, so that they send the same rooms on.
fn doubt_record(upto: LogPosition) -> Vec<u8> {
    let mut record = Vec::new();
    let doubt = state::DoubtRecord { upto: upto.get() };
    state::encode(state::kind::DOUBT, RoomId::NONE, &doubt, &mut record);
    record
}

/// Tells later leaders of messages in doubt that are known only since this start.
fn untold(in_doubt: &InDoubt) -> Vec<Vec<u8>> {
    if !in_doubt.is_empty() {
        tracing::warn!(
            messages = in_doubt.len(),
            more = in_doubt.is_any(),
            "damage took the records that told whose numbers some messages are; a publish that is sent again and may be one of them is answered as outcome_unknown"
        );
    }
    checkpoint::untold_records(in_doubt)
}

/// Copies the unproven tail into a new segment, and keeps what was torn for a look.
fn make_tail_safe<S: Storage>(
    storage: &S,
    found: &Recovered,
    writer: &mut LogWriter<S>,
    segments: &Segments<S>,
    now: i64,
) -> Result<Option<Arc<crate::log::Segment>>, RecoveryError> {
    let torn_at = found
        .tail
        .last()
        .map_or(found.proven, |(head, _)| head.end());
    if found.torn_bytes > 0
        && let Some((header, _)) = found.segments.last()
    {
        tracing::info!(bytes = found.torn_bytes, position = %torn_at, "the last write is not whole and was set aside: it was cut short before it was acknowledged, unless the disk has damaged it since");
        if let Err(error) = set_aside(storage, header, torn_at) {
            tracing::warn!(%error, "cannot set the torn bytes aside");
        }
    }
    let header = writer
        .copy_tail(&found.tail, now)
        .map_err(|source| RecoveryError::Write {
            file: "a new segment".to_owned(),
            source,
        })?;
    let base = header.base;
    let sealed = segments.begin(header);
    segments.note_tail(&found.tail, base);
    Ok(sealed)
}

impl<S: Storage> Store for EmbeddedStore<S> {
    fn info(&self) -> StoreInfo {
        let shared = &self.shared;
        // One lock after the other: a guard within the expression below would be held to its end.
        let damage = shared.damage();
        let rooms = read(&shared.rooms).len() as u64;
        StoreInfo {
            store: self.store,
            term: self.term,
            feature_level: FEATURE_LEVEL,
            payload_bytes_max: self.payload_bytes_max,
            producer_window_secs: self.producer_window_secs,
            rooms,
            log_bytes: shared.durable().get(),
            segments: shared.segments.len() as u64,
            direct_io: self.is_direct(),
            damaged: shared.segments.damage().total(),
            read_only: shared.read_only(),
            batches: shared.batches.load(Ordering::Relaxed),
            messages: shared.messages.load(Ordering::Relaxed),
            damage,
            scrub: shared.scrub.info(),
            space: shared
                .space
                .info(shared.log_bytes(), &shared.keep.settings().settings),
            footers: shared.segments.footers().info(),
            cursors: shared.space.cursors_info(),
        }
    }

    fn append(&self, append: Append, to: &Arc<Mailbox>) -> Result<(), Busy> {
        if append_bytes(&append) > APPEND_BYTES_MAX {
            // An append goes into one batch, and recovery believes in no larger ones.
            let detail = format!(
                "{} messages in one append take more than {APPEND_BYTES_MAX} bytes; send them in several",
                append.count
            );
            Self::refuse(&append, to, ErrorCode::TOO_LARGE, detail);
            self.hole(
                &append.key,
                append.session,
                append.first_number,
                append.count,
            );
            return Ok(());
        }
        match self.shared.inbox.append(append, to) {
            Ok(()) => Ok(()),
            Err(NotQueued::Full(append)) => Err(Busy(append)),
            Err(NotQueued::Closing(append)) => {
                let detail = "the store is closing; nothing was stored".to_owned();
                Self::refuse(&append, to, ErrorCode::GOING_AWAY, detail);
                Ok(())
            }
        }
    }

    fn settle(&self) -> Option<Settling> {
        let writing = Weak::clone(&lock(&self.writing));
        let is_driven = writing.strong_count() > 0;
        let settler = Settler::new(Arc::clone(&self.shared), writing);
        is_driven.then(|| Box::pin(settler.run()) as Settling)
    }

    fn hole(&self, key: &ProducerKey, session: SessionId, first_number: u64, count: u32) {
        self.shared.inbox.push(Request::Hole {
            key: key.clone(),
            session,
            first_number,
            count,
        });
    }

    fn claim(&self, key: &ProducerKey, session: SessionId) {
        self.shared.inbox.push(Request::Claim {
            key: key.clone(),
            session,
        });
    }

    fn release(&self, key: &ProducerKey, session: SessionId, forget: bool) {
        self.shared.inbox.push(Request::Release {
            key: key.clone(),
            session,
            forget,
        });
    }

    fn read(
        &self,
        range: ReadRange,
        tag: u64,
        to: &Arc<Mailbox>,
    ) -> Option<Result<ReadReply, StoreError>> {
        match self.shared.try_read(&range) {
            Attempt::Done(result) => Some(result),
            Attempt::Disk(wanted) => match &*lock(&self.threads) {
                Some(threads) => {
                    threads.read(wanted, tag, Arc::clone(to));
                    None
                }
                // Driven by hand: there is nobody else to read.
                None => Some(self.shared.read_disk(*wanted)),
            },
        }
    }

    fn watch(&self, room: &RoomName, after: Seq, tag: u64, to: &Arc<Mailbox>) -> bool {
        self.shared.watch(room, after, tag, to)
    }

    fn unwatch(&self, room: &RoomName, tag: u64, to: &Arc<Mailbox>) {
        self.shared.unwatch(room, tag, to);
    }

    fn verify(&self, claims: &Claims, to: &Arc<Mailbox>) {
        let losses = losses(&read(&self.shared.rooms), (self.store, self.term), claims);
        to.post(Notice::Verified { losses });
    }

    fn rooms(&self, after: &str, limit: u32, tag: u64, to: &Arc<Mailbox>) {
        let (after, to) = (after.to_owned(), Arc::clone(to));
        self.list(
            move |rooms| rooms.page(&after, limit as usize),
            move |result| to.post(Notice::Rooms { tag, result }),
        );
    }

    fn cursor(&self, room: &RoomName, name: &str, tag: u64, to: &Arc<Mailbox>) {
        let request = Request::Cursor {
            room: room.clone(),
            name: name.to_owned(),
            tag,
            to: Arc::clone(to),
        };
        if !self.shared.inbox.push(request) {
            Self::refuse_cursor(tag, to);
        }
    }

    fn set_cursor(&self, set: SetCursor, tag: u64, to: &Arc<Mailbox>) {
        let request = Request::SetCursor {
            set,
            tag,
            to: Arc::clone(to),
        };
        if !self.shared.inbox.push(request) {
            Self::refuse_cursor(tag, to);
        }
    }

    fn ask(&self, ask: Ask, tag: u64, to: &Arc<Mailbox>) {
        let rooms = || read(&self.shared.rooms);
        let result = match ask {
            Ask::Room(name) => {
                let rooms = rooms();
                let state = rooms.id(&name).and_then(|id| rooms.state(id));
                state
                    .map(|state| Answer::Room(Box::new(state)))
                    .ok_or(StoreError::NoSuchRoom { room: name })
            }
            Ask::Find(wanted) => {
                let to = Arc::clone(to);
                return self.list(
                    move |rooms| Answer::Found(rooms.search(&wanted)),
                    move |result| to.post(Notice::Answer { tag, result }),
                );
            }
            Ask::Store => {
                let Versioned { version, settings } = self.shared.keep.settings();
                Ok(Answer::Store(StoreState { version, settings }))
            }
            Ask::Trim(trim) => {
                let to = Arc::clone(to);
                return self.shared.keep.ask(TrimAsked { trim, tag, to });
            }
            ask => {
                let to = Arc::clone(to);
                if self.shared.inbox.push(Request::Ask { ask, tag, to }) {
                    return;
                }
                Err(StoreError::Closed)
            }
        };
        to.post(Notice::Answer { tag, result });
    }
}
