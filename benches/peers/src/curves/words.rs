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
             answer anything. 16 MiB are published until their sockets and windows are full and the server is quiet. Then one publisher with 256 \
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

/// Why a curve is not flat where it is not.
pub(super) const fn bends(curve: Curve) -> &'static str {
    match curve {
        Curve::History => "BENDS",
        Curve::Rooms => "BENDS",
        Curve::Subscribers => "BENDS",
        Curve::SlowReaders => "BENDS",
        Curve::Idle => "BENDS",
    }
}
