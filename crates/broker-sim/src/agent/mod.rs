//! An agent: a process that takes part in a store, sends, reads, asks, and writes down all of it, until it is killed or sent
//! home. A [`fleet`](crate::fleet) starts them.
//!
//! Its owner talks to it in lines:
//!
//! | on its stdin | it does | then says on its stdout |
//! |---|---|---|
//! | `rest` | begins no further send or request, waits for all answers | `resting` |
//! | `await ROOM SEQ` | goes on reading | `has ROOM SEQ` when it was delivered that far |
//! | end of file, or SIGTERM | rests, leaves the store in order | ends |
//!
//! By itself it says `leading term N` and `following term N` when that changes, `acks term N` at its first ack of a term, and
//! `sent N` when it has sent as many messages as it was to.

mod ask;
mod orders;
mod publish;
mod roles;
mod subscribe;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use broker_core::{Client, Config, Error, Node};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::orders::{Order, Orders};
use self::roles::Roles;
use crate::history::{Event, Place, Recorder};

/// How long nothing may move for an agent: far longer than any take-over, so that a failure is one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pages of history have numbers from here on, the subscription of the n-th room has n.
const FIRST_PAGE: u32 = 1_000;

/// What an agent may be to its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Role {
    /// Leads when nobody else does.
    #[default]
    Eligible,
    /// Never leads.
    Client,
    /// A daemon.
    Daemon,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Client => "client",
            Self::Daemon => "daemon",
        }
    }
}

/// What an agent does.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Work {
    /// What it is to the store.
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// Where it listens when it leads; nowhere when this is missing.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Only connects, to this address, instead of joining the store.
    #[arg(long)]
    pub connect: Option<String>,
    /// A room to work with; may be repeated.
    #[arg(long = "room")]
    pub rooms: Vec<String>,
    /// Sends to the rooms in turn.
    #[arg(long)]
    pub publish: bool,
    /// Reads all rooms.
    #[arg(long)]
    pub subscribe: bool,
    /// Most sends that are unanswered at a time; 0 is 1.
    #[arg(long, default_value_t)]
    pub pipeline: usize,
    /// Sends per second; 0 is as many as are answered.
    #[arg(long, default_value_t)]
    pub rate: u32,
    /// Bytes of a payload, at least those of its id.
    #[arg(long, default_value_t)]
    pub bytes: usize,
    /// Messages to send, 0 is without end.
    #[arg(long, default_value_t)]
    pub messages: u64,
    /// Moves its cursor after so many deliveries; 0 is never.
    #[arg(long, default_value_t)]
    pub cursor_every: u64,
    /// Asks something else at such intervals, in milliseconds; 0 is never.
    #[arg(long, default_value_t)]
    pub ask_every: u64,
}

impl Work {
    /// The arguments that say this.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let mut args = vec![format!("--role={}", self.role.as_str())];
        args.extend(self.listen.map(|address| format!("--listen={address}")));
        args.extend(self.connect.iter().map(|url| format!("--connect={url}")));
        args.extend(self.rooms.iter().map(|room| format!("--room={room}")));
        args.extend(self.publish.then(|| "--publish".to_owned()));
        args.extend(self.subscribe.then(|| "--subscribe".to_owned()));
        args.push(format!("--pipeline={}", self.pipeline));
        args.push(format!("--rate={}", self.rate));
        args.push(format!("--bytes={}", self.bytes));
        args.push(format!("--messages={}", self.messages));
        args.push(format!("--cursor-every={}", self.cursor_every));
        args.push(format!("--ask-every={}", self.ask_every));
        args
    }
}

/// The arguments of an agent.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The store.
    #[arg(long)]
    pub dir: PathBuf,
    /// Where it writes its history.
    #[arg(long)]
    pub history: PathBuf,
    /// Its number.
    #[arg(long)]
    pub agent: u32,
    /// Which of its lives this is, from 1.
    #[arg(long)]
    pub life: u32,
    /// Where to go on reading, as EPOCH/SEQ, for each room; the start when this is missing.
    #[arg(long, value_parser = parse_place)]
    pub from: Vec<Place>,
    /// What it does.
    #[command(flatten)]
    pub work: Work,
}

fn parse_place(text: &str) -> Result<Place, String> {
    text.parse().map_err(|_| format!("no place: {text}"))
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Working,
    /// No further sends and requests.
    Resting,
    /// No further reading.
    Leaving,
}

/// What all tasks of an agent share.
#[derive(Debug)]
struct Stage {
    args: Args,
    recorder: Arc<Recorder>,
    client: Client,
    roles: Roles,
    phase: watch::Receiver<Phase>,
    /// How far each room was delivered.
    progress: Vec<watch::Sender<u64>>,
    next_page: AtomicU32,
}

impl Stage {
    fn record(&self, event: &Event<'_>) -> io::Result<()> {
        self.recorder.record(event)
    }

    /// A request failed.
    fn unanswered(&self, what: &str, error: &Error) -> io::Result<()> {
        let text = &describe(error);
        self.record(&Event::Unanswered { what, text })
    }

    /// Waits until the agent is at least so far.
    async fn reached(&self, phase: Phase) {
        // An error means that the agent ends, which is as far as it gets.
        let _ = self.phase.clone().wait_for(|now| *now >= phase).await;
    }

    fn page_number(&self) -> u32 {
        self.next_page.fetch_add(1, Ordering::Relaxed)
    }
}

/// The name of an agent as a sender, and of its cursors.
#[must_use]
pub fn agent_name(agent: usize) -> String {
    format!("agent-{agent}")
}

/// An error with its causes.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Says a line to the owner. An owner that is gone closes stdin too, which ends the agent.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The way in which the agent takes part.
enum Part {
    Node(Node),
    Client(Client),
}

impl Part {
    async fn join(args: &Args) -> Result<Self, Error> {
        let name = agent_name(usize::try_from(args.agent).unwrap_or(usize::MAX));
        if let Some(url) = &args.work.connect {
            let config = Client::builder().sender(name).timeout(TIMEOUT);
            return config.connect(url).await.map(Self::Client);
        }
        let role = match args.work.role {
            Role::Eligible => broker_core::Role::Eligible,
            Role::Client => broker_core::Role::ClientOnly,
            Role::Daemon => broker_core::Role::ServeAlways,
        };
        let config = Config::new(&args.dir).listen(args.work.listen).role(role);
        let config = config.sender(name).timeout(TIMEOUT).build("agent");
        Node::join(config).await.map(Self::Node)
    }

    fn client(&self) -> Client {
        match self {
            Self::Node(node) => node.client(),
            Self::Client(client) => client.clone(),
        }
    }

    async fn leave(self) -> Result<(), Error> {
        match self {
            Self::Node(node) => node.shutdown().await,
            Self::Client(client) => client.shutdown().await,
        }
    }
}

/// Lives an agent's life, to its end in order.
///
/// # Errors
/// It cannot join or leave, or its history cannot be written.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut orders = Orders::listen()?;
    let recorder = Recorder::open(&args.history)?;
    let recorder = Arc::new(recorder);
    let (agent, life, pid) = (args.agent, args.life, std::process::id());
    recorder.record(&Event::Process { agent, life, pid })?;
    let part = tokio::select! {
        part = Part::join(&args) => part.context("joining")?,
        () = orders.end() => return Ok(()),
    };
    let (phase, phases) = watch::channel(Phase::Working);
    let stage = Arc::new(Stage {
        recorder: Arc::clone(&recorder),
        client: part.client(),
        roles: Roles::new(recorder, part.client().state()),
        phase: phases,
        progress: args
            .work
            .rooms
            .iter()
            .map(|_| watch::Sender::new(0))
            .collect(),
        next_page: AtomicU32::new(FIRST_PAGE),
        args,
    });
    let worked = work(&stage, &mut orders, &phase).await;
    let left = part.leave().await.context("leaving");
    worked.and(left)
}

/// Works until it is told to leave, and rests then.
async fn work(
    stage: &Arc<Stage>,
    orders: &mut Orders,
    phase: &watch::Sender<Phase>,
) -> anyhow::Result<()> {
    let mut working = JoinSet::new();
    let mut reading = JoinSet::new();
    stage.roles.note()?;
    reading.spawn(roles::watch(Arc::clone(stage)));
    if stage.args.work.subscribe {
        for index in 0..stage.args.work.rooms.len() {
            reading.spawn(subscribe::subscribe(Arc::clone(stage), index));
        }
    }
    if stage.args.work.publish {
        working.spawn(publish::publish(Arc::clone(stage)));
    }
    if stage.args.work.ask_every > 0 {
        working.spawn(ask::ask(Arc::clone(stage)));
    }
    loop {
        let order = tokio::select! {
            order = orders.next() => order,
            Some(ended) = working.join_next() => { ended??; continue }
            Some(ended) = reading.join_next() => { ended??; continue }
        };
        match order {
            Order::Rest => {
                phase.send_replace(Phase::Resting);
                drain(&mut working).await?;
                say("resting");
            }
            Order::Await { room, seq } => announce(stage, room, seq),
            Order::Leave => break,
        }
    }
    phase.send_replace(Phase::Resting);
    drain(&mut working).await?;
    phase.send_replace(Phase::Leaving);
    drain(&mut reading).await
}

async fn drain(tasks: &mut JoinSet<io::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Says it when a room was delivered so far.
fn announce(stage: &Stage, room: String, seq: u64) {
    let index = stage.args.work.rooms.iter().position(|name| *name == room);
    let Some(progress) = index.and_then(|index| stage.progress.get(index)) else {
        return;
    };
    let mut progress = progress.subscribe();
    tokio::spawn(async move {
        if progress.wait_for(|now| *now >= seq).await.is_ok() {
            say(&format!("has {room} {seq}"));
        }
    });
}
