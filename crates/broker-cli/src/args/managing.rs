//! `broker rooms`, `room`, `store` and `cursor`: what is kept, how much of it, and where readers stand.

use clap::{Args, Subcommand};

/// `broker rooms`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker rooms --prefix build-            rooms whose name begins so
  broker rooms --label team=red --long    those with a label, with all that is known of them
  broker rooms --json --long | jq -r 'select(.bytes > 1e9) | .room'

A room is one line of four fields with tabs between them: name, first seq that is kept, last seq,
time of the last message; with --long three more: messages, bytes, topic. A JSON line has room,
epoch, first, head and time; with --long what broker room info --json has.")]
pub(crate) struct RoomsArgs {
    /// Only rooms whose name begins so
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,

    /// Only rooms with this label, whatever its value or with this one; several: with all of them
    #[arg(long = "label", value_name = "NAME[=VALUE]")]
    pub(crate) labels: Vec<String>,

    /// Also messages, bytes and topic
    #[arg(short, long)]
    pub(crate) long: bool,

    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker room`.
#[derive(Debug, Subcommand)]
pub(crate) enum RoomCommand {
    /// Print all that is known of a room
    Info(RoomInfoArgs),
    /// Change what is set of a room: how much is kept, a limit, a topic, labels
    Set(Box<RoomSetArgs>),
    /// Remove a room's oldest messages
    Trim(RoomTrimArgs),
    /// Remove a room with all its messages
    Rm(RoomRmArgs),
}

/// `broker room info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker room info lobby
  broker room info lobby --json | jq .bytes

A line has the name of a value and the value; none: not set. The JSON object has room, epoch, first,
head, messages, bytes, time, created, created_by, version, topic, description, labels, keep_age_ms,
keep_bytes, keep_count, max_bytes, when_full and visibility; null: not set, or not known.")]
pub(crate) struct RoomInfoArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much is kept, of a room or of the store.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KeepArgs {
    /// Messages older than this go: 7d, 12h, or none
    #[arg(long, value_name = "TIME")]
    pub(crate) keep_age: Option<String>,

    /// The oldest messages go while all together have more bytes: 1GiB, 500MB, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) keep_bytes: Option<String>,

    /// The oldest messages go while there are more than N, or none
    #[arg(long, value_name = "N")]
    pub(crate) keep_count: Option<String>,

    /// The limit: publishes that would go beyond are refused: 10GiB, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_bytes: Option<String>,

    /// Only if the settings were changed N times so far, as info says (version)
    #[arg(long, value_name = "N")]
    pub(crate) if_version: Option<u64>,
}

/// `broker room set`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker room set lobby --keep-age 30d --keep-count 100000
  broker room set metrics --max-bytes 1GiB --when-full trim
  broker room set lobby --topic 'who comes and goes' --label team=red --no-label urgent
  broker room set lobby --keep-age none --topic ''       and back again

What is not named stays as it was. What a change does away with is gone soon after, for good. Of
several limits each one counts.")]
pub(crate) struct RoomSetArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// What it is about, in a line; empty: nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) topic: Option<String>,

    /// What it is about, at length; empty: nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// A label to set
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,

    /// A label to remove
    #[arg(long = "no-label", value_name = "NAME")]
    pub(crate) no_labels: Vec<String>,

    #[command(flatten)]
    pub(crate) keep: KeepArgs,

    /// Near the limit, refuse publishes, or trim the oldest messages first
    #[arg(long, value_name = "WHAT", value_parser = ["refuse", "trim"])]
    pub(crate) when_full: Option<String>,

    /// Who may know of the room; kept, without effect yet
    #[arg(long, value_name = "WHO", value_parser = ["public", "private"])]
    pub(crate) visibility: Option<String>,

    /// Print how the room is then, as broker room info --json
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker room trim`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker room trim lobby --before 5000    seq 5000 is the oldest that stays
  broker room trim lobby --before @30d    what is older than thirty days
  broker room trim lobby --before -100    all but the last 100

What is removed is gone for good, for every reader at once; the space follows. Seqs go on as if the
messages were there.")]
pub(crate) struct RoomTrimArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// The oldest message that stays: SEQ, @TIME (RFC 3339, seconds since 1970, or an age: @90s, @2h,
    /// @1d), -N (the last N stay), end (none stays)
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub(crate) before: String,

    /// Print how the room is then, as broker room info --json
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker room rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker room rm lobby          asks for the room's name first
  broker room rm lobby --yes    for scripts

The room's messages, cursors and settings are gone for good. A new message makes it again, from
seq 1 and with another epoch.")]
pub(crate) struct RoomRmArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,

    /// Print how the room was, as broker room info --json
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker store`.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Print what is set of the whole store, and how full it is
    Info(StoreInfoArgs),
    /// Change what is set of the whole store: how much is kept, limits
    Set(StoreSetArgs),
}

/// `broker store info`.
#[derive(Debug, Args)]
#[command(after_help = "\
A line has the name of a value and the value; none: not set. The JSON object has store, rooms,
log_bytes, fullness (fine, warning, trimming or full), version, keep_age_ms, keep_bytes, keep_count,
max_bytes, room_max_bytes and cursor_idle_ms; null: not set.")]
pub(crate) struct StoreInfoArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker store set`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker store set --max-bytes 50GiB                   the whole log
  broker store set --keep-age 90d --room-max-bytes 1GiB
  broker store set --cursor-idle 60d                   cursors that do not move are forgotten

What is not named stays as it was. What is kept is counted over all rooms: the oldest messages go
first, whatever room they are in. A room may keep less (broker room set), not more.
--max-bytes counts the log itself; files may take up to three segments more (the rest of the newest,
the next one, one that is written anew), each a 16th of the limit but 8MiB at least and 64MiB at most.")]
pub(crate) struct StoreSetArgs {
    #[command(flatten)]
    pub(crate) keep: KeepArgs,

    /// The limit of each room that has none of its own: 1GiB, or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) room_max_bytes: Option<String>,

    /// A cursor that does not move for so long is forgotten: 60d, or none
    #[arg(long, value_name = "TIME")]
    pub(crate) cursor_idle: Option<String>,

    /// Print what is set then, as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker cursor`.
#[derive(Debug, Subcommand)]
pub(crate) enum CursorCommand {
    /// List a room's cursors
    #[command(after_help = "\
A cursor is one line of five fields with tabs between them: name, the next seq wanted, how many
messages it is behind, epoch, when it was moved. A JSON line has room, cursor, epoch, seq, behind and
moved; behind is null, and a - in the line, when it stands in a history that the room has no more.")]
    List(CursorListArgs),
    /// Print where a cursor stands: the next seq wanted
    Get(CursorGetArgs),
    /// Move a cursor, or make it
    Set(CursorSetArgs),
    /// Remove a cursor
    Rm(CursorRmArgs),
}

/// `broker cursor list`.
#[derive(Debug, Args)]
pub(crate) struct CursorListArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker cursor get`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker read jobs --from $(broker cursor get jobs worker)

The line has the seq alone, the JSON object room, cursor, epoch and seq. Without such a cursor the
command ends with exit code 1.")]
pub(crate) struct CursorGetArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// The cursor
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker cursor set`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker cursor set jobs worker 43                  42 is dealt with
  broker cursor set jobs worker 43 --if-at 42       unless somebody else has moved it
  broker cursor set jobs worker start --if-at none  unless there is one already
  broker cursor set jobs worker @2h                 the first message of the last two hours
  broker cursor set jobs worker 44 --relaxed        moved often: 43 again is no harm

When the cursor is elsewhere than --if-at says, nothing changes and the exit code is 4. The command
ends when the move is on stable storage; with --relaxed before. Such a move is seen by everybody at
once and stored within a second, many of them together (cursors.interval_ms of broker status --json
says when that takes longer); if the leader is killed or the power fails before, the moves of that last
second are lost, and the cursor stands where it stood.")]
pub(crate) struct CursorSetArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// The cursor
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The next message wanted: SEQ, start, end, -N (the last N), @TIME (as for broker read --from)
    #[arg(value_name = "WHERE", allow_hyphen_values = true)]
    pub(crate) to: String,

    /// Only if it stands at this seq now; none: only if there is none
    #[arg(long, value_name = "SEQ|none")]
    pub(crate) if_at: Option<String>,

    /// Do not wait for the disk: a leader that is killed may lose the moves of its last second
    #[arg(long, conflicts_with = "if_at")]
    pub(crate) relaxed: bool,

    /// Print {"room","cursor","epoch","seq"}
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker cursor rm`.
#[derive(Debug, Args)]
pub(crate) struct CursorRmArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// The cursor
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Only if it stands at this seq now
    #[arg(long, value_name = "SEQ|none")]
    pub(crate) if_at: Option<String>,
}
