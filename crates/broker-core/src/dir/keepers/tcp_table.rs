//! The kernel's tables of TCP sockets, `/proc/net/tcp` and `/proc/net/tcp6`: which of them listen where.
//!
//! A line is `0: 0100007F:2694 00000000:0000 0A ... 1000 0 12345 1 ...`: local address and port, remote ones, state (`0A`
//! listens), and as the tenth word the socket's inode. Addresses are words of 32 bits, each in the byte order of the machine.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How much of a table is read, in bytes. Those that listen come first in it.
const TABLE_BYTES_MAX: u64 = 4 << 20;

/// The state of a socket that listens.
const LISTENS: &str = "0A";

/// Inodes of the sockets that keep others from listening at an address, the likeliest first.
pub(super) fn listening_at(address: SocketAddr) -> Vec<u64> {
    let mut found: Vec<(u8, u64)> = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let lines = read(table);
        found.extend(lines.lines().filter_map(|line| {
            let (at, inode) = parse_listening(line)?;
            Some((conflict(at, address)?, inode))
        }));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, inode)| inode).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a table of the kernel's, not a file of the store"
)]
fn read(table: &str) -> String {
    let mut text = Vec::new();
    if let Ok(file) = File::open(table) {
        // What was read before an error still helps.
        let _ = file.take(TABLE_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a line of a table; `None` if it is not of a socket that listens.
pub(super) fn parse_listening(line: &str) -> Option<(SocketAddr, u64)> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let inode = words.nth(5)?.parse().ok()?;
    if state != LISTENS {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(parse_address(address)?, port), inode))
}

fn parse_address(digits: &str) -> Option<IpAddr> {
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(digits)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, place) in bytes.chunks_exact_mut(4).enumerate() {
                let at = index.saturating_mul(8);
                place.copy_from_slice(&word(digits.get(at..at.saturating_add(8))?)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// The four bytes of a word as they lie in memory.
fn word(digits: &str) -> Option<[u8; 4]> {
    let word = u32::from_str_radix(digits, 16).ok()?;
    Some(if cfg!(target_endian = "little") {
        word.to_le_bytes()
    } else {
        word.to_be_bytes()
    })
}

/// How surely a socket that listens at one address keeps others from another: lower is surer, `None` is not at all.
///
/// The table does not say whether a socket on `::` takes IPv4 too; that it does is the kernel's default.
pub(super) fn conflict(listens: SocketAddr, wanted: SocketAddr) -> Option<u8> {
    if listens.port() != wanted.port() {
        return None;
    }
    let (a, b) = (listens.ip().to_canonical(), wanted.ip().to_canonical());
    if a == b {
        return Some(0);
    }
    let wildcard = a.is_unspecified() || b.is_unspecified();
    let one_family = a.is_ipv4() == b.is_ipv4();
    // Across the families only the IPv6 wildcard matters: `0.0.0.0` is nothing to IPv6.
    let dual = [a, b].contains(&Ipv6Addr::UNSPECIFIED.into());
    match (wildcard, one_family) {
        (true, true) => Some(1),
        (true, false) if dual => Some(2),
        _ => None,
    }
}
