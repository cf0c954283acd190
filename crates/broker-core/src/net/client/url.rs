//! [`Address`]: where a broker listens, as people write it: `tcp://host:port` or `unix:/path`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use broker_proto::limits::DEFAULT_PORT;

use super::error::{Error, ErrorKind};

/// Longest address that is looked at, in bytes.
const ADDRESS_BYTES_MAX: usize = 4096;

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port. The host may be a name; IPv6 addresses stand without brackets here.
    Tcp {
        /// Name or address of the host.
        host: String,
        /// The port; 9876 when the text does not name one.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The Unix socket at this path.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::Unix(path.as_ref().to_owned())
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| {
            let shown: String = text.chars().take(100).collect();
            let text = format!(
                "the address \"{}\" {why}: write tcp://host:port or unix:/path",
                shown.escape_debug()
            );
            Error::new(ErrorKind::Usage, text)
        })
    }
}

fn parse(text: &str) -> Result<Address, &'static str> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err("is too long");
    }
    if let Some(path) = text.strip_prefix("unix:") {
        // `unix:///path` is what other programs write for the same.
        let path = path.strip_prefix("//").unwrap_or(path);
        return match path {
            "" => Err("has no path"),
            _ if path.contains('\0') => Err("has a NUL in its path"),
            _ => Ok(Address::Unix(path.into())),
        };
    }
    let rest = text.strip_prefix("tcp://").ok_or("has no known scheme")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = split_port(rest)?;
    let known = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() {
        return Err("has no host");
    }
    if !host.chars().all(known) {
        return Err("has a character in its host that no host has");
    }
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}

/// Splits `host:port`, `[v6]:port` and both without a port.
fn split_port(rest: &str) -> Result<(&str, u16), &'static str> {
    let port = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err("has no port between 1 and 65535"),
        Ok(port) => Ok(port),
    };
    if let Some(inner) = rest.strip_prefix('[') {
        let (host, after) = inner.split_once(']').ok_or("has an open bracket")?;
        return match after.strip_prefix(':') {
            Some(text) => Ok((host, port(text)?)),
            None if after.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err("has more than a port behind its bracket"),
        };
    }
    match rest.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Err("needs brackets around its IPv6 host"),
        Some((host, text)) => Ok((host, port(text)?)),
        None => Ok((rest, DEFAULT_PORT)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    fn shown(text: &str) -> String {
        match text.parse::<Address>() {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn addresses_read_back_as_they_are_shown() {
        for (text, expected) in [
            ("tcp://localhost:9876", "tcp://localhost:9876"),
            ("tcp://localhost", "tcp://localhost:9876"),
            ("tcp://127.0.0.1:1/", "tcp://127.0.0.1:1"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("tcp://[fe80::1%eth0]", "tcp://[fe80::1%eth0]:9876"),
            ("unix:/run/b", "unix:/run/b"),
            ("unix:///run/b", "unix:/run/b"),
            ("unix:b", "unix:b"),
        ] {
            assert_eq!(shown(text), expected);
            assert_eq!(shown(expected), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_told_with_the_forms_that_are() {
        for (text, why) in [
            ("", "has no known scheme"),
            ("localhost:9876", "has no known scheme"),
            ("http://x", "has no known scheme"),
            ("tcp://", "has no host"),
            ("tcp://:9", "has no host"),
            ("tcp://h:0", "has no port between"),
            ("tcp://h:65536", "has no port between"),
            ("tcp://h:", "has no port between"),
            ("tcp://::1", "needs brackets"),
            ("tcp://[::1", "has an open bracket"),
            ("tcp://[::1]x", "has more than a port"),
            ("tcp://a b:1", "has a character"),
            ("unix:", "has no path"),
            ("unix:/a\0b", "has a NUL"),
        ] {
            let error = shown(text);
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(
                error.ends_with("write tcp://host:port or unix:/path"),
                "{error}"
            );
        }
    }
}
