//! The load generator: every benchmark, every option, and what is printed with the figures.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Done, Place, SmallDisk, feed, on_a_terminal};

/// Runs a benchmark, which must go well and without a word, on a broker of its own.
fn bench(place: &Place, arguments: &[&str]) -> Value {
    let arguments = [&["bench"], arguments, &["--json"]].concat();
    place.run(&arguments).ok().json().remove(0)
}

#[track_caller]
fn number(value: &Value, pointer: &str) -> f64 {
    let number = value.pointer(pointer).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

#[track_caller]
fn nothing_is_left(place: &Place) {
    assert!(
        !place.store().exists(),
        "it keeps away from the store that the environment names"
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn every_benchmark_measures_and_verifies() {
    for (arguments, figures, verified) in [
        (
            &[
                "pub", "--pubs", "3", "--rooms", "2", "--window", "32", "--bulk", "8", "--count",
                "5000", "--size", "200",
            ][..],
            &[("publish", 5000)][..],
            5000,
        ),
        (
            &[
                "sub", "--subs", "3", "--rooms", "2", "--pubs", "2", "--count", "2000",
            ],
            &[("publish", 2000), ("deliver", 6000)],
            2000,
        ),
        (
            &["fanout", "--subs", "5", "--window", "16", "--count", "700"],
            &[("publish", 700), ("deliver", 3500)],
            700,
        ),
        (
            &[
                "replay", "--subs", "2", "--rooms", "3", "--count", "3000", "--size", "1KiB",
            ],
            &[("fill", 3000), ("replay", 6000)],
            6000,
        ),
        (
            &["rtt", "--count", "50"],
            &[("ack", 50), ("deliver", 50)],
            50,
        ),
        (
            &["rooms", "--rooms", "300", "--pubs", "2"],
            &[("create", 300), ("list", 300)],
            300,
        ),
    ] {
        let place = Place::new();
        let result = bench(&place, arguments);
        assert_eq!(result["bench"], arguments[0]);
        for (figure, count) in figures {
            assert_eq!(result[figure]["count"], *count, "{result}");
            assert!(result[figure]["per_second"].as_f64().unwrap() > 0.0);
        }
        assert_eq!(result["verified"]["messages"], verified, "{result}");
        assert_eq!(result["verified"]["violations"], 0);
        nothing_is_left(&place);
    }
}

#[test]
fn figures_come_with_what_they_depend_on() {
    let place = Place::new();
    let result = bench(&place, &["rtt", "--count", "20"]);
    let build = concat!("broker ", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&result["client"], &result["server"]),
        (&build.into(), &build.into())
    );
    assert_eq!(result["settings"]["size"], 128);
    assert_eq!(result["settings"]["count"], 20);
    assert!(number(&result, "/machine/cores") >= 1.0);
    assert!(number(&result, "/machine/load_average_before/0") >= 0.0);
    assert!(number(&result, "/disk/writes") >= 1.0);
    assert!(number(&result, "/disk/p99_us") >= number(&result, "/disk/p50_us"));
    assert!(number(&result, "/cpu/client_seconds") > 0.0);
    assert!(number(&result, "/cpu/client_us_per") > 0.0);
    assert_eq!(result["cpu"]["per"], "round trip");
    assert_eq!(result["cpu"]["one_process"], true);
    assert_eq!(result["cpu"]["server_seconds"], Value::Null);
}

#[test]
fn a_benchmark_for_people_says_what_it_measured() {
    let place = Place::new();
    let text = place.text(&[
        "bench", "fanout", "--subs", "2", "--count", "500", "--rate", "5000",
    ]);
    for word in [
        "publish    500 messages",
        "deliver    1,000 messages",
        "p50",
        "p99.9",
        "1 publisher x window 4096 (bulk 1), 2 subscribers, 1 room, 128 bytes a message",
        "open loop at 5000 messages a second",
        "client: broker",
        "bench fanout: ",
        "cores",
        "4 KiB written and synced",
        "us a delivery",
        "sent more than 1.00 ms after they were due, the latest",
        "none lost, doubled or reordered",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn a_broker_in_another_process_is_told_apart() {
    let place = Place::new();
    let _leader = place.serve("none");
    let socket = format!("unix:{}/sock", place.store().display());
    let result = bench(&place, &["pub", "--count", "200", "--server", &socket]);
    assert_eq!(result["place"], socket);
    assert!(number(&result, "/cpu/server_seconds") >= 0.0);
    assert_eq!(result["cpu"]["one_process"], false);
    assert!(
        number(&result, "/disk/writes") >= 1.0,
        "its directory is where its socket is"
    );
    let files = fs::read_dir(place.store()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("probe")).count(), 0);
}

#[test]
fn what_lies_elsewhere_is_not_guessed() {
    let place = Place::new();
    let mut leader = place.serve("127.0.0.1:0");
    let status = &place.run(&["status", "--json"]).ok().json()[0];
    let addresses = status["addresses"].as_array().unwrap();
    let mut addresses = addresses.iter().map(|address| address.as_str().unwrap());
    let tcp = addresses
        .find(|address| address.starts_with("tcp:"))
        .unwrap();
    let result = bench(&place, &["rtt", "--count", "5", "--server", tcp]);
    assert_eq!(result["disk"], Value::Null);
    let reason = result["no_disk"].as_str().unwrap();
    assert!(reason.contains("--data"), "{reason}");
    let cold = ["bench", "replay", "--count", "9", "--cold", "--server", tcp];
    place
        .run(&cold)
        .fails(2, &["--cold", tcp, "--data", "not known here"]);
    leader.child.kill().unwrap();
}

#[test]
fn a_benchmark_runs_on_a_store_when_told_to() {
    let place = Place::new();
    let store = place.store();
    let data = store.to_str().unwrap();
    bench(&place, &["pub", "--count", "100", "--data", data]);
    let rooms = place.run(&["rooms", "--json"]).ok().json();
    assert_eq!(rooms.len(), 1);
    assert_eq!(rooms[0]["head"], 100);
    // What is there already is no part of it.
    let cold = ["replay", "--count", "300", "--cold", "--data", data];
    let result = bench(&place, &cold);
    assert_eq!(result["settings"]["cold"], true);
    assert_eq!(result["replay"]["count"], 300);
}

#[test]
fn what_is_in_memory_is_never_called_cold() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.directory("tmpfs"), 64 << 20) else {
        return crate::support::skipped("mount");
    };
    let store = disk.path().join("store");
    let cold = ["bench", "replay", "--count", "50", "--cold", "--data"];
    place
        .run(&[&cold[..], &[store.to_str().unwrap()]].concat())
        .fails(2, &["--cold", "tmpfs", "--data"]);
}

#[test]
fn an_option_that_a_benchmark_does_not_use_is_told() {
    let place = Place::new();
    for (arguments, words) in [
        (
            &["rooms", "--rooms", "5", "--count", "9", "--subs", "2"][..],
            &["no use of --count", "no use of --subs"][..],
        ),
        (
            &["replay", "--count", "5", "--rate", "9", "--pubs", "2"],
            &["no use of --rate", "no use of --pubs"],
        ),
        (
            &[
                "fanout", "--count", "5", "--subs", "1", "--rooms", "9", "--cold",
            ],
            &["no use of --rooms", "no use of --cold"],
        ),
        (
            &["rtt", "--count", "5", "--rooms", "2"],
            &["no use of --rooms"],
        ),
    ] {
        let arguments = [&["bench"], arguments, &["--json"]].concat();
        let done = place.run(&arguments);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        for word in words {
            assert!(done.stderr.contains(word), "{}", done.stderr);
        }
        assert_eq!(done.stderr.lines().count(), words.len(), "{}", done.stderr);
        assert_eq!(done.json().len(), 1);
    }
}

#[test]
fn an_open_loop_sends_all_that_is_due() {
    let place = Place::new();
    for (what, figure) in [
        ("pub", "publish"),
        ("sub", "deliver"),
        ("fanout", "deliver"),
        ("rtt", "ack"),
    ] {
        let rate = [what, "--rate", "2000", "--duration", "250ms"];
        let subs: &[&str] = match what {
            "pub" => &["--pubs", "3", "--bulk", "4"],
            "sub" => &["--subs", "1", "--pubs", "2"],
            "fanout" => &["--subs", "1"],
            _ => &[],
        };
        let result = bench(&place, &[&rate[..], subs].concat());
        assert_eq!(result[figure]["count"], 500, "{result}");
        // The last one is due at about 250 ms: no machine is done before.
        assert!(number(&result, &format!("/{figure}/seconds")) > 0.245);
        assert!(number(&result, &format!("/{figure}/latency_us/p99")) > 0.0);
        assert!(number(&result, "/late/messages") <= 500.0);
        let (worst, after) = (
            number(&result, "/late/worst_us"),
            number(&result, "/late/after_us"),
        );
        assert_eq!(worst > after, number(&result, "/late/messages") > 0.0);
        assert_eq!(result["settings"]["rate"], 2000);
    }
}

/// Everything is due at once and one message at a time is under way, so that all but the first are late:
/// the latest had waited for so long when it was sent, and its latency has to say so.
#[test]
fn a_latency_holds_the_wait_for_the_send() {
    let place = Place::new();
    for (what, figures) in [
        ("pub", &["publish"][..]),
        ("sub", &["publish", "deliver"]),
        ("fanout", &["publish", "deliver"]),
        ("rtt", &["ack", "deliver"]),
    ] {
        let mut arguments = vec![what, "--rate", "10000000", "--count", "400"];
        if what != "rtt" {
            arguments.extend(["--window", "1"]);
        }
        if what == "fanout" {
            arguments.extend(["--subs", "2"]);
        }
        let result = bench(&place, &arguments);
        let worst = number(&result, "/late/worst_us");
        assert!(worst > 0.0);
        for figure in figures {
            let max = number(&result, &format!("/{figure}/latency_us/max"));
            assert!(max >= worst, "{figure}: {max} {worst} in {result}");
        }
    }
}

/// What a plotter reads of a file: value and count of each line.
fn distribution(path: &Path) -> Vec<(f64, u64)> {
    let text = fs::read_to_string(path).unwrap();
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let [value, percentile, count, inverse] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let Ok(value) = value.parse()
        {
            let _: (f64, f64) = (percentile.parse().unwrap(), inverse.parse().unwrap());
            rows.push((value, count.parse().unwrap()));
        }
    }
    let summary = format!("Total count    = {:12}]", rows.last().unwrap().1);
    assert!(text.contains(&summary), "{text}");
    rows
}

#[test]
fn latencies_are_written_as_plotters_read_them() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    let both = path("x.hgrm");
    let both = both.to_str().unwrap();
    let result = bench(&place, &["rtt", "--count", "60", "--hdr", both]);
    for figure in ["ack", "deliver"] {
        let file = path(&format!("x.{figure}.hgrm"));
        assert_eq!(result["hdr"][figure], file.to_str().unwrap());
        let rows = distribution(&file);
        assert!(rows.is_sorted(), "{rows:?}");
        let (max, count) = *rows.last().unwrap();
        assert_eq!(count, 60);
        let told = number(&result, &format!("/{figure}/latency_us/max")) / 1e3;
        assert!((max - told).abs() < 0.01 * told, "{max} {told}");
    }
    let one = path("one");
    bench(
        &place,
        &["pub", "--count", "70", "--hdr", one.to_str().unwrap()],
    );
    assert_eq!(distribution(&one).last().unwrap().1, 70);
    assert!(!Path::new(both).exists());
}

#[test]
fn bad_options_are_refused_before_anything_is_done() {
    let place = Place::new();
    for (arguments, words) in [
        (
            &["pub", "--rate", "0"][..],
            &["--rate", "1 to 10000000"][..],
        ),
        (&["rtt", "--rate", "99999999"], &["--rate", "99999999"]),
        (&["pub", "--rate", "fast"], &["--rate", "fast"]),
        (&["fanout", "--subs", "0"], &["--subs", "1 to 10000"]),
        (&["fanout", "--window", "9", "--bulk", "10"], &["--bulk 10"]),
        (&["replay", "--count", "0"], &["--count"]),
        (&["replay", "--size", "huge"], &["--size", "huge"]),
        (
            &["pub", "--count", "1", "--duration", "1s"],
            &["--duration"],
        ),
        (
            &["pub", "--hdr", "/no/such/directory/x"],
            &["--hdr", "/no/such/directory/x"],
        ),
        (
            &["rtt", "--hdr", "/no/such/directory/x"],
            &["--hdr", "/no/such/directory/x.ack"],
        ),
    ] {
        let arguments = [&["bench"], arguments].concat();
        place.run(&arguments).fails(2, words);
    }
    nothing_is_left(&place);
}

#[test]
fn progress_is_for_terminals() {
    let place = Place::new();
    let run = "bench pub --duration 600ms";
    let mut command = place.command(&run.split(' ').collect::<Vec<_>>());
    command.env("TERM", "xterm");
    // Its standard error is a pipe, and has to stay empty.
    Done::new(command.output().unwrap()).ok();
    for (arguments, term, is_shown) in [
        (run.to_owned(), "xterm", true),
        (run.to_owned(), "dumb", false),
        (format!("{run} --json"), "xterm", false),
    ] {
        let Some(mut command) = on_a_terminal(&arguments) else {
            return crate::support::skipped("script");
        };
        command
            .env("BROKER_DATA", place.store())
            .env("BROKER_NAME", "ann")
            .env("TERM", term)
            .env_remove("BROKER_URL");
        let shown = String::from_utf8(feed(command, b"").stdout).unwrap();
        assert!(shown.contains("0.6"), "{shown:?}");
        assert_eq!(shown.contains("\rpublish  0."), is_shown, "{shown:?}");
        assert_eq!(shown.contains('\x1b'), is_shown, "{shown:?}");
    }
}
