//! How it was measured: machine, configurations, what an acknowledgement means.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::Data;
use super::numbers::{count, latency, spread};
use crate::gauge::limits::Limits;
use crate::gauge::machine::Machine;
use crate::peer::Peer;
use crate::results::Session;
use crate::stats::{Quantiles, Spread, float};

/// What the bare machine did, in a line.
pub(crate) fn limits_line(limits: &Limits) -> String {
    let pair = |quantiles: &Quantiles| {
        format!(
            "p50 {}, p99 {}",
            latency(quantiles.p50),
            latency(quantiles.p99)
        )
    };
    format!(
        "bare write+sync of 4 KiB {}; bare round trip {}",
        pair(&limits.write_sync),
        pair(&limits.round_trip)
    )
}

/// A machine, in a line.
pub(crate) fn machine_line(machine: &Machine) -> String {
    format!(
        "Machine: {}, {} threads, {:.0} GiB memory, {}, Linux {}; data on {}. Client and server share it.",
        machine.processor,
        machine.cores,
        float(machine.memory) / f64::from(1 << 30),
        machine.system,
        machine.kernel,
        machine.disk,
    )
}

/// Title, machine and its limits.
pub(super) fn introduction(page: &mut String, data: &Data) -> Result<()> {
    writeln!(
        page,
        "# Benchmarks: the broker beside its peers\n\n\
         One load generator, the same work, one machine, in turns; written by `broker-peers` ([how to run it](../benches/peers/README.md)). \
         Figures of other machines differ; ratios say more, and even they are of this machine. What ours loses is here too. \
         How our costs grow with history, rooms and readers is in [growth.md](growth.md).\n"
    )?;
    let mut machines: Vec<_> = Vec::new();
    for session in &data.sessions {
        if !machines.contains(&&session.machine) {
            machines.push(&session.machine);
        }
    }
    for machine in machines {
        writeln!(page, "- {}", machine_line(machine))?;
    }
    let of = |value: fn(&Limits) -> f64| spread(Spread::of(data.limits.iter().map(value)), latency);
    let direct = match data.limits.iter().all(|limits| limits.direct) {
        true => "past the page cache",
        false => "through the page cache",
    };
    writeln!(
        page,
        "- The disk, bare: writing 4 KiB over old bytes {direct} and `fdatasync`: p50 {}, p99 {}.\n\
         - The loopback, bare: 128 B there and back between two blocking threads: p50 {}, p99 {}.\n\
         - The floor for one synced message at a time is the sum of both.\n",
        of(|l| l.write_sync.p50),
        of(|l| l.write_sync.p99),
        of(|l| l.round_trip.p50),
        of(|l| l.round_trip.p99),
    )?;
    Ok(())
}

/// What the columns mean.
pub(super) fn legend(page: &mut String) -> Result<()> {
    writeln!(
        page,
        "Median [least-most] of the rounds, other columns medians. MB are 10^6 payload bytes. *synced*: whether an \
         acknowledged message survives a power cut: yes, later (written, synced after a while), no (nothing is stored). p50, p99, \
         p99.9: from sending to acknowledgement when publishing, from sending to receipt live, at a fixed rate from when the message \
         was due. *cpu*: processor time for one message or delivery. *RSS*: the most memory of the server. *flushes*: of the disk for one message, \
         whoever asked for them. *ours / it*: how many times as good `ours` is, in rate or, with one message in flight and at a fixed \
         rate, in p50; by pairs of one round.\n"
    )?;
    Ok(())
}

/// Configurations and procedure.
pub(super) fn method(page: &mut String, data: &Data) -> Result<()> {
    writeln!(page, "## Peers\n")?;
    writeln!(
        page,
        "| peer | version | configuration and use | what an acknowledgement means |\n|---|---|---|---|"
    )?;
    let mut versions: BTreeMap<Peer, &str> = BTreeMap::new();
    for session in &data.sessions {
        versions.extend(session.versions.iter().map(|(peer, v)| (*peer, v.as_str())));
    }
    let measured = data.cells();
    for peer in Peer::ALL {
        if !measured.iter().any(|(_, peers)| peers.contains(&peer)) {
            continue;
        }
        let version = versions.get(&peer).copied().unwrap_or("not installed");
        writeln!(
            page,
            "| {peer} | {version} | {} | {} |",
            peer.configuration(),
            peer.promise()
        )?;
    }
    writeln!(page, "\n{METHOD}")?;
    writeln!(page, "## Runs\n")?;
    for session in &data.sessions {
        writeln!(page, "- {}", session_line(data, session))?;
    }
    Ok(())
}

fn session_line(data: &Data, session: &Session) -> String {
    let runs = data
        .runs
        .iter()
        .filter(|run| run.session == session.session);
    let rounds = runs.clone().map(|run| run.round).max().unwrap_or(0);
    format!(
        "{} measurements, {rounds} rounds, {} s each after a quarter of that to warm up; load generator with {} threads; replay of \
         {} messages.",
        runs.count(),
        session.seconds,
        session.client_threads,
        count(float(session.replay_count)),
    )
}

const METHOD: &str = "\
## Method

- Every measurement has a server of its own with an empty directory of its own on the same disk, on loopback, TCP with
  `TCP_NODELAY`. The peers take turns within each piece of work, in another order each round.
- The peers are driven by codecs of their wire protocols on bare sockets, the least that a client can cost: one task for each
  connection, which reads up to 64 KiB at once, takes all of it apart and writes once. Ours is driven through its public client, which also keeps
  what is unacknowledged to send it again, and checks a checksum of every message. Both run on the same runtime (tokio) with the same threads: one for work with one
  connection, else as many as said below. No client is pinned, none polls.
- Publishing: each publisher has a connection and a room of its own and keeps its window full. Afterwards the acknowledgements are
  counted against what the server says it has stored.
- Live delivery as fast as it goes: at most 32 MiB and 8 to 4,096 messages are in flight to the slowest subscriber, sent in quarters of
  that, each in one write or one call of `Room::send_all`; latency is that of every 16th message. Ours delivers stored messages, the others pass on without storing. At a fixed rate the publisher sends by a clock of its own, whatever comes back, and latency counts from when a
  message was due. Every subscriber checks the number of every message: nothing lost, doubled or out of order.
- Replay: the room is filled by 16 publishers, read once, then measured. JetStream: a pull consumer without acknowledgements, requests of
  2,000 messages, two under way. Redis: `XRANGE` in pages of 1,000. Ours: a subscription.
- What a flush of this disk really costs is the disk's business; a disk without a battery takes ten times as long, which favours whoever needs fewer flushes.
";
