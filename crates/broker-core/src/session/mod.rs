//! One peer as a state machine: frames and notices go in, bytes come out.
//!
//! ```text
//!              Hello, store open                     Publish, Subscribe, Read, Credit, ...
//!   Greeting ---------------------------> Ready -----------------------------------------> Ready
//!      |                                    ^  \
//!      | Hello, store still recovering      |   \ Goodbye, a fault, a timeout, the server leaves
//!      +--------------------> Starting -----+    +------------------------------------> Closing
//!                                store opens       (also from Greeting and Starting)
//! ```
//! With known places in the hello the store compares them first ([`Store::verify`](crate::store::Store::verify)); a loss leads to
//! Closing. A frame without an arrow here ends the session with `ErrorCode::UNEXPECTED_FRAME`. What a peer may
//! do after its hello exists only in `Ready`: there is no store to publish to before.
//!
//! A [`Session`] knows no sockets, no runtime and no clock. Its driver hands it decoded frames
//! ([`Session::handle_frame`]), what the store says ([`Session::handle_notices`]), how the server
//! fares ([`Session::handle_stage`]) and the time ([`Session::handle_timeout`]); calls
//! [`Session::turn`] once after each round of these; and writes [`Session::outbox`] as far as the
//! transport takes it. Time is a duration since the server began.
//!
//! **Invariants:** a message is acknowledged only by what the store posted; at most 64 KiB of
//! deliveries (or one message) wait in front of an ack; everything a peer can make grow has a limit
//! in [`Terms`].

mod credit;
mod liveness;
mod losses;
mod managing;
mod outbox;
mod publishing;
mod requests;
mod stage;
mod state;
mod subscriptions;
mod terms;
#[cfg(test)]
mod tests;
mod turn;

pub use liveness::Patience;
pub use outbox::Outbox;
pub use stage::{Farewell, Progress, Stage};
pub use state::Session;
pub use terms::{Host, Terms};
