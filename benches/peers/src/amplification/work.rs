//! [`Work`]: one run with a server of its own.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use broker_proto::RoomChange;

use super::case::{Case, KEEPS_ALL, KEPT_PART, KILL_BYTES};
use super::counts::{Counts, Status, settle};
use super::results::{Merged, Outcome, Published};
use crate::args::Amplification as Options;
use crate::curves::{Lab, Site};
use crate::load::publish::Plan;
use crate::load::{ours, room_name, runtime};
use crate::peer::Peer;
use crate::server::End;
use crate::starts::Files;
use crate::stats::float;

/// Who publishes: so many, each with so many messages in flight.
const PUBLISHERS: usize = 16;
const WINDOW: usize = 64;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) case: Case,
    /// Bytes of a message.
    pub(super) size: usize,
    bytes: u64,
    rooms: usize,
    keep_count: u64,
    kills: u32,
}

impl Work {
    pub(super) fn new(options: &Options, case: Case, size: usize) -> Self {
        Self {
            case,
            size,
            bytes: options.bytes,
            rooms: options.rooms as usize,
            keep_count: options.keep_count,
            kills: options.kills,
        }
    }

    /// So much payload in messages of the size.
    fn plan(self, bytes: u64) -> Plan {
        Plan {
            publishers: PUBLISHERS,
            rooms: match self.case {
                Case::Publish | Case::KeepBytes | Case::Merge => 1,
                Case::Rooms | Case::KeepCount => self.rooms,
            },
            window: WINDOW,
            size: self.size,
            count: (bytes / self.size as u64).max(1),
        }
    }

    /// Does it.
    pub(super) fn measure(self, lab: &Lab<'_>) -> Result<Outcome> {
        let mut site = Site::new(lab)?;
        Ok(match self.case {
            Case::Merge => Outcome::Merged(Box::new(self.merge(&mut site)?)),
            _ => Outcome::Published(Box::new(self.publish(&mut site)?)),
        })
    }

    fn publish(self, site: &mut Site<'_>) -> Result<Published> {
        self.prepare(site)?;
        let before = Counts::of(site)?;
        let plan = self.plan(self.bytes);
        let (took, latencies) = site.store_measured(Peer::Ours, plan)?;
        let meanwhile = Counts::of(site)? - before;
        let settled = settle(site)?;
        let counts = Counts::of(site)? - before;
        site.verify()?;
        let ack_us = latencies.quantiles();
        Ok(Published {
            payload_bytes: plan.count * plan.size as u64,
            acks_per_second: float(plan.count) / took.as_secs_f64(),
            ack_us: ack_us.context("nothing was acknowledged")?,
            rewritten_meanwhile: meanwhile.rewritten,
            counts,
            settled,
            files: Files::of(&site.data())?,
            verified: site.stored(),
        })
    }

    /// What is set or made before anything counts.
    fn prepare(self, site: &mut Site<'_>) -> Result<()> {
        match self.case {
            Case::Publish | Case::Merge => Ok(()),
            Case::KeepBytes => {
                runtime(1)?.block_on(ours::keep_bytes(site.address(), self.bytes / KEPT_PART))
            }
            Case::Rooms => self.make_rooms(site),
            Case::KeepCount => {
                self.make_rooms(site)?;
                let few = (0..self.rooms).filter(|number| number % KEEPS_ALL != 0);
                runtime(1)?.block_on(keep_count(site.address(), few, self.keep_count))
            }
        }
    }

    /// A room can be set only when it is there.
    fn make_rooms(self, site: &mut Site<'_>) -> Result<()> {
        let all = self.plan(0);
        let count = self.rooms as u64;
        site.store(Peer::Ours, Plan { count, ..all })?;
        site.verify()
    }

    /// A server that is started after a kill begins a segment of its own, however soon it is killed again: too soon for merging.
    fn merge(self, site: &mut Site<'_>) -> Result<Merged> {
        let plan = self.plan(KILL_BYTES);
        let mut killed = Counts::default();
        for _ in 0..self.kills {
            site.store(Peer::Ours, plan)?;
            killed = killed + Counts::of(site)?;
            site.end(End::Kill)?;
            site.begin()?;
        }
        let before = Counts::of(site)?;
        let segments_before = Status::of(site)?.segments;
        let settled = settle(site)?;
        let merging = Counts::of(site)? - before;
        site.verify()?;
        Ok(Merged {
            kills: self.kills,
            payload_bytes: u64::from(self.kills) * plan.count * plan.size as u64,
            killed,
            segments_before,
            merging,
            settled,
            segments_after: Status::of(site)?.segments,
            files: Files::of(&site.data())?,
            verified: site.stored(),
        })
    }
}

/// Has these rooms keep no more than so many messages each.
async fn keep_count(
    address: SocketAddr,
    rooms: impl Iterator<Item = usize>,
    count: u64,
) -> Result<()> {
    let client = ours::connect(address).await?;
    let change = RoomChange {
        keep_count: Some(Some(count)),
        ..RoomChange::default()
    };
    for number in rooms {
        client
            .room(&room_name(number))?
            .change(&change, None)
            .await?;
    }
    Ok(client.shutdown().await?)
}
