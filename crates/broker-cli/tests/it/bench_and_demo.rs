//! The load generator and the demonstration.

use std::fs;

use crate::support::Place;

#[test]
fn every_benchmark_measures_and_verifies() {
    for (what, figures) in [
        ("pub", &["publish"][..]),
        ("sub", &["publish", "deliver"]),
        ("rtt", &["ack", "deliver"]),
        ("rooms", &["create", "list"]),
    ] {
        let place = Place::new();
        let arguments: &[&str] = match what {
            "rooms" => &["bench", "rooms", "--rooms", "300", "--pubs", "2", "--json"],
            "sub" => &[
                "bench", "sub", "--subs", "3", "--rooms", "2", "--pubs", "2", "--count", "2000",
                "--json",
            ],
            "rtt" => &["bench", "rtt", "--count", "50", "--json"],
            _ => &[
                "bench", "pub", "--pubs", "3", "--rooms", "2", "--window", "32", "--bulk", "8",
                "--count", "5000", "--size", "200", "--json",
            ],
        };
        let result = &place.run(arguments).ok().json()[0];
        assert_eq!(result["bench"], what);
        for figure in figures {
            let figure = &result[figure];
            assert!(figure["count"].as_u64().unwrap() > 0, "{result}");
            assert!(figure["per_second"].as_f64().unwrap() > 0.0, "{result}");
        }
        let count = match what {
            "pub" => 5000,
            "sub" => 2000,
            "rtt" => 50,
            _ => 300,
        };
        assert_eq!(result["verified"]["messages"], count, "{result}");
        assert_eq!(result["verified"]["violations"], 0);
        assert!(result["settings"]["size"].as_u64().unwrap() >= 32);
        assert!(
            !place.store().exists(),
            "it keeps away from the store that the environment names"
        );
        assert_eq!(
            fs::read_dir(place.path()).unwrap().count(),
            0,
            "it cleans up after itself"
        );
    }
}

#[test]
fn a_benchmark_for_people_says_what_it_measured() {
    let place = Place::new();
    let text = place.text(&["bench", "pub", "--count", "500"]);
    for word in [
        "publish",
        "500 messages",
        "p50",
        "p99.9",
        "128 bytes",
        "none lost, doubled or reordered",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn a_benchmark_runs_on_a_store_when_told_to() {
    let place = Place::new();
    let store = place.store();
    place
        .run(&[
            "bench",
            "pub",
            "--count",
            "100",
            "--data",
            store.to_str().unwrap(),
            "--json",
        ])
        .ok();
    let rooms = place.run(&["rooms", "--json"]).ok().json();
    assert_eq!(rooms.len(), 1);
    assert_eq!(rooms[0]["head"], 100);
}

#[test]
fn the_demo_shows_both_sides_and_cleans_up() {
    let place = Place::new();
    let text = String::from_utf8(
        place
            .command(&["demo"])
            .env("TMPDIR", place.path())
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    for word in [
        "follower",
        "hello",
        "seq 1",
        "broker send",
        "broker read",
        "brokerd",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{text}");
}

#[test]
fn an_option_that_a_benchmark_does_not_use_is_told() {
    let place = Place::new();
    let done = place.run(&[
        "bench", "rooms", "--rooms", "5", "--count", "9", "--subs", "2", "--json",
    ]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let words = &done.stderr;
    assert!(
        words.contains("no use of --count") && words.contains("no use of --subs"),
        "{words}"
    );
    assert_eq!(done.json()[0]["settings"]["subs"], 0);
}

#[test]
fn the_demo_needs_no_home() {
    let place = Place::new();
    let temporary = place.directory("tmp");
    let mut command = place.command(&["demo"]);
    command.env_clear().env("TMPDIR", &temporary);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}
