//! What goes wrong: a script of faults from the seed, each with its end.

use std::fmt;
use std::time::Duration;

use turmoil::Sim;

use super::client::broker_hosts;
use super::world::World;
use crate::disk::{CrashMode, Fault};
use crate::rng::Rng;

/// How often each fault happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Nothing gets through between a client and a broker; what was under way is lost.
    pub partitions: u64,
    /// The same in one direction.
    pub one_way_cuts: u64,
    /// What is sent arrives much later, all at once.
    pub holds: u64,
    /// Segments are dropped at random, and with each the ones that follow for a moment.
    pub lossy: u64,
    /// The way becomes long.
    pub slow_links: u64,
    /// Connections are reset in the middle of something.
    pub resets: u64,
    /// The broker's process is killed: its peers are told by its system.
    pub kills: u64,
    /// The broker's machine loses power: nobody is told, and what was not synced may be lost.
    pub power_cuts: u64,
    /// The same in the middle of a write, a sync or a rename.
    pub power_cuts_in_disk_calls: u64,
    /// The leader leaves in order, and another host leads.
    pub hand_overs: u64,
    /// A broker's next leader runs on the other host.
    pub take_overs: u64,
    /// The disk takes long.
    pub disk_hangs: u64,
    /// A client's process is killed.
    pub client_kills: u64,
    /// A client's machine loses power: the broker is not told.
    pub client_power_cuts: u64,
}

impl FaultCounts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.partitions += other.partitions;
        self.one_way_cuts += other.one_way_cuts;
        self.holds += other.holds;
        self.lossy += other.lossy;
        self.slow_links += other.slow_links;
        self.resets += other.resets;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.power_cuts_in_disk_calls += other.power_cuts_in_disk_calls;
        self.hand_overs += other.hand_overs;
        self.take_overs += other.take_overs;
        self.disk_hangs += other.disk_hangs;
        self.client_kills += other.client_kills;
        self.client_power_cuts += other.client_power_cuts;
    }

    /// Each with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("partitions", self.partitions),
            ("one-way cuts", self.one_way_cuts),
            ("holds", self.holds),
            ("lossy links", self.lossy),
            ("slow links", self.slow_links),
            ("resets", self.resets),
            ("broker kills", self.kills),
            ("power cuts", self.power_cuts),
            ("power cuts in disk calls", self.power_cuts_in_disk_calls),
            ("hand-overs", self.hand_overs),
            ("take-overs", self.take_overs),
            ("disk hangs", self.disk_hangs),
            ("client kills", self.client_kills),
            ("client power cuts", self.client_power_cuts),
        ]
    }
}

/// What a fault becomes when its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The link between a client and a broker is as it was.
    Heal { client: usize, broker: usize },
    /// A host leads again.
    Lead,
    /// A client lives again.
    Revive(usize),
}

/// See the module's documentation.
pub(super) struct Faults<'w> {
    world: &'w World,
    rng: Rng,
    pub(super) counts: FaultCounts,
    next_at: Duration,
    ends: Vec<(Duration, End)>,
    /// Nobody leads: the last leader is dead.
    leaderless: bool,
    /// Clients that are dead.
    dead: Vec<bool>,
}

/// The host of a client.
pub(super) fn client_host(client: usize) -> String {
    format!("client-{client}")
}

fn broker_host(broker: usize) -> String {
    broker_hosts().get(broker).cloned().unwrap_or_default()
}

impl<'w> Faults<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        Self {
            world,
            rng: world.fork(),
            counts: FaultCounts::default(),
            next_at: Duration::from_millis(50),
            ends: Vec::new(),
            leaderless: false,
            dead: vec![false; world.shape.clients],
        }
    }

    fn note(&self, what: fmt::Arguments<'_>) {
        self.world.note("---", what);
    }

    /// Ends what is over, and begins what is due. With `all`, everything ends and nothing begins.
    pub(super) fn turn(&mut self, sim: &mut Sim<'_>, all: bool) {
        let now = self.world.now();
        self.look_after_leader(sim);
        let (over, ends): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(at, _)| all || *at <= now);
        self.ends = ends;
        for (_, end) in over {
            self.end(sim, end);
        }
        if !all && now >= self.next_at {
            let calm = u64::try_from(self.world.shape.calm.as_millis()).unwrap_or(100);
            self.next_at = now + Duration::from_millis(1 + self.rng.below(2 * calm));
            self.begin(sim);
        }
    }

    /// A leader that has left, or whose disk has lost its power, is followed by another one.
    fn look_after_leader(&mut self, sim: &mut Sim<'_>) {
        let lead = &self.world.lead;
        if self.leaderless {
            return;
        }
        if lead.left.replace(false) {
            self.counts.hand_overs += 1;
            let disk = lead.disk.borrow().kill();
            lead.disk.replace(disk);
            self.stop_broker(sim, lead.host.get(), false);
            self.follow();
        } else if lead.disk.borrow().is_crashed() {
            self.counts.power_cuts_in_disk_calls += 1;
            self.cut_power(sim);
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>) {
        let client = self.rng.index(self.world.shape.clients);
        let broker = self.rng.index(2);
        let (from, to) = (client_host(client), broker_host(broker));
        let long = if self.rng.chance(1, 4) { 3_000 } else { 400 };
        let until = self.world.now() + Duration::from_millis(1 + self.rng.below(long));
        let heal = End::Heal { client, broker };
        match self.rng.below(22) {
            0..=1 => {
                self.note(format_args!("{from} and {to} are parted"));
                self.counts.partitions += 1;
                sim.partition(from, to);
                self.ends.push((until, heal));
            }
            2..=4 => {
                let (from, to) = if self.rng.coin() {
                    (from, to)
                } else {
                    (to, from)
                };
                self.note(format_args!("nothing comes from {from} to {to}"));
                self.counts.one_way_cuts += 1;
                sim.partition_oneway(from, to);
                self.ends.push((until, heal));
            }
            5..=6 => {
                self.note(format_args!("{from} and {to} are held"));
                self.counts.holds += 1;
                sim.hold(from, to);
                self.ends.push((until, heal));
            }
            7..=8 => {
                self.note(format_args!("segments between {from} and {to} are dropped"));
                self.counts.lossy += 1;
                sim.set_link_fail_rate(from, to, 0.03);
                self.ends.push((until, heal));
            }
            9 => {
                self.note(format_args!("{from} and {to} are far apart"));
                self.counts.slow_links += 1;
                let latency = Duration::from_millis(20 + self.rng.below(300));
                sim.set_link_max_message_latency(from, to, latency);
                self.ends.push((until, heal));
            }
            10..=13 => {
                self.note(format_args!("connections of {from} are reset"));
                self.counts.resets += 1;
                self.world.sockets_of_client(client).reset();
            }
            14..=17 if !self.leaderless => self.strike_leader(sim),
            18..=19 if !self.dead(client) => self.strike_client(sim, client, until),
            20..=21 => {
                self.note(format_args!("the disk hangs"));
                self.counts.disk_hangs += 1;
                self.world.lead.hangs_until.set(until);
            }
            _ => {}
        }
    }

    fn dead(&self, client: usize) -> bool {
        self.dead.get(client).copied().unwrap_or(false)
    }

    fn strike_leader(&mut self, sim: &mut Sim<'_>) {
        let lead = &self.world.lead;
        match self.rng.below(8) {
            0..=1 => {
                self.note(format_args!("the leader is killed"));
                self.counts.kills += 1;
                let disk = lead.disk.borrow().kill();
                lead.disk.replace(disk);
                self.stop_broker(sim, lead.host.get(), false);
                self.follow();
            }
            2..=3 => {
                self.counts.power_cuts += 1;
                self.cut_power(sim);
            }
            4..=6 => {
                let disk = lead.disk.borrow();
                let at = disk.op_count() + 1 + self.rng.below(12);
                disk.fail_op(at, Fault::Crash);
            }
            _ => {
                self.note(format_args!("the leader is to leave"));
                lead.leave.set(true);
            }
        }
    }

    /// The leader's machine stops, and nothing that it had not sent yet is sent.
    fn cut_power(&mut self, sim: &mut Sim<'_>) {
        let lead = &self.world.lead;
        let host = lead.host.get();
        let mode = CrashMode::draw(&mut self.rng);
        self.note(format_args!("broker {host} loses power, {mode:?}"));
        self.stop_broker(sim, host, true);
        let disk = lead.disk.borrow().crash(&mut self.rng, mode);
        lead.disk.replace(disk);
        self.follow();
    }

    /// Stops a broker. With `silent` its peers are not told.
    fn stop_broker(&self, sim: &mut Sim<'_>, broker: usize, silent: bool) {
        let sockets = self.world.sockets_of_broker(broker);
        let clients = if silent {
            0..self.world.shape.clients
        } else {
            0..0
        };
        for client in clients.clone() {
            sim.partition(client_host(client), broker_host(broker));
        }
        sockets.stop(true);
        sim.crash(broker_host(broker));
        sockets.stop(false);
        for client in clients {
            self.heal(sim, client, broker);
        }
    }

    /// The same for a client.
    fn stop_client(&self, sim: &mut Sim<'_>, client: usize, silent: bool) {
        let sockets = self.world.sockets_of_client(client);
        let brokers = if silent { 0..2 } else { 0..0 };
        for broker in brokers.clone() {
            sim.partition(client_host(client), broker_host(broker));
        }
        sockets.stop(true);
        sim.crash(client_host(client));
        sockets.stop(false);
        for broker in brokers {
            self.heal(sim, client, broker);
        }
    }

    /// Somebody will lead again, here or elsewhere.
    fn follow(&mut self) {
        let lead = &self.world.lead;
        lead.leave.set(false);
        lead.left.set(false);
        if self.rng.coin() {
            self.counts.take_overs += 1;
            lead.host.set(1 - lead.host.get());
        }
        self.leaderless = true;
        let long = if self.rng.chance(1, 6) { 2_500 } else { 300 };
        let at = self.world.now() + Duration::from_millis(self.rng.below(long));
        self.ends.push((at, End::Lead));
    }

    fn strike_client(&mut self, sim: &mut Sim<'_>, client: usize, until: Duration) {
        let host = client_host(client);
        if self.rng.coin() {
            self.note(format_args!("{host} is killed"));
            self.counts.client_kills += 1;
            self.stop_client(sim, client, false);
        } else {
            self.note(format_args!("{host} loses power"));
            self.counts.client_power_cuts += 1;
            self.stop_client(sim, client, true);
        }
        self.world.history.borrow_mut().died(client);
        if let Some(readers) = self.world.readers.borrow_mut().get_mut(client) {
            readers.clear();
        }
        if let Some(dead) = self.dead.get_mut(client) {
            *dead = true;
        }
        self.ends.push((until, End::Revive(client)));
    }

    fn end(&mut self, sim: &mut Sim<'_>, end: End) {
        match end {
            End::Heal { client, broker } => {
                self.note(format_args!(
                    "{} and {} are as before",
                    client_host(client),
                    broker_host(broker)
                ));
                self.heal(sim, client, broker);
            }
            End::Lead => {
                self.leaderless = false;
                sim.bounce(broker_host(self.world.lead.host.get()));
            }
            End::Revive(client) => {
                if let Some(dead) = self.dead.get_mut(client) {
                    *dead = false;
                }
                sim.bounce(client_host(client));
            }
        }
    }

    /// Ends whatever is wrong with a link. What was held arrives; what was dropped does not.
    fn heal(&self, sim: &mut Sim<'_>, client: usize, broker: usize) {
        let (from, to) = (client_host(client), broker_host(broker));
        sim.set_link_fail_rate(from.as_str(), to.as_str(), 0.0);
        sim.set_link_max_message_latency(from.as_str(), to.as_str(), self.world.shape.latency_max);
        sim.release(from.as_str(), to.as_str());
        sim.repair(from, to);
    }

    /// Ends everything, for good.
    pub(super) fn finish(&mut self, sim: &mut Sim<'_>) {
        self.note(format_args!("the faults are over"));
        self.world.lead.disk.borrow().clear_faults();
        self.world.lead.hangs_until.set(Duration::ZERO);
        self.turn(sim, true);
        for client in 0..self.world.shape.clients {
            for broker in 0..2 {
                self.heal(sim, client, broker);
            }
        }
    }
}
