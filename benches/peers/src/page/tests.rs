//! The page of results that were made up.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::gauge::machine::Machine;
use crate::stats::Quantiles;

const QUANTILES: Quantiles = Quantiles {
    p50: 150.0,
    p99: 300.0,
    p999: 1000.0,
};

fn session() -> Line {
    Line::Session(Session {
        session: 1,
        machine: Machine {
            processor: "Abacus".to_owned(),
            cores: 2,
            memory: 24 << 30,
            kernel: "6.1".to_owned(),
            system: "Debian".to_owned(),
            disk: "ext4 on vda".to_owned(),
        },
        seconds: 2.0,
        client_threads: 2,
        replay_count: 1000,
        versions: vec![(Peer::Ours, "brokerd 9".to_owned())],
    })
}

fn run(cell: &str, peer: Peer, round: u32, result: RunResult) -> Line {
    Line::Run(Run {
        session: 1,
        round,
        cell: cell.to_owned(),
        peer,
        result,
    })
}

fn rate(per_second: f64, p50: f64) -> RunResult {
    RunResult::Measured(Figures {
        count: 10,
        seconds: 2.0,
        per_second,
        mb_per_second: per_second * 128.0 / 1e6,
        latency_us: Some(Quantiles { p50, ..QUANTILES }),
        server_cpu_us: 1.5,
        client_cpu_us: 2.5,
        server_rss: Some(10 << 20),
        flushes: None,
        verified: "10 acknowledged = 10 stored".to_owned(),
    })
}

#[test]
fn what_is_won_lost_skipped_and_failed_is_on_the_page() {
    let (many, one) = ("publish-64x16-128", "publish-1x1-128");
    let mut lines = vec![
        session(),
        Line::Limits {
            session: 1,
            round: 1,
            limits: Limits {
                write_sync: QUANTILES,
                direct: true,
                round_trip: QUANTILES,
            },
        },
    ];
    for (round, pace) in [(1, 1.0), (2, 0.5), (3, 1.1)] {
        lines.push(run(many, Peer::Ours, round, rate(900_000.0 * pace, 900.0)));
        lines.push(run(
            many,
            Peer::RedisSync,
            round,
            rate(300_000.0 * pace, 900.0),
        ));
        lines.push(run(
            many,
            Peer::Redis,
            round,
            rate(1_200_000.0 * pace, 900.0),
        ));
        lines.push(run(one, Peer::Ours, round, rate(6000.0, 160.0 * pace)));
        lines.push(run(one, Peer::RedisSync, round, rate(5000.0, 200.0 * pace)));
    }
    lines.push(run(
        many,
        Peer::Iggy,
        1,
        RunResult::Skipped("no".to_owned()),
    ));
    let lost = RunResult::Failed("9 of 10 came".to_owned());
    lines.push(run(many, Peer::Nats, 1, lost));
    let page = page(lines).unwrap();
    for words in [
        "| Publish 128 B, 64 publishers with 16 in flight each | 900 k [450 k-990 k] | redis-sync 300 k | 3.00 x [3.00 x-3.00 x] \
         | redis 1.20 M | 0.75 x [0.75 x-0.75 x] |",
        "| Publish 128 B, one publisher, one message in flight | 160 us [80.0 us-176 us], p99 300 us | redis-sync 200 us, p99 300 us | 1.25 x [1.25 x-1.25 x] | - | - |",
        "| redis-sync | yes | 300 k [150 k-330 k] | 38.4 | 900 us | 300 us | 1.00 ms | 1.50 us | 2.50 us | 10 MiB | - | 3.00 x [3.00 x-3.00 x] |",
        "| iggy | | SKIPPED(iggy): no |",
        "| nats | | failed: 9 of 10 came |",
        "- failed: nats, round 1: 9 of 10 came",
        "redis 10 acknowledged = 10 stored",
        "Machine: Abacus, 2 threads, 24 GiB",
        "p50 150 us, p99 300 us",
        "| ours | brokerd 9 |",
    ] {
        assert!(page.contains(words), "{words}\nis missing in\n{page}");
    }
    assert!(
        !page.contains("mosquitto |"),
        "who did nothing is not there"
    );
}

#[test]
fn there_is_no_page_of_nothing() {
    assert!(page(Vec::new()).is_err());
    assert!(page(vec![session()]).is_err());
}
