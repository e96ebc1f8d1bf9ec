//! What the bench prints, and keeps in `target/bench/latest.txt`.
#![expect(clippy::needless_pass_by_value, reason = "what is printed is given as it is at hand: text or figures")]

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{lab::Lab, stats::Figure, support::sidecar};

/// One line of a row's table.
pub struct Line {
    cells: [String; 5],
    reached: Option<bool>,
}

impl Line {
    /// Shown, but no goal.
    pub fn info(what: &str, ours: impl ToString, reference: impl ToString) -> Self {
        let cells = [what.to_owned(), ours.to_string(), reference.to_string(), String::new(), String::new()];
        Self { cells, reached: None }
    }

    /// Two figures side by side, no goal.
    pub fn compare(what: &str, ours: Figure, reference: Figure) -> Self {
        let mut line = Self::info(what, ours, reference);
        line.cells[3] = ratio(ours.value() / reference.value());
        line
    }

    /// A figure that must not exceed `limit`.
    pub fn at_most(what: &str, ours: Figure, limit: Figure) -> Self {
        let mut line = Self::info(what, ours, "");
        line.goal(format!("<= {limit}"), ours.value() <= limit.value())
    }

    /// `ours` may be at most `limit` times the reference.
    pub fn at_most_times(what: &str, ours: Figure, reference: Figure, limit: f64) -> Self {
        let mut line = Self::compare(what, ours, reference);
        line.goal(format!("<= {limit}x"), ours.value() <= limit * reference.value())
    }

    /// `ours` has to be at least `limit` times the reference.
    pub fn at_least_times(what: &str, ours: Figure, reference: Figure, limit: f64) -> Self {
        let mut line = Self::compare(what, ours, reference);
        line.goal(format!(">= {limit}x"), ours.value() >= limit * reference.value())
    }

    /// The reference must be at least `limit` times `ours`.
    pub fn at_least_times_less(what: &str, ours: Figure, reference: Figure, limit: f64) -> Self {
        let mut line = Self::info(what, ours, reference);
        line.cells[3] = format!("1/{:.0}", reference.value() / ours.value());
        line.goal(format!("<= 1/{limit}"), reference.value() >= limit * ours.value())
    }

    /// With what stands beside it for comparison.
    #[must_use]
    pub fn beside(mut self, reference: impl ToString) -> Self {
        self.cells[2] = reference.to_string();
        self
    }

    fn goal(&mut self, goal: String, reached: bool) -> Self {
        self.cells[4] = goal;
        Self { cells: std::mem::take(&mut self.cells), reached: Some(reached) }
    }

    fn verdict(&self) -> &'static str {
        match self.reached {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        }
    }
}

fn ratio(value: f64) -> String {
    if value < 0.1 { format!("1/{:.0}", value.recip()) } else { format!("{value:.2}x") }
}

pub struct Report {
    text: String,
    path: PathBuf,
    missed: usize,
    goals: usize,
}

impl Report {
    pub fn new() -> anyhow::Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&dir)?;
        Ok(Self { text: String::new(), path: dir.join("latest.txt"), missed: 0, goals: 0 })
    }

    pub fn head(&mut self, lab: &Lab) -> anyhow::Result<()> {
        let binary = sidecar::binary();
        anyhow::ensure!(binary.is_file(), "no daemon at {}: build it, or set SIDECAR_BIN", binary.display());
        let shown = binary.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&binary).display().to_string();
        let cores = std::thread::available_parallelism()?;
        self.say(&format!("daemon: {shown}; {cores} cores, load {}", load()));
        let floor_build = if cfg!(debug_assertions) { "a DEBUG build: rows 2, 8 and 9 flatter us" } else { "release" };
        let libc = if cfg!(target_env = "musl") { "musl" } else { "glibc" };
        self.say(&format!("floor server (bare hyper + tokio-rustls, same crates): {libc}, {floor_build}"));
        if lab.quick {
            self.say("BENCH_QUICK=1: less waiting and fewer runs; row 4 in particular says little");
        }
        Ok(())
    }

    pub fn say(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub fn table(&mut self, title: &str, lines: &[Line]) {
        self.say(&format!("\n{title} (load {})", load()));
        let head = ["", "ours", "reference", "ratio", "goal"].map(str::to_owned);
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = lines.iter().map(|line| &line.cells[column]).chain([&head[column]]);
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let shown = |cells: &[String; 5], verdict: &str| {
            let mut text = String::new();
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                // Writing to a String does not fail.
                let _ = if column == 0 { write!(text, "  {cell:<width$}") } else { write!(text, "  {cell:>width$}") };
            }
            format!("{text}  {verdict}").trim_end().to_owned()
        };
        self.say(&shown(&head, ""));
        for line in lines {
            self.goals += usize::from(line.reached.is_some());
            self.missed += usize::from(line.reached == Some(false));
            self.say(&shown(&line.cells, line.verdict()));
        }
    }

    pub fn foot(&mut self) {
        let (goals, missed) = (self.goals, self.missed);
        self.say(&format!("\n{} of {goals} goals reached, {missed} missed", goals - missed));
    }

    pub fn save(&self) -> anyhow::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).open(&self.path)?;
        Ok(file.write_all(self.text.as_bytes())?)
    }
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
