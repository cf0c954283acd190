//! Walks one segment: what was proven durable, and what lies behind that.

use std::io;
use std::ops::ControlFlow;

use broker_proto::RoomId;

use super::record::{CheckpointPart, checkpoint_part, fields, kind_name, named_rooms};
use super::{
    BatchSeen, Finding, FindingClass, Inspector, READ_AHEAD, RecordSeen, Seen, SegmentSeen, damaged,
};
use crate::log::batch::BatchHead;
use crate::log::check::{
    Checked, CheckedBatch, CheckedRecord, SegmentCheck, check_batch, open_past_cache,
};
use crate::log::damage::{DamagePart, Place};
use crate::log::position::LogPosition;
use crate::log::recovery::torn_bytes;
use crate::log::scan::{Scanner, Step, whole_batch};
use crate::log::segment::SegmentHeader;
use crate::log::state_record::{RawRecord, kind};
use crate::log::storage::Storage;
use crate::log::window::Window;

/// Called with everything that a walk comes upon; may end it.
type Visit<'v> = &'v mut dyn FnMut(Seen<'_>) -> ControlFlow<()>;

impl<S: Storage> Inspector<'_, S> {
    /// Walks the segment with this place in [`segments`](Self::segments), every byte of it, and
    /// tells what it comes upon in the order of the log. Says whether `visit` let it come to the
    /// end. What the disk does not give is told as damage, and ends the walk of this segment.
    pub fn walk(&mut self, segment: usize, visit: Visit<'_>) -> ControlFlow<()> {
        let Some(seen) = self.segments.get(segment).cloned() else {
            return ControlFlow::Continue(());
        };
        let Some(header) = seen.header.clone() else {
            return ControlFlow::Continue(());
        };
        let mut at = header.base;
        match self.walk_header(&seen, &header, &mut at, visit) {
            Ok(flow) => flow,
            Err(error) => {
                let end = seen.end.max(at);
                let place = Place::new(&header, at, end, DamagePart::ReadError);
                let class = if at < seen.end {
                    FindingClass::Damaged
                } else {
                    FindingClass::Tail
                };
                visit(Seen::Finding(Finding {
                    class,
                    place,
                    detail: Some(error.to_string()),
                }))
            }
        }
    }

    fn walk_header(
        &mut self,
        seen: &SegmentSeen,
        header: &SegmentHeader,
        at: &mut LogPosition,
        visit: Visit<'_>,
    ) -> io::Result<ControlFlow<()>> {
        let mut check = SegmentCheck::new(self.storage, header, header.base, seen.end)?;
        loop {
            *at = check.at();
            match check.step(self.storage)? {
                Checked::Batch(batch) => {
                    if self.tell_batch(header, *batch, false, visit).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Checked::Lost(mut place) => {
                    if let Some((between, part)) = &seen.gap
                        && place.upto == seen.end
                    {
                        place.file = between.file();
                        place.part = *part;
                        if self.findings.iter().any(|it| it.place.file == place.file) {
                            continue;
                        }
                    }
                    if visit(Seen::Finding(damaged(place))).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Checked::End => break,
            }
        }
        if seen.is_last {
            *at = seen.end;
            return self.walk_tail(header, at, visit);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What lies behind the proven part counts only if every byte of it is right.
    fn walk_tail(
        &mut self,
        header: &SegmentHeader,
        at: &mut LogPosition,
        visit: Visit<'_>,
    ) -> io::Result<ControlFlow<()>> {
        let file = open_past_cache(self.storage, &header.name.file())?;
        let mut window = Window::new(file, header.clone(), READ_AHEAD);
        while let Some((head, _)) = whole_batch(&mut window, *at)? {
            if head.kind.is_mark() {
                let mark = batch_seen(header, &head, (true, true), true);
                return Ok(visit(Seen::Batch(mark)));
            }
            let mut scanner = Scanner::new(window.again(), head.position, head.end()).whole();
            let Step::Batch(view) = scanner.step()? else {
                // A leader has written something else there meanwhile.
                return Ok(ControlFlow::Continue(()));
            };
            let mut batch = check_batch(&mut scanner.window, header, view)?;
            if !batch.damage.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            batch.damage.clear();
            if self.tell_batch(header, batch, true, visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            *at = head.end();
        }
        let torn = torn_bytes(&mut window, *at)?;
        if torn.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let upto = at.plus(torn.len() as u64);
        Ok(visit(Seen::Finding(Finding {
            class: FindingClass::Tail,
            place: Place::new(header, *at, upto, DamagePart::Batch),
            detail: None,
        })))
    }

    fn tell_batch(
        &mut self,
        header: &SegmentHeader,
        batch: CheckedBatch,
        is_tail: bool,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        let view = &batch.view;
        let table_ok = view.found_without_table().is_none();
        let head_ok = !view.damaged || !table_ok;
        visit(Seen::Batch(batch_seen(
            header,
            &view.head,
            (head_ok, table_ok),
            is_tail,
        )))?;
        for record in &batch.records {
            let raw = batch
                .bytes
                .get(record.offset..record.offset + record.length)
                .unwrap_or_default();
            let parsed = RawRecord::parse(raw);
            if let Some(parsed) = parsed.filter(|_| record.is_whole) {
                self.learn(&parsed);
            }
            let position = view.head.position.plus(record.offset as u64);
            let seen = self.record_seen(header, position, record, parsed, is_tail);
            visit(Seen::Record(seen))?;
            if let Some(parsed) = parsed.filter(|_| record.is_whole)
                && is_unknown_and_critical(parsed.head.kind)
            {
                let upto = position.plus(record.length as u64);
                visit(Seen::Finding(Finding {
                    class: FindingClass::Newer,
                    place: Place::new(header, position, upto, DamagePart::Record),
                    detail: Some(format!("a record of kind {}", parsed.head.kind)),
                }))?;
            }
        }
        for mut place in batch.damage {
            if let Some(span) = &mut place.room {
                span.name = self.names.get(&span.room).cloned();
            }
            visit(Seen::Finding(damaged(place)))?;
        }
        ControlFlow::Continue(())
    }

    fn record_seen<'s>(
        &'s self,
        header: &SegmentHeader,
        position: LogPosition,
        record: &CheckedRecord,
        parsed: Option<RawRecord<'s>>,
        is_tail: bool,
    ) -> RecordSeen<'s> {
        let payload_ok = parsed.is_some_and(|raw| raw.payload_is_whole());
        RecordSeen {
            offset: header.offset_of(position),
            position,
            length: record.length,
            kind: parsed.map(|raw| raw.head.kind),
            room: record.room,
            room_name: self.room_name(record.room),
            seq: record.seq,
            time: parsed.map_or(0, |raw| raw.head.time.get()),
            // A whole record in a place where another one belongs is not right either.
            head_ok: parsed.is_some() && (record.is_whole || !payload_ok),
            payload_ok,
            is_tail,
            payload: parsed.map(|raw| raw.payload()).unwrap_or_default(),
            fields: parsed
                .filter(|_| record.is_whole)
                .map(|raw| fields(&raw))
                .unwrap_or_default(),
        }
    }

    /// Keeps the names of rooms, and how much there is of the checkpoint.
    fn learn(&mut self, record: &RawRecord<'_>) {
        if !record.head.room.is_none() {
            return;
        }
        named_rooms(record, |room, name| {
            self.names.insert(RoomId::new(room), name.to_owned());
        });
        let Some(begin) = self.checkpoint else { return };
        match checkpoint_part(record) {
            Some(CheckpointPart::Chunk(at, number)) if at == begin.get() => {
                self.chunks += u64::from(number == self.chunks);
            }
            Some(CheckpointPart::End(at, chunks)) if at == begin.get() => {
                self.checkpoint_is_whole |= chunks == self.chunks;
            }
            _ => {}
        }
    }
}

/// Whether a broker of this version does not open a store because of such a record.
fn is_unknown_and_critical(number: u16) -> bool {
    number & kind::CRITICAL != 0 && kind_name(number).is_none()
}

fn batch_seen(
    header: &SegmentHeader,
    head: &BatchHead,
    (head_ok, table_ok): (bool, bool),
    is_tail: bool,
) -> BatchSeen {
    BatchSeen {
        offset: header.offset_of(head.position),
        position: head.position,
        length: head.length,
        kind: head.kind,
        term: head.term,
        time: head.time,
        durable_upto: head.durable_upto,
        records: head.count,
        head_ok,
        table_ok,
        is_tail,
    }
}
