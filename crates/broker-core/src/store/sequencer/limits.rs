//! Limits of bytes: what a publish may not go beyond, and what its sender is told.
//!
//! A refusal names the limit, what is used of it and what to do. It says when to try again only where waiting helps: something is
//! being removed, or may be at the next look.

use std::time::Duration;

use broker_proto::{ErrorCode, Micros, RoomId, RoomSettings, StoreSettings, WhenFull};

use super::super::rooms::RoomTable;
use super::super::{Fullness, RoomSlot};
use super::{Sequencer, Why};

/// A room that was short of space is trimmed at once, which takes a moment.
const PLACE_SOON_MS: u32 = 250;
/// What all rooms keep is looked at once a second.
const SPACE_SOON_MS: u32 = 1000;
/// A room is looked at for age this many times within it ...
const LOOKS: u32 = 100;
/// ... but not more often than this ...
const LOOK_MIN: Duration = Duration::from_secs(1);
/// ... and at least once in this time.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// After how long a room that keeps its messages for `age` is looked at again.
pub(crate) fn look_pause(age: Duration) -> Duration {
    (age / LOOKS).clamp(LOOK_MIN, LOOK_MAX)
}

impl Sequencer {
    /// Whether there is any limit of bytes.
    pub(crate) fn is_limited(&self, rooms: &RoomTable) -> bool {
        let settings = &self.settings.settings;
        settings.bytes_max.is_some()
            || settings.room_bytes_max.is_some()
            || !rooms.none_is_limited()
    }

    /// Refuses what would put a room, or the store, over its limit.
    pub(super) fn check_limit(
        &mut self,
        rooms: &RoomTable,
        id: Option<RoomId>,
        bytes: u64,
        now: Micros,
    ) -> Result<(), Why> {
        let used = self.log_bytes;
        if let Some(max) = self.settings.settings.bytes_max
            && used.saturating_add(bytes) > max
        {
            if bytes > max {
                // However much is trimmed for it.
                return Err(Why {
                    code: ErrorCode::QUOTA,
                    detail: format!(
                        "this takes {bytes} bytes and the log of the store may have {max} in all; send less at once, or raise the limit (broker store set --max-bytes)"
                    ),
                    retry_after_ms: 0,
                });
            }
            if self.space_follows && Fullness::of(used, Some(max)) < Fullness::Trimming {
                // Nobody would make space yet.
                self.short.insert(RoomId::NONE, bytes);
            }
            return Err(Why {
                code: ErrorCode::QUOTA,
                detail: format!(
                    "the log of the store has {used} of at most {max} bytes and this takes {bytes} more; trim or remove rooms (broker room trim, broker room rm), or raise the limit (broker store set --max-bytes)"
                ),
                retry_after_ms: if self.space_follows { SPACE_SOON_MS } else { 0 },
            });
        }
        self.check_room_limit(rooms, id, bytes, now)
    }

    fn check_room_limit(
        &mut self,
        rooms: &RoomTable,
        id: Option<RoomId>,
        bytes: u64,
        now: Micros,
    ) -> Result<(), Why> {
        let set = id.and_then(|id| rooms.settings(id));
        let own = set.and_then(|set| set.settings.bytes_max);
        let Some(max) = own.or(self.settings.settings.room_bytes_max) else {
            return Ok(());
        };
        let slot = id.and_then(|id| rooms.get(id));
        let staged = id.and_then(|id| self.staged.get(&id));
        let has = slot.map_or(0, |slot| slot.bytes) + staged.map_or(0, |staged| staged.bytes);
        // What reaches the limit is still within it.
        let would = has.saturating_add(bytes).saturating_sub(1);
        if Fullness::of(would, Some(max)) < Fullness::Full {
            return Ok(());
        }
        let raise = match own {
            Some(_) => "raise its limit (broker room set --max-bytes)",
            None => {
                "raise the limit (broker room set --max-bytes for this one, broker store set --room-max-bytes for all that have none of their own)"
            }
        };
        let why = |detail, retry_after_ms| {
            Err(Why {
                code: ErrorCode::QUOTA,
                detail,
                retry_after_ms,
            })
        };
        if bytes > max {
            let detail = format!(
                "this takes {bytes} bytes and the room may have {max} in all; send less at once, or {raise}"
            );
            return why(detail, 0);
        }
        let settings = set.map(|set| &set.settings);
        let mut retry_after_ms = 0;
        if let Some(id) = id
            && settings.is_some_and(|settings| settings.when_full == WhenFull::Trim)
        {
            self.short.insert(id, bytes);
            retry_after_ms = PLACE_SOON_MS;
        } else if let Some(slot) = slot {
            let store = &self.settings.settings;
            retry_after_ms = look_soon(slot, has, settings, store, now);
        }
        let detail = format!(
            "the room has {has} of at most {max} bytes and this takes {bytes} more; trim it (broker room trim), or {raise}"
        );
        why(detail, retry_after_ms)
    }
}

/// When a look may remove some of a room that is to lose messages anyway, in milliseconds; 0: nothing is due.
fn look_soon(
    slot: &RoomSlot,
    bytes: u64,
    own: Option<&RoomSettings>,
    store: &StoreSettings,
    now: Micros,
) -> u32 {
    let keep = own.map(|own| own.retention).unwrap_or_default();
    let messages = (slot.head.get() + 1).saturating_sub(slot.first.get());
    let has_more =
        messages > keep.count.unwrap_or(u64::MAX) || bytes > keep.bytes.unwrap_or(u64::MAX);
    if has_more {
        return SPACE_SOON_MS;
    }
    // A room that is no older than what it keeps has nothing to lose; of an older one something may expire at every look.
    let lived = u64::try_from(now.since(slot.created)).unwrap_or(0);
    let ages = [keep.age, store.retention.age].into_iter().flatten();
    let due = ages.filter(|age| u128::from(lived) > age.as_micros());
    let pause = due.map(look_pause).min();
    pause.map_or(0, |pause| {
        u32::try_from(pause.as_millis()).unwrap_or(u32::MAX)
    })
}
