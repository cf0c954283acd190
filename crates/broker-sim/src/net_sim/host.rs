//! The broker's hosts: the production server over the production store, on a simulated network and disk.
//!
//! One host leads at a time, with the disk that both can reach. What threads do in production, one task does here: it lets the
//! writer take a step whenever it is its time.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use broker_core::net::{Server, ServerConfig};
use broker_core::session::{Farewell, Patience, Progress};
use broker_core::store::{EmbeddedConfig, EmbeddedStore, Engine, Store};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::wire::SimListener;
use super::world::World;
use crate::campaign::Broken;
use crate::disk::SimDisk;
use crate::rig::store_id;
use crate::rng::Rng;

type SimStore = EmbeddedStore<SimDisk>;

/// Steps without work before the writer marks the end of the log.
const IDLE_STEPS: u32 = 200;

/// The program of a broker's host: leads if that is its part, and does nothing otherwise.
pub(super) async fn run(world: Rc<World>, host: usize) -> turmoil::Result {
    if world.lead.host.get() == host {
        let mut rng = world.fork();
        let led = lead(&world, host, &mut rng).await;
        if world.lost_power() {
            world.sockets_of_broker(host).go_dark();
        } else {
            world.hold(format_args!("broker {host}"), led.map_err(Broken::from));
        }
    }
    std::future::pending().await
}

async fn lead(world: &Rc<World>, host: usize, rng: &mut Rng) -> Result<(), String> {
    let who = format!("broker {host}");
    let config = ServerConfig {
        build: "net_sim".to_owned(),
        role: "eligible",
        connections_max: 1000,
        patience: Patience::default(),
    };
    let server: Server<SimStore> = Server::start_on(Handle::current(), config);
    let listener = SimListener::bind(world.sockets_of_broker(host), rng.fork()).await;
    server.listen(listener.map_err(|error| format!("cannot listen: {error}"))?);
    server.progress(Progress::default());
    // Peers are greeted while the log is replayed.
    if rng.coin() {
        sleep(Duration::from_millis(rng.below(400))).await;
    }
    let (store, engine) = open(world, &who, rng)?;
    server.serve(Arc::clone(&store));
    if work(world, &store, &server, engine, rng).await.is_some() {
        world.note(&who, format_args!("left"));
        world.lead.left.set(true);
    }
    Ok(())
}

fn open(
    world: &World,
    who: &str,
    rng: &mut Rng,
) -> Result<(Arc<SimStore>, Engine<SimDisk>), String> {
    let (lead, shape) = (&world.lead, &world.shape);
    let mut config = EmbeddedConfig::new(store_id());
    // As the lock file does, of which there is none here.
    config.term_floor = lead.term.get();
    config.segment_bytes_min = shape.limits.segment_bytes_min;
    config.segment_bytes_max = shape.limits.segment_bytes_max;
    config.checkpoint_bytes_min = shape.limits.checkpoint_bytes_min;
    config.batch_bytes_max = shape.limits.batch_bytes_max;
    config.tail_bytes_max = shape.limits.tail_bytes_max;
    config.queue_bytes_max = shape.queue_bytes_max;
    config.clock = Arc::new(world.clock.clone());
    config.random = Box::new(rng.fork());
    let disk = Arc::new(lead.disk.borrow().clone());
    let opened = EmbeddedStore::open_manual(disk, config, &mut |_, _| {});
    let (store, engine) = opened.map_err(|error| format!("the store cannot be opened: {error}"))?;
    let info = store.info();
    world.note(
        who,
        format_args!(
            "leads with term {}, {} rooms, {} bytes",
            info.term.get(),
            info.rooms,
            info.log_bytes
        ),
    );
    if info.damaged > 0 {
        return Err(format!("{} places of the log are damaged", info.damaged));
    }
    let term = info.term.get();
    if term <= lead.term.replace(term) {
        return Err(format!(
            "term {term} is not higher than that of the leader before"
        ));
    }
    lead.leaderships.set(lead.leaderships.get() + 1);
    Ok((store, engine))
}

/// The writer's thread, and the owner's, until the owner wants to leave. `None` when the power is gone.
async fn work(
    world: &World,
    store: &Arc<SimStore>,
    server: &Server<SimStore>,
    mut engine: Engine<SimDisk>,
    rng: &mut Rng,
) -> Option<()> {
    let lead = &world.lead;
    let mut idle = 0;
    while !lead.leave.get() {
        step(world, &mut engine, &mut idle, rng).await?;
    }
    lead.leave.set(false);
    let drained = server.drain(Arc::clone(store), Duration::from_secs(2));
    let mut drained = std::pin::pin!(drained);
    loop {
        tokio::select! {
            biased;
            _ = &mut drained => break,
            powered = step(world, &mut engine, &mut idle, rng) => powered?,
        }
    }
    store.close();
    engine.close();
    if world.lost_power() {
        return None;
    }
    let farewell = Farewell::default();
    server.farewell(farewell, Duration::from_millis(500)).await;
    Some(())
}

/// Lets some time pass, and the writer do one thing.
async fn step(
    world: &World,
    engine: &mut Engine<SimDisk>,
    idle: &mut u32,
    rng: &mut Rng,
) -> Option<()> {
    let hangs = world.lead.hangs_until.get().saturating_sub(world.now());
    sleep(hangs + Duration::from_micros(1 + rng.below(world.shape.step_max))).await;
    if engine.step() {
        *idle = 0;
        let calls = world.lead.disk.borrow().op_count();
        world.note("disk", format_args!("{calls} calls"));
        engine.keep_house();
    } else {
        *idle = idle.saturating_add(1);
        if *idle == IDLE_STEPS {
            engine.idle();
        }
    }
    // What the writer said last was never sent.
    (!world.lost_power()).then_some(())
}
