//! What the page says beside its figures.

use super::curve::Curve;

/// The head of the page.
pub(super) const INTRODUCTION: &str = "\
# How costs grow

What a message costs as there is more of everything: history, rooms, subscribers, readers that have stopped, connections that
are silent. Written by `broker-peers curves` ([how to run it](../benches/peers/README.md)); beside other brokers it is in
[benchmarks.md](benchmarks.md).

Every point has a server of its own with an empty directory, on loopback, and every message is synced before it is acknowledged or
delivered. Load generator and server share the machine. Rates are of two seconds after half a second to warm up unless *Runs* says
otherwise; *64x16* is 64 publishers with 16 messages in flight each; *server cpu* is processor time of the server for one message
or delivery; times are medians unless they say p99. With several rounds: median [least-most]. *last : first* is how many times the
last row costs what the first one does, in time, memory or processor time (of a rate: how many times less it is); it stands where
a cost has to stay the same, and up to 1.3 counts as the same. Where it is told *from* a point on, what lies before is a cache or a
file that is not full yet.
";

/// What grows, as the head of a column.
pub(super) const fn thing(curve: Curve) -> &'static str {
    match curve {
        Curve::History => "messages stored",
        Curve::Rooms => "rooms",
        Curve::Subscribers => "subscribers",
        Curve::SlowReaders => "stalled of 1,000",
        Curve::Idle => "idle connections",
    }
}

/// The heading of a curve.
pub(super) const fn title(curve: Curve) -> &'static str {
    match curve {
        Curve::History => "History",
        Curve::Rooms => "Rooms",
        Curve::Subscribers => "Subscribers",
        Curve::SlowReaders => "Slow readers",
        Curve::Idle => "Idle connections",
    }
}

/// How a curve was measured.
pub(super) const fn method(curve: Curve) -> &'static str {
    match curve {
        Curve::History => {
            "Messages of 128 B in one room. In this order: filled; 10 messages read a hundred times, the newest ones and from \
             changing places in the middle half; the server killed and started, then asked to end and started (time from the \
             start of the process to the first acknowledgement); published into the same room, which adds a million or two."
        }
        Curve::Rooms => {
            "Rooms with one message of 128 B each. In this order: filled; killed and started, asked to end and started (time to the first \
             acknowledgement); then 64 publishers, and one with one message in flight, go round all rooms in an order without a pattern."
        }
        Curve::Subscribers => {
            "Subscribers of one room, each with a client and a connection of its own, and one publisher of 128 B: as fast as \
             the slowest subscriber follows, with 32 MiB in flight to all of them; then, on a new server, at a fixed rate of 20,000 \
             deliveries a second, but 1 to 100 messages. Latency counts from when a message was due to each receipt."
        }
        Curve::SlowReaders => {
            "A room of 1 KiB messages with a thousand subscribers, of whom some greet, subscribe and then neither read their socket nor \
             answer anything. 16 MiB are published: half of them have a small socket, which fills up and blocks what the server writes, with the others the window of 1 MiB is used up and lies in the \
             buffers of the system. Then one publisher with 256 \
             in flight, the stalled ones being the only readers: beside a thousand who follow it would be these who are measured. Then \
             delivery at a fixed rate: to one reader at 100 messages a second, and to all who are not stalled at 20,000 \
             deliveries a second."
        }
        Curve::Idle => {
            "Connections of the public client that follow a room in which nothing is said. *cpu, idle* is over 16 s, within which both \
             sides ask once whether the other is there. Then one publisher with one in flight, and 64x16."
        }
    }
}

/// What bends and why; where it lies in the code.
pub(super) const fn bends(curve: Curve) -> &'static str {
    match curve {
        Curve::History => HISTORY,
        Curve::Rooms => ROOMS,
        Curve::Subscribers => SUBSCRIBERS,
        Curve::SlowReaders => SLOW_READERS,
        Curve::Idle => IDLE,
    }
}

const HISTORY: &str = "\
What bends, and where it ends:

- *Reading.* The newest batches are kept in memory for who follows along; after 64 MiB of log that nobody has followed none are kept
  (`Engine::somebody_follows`), and the first reader reads from the disk. Reading from the disk costs the table of the batch
  that the message lies in, whatever was stored before; the room is filled in batches of thousands of messages, whose tables are long.
- *RSS, filled* rises until the caches are full: 8 MiB of newest batches, a write buffer of the largest batch.
- *Start after SIGKILL* reads the log behind the last checkpoint, of which one is due every 64 MiB, and copies what no mark vouches for
  into a new segment: between nothing and a few hundred thousand small messages, depending on when it was killed, and no more
  with more history.";

const ROOMS: &str = "\
What bends, and where it ends:

- *Publishing, 1 to 1,000 rooms.* Messages for one room that are sent together share a frame, a row of the batch's
  table and a record of their numbers. Beyond 16 rooms for each of the 64 publishers all 16 messages in flight are for different rooms, so that
  every message has these for itself: it stays so from there on, which is why it is compared from 1,000 rooms on.
- *Beyond that*, shares of a profile from 1,000 to 100,000 rooms: looking a room up by a name that is no longer in the processor's cache
  (`RoomTable::find`) 2 to 6 %, footers with a row for each room (`SegmentIndex::encode`) up to 2 %, and what the housekeeping copies for them.
  The rest is not explained; it is work for many rooms with little traffic each.
- *RSS* is that of the rooms' table: a slot, its name, the index by name; tables double, so that *a room* depends on how full they are. Filled, the
  newest batches and the index of the active segment are there as well.
- *Start* reads the log behind the last checkpoint, 64 MiB at most: a room that is new brings three records. Up to that it grows with the rooms;
  what lies in the checkpoint beyond that is one record for each room.";

const SUBSCRIBERS: &str = "\
What bends, and why it has to:

- *As fast as they follow*, a batch is delivered to each subscriber with one write. What is in flight to all of them together is bounded, so each
  write carries fewer messages as there are more subscribers, hundreds of them or a handful; the cost of one delivery is lowest in between.
- *Paced*, each delivery is a write of its own to a socket of its own, and a wake-up of its reader on the same machine. What one message costs is divided
  among few below a hundred. The p50 is that of the middle one of so many writes, half of which come before it: it grows with the
  subscribers as it has to where there is one network thread.";

const SLOW_READERS: &str = "\
A stalled reader costs what its connection costs, and what lay in its outbox when its socket was full: at most one turn of 60 KiB, which is copied so that
no batch is kept for it. The kernel keeps 128 KiB for it at most beside what the reader's own buffer takes. It is not woken for what is published (`Subscriptions::settle` watches only for those that have caught up). *To the
others* gets less as there are fewer of them.";

const IDLE: &str = "\
An idle connection costs a task, a session, and the messages about whether the other side is there. It is looked at when bytes come or its timer fires, never because
of others.";
