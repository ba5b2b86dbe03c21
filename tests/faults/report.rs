//! What a cell came to, as a line between two processes and as a table for people.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use dps_client::{Stage, Transport};

/// The steps of a registration, in order.
pub(crate) const STEPS: [Stage; 9] = [
    Stage::Resolve,
    Stage::Connect,
    Stage::Proxy,
    Stage::Tls,
    Stage::Websocket,
    Stage::Authenticate,
    Stage::Register,
    Stage::Query,
    Stage::EndSession,
];

/// Fine, or what is wrong.
pub(crate) type Outcome = Result<(), String>;

/// The last field of a line for another process: empty when it is fine.
pub(crate) fn text(outcome: &Outcome) -> String {
    outcome.as_ref().err().map_or_else(String::new, |why| why.replace(['\t', '\n'], " "))
}

/// Reads such a field.
pub(crate) fn outcome(text: &str) -> Outcome {
    if text.is_empty() { Ok(()) } else { Err(text.to_owned()) }
}

/// What one cell came to.
#[derive(Clone, Debug)]
pub(crate) struct CellReport {
    pub(crate) row: String,
    pub(crate) transport: Transport,
    pub(crate) step: Stage,
    pub(crate) outcome: Outcome,
    /// How long the registration (or the end of the session) took, and how long it might.
    pub(crate) took: Duration,
    pub(crate) bound: Duration,
    /// How long it took until everything was given back.
    pub(crate) given_back: Duration,
    /// Whether it was run once more with more time.
    pub(crate) again: bool,
}

impl CellReport {
    pub(crate) fn new(row: &str, transport: Transport, step: Stage) -> Self {
        Self {
            row: row.to_owned(),
            transport,
            step,
            outcome: Err("it was not run".to_owned()),
            took: Duration::ZERO,
            bound: Duration::ZERO,
            given_back: Duration::ZERO,
            again: false,
        }
    }

    /// How far past the deadline it was.
    pub(crate) fn late(&self) -> Duration {
        self.took.saturating_sub(self.bound)
    }

    /// One line, for another process.
    pub(crate) fn to_line(&self) -> String {
        let micros = [self.took, self.bound, self.given_back].map(|time| time.as_micros());
        let text = text(&self.outcome);
        format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{text}",
            self.row, self.transport, self.step, micros[0], micros[1], micros[2], self.again
        )
    }

    /// Reads such a line.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(8, '\t');
        let row = fields.next()?.to_owned();
        let transport = fields.next()?.parse().ok()?;
        let step = fields.next()?;
        let step = STEPS.into_iter().find(|stage| stage.as_str() == step)?;
        let mut time = || Some(Duration::from_micros(fields.next()?.parse().ok()?));
        let (took, bound, given_back) = (time()?, time()?, time()?);
        let again = fields.next()?.parse().ok()?;
        let outcome = outcome(fields.next()?);
        Some(Self { row, transport, step, outcome, took, bound, given_back, again })
    }
}

/// Rows of cells, a group of columns for each transport.
#[derive(Debug)]
pub(crate) struct Table {
    transports: Vec<Transport>,
    steps: Vec<Stage>,
    rows: Vec<(String, BTreeMap<usize, String>)>,
    pub(crate) legend: Vec<(char, &'static str)>,
}

impl Table {
    pub(crate) fn new(transports: &[Transport], steps: &[Stage]) -> Self {
        Self {
            transports: transports.into(),
            steps: steps.into(),
            rows: Vec::new(),
            legend: Vec::new(),
        }
    }

    /// Adds a row; the letter says why a cell can't be run.
    pub(crate) fn row(&mut self, name: &str, why_not: impl Fn(Transport, Stage) -> Option<char>) {
        let mut cells = BTreeMap::new();
        for (place, (transport, step)) in self.columns().into_iter().enumerate() {
            if let Some(letter) = why_not(transport, step) {
                cells.insert(place, letter.to_string());
            }
        }
        self.rows.push((name.to_owned(), cells));
    }

    /// Enters what a cell came to. A cell that failed once stays failed.
    pub(crate) fn enter(&mut self, report: &CellReport) {
        let column = (report.transport, report.step);
        let Some(place) = self.columns().iter().position(|other| *other == column) else { return };
        let Some((_, cells)) = self.rows.iter_mut().find(|(name, _)| *name == report.row) else {
            return;
        };
        let word = if report.outcome.is_ok() { "ok" } else { "FAIL" };
        cells
            .entry(place)
            .and_modify(|cell| {
                if cell == "ok" {
                    cell.replace_range(.., word);
                }
            })
            .or_insert_with(|| word.to_owned());
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// How many cells should have been run and were not.
    pub(crate) fn missing(&self) -> usize {
        let columns = self.transports.len() * self.steps.len();
        self.rows.iter().map(|(_, cells)| columns - cells.len()).sum()
    }

    fn columns(&self) -> Vec<(Transport, Stage)> {
        let steps =
            |transport: &Transport| self.steps.iter().map(|step| (*transport, *step)).collect();
        self.transports
            .iter()
            .flat_map(|transport: &Transport| -> Vec<_> { steps(transport) })
            .collect()
    }

    /// Whether a row has a cell that was run; those that were not wanted are left out.
    fn shows(&self, cells: &BTreeMap<usize, String>) -> bool {
        let was_run = |cell: &String| cell.len() > 1;
        cells.values().any(was_run) || !self.rows.iter().any(|(_, c)| c.values().any(was_run))
    }

    /// The table for people. What is `--` should have been run and was not.
    pub(crate) fn to_text(&self) -> String {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let group = self.steps.len() * 3;
        let mut text = format!("{:width$}", "");
        for transport in &self.transports {
            write!(text, " | {:group$}", transport.as_str()).ok();
        }
        write!(text, "\n{:width$}", "").ok();
        for _ in &self.transports {
            text.push_str(" | ");
            for step in &self.steps {
                write!(text, "{:3}", short(*step)).ok();
            }
        }
        for (name, cells) in self.rows.iter().filter(|(_, cells)| self.shows(cells)) {
            write!(text, "\n{name:width$}").ok();
            for place in 0..self.transports.len() * self.steps.len() {
                if place % self.steps.len() == 0 {
                    text.push_str(" | ");
                }
                write!(text, "{:3}", cells.get(&place).map_or("--", String::as_str)).ok();
            }
        }
        text.push_str("\n\n");
        let steps: Vec<_> =
            self.steps.iter().map(|step| format!("{} {step}", short(*step))).collect();
        writeln!(text, "{}", steps.join(", ")).ok();
        for (letter, why) in &self.legend {
            writeln!(text, "{letter}  {why}").ok();
        }
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

fn short(step: Stage) -> &'static str {
    match step {
        Stage::Resolve => "re",
        Stage::Connect => "co",
        Stage::Proxy => "pr",
        Stage::Tls => "tl",
        Stage::Websocket => "ws",
        Stage::Authenticate => "au",
        Stage::Register => "rg",
        Stage::Query => "qu",
        _ => "en",
    }
}

/// The largest and the middle one.
pub(crate) fn max_and_median(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    (times.last().copied().unwrap_or_default(), median)
}
