//! How each peer's server is started: its configuration, as the page describes it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::peer::Peer;

/// The command that starts a server with its data in `dir`, listening on a port of the loopback.
pub(super) fn command(peer: Peer, program: &Path, dir: &Path, port: u16) -> Result<Command> {
    let mut command = Command::new(program);
    // What is set for a daemon of somebody's own has no say here.
    for variable in ["BROKERD_LISTEN", "BROKERD_DATA", "BROKER_LOG"] {
        command.env_remove(variable);
    }
    match peer {
        Peer::Ours | Peer::OursBulk => {
            command.arg("--data").arg(dir.join("data"));
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
        }
        Peer::NatsSync | Peer::NatsSyncEach | Peer::Nats | Peer::NatsCore => {
            let file = dir.join("nats.conf");
            fs::write(&file, nats(peer, dir, port))?;
            command.arg("--config").arg(file);
        }
        Peer::RedisSync | Peer::Redis | Peer::RedisPubsub => {
            command.args(redis(peer));
            command.arg("--dir").arg(dir);
            command.args(["--port", &port.to_string()]);
        }
        Peer::Mosquitto => {
            let file = dir.join("mosquitto.conf");
            fs::write(&file, mosquitto(port))?;
            command.arg("-c").arg(file);
        }
        Peer::Iggy => bail!("Iggy is not measured"),
    }
    Ok(command)
}

fn nats(peer: Peer, dir: &Path, port: u16) -> String {
    let stream = match peer {
        Peer::NatsCore => String::new(),
        _ => {
            let sync = match peer {
                Peer::NatsSync | Peer::NatsSyncEach => "sync_interval: always",
                _ => "",
            };
            format!(
                "jetstream {{ store_dir: \"{}\", max_file_store: 200GB, {sync} }}\n",
                dir.join("data").display()
            )
        }
    };
    format!("listen: \"127.0.0.1:{port}\"\nping_interval: \"10m\"\n{stream}")
}

fn redis(peer: Peer) -> Vec<&'static str> {
    let mut words = vec!["--bind", "127.0.0.1", "--save", ""];
    words.extend(match peer {
        Peer::RedisSync => ["--appendonly", "yes", "--appendfsync", "always"],
        Peer::Redis => ["--appendonly", "yes", "--appendfsync", "everysec"],
        // Never used without an AOF.
        _ => ["--appendonly", "no", "--appendfsync", "no"],
    });
    words.extend(["--auto-aof-rewrite-percentage", "0"]);
    words.extend(["--client-output-buffer-limit", "pubsub 0 0 0"]);
    words
}

fn mosquitto(port: u16) -> String {
    // It gives up root by default, and could not read what was made for it.
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 10000\n\
         persistence false\nuser root\nlog_type error\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_synced_peers_sync() {
        let dir = Path::new("/d");
        assert!(nats(Peer::NatsSync, dir, 1).contains("sync_interval: always"));
        assert!(nats(Peer::NatsSyncEach, dir, 1).contains("sync_interval: always"));
        let lazy = nats(Peer::Nats, dir, 1);
        assert!(lazy.contains("jetstream") && !lazy.contains("sync_interval"));
        assert!(!nats(Peer::NatsCore, dir, 1).contains("jetstream"));
        assert!(redis(Peer::RedisSync).contains(&"always"));
        assert!(redis(Peer::Redis).contains(&"everysec"));
    }
}
