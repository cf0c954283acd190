//! What the command line says: the shape of every command, its help, and nothing else.
//!
//! Values stay as they were typed; `config` gives them their meaning, so that a flag and its
//! environment variable are judged by the same code and with the same words.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use managing::{
    CursorCommand, CursorGetArgs, CursorListArgs, CursorRmArgs, CursorSetArgs, KeepArgs,
    RoomCommand, RoomRmArgs, RoomSetArgs, RoomTrimArgs, RoomsArgs, StoreCommand, StoreSetArgs,
};

mod managing;

/// How the process can end, for `--help`; `exit` holds the numbers.
const EXIT_CODES: &str = "\
Exit codes:
  0  done (a closed pipe counts as done)
  1  the room, position or cursor that was asked for is not there
  2  wrong usage: an argument, a name, an address, a setting
  3  cannot connect, or the store cannot be opened
  4  refused: too large, no space, a limit, not allowed, changed by somebody else meanwhile
  5  timed out
  6  protocol or server error, input or output that fails; bench and demo: a message was lost,
     doubled or reordered; admin verify: the store is damaged
  130, 143  ended by SIGINT, SIGTERM";

const EXAMPLES: &str = "\
Examples:
  broker send lobby 'hello'              store a message; returns when it is on disk
  broker read lobby -f                   the last 10 messages, then new ones as they come
  make 2>&1 | broker send build --lines  one message a line
  broker read build --raw > build.log    and the same bytes back
  broker demo; broker demo --takeover    see it work; see leaders killed, and nothing lost

No daemon is needed: when nobody serves the store, the command does so itself while it runs.";

/// Rooms that keep every message: send, read, follow.
#[derive(Debug, Parser)]
#[command(
    name = "broker",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Connect to this broker and to nothing else: tcp://HOST:PORT or unix:/PATH
    #[arg(
        short,
        long,
        global = true,
        value_name = "URL",
        env = "BROKER_URL",
        hide_env_values = true
    )]
    pub(crate) server: Option<String>,

    /// The store's directory [default: $XDG_DATA_HOME/broker]
    #[arg(
        short,
        long,
        global = true,
        value_name = "DIR",
        env = "BROKER_DATA",
        hide_env_values = true
    )]
    pub(crate) data: Option<OsString>,

    /// Where to accept others while this command serves the store: ADDR:PORT, or none
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "BROKER_LISTEN",
        hide_env_values = true
    )]
    pub(crate) listen: Option<String>,

    /// Whom the messages are from [default: the login name]
    #[arg(
        long = "as",
        global = true,
        value_name = "NAME",
        env = "BROKER_NAME",
        hide_env_values = true
    )]
    pub(crate) sender: Option<String>,

    /// Give up after this long without progress: 10s, 250ms, 2m [default: 10s]
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        env = "BROKER_TIMEOUT",
        hide_env_values = true
    )]
    pub(crate) timeout: Option<String>,

    /// Say more on standard error; twice: log details (BROKER_LOG sets the log's filter exactly)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store a message in a room; returns when it is on disk
    Send(SendArgs),
    /// Print a room's messages, or follow it
    Read(ReadArgs),
    /// List the rooms
    Rooms(RoomsArgs),
    /// Look at one room, set how much of it is kept, trim it, remove it
    #[command(subcommand)]
    Room(RoomCommand),
    /// Look at and move the named positions of readers
    #[command(subcommand)]
    Cursor(CursorCommand),
    /// Look at and set how much the whole store keeps
    #[command(subcommand)]
    Store(StoreCommand),
    /// Show who serves the store, where, and how it does
    #[command(after_help = "\
A line has the name of a value and the value. The names are those of the JSON object; more may be
added, none change. Messages and batches count what was stored since this leader began.")]
    Status(StatusArgs),
    /// Measure, and verify that nothing is lost, doubled or reordered
    Bench(BenchArgs),
    /// Show it work: a follower in a second process, a few messages, where they lie
    Demo(DemoArgs),
    /// Look after a store's files: check them, list what is in them
    #[command(subcommand)]
    Admin(AdminCommand),
}

/// `broker admin`.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Read every byte of a store's log, and check it
    Verify(VerifyArgs),
    /// The log, piece by piece
    #[command(subcommand)]
    Log(LogCommand),
}

/// `broker admin log`.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print a line for each batch and record of a log
    Dump(DumpArgs),
}

/// `broker admin verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker admin verify                    the default store, also while it is served
  broker admin verify /mnt/backup/store  a copy

Nothing is changed, no lock is taken. While the store is served, what is durable when the command
begins is checked. What lies behind that is a tail: a write that was cut short, or is under way. It
was never acknowledged and is no damage.
A line has the class of a finding (damaged, tail, newer, misplaced, footer), what it is, the file and
the byte in it, the part of the log, and room and seq if known. A footer only helps to find things and
is made again. A JSON line has finding, part, file, offset, from, upto, room, room_number, first_seq,
last_seq and detail; the last line is the summary.

Exit codes: 0 no damage; 6 damage; 3 no store there, or one that this version does not open.")]
pub(crate) struct VerifyArgs {
    /// The store's directory [default: as for every command]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker admin log dump`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker admin log dump | less
  broker admin log dump ~/.local/share/broker/0000000000000001-0000.seg --payload
  broker admin log dump --json | jq -c 'select(.what == \"message\")'

Nothing is changed, no lock is taken. A line has fields with tabs between them: position in the log,
what it is, room, seq, time, length in bytes, checksums (ok, bad_head, bad_table, bad_record,
bad_payload), and what the record says. Segments and findings, such as damage, have lines of their own.
A kind of record that this version does not know is printed as kind_NUMBER.
Payloads are escaped as by broker read: \\n, \\x1b, \\xff, a backslash as \\\\.")]
pub(crate) struct DumpArgs {
    /// A segment file, or a store's directory [default: as for every command]
    #[arg(value_name = "SEGMENT|DIR")]
    pub(crate) path: Option<PathBuf>,

    /// Print payloads too
    #[arg(long)]
    pub(crate) payload: bool,

    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker send`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker send lobby 'hello'
  echo hello | broker send lobby -            all of standard input is one message
  tail -F app.log | broker send app --lines   one message a line, as the lines come
  broker send jobs --id build-17 'done'       can be repeated: it is stored once

Lines keep everything but their newline: empty ones are messages, a carriage return stays, and a
last line without newline counts. Input of any size needs little memory. When standard output
closes early (send --lines --json | head), sending goes on.")]
pub(crate) struct SendArgs {
    /// The room; its first message makes it
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// The message; absent or -: all of standard input (write -- before a text that begins with -)
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<OsString>,

    /// Send each line of standard input as a message of its own, pipelined
    #[arg(short, long)]
    pub(crate) lines: bool,

    /// Makes a retry safe: the same sender, room and KEY are stored once (with --lines: KEY and line number)
    #[arg(long, value_name = "KEY")]
    pub(crate) id: Option<String>,

    /// Print {"room","epoch","seq","level"} a line, as messages become durable
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker read`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker read lobby                        everything so far
  broker read lobby -f                     the last 10, then new ones as they come
  broker read lobby --from 42 -n 5         five messages from seq 42
  broker read lobby --from @2h             since two hours ago
  broker read lobby --from @2026-11-20T09:30:00Z --json | jq -r .text
  broker read lobby --raw > copy           payloads, byte for byte, a newline after each

Output on a terminal is for people. Into a pipe a message is one line of four fields with tabs
between them: seq, time (RFC 3339, UTC), sender, text. In the text \\ is written \\\\, control and
direction characters as \\n, \\t, \\x1b, \\u{202e}, bytes that are not UTF-8 as \\xff.
A JSON line has room, epoch, seq, time, sender and text, or data (base64) when it is not UTF-8.
Messages that are gone are told on standard error, and with --json as
{\"skip\":{\"room\",\"epoch\",\"from\",\"to\",\"reason\"}}.")]
pub(crate) struct ReadArgs {
    /// The room
    #[arg(value_name = "ROOM")]
    pub(crate) room: String,

    /// Where to begin: start, end, SEQ, -N (the last N), @TIME (RFC 3339, UTC unless it says
    /// otherwise; seconds since 1970; or an age: @90s, @2h, @1d) [default: start; with -f: -10]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,

    /// Stop after N messages
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// Go on with new messages as they come; a room that does not exist is waited for
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Print payloads only, unchanged, a newline after each
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `broker demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker demo               two processes and a room, step by step
  broker demo --takeover    five agents share a room; their leader is killed ten times

With --takeover each agent sends numbered messages and follows the room, and whoever leads is killed
with SIGKILL, again and again. A line of the table has who was killed, who leads then, and the time
from the kill to the first acknowledgement that any agent got, and until every agent had one. At the
end the room is read from the disk. A message that was acknowledged and is lost, doubled or out of
order, or an agent that saw another history, ends the command with exit code 6.
It takes about 20 seconds, and a store of its own in TMPDIR or /tmp, which is removed.")]
pub(crate) struct DemoArgs {
    /// Kill the leader again and again, and show that nothing is lost
    #[arg(long)]
    pub(crate) takeover: bool,

    /// How often the leader is killed [default: 10]
    #[arg(long, value_name = "N", requires = "takeover")]
    pub(crate) kills: Option<u32>,

    /// Between two kills [default: 1500ms]
    #[arg(long, value_name = "TIME", requires = "takeover")]
    pub(crate) every: Option<String>,

    /// Messages a second that each agent sends; with few, a pause includes the wait for the next one
    /// [default: 400]
    #[arg(long, value_name = "N", requires = "takeover")]
    pub(crate) rate: Option<u32>,

    /// Print one JSON object a take-over, and one at the end
    #[arg(long, requires = "takeover")]
    pub(crate) json: bool,

    /// Be the agent with this number; for the demo itself
    #[arg(long, value_name = "NUMBER", requires = "takeover", hide = true)]
    pub(crate) agent: Option<u32>,
}

/// `broker bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  broker bench pub --pubs 64 --window 16 --size 128
  broker bench fanout --subs 100 --rate 1000 --hdr fanout.hgrm
  broker bench replay --count 1000000 --size 1KiB --cold
  broker --server tcp://127.0.0.1:9876 bench rtt --duration 5s --json

Without --server and --data it measures a broker of its own in a directory that is removed
afterwards (it lies beside the default store, so that the same disk is measured). On a store of
yours it leaves rooms named bench-RUN-NUMBER behind.
Every message carries its publisher and a counter; readers check them, and a message lost, doubled
or out of order ends the command with exit code 6.

Without --rate messages are sent as fast as the window allows, and a latency begins when its message
is sent. With --rate the time of every message is fixed beforehand and its latency begins then, so
that a stall counts against every message that was due in it. All that are due are sent, if late.
Beside the figures stand what they depend on: settings, versions, the machine and its load, the CPU
time of client and server, and how long the disk takes for 4 KiB, measured just before.")]
pub(crate) struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub(crate) what: BenchCommand,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Publishing: messages a second, and the time from send to durable
    Pub(BenchOptions),
    /// Live delivery, many to many: publishers and subscribers of all rooms; the window counts what is
    /// not acknowledged, so that subscribers may fall behind
    Sub(BenchOptions),
    /// Live delivery, one to many: one publisher and the subscribers of one room; without --rate the
    /// window counts what a subscriber has not got yet, so that all of it is live
    Fanout(BenchOptions),
    /// Reading history: messages are stored, then read from the start
    Replay(BenchOptions),
    /// One message at a time: from send to durable, and from send to receipt
    Rtt(BenchOptions),
    /// Many rooms: making them with one message each, and listing them
    Rooms(BenchOptions),
}

/// The load.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BenchOptions {
    /// Bytes of a message, at least 32 (128, 1KiB, 64KiB) [default: 128]
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<String>,

    /// How many rooms [default: 1; bench rooms: 10000; bench fanout and rtt: always 1]
    #[arg(long, value_name = "N")]
    pub(crate) rooms: Option<u32>,

    /// How many publishers, each on a connection of its own [default: 1; bench fanout, replay and rtt:
    /// always 1]
    #[arg(long, value_name = "N")]
    pub(crate) pubs: Option<u32>,

    /// bench sub, fanout and replay: how many subscribers, each on a connection of its own and
    /// following every room [default: 1; bench fanout: 100]
    #[arg(long, value_name = "N")]
    pub(crate) subs: Option<u32>,

    /// How many messages a publisher has in flight [default: 64; with --rate: 4096; bench fanout: 512;
    /// bench replay: 2048; bench rtt: always 1]
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<u32>,

    /// How many messages a call sends [default: 1; bench replay: 256; bench rtt and rooms: always 1]
    #[arg(long, value_name = "N")]
    pub(crate) bulk: Option<u32>,

    /// Send this many messages a second, all publishers together, at times that are fixed beforehand;
    /// not bench replay and rooms
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u32>,

    /// Stop after this many messages, all publishers together [bench replay: default 1000000; bench
    /// rooms: always one a room]
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub(crate) count: Option<u64>,

    /// Stop after this long [default: 3s; not bench replay and rooms]
    #[arg(long, value_name = "TIME")]
    pub(crate) duration: Option<String>,

    /// bench replay: drop the log from the page cache first; without it, it is read once before
    #[arg(long)]
    pub(crate) cold: bool,

    /// Write the latencies, in milliseconds, as an HdrHistogram percentile distribution; when there
    /// are two, to x.publish.hgrm and x.deliver.hgrm for x.hgrm (bench rtt: ack and deliver)
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,

    /// Print one JSON object, and no progress
    #[arg(long)]
    pub(crate) json: bool,
}
