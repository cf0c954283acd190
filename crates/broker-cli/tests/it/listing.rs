//! Rooms and status.

use crate::support::{Done, Place, json_lines};

#[test]
fn rooms_are_listed_by_name() {
    let place = Place::new();
    assert!(place.run(&["rooms"]).ok().stdout.is_empty());
    assert!(place.run(&["rooms", "--json"]).ok().stdout.is_empty());
    place.send("zoo", &["1"]);
    place.send("lobby", &["1", "2", "3"]);
    place.send("\u{fc}ber", &["1"]);
    let rooms = place.run(&["rooms", "--json"]).ok().json();
    let names: Vec<_> = rooms
        .iter()
        .map(|room| room["room"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["lobby", "zoo", "\u{fc}ber"]);
    assert_eq!(
        (rooms[0]["first"].as_u64(), rooms[0]["head"].as_u64()),
        (Some(1), Some(3))
    );
    let last = &place
        .run(&["read", "lobby", "--from", "-1", "--json"])
        .ok()
        .json()[0];
    assert_eq!(
        (&rooms[0]["time"], &rooms[0]["epoch"]),
        (&last["time"], &last["epoch"])
    );
    let text = place.text(&["rooms"]);
    let fields: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(
        fields[0],
        ["lobby", "1", "3", last["time"].as_str().unwrap()]
    );
}

#[test]
fn more_rooms_than_one_answer_holds() {
    let place = Place::new();
    place
        .run(&[
            "--data",
            place.store().to_str().unwrap(),
            "bench",
            "rooms",
            "--rooms",
            "2100",
            "--pubs",
            "4",
            "--size",
            "32",
        ])
        .ok();
    let rooms = place.run(&["rooms", "--json"]).ok().json();
    assert_eq!(rooms.len(), 2100);
    assert!(
        rooms
            .windows(2)
            .all(|pair| pair[0]["room"].as_str() < pair[1]["room"].as_str()),
        "each once, in order"
    );
    let found = place.run(&["rooms", "--json", "--prefix", "bench-"]).ok();
    assert_eq!(found.json(), rooms, "the same, found");
}

#[test]
fn status_names_the_leader_and_where_it_listens() {
    let place = Place::new();
    let leader = place.serve("127.0.0.1:0");
    let status = &place.run(&["status", "--json"]).ok().json()[0];
    assert_eq!(status["pid"], leader.child.id());
    let addresses: Vec<_> = status["addresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|address| address.as_str().unwrap())
        .collect();
    assert!(
        addresses
            .iter()
            .any(|address| address.starts_with("tcp://127.0.0.1:") && !address.ends_with(":0")),
        "{addresses:?}"
    );
    assert!(
        addresses.iter().any(|address| address.starts_with("unix:")),
        "{addresses:?}"
    );
    for key in ["store", "term", "build", "rooms", "connections"] {
        assert!(!status[key].is_null(), "{key} in {status}");
    }
    let text = place.text(&["status"]);
    assert!(
        text.lines()
            .any(|line| line.split_whitespace().collect::<Vec<_>>()
                == ["pid", &leader.child.id().to_string()]),
        "{text}"
    );
    // And by its address alone.
    let tcp = addresses
        .iter()
        .find(|address| address.starts_with("tcp:"))
        .unwrap();
    let mut command = place.command(&["status", "--json", "--server", tcp]);
    command.env_remove("BROKER_DATA");
    let done = Done::new(command.output().unwrap()).ok();
    assert_eq!(json_lines(&done.stdout)[0]["pid"], leader.child.id());
}

#[test]
fn status_of_a_store_that_nobody_serves() {
    let place = Place::new();
    place.send("lobby", &["hi"]);
    let done = place.run(&["status", "--json"]);
    assert_eq!(done.code, Some(0));
    assert_eq!(done.json()[0]["rooms"], 1);
    assert!(done.stderr.contains("nobody"), "{}", done.stderr);
}
