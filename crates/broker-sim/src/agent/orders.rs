//! What an agent is told: lines on stdin, and SIGTERM.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Begin nothing more, and wait for the answers.
    Rest,
    /// Say when a room was delivered so far.
    Await { room: String, seq: u64 },
    /// Leave in order.
    Leave,
}

impl Order {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        match (words.next()?, words.next(), words.next()) {
            ("rest", None, None) => Some(Self::Rest),
            ("await", Some(room), Some(seq)) => Some(Self::Await {
                room: room.to_owned(),
                seq: seq.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// The orders as they come.
#[derive(Debug)]
pub(super) struct Orders {
    lines: mpsc::UnboundedReceiver<Order>,
    terminate: Signal,
    /// Orders that came too early.
    kept: VecDeque<Order>,
}

impl Orders {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, lines) = mpsc::unbounded_channel();
        // A thread that nobody waits for: a read of stdin cannot be given up.
        std::thread::Builder::new()
            .name("orders".to_owned())
            .spawn(move || {
                for line in io::stdin().lock().lines() {
                    let Some(order) = line.ok().as_deref().and_then(Order::parse) else {
                        break;
                    };
                    if sender.send(order).is_err() {
                        break;
                    }
                }
            })?;
        let terminate = signal(SignalKind::terminate())?;
        let kept = VecDeque::new();
        Ok(Self {
            lines,
            terminate,
            kept,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Order {
        match self.kept.pop_front() {
            Some(order) => order,
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Order {
        tokio::select! {
            order = self.lines.recv() => order.unwrap_or(Order::Leave),
            _ = self.terminate.recv() => Order::Leave,
        }
    }

    /// Waits for the order to leave, and keeps the others for later.
    pub(super) async fn end(&mut self) {
        loop {
            match self.receive().await {
                Order::Leave => return,
                order => self.kept.push_back(order),
            }
        }
    }
}
