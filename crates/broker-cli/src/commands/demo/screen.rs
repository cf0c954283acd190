//! [`Screen`]: how the take-over demo looks: on a terminal a table that grows, with a few lines beneath
//! that are drawn again in place; otherwise the table alone, or JSON.

use std::fmt::Write as _;
use std::time::Duration;

use super::tally::{Summary, Takeover};
use crate::exit::Failure;
use crate::output::{self, Stdout, put};

/// Columns when the terminal does not say. Lines are cut there: one that wraps could not be drawn
/// again in place.
const COLUMNS: usize = 80;

/// How things stand, for the lines beneath the table.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Who leads: name, process, term.
    pub(super) leader: Option<(String, u32, u64)>,
    /// Messages acknowledged, and how many a second.
    pub(super) acked: u64,
    pub(super) per_second: u64,
    /// Each agent, with how many of its messages were acknowledged.
    pub(super) agents: Vec<(String, u64)>,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// What is being done.
    pub(super) doing: String,
}

/// Where the demo shows itself.
pub(super) struct Screen {
    out: Stdout,
    form: Form,
    /// Lines beneath the table, to be drawn over.
    drawn: usize,
    columns: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Plain,
    Live { colour: bool },
}

impl Screen {
    /// Takes standard output.
    pub(super) fn new(as_json: bool) -> Self {
        let capable = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let form = if as_json {
            Form::Json
        } else if output::is_terminal() && capable {
            Form::Live {
                colour: output::is_colourful(),
            }
        } else {
            Form::Plain
        };
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        Self {
            out: output::stdout(),
            form,
            drawn: 0,
            columns: if columns == 0 { COLUMNS } else { columns },
        }
    }

    /// What is about to be seen.
    pub(super) fn begin(&mut self, agents: usize, rate: u32, kills: u32) -> Result<(), Failure> {
        let times = match kills {
            1 => "once".to_owned(),
            kills => format!("{kills} times"),
        };
        self.lines(&format!(
            "{agents} agents, a process each, share a room. There is no server: one of them leads,\n\
             the others stand by. Each sends {rate} messages a second and follows the room.\n\
             The leader is killed with SIGKILL, {times}; a new agent takes its place.\n\n\
             {}",
            row(&[
                "kill", "killed", "pid", "leads", "pid", "term", "first ack", "all acked", "lost",
                "doubled"
            ])
        ))
    }

    /// One more line of the table.
    pub(super) fn takeover(&mut self, one: &Takeover) -> Result<(), Failure> {
        if self.form == Form::Json {
            return self.json(&one.json());
        }
        let (killed, leader) = (&one.killed, &one.leader);
        self.lines(&row(&[
            &one.number.to_string(),
            &killed.0,
            &killed.1.to_string(),
            &leader.0,
            &leader.1.to_string(),
            &leader.2.to_string(),
            &millis(one.first()),
            &millis(one.all()),
            &one.lost.to_string(),
            &one.doubled.to_string(),
        ]))
    }

    /// Draws the lines beneath the table, if this is a terminal.
    pub(super) fn draw(&mut self, standing: &Standing) -> Result<(), Failure> {
        let Form::Live { colour } = self.form else {
            return Ok(());
        };
        self.erase();
        let columns = self.columns.saturating_sub(1);
        let lines = lines(standing);
        for (line, bold) in &lines {
            let cut: String = line.chars().take(columns).collect();
            if colour && *bold {
                put(self.out.buffer(), format_args!("\x1b[1m{cut}\x1b[0m\n"));
            } else {
                put(self.out.buffer(), format_args!("{cut}\n"));
            }
        }
        self.drawn = lines.len();
        Ok(self.out.flush()?)
    }

    /// How it ended.
    pub(super) fn end(&mut self, summary: &Summary) -> Result<(), Failure> {
        if self.form == Form::Json {
            return self.json(&summary.json());
        }
        let found = &summary.findings;
        let mut text = format!(
            "\n{} leaders killed, {} messages acknowledged. Read back from the disk:\n\
             lost {}, doubled {}, out of order {}",
            summary.kills,
            grouped(summary.acked),
            found.lost,
            found.doubled,
            found.reordered + found.strange
        );
        // Writing to a string cannot fail.
        let _ = if found.misread == 0 {
            writeln!(text, "; all {} agents saw the same room.", summary.started)
        } else {
            writeln!(
                text,
                "; {} times an agent saw something else.",
                found.misread
            )
        };
        for (what, pauses) in [
            ("until the first ack", summary.first),
            ("until every agent had one", summary.all),
        ] {
            let (p50, max) = (millis(pauses.p50), millis(pauses.max));
            let _ = writeln!(text, "pause {what:<26} p50 {p50:>9}   max {max:>9}");
        }
        self.lines(&text)
    }

    /// Writes lines that stay.
    fn lines(&mut self, text: &str) -> Result<(), Failure> {
        if self.form == Form::Json {
            return Ok(());
        }
        self.erase();
        put(self.out.buffer(), format_args!("{text}"));
        Ok(self.out.flush()?)
    }

    fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        put(self.out.buffer(), format_args!("{value}\n"));
        Ok(self.out.flush()?)
    }

    /// Goes back to where the drawn lines begin, and clears what follows.
    fn erase(&mut self) {
        if self.drawn > 0 {
            put(
                self.out.buffer(),
                format_args!("\x1b[{}A\r\x1b[J", self.drawn),
            );
            self.drawn = 0;
        }
    }
}

/// A line of the table; words to the left, numbers to the right.
fn row(cells: &[&str; 10]) -> String {
    let [
        kill,
        killed,
        pid,
        leads,
        to,
        term,
        first,
        all,
        lost,
        doubled,
    ] = cells;
    format!(
        "{kill:>4}  {killed:<6}{pid:>8}  {leads:<6}{to:>8}{term:>6}{first:>11}{all:>11}{lost:>6}{doubled:>9}\n"
    )
}

/// The lines beneath the table, and which of them stand out.
fn lines(standing: &Standing) -> Vec<(String, bool)> {
    let leader = match &standing.leader {
        Some((name, pid, term)) => format!("{name} leads (pid {pid}, term {term})"),
        None => "nobody leads".to_owned(),
    };
    let mut agents = String::new();
    for (name, acked) in &standing.agents {
        let _ = write!(agents, "   {name} {}", grouped(*acked));
    }
    vec![
        (String::new(), false),
        (format!("      {leader}"), true),
        (
            format!(
                "      {} acked, {} a second, lost {}, doubled {}",
                grouped(standing.acked),
                grouped(standing.per_second),
                standing.lost,
                standing.doubled
            ),
            standing.lost + standing.doubled > 0,
        ),
        (format!("   {agents}"), false),
        (format!("      {}", standing.doing), false),
    ]
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn what_is_drawn_fits_on_a_terminal() {
        let standing = Standing {
            leader: Some(("ann-2".to_owned(), 4_194_304, 99)),
            acked: 9_999_999,
            per_second: 99_999,
            agents: vec![("zoe-2".to_owned(), 99_999); 5],
            lost: 0,
            doubled: 0,
            doing: "waiting".to_owned(),
        };
        for (line, _) in lines(&standing) {
            assert!(line.len() < COLUMNS, "{line}");
        }
        let line = row(&[
            "1000",
            "zoe-2",
            "4194304",
            "zoe-3",
            "4194304",
            "1001",
            "10000.00 ms",
            "10000.00 ms",
            "0",
            "0",
        ]);
        assert!(line.len() <= COLUMNS, "{line}");
    }
}
