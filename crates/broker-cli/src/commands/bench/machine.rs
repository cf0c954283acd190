//! [`Machine`]: what a benchmark runs on, and what else that is doing.

use serde_json::{Value, json};

/// The machine, looked at before the benchmark.
#[derive(Debug)]
pub(crate) struct Machine {
    model: Option<String>,
    cores: usize,
    /// How many tasks wanted to run, over the last 1, 5 and 15 minutes.
    load: Option<[f64; 3]>,
}

impl Machine {
    /// Looks. What the system does not say is left out.
    pub(crate) fn look() -> Self {
        let read = |file| std::fs::read_to_string(file).ok();
        Self {
            model: read("/proc/cpuinfo").and_then(|text| model(&text)),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: read("/proc/loadavg").and_then(|text| load(&text)),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = match &self.model {
            Some(model) => format!("{model}, "),
            None => String::new(),
        };
        text.push_str(&format!(
            "{} cores, {} {}",
            self.cores,
            std::env::consts::OS,
            std::env::consts::ARCH
        ));
        if let Some([one, five, fifteen]) = self.load {
            text.push_str(&format!(
                ", load average before {one:.2} {five:.2} {fifteen:.2}"
            ));
        }
        text
    }

    /// For scripts.
    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.model,
            "cores": self.cores,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "load_average_before": self.load,
        })
    }
}

/// The first `model name` of `/proc/cpuinfo`.
fn model(cpuinfo: &str) -> Option<String> {
    let name = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(name)
}

fn load(loadavg: &str) -> Option<[f64; 3]> {
    let mut numbers = loadavg.split_ascii_whitespace().map(str::parse);
    let mut number = || numbers.next()?.ok();
    Some([number()?, number()?, number()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU @ 3: GHz\nmodel name\t: B\n";
        assert_eq!(model(cpuinfo).as_deref(), Some("A CPU @ 3: GHz"));
        assert_eq!(model("Hardware : x\n"), None);
        assert_eq!(load("0.50 1.25 2.00 1/99 77\n"), Some([0.5, 1.25, 2.0]));
        assert_eq!(load("x"), None);
        let machine = Machine {
            model: None,
            cores: 2,
            load: Some([0.5, 1.25, 2.0]),
        };
        assert!(
            machine
                .text()
                .ends_with("load average before 0.50 1.25 2.00"),
            "{}",
            machine.text()
        );
    }
}
