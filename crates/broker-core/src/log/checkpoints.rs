//! Which checkpoints a log names, beside the newest one.

use std::io;

use super::position::LogPosition;
use super::scan::{head_at, next_head};
use super::segment::SegmentHeader;
use super::storage::Storage;
use super::window::Window;

/// Most of what is looked at lies at the very beginning.
const READ_AHEAD: usize = 64 << 10;

/// Where the complete checkpoint begins that came before the one that begins at `newest`: what was written while that one
/// was under way still names it. `segments` are all of the log, with where each ends.
///
/// # Errors
/// Those of the disk.
pub(super) fn older_checkpoint<S: Storage>(
    storage: &S,
    segments: &[(SegmentHeader, LogPosition)],
    newest: LogPosition,
) -> io::Result<Option<LogPosition>> {
    for (header, end) in segments.iter().filter(|(_, end)| *end > newest) {
        let file = storage.open_read(&header.name.file())?;
        let mut window = Window::new(file, header.clone(), READ_AHEAD);
        let at = header.base.max(newest);
        let head = match head_at(&mut window, at)? {
            Some(head) => Some(head),
            None => next_head(&mut window, at, *end)?,
        };
        if let Some(head) = head {
            // Otherwise there was none before, or the newest one is named from here on.
            return Ok(Some(head.checkpoint).filter(|older| *older < newest));
        }
    }
    Ok(None)
}
