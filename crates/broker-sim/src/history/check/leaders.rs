//! Who led in which term, as all processes saw it.

use std::collections::HashMap;

use super::{Kind, Verdict, Writer};

/// Who led in which term, as all processes saw it.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// The process that leads in a term.
    pids: HashMap<u64, u32>,
    /// The agents' lives that said so of themselves.
    selves: HashMap<u64, Writer>,
    /// The newest term that the current process saw.
    seen: u64,
}

impl Leaders {
    pub(super) const fn begin_process(&mut self) {
        self.seen = 0;
    }

    pub(super) fn role(
        &mut self,
        writer: Writer,
        leads: bool,
        term: u64,
        pid: u32,
        verdict: &mut Verdict,
    ) {
        if term < self.seen {
            let text = || format!("{writer} saw term {term} after {}", self.seen);
            verdict.violation(Kind::TermFell, text);
        }
        self.seen = self.seen.max(term);
        let known = *self.pids.entry(term).or_insert(pid);
        if known != pid {
            let text = || format!("{writer} says that {pid} leads in term {term}, another {known}");
            verdict.violation(Kind::TwoLeaders, text);
        }
        if !leads {
            return;
        }
        if writer.pid != pid {
            let text = || format!("{writer} is {} and says it leads as {pid}", writer.pid);
            verdict.violation(Kind::Malformed, text);
        }
        let first = *self.selves.entry(term).or_insert(writer);
        if first != writer {
            let text = || format!("{first} and {writer} lead in term {term}");
            verdict.violation(Kind::TwoLeaders, text);
        }
    }

    pub(super) fn terms(&self) -> u64 {
        u64::try_from(self.pids.len()).unwrap_or(u64::MAX)
    }
}
