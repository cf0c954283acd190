//! Many clients that lose their leader at the same moment.

use std::time::Duration;

use broker_core::{Address, Client};
use broker_sim::fleet::{Fleet, PATIENCE};
use broker_sim::history::monotonic_nanos;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Kills the leader and lets `count` clients ask at once: how long each waited for an answer, from the kill on.
pub(super) fn measure(fleet: &mut Fleet, count: usize) -> anyhow::Result<Vec<Duration>> {
    // A thread of its own, so that the clients notice the kill while this one still makes it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let socket = fleet.dir().join("sock");
    let (killed, kill) = watch::channel(0);
    let mut clients = runtime.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..count {
            let config = Client::builder().sender("crowd").timeout(PATIENCE);
            let client = config
                .connect_with(Address::unix(socket.clone()).into())
                .await?;
            clients.spawn(ask_after(client, kill.clone()));
        }
        anyhow::Ok(clients)
    })?;
    let leader = fleet
        .holder()?
        .ok_or_else(|| anyhow::anyhow!("nobody leads"))?;
    let change = fleet.kill_leader(leader)?;
    killed.send_replace(change.at);
    let answered = runtime.block_on(async {
        let mut answered = Vec::new();
        while let Some(waited) = clients.join_next().await {
            answered.push(waited??);
        }
        anyhow::Ok(answered)
    })?;
    fleet.await_acks(change.term)?;
    fleet.restart(leader.agent)?;
    Ok(answered)
}

/// Asks when the leader was killed, and says how long the answer took.
async fn ask_after(client: Client, mut kill: watch::Receiver<u64>) -> anyhow::Result<Duration> {
    let at = *kill.wait_for(|at| *at > 0).await?;
    client.ping().await?;
    let waited = Duration::from_nanos(monotonic_nanos() - at);
    client.shutdown().await?;
    Ok(waited)
}
