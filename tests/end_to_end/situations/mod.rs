//! Generated situations of a restore: a seed composes one out of independent dimensions, and the dry run in it has
//! the verdict and the exit code of the restore after it. `KBAK_TEST_SEED=N` runs one seed alone.

mod cluster_objects;
mod clusters;
mod databases;
mod folders;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::program::{at_full_size, print_figure};
use crate::support::tree::Numbers;

pub use databases::unforeseen_gaps;

/// The situations at full size, for each in an ordinary run of the tests.
const FULL_SIZE: u64 = 10;

/// The choices that compose a situation. The first value of each dimension is the usual one.
pub struct Choices {
    numbers: Numbers,
    /// The unusual value that this situation is about, counted over all dimensions.
    focus: usize,
    /// The number of unusual values in the dimensions so far.
    counted: usize,
    unusual: Vec<String>,
}

impl Choices {
    fn new(seed: u64, focus: usize) -> Self {
        Self { numbers: Numbers::new(seed + 1), focus, counted: 0, unusual: Vec::new() }
    }

    /// Chooses the value of a dimension. Most values are usual, so that a situation rarely has more than two
    /// reasons to end as it does.
    pub fn pick<T: Copy + Debug>(&mut self, dimension: &str, values: &[T]) -> T {
        let others = values.len() - 1;
        let at = match self.focus.checked_sub(self.counted) {
            Some(at) if at < others => at + 1,
            _ if self.numbers.below(6) == 0 => self.numbers.below(values.len() as u64) as usize,
            _ => 0,
        };
        self.counted += others;
        if at > 0 {
            self.unusual.push(format!("{dimension}: {:?}", values[at]));
        }
        values[at]
    }

    /// Returns a name for the situation.
    fn describe(&self, seed: u64) -> String {
        format!("seed {seed} ({})", self.unusual.join(", "))
    }
}

/// Composes situations: each with its seed, and its unusual values in words.
fn compose<S>(count: u64, make: impl Fn(&mut Choices) -> S) -> Vec<(u64, String, S)> {
    let mut all = Choices::new(0, usize::MAX);
    make(&mut all);
    let asked = std::env::var("KBAK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = match asked {
        Some(seed) => seed..seed + 1,
        None => 0..if at_full_size() { count * FULL_SIZE } else { count },
    };
    let situation = |seed: u64| {
        // A prime step: few seeds visit all dimensions, and many all values.
        let mut choices = Choices::new(seed, (seed * 37 % all.counted as u64) as usize);
        let made = make(&mut choices);
        (seed, choices.describe(seed), made)
    };
    seeds.map(situation).collect()
}

/// Fails if the two runs differ in a situation; names all of them.
fn require_none(of: &str, differences: &[String], count: usize) {
    assert!(count > 0, "no situation");
    let number = differences.len();
    assert!(differences.is_empty(), "{number} of {count} situations differ:\n{}", differences.join("\n\n"));
    print_figure(&format!("{count} generated situations of {of}: dry run and restore agree"));
}

/// The result of a run as it concerns its caller.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    code: i32,
    /// The failure that ended the run.
    failure: Option<String>,
    /// Each item, with true if all of it that was asked for is restored. Empty after a failure.
    items: BTreeMap<String, bool>,
}

impl Verdict {
    /// Reads a dry run that wrote JSON, and its report if it failed.
    fn of_dry_run(output: &Output, report: &Path) -> Self {
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Self::new(output, report, &shown, |item| item["outcome"] == "safe")
    }

    /// Reads a restore that wrote a report.
    fn of_restore(output: &Output, report: &Path) -> Self {
        let shown = read_report(report);
        Self::new(output, report, &shown, |item| item["state"] == "good")
    }

    fn new(output: &Output, report: &Path, shown: &Value, is_whole: impl Fn(&Value) -> bool) -> Self {
        let failure = read_report(report)["failure"]["what"].as_str().map(str::to_owned);
        let items = shown["items"].as_array().filter(|_| failure.is_none()).into_iter().flatten();
        let items = items.map(|item| (item["item"].as_str().expect("a name").to_owned(), is_whole(item)));
        Self { code: output.status.code().unwrap_or(-1), items: items.collect(), failure }
    }
}

/// Returns a run's report; null if it wrote none.
fn read_report(report: &Path) -> Value {
    std::fs::read(report).map(|text| serde_json::from_slice(&text).expect("JSON")).unwrap_or_default()
}

/// Compares the verdicts of a dry run and of the restore after it. Returns what both said if they differ.
fn difference(name: &str, dry: (&Verdict, &Output), real: (&Verdict, &Output)) -> Option<String> {
    if dry.0 == real.0 {
        return None;
    }
    let said = |output: &Output| {
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
    };
    let (dry_said, real_said) = (said(dry.1), said(real.1));
    Some(format!("{name}\n  dry run: {:?}\n  restore: {:?}\n{dry_said}\n{real_said}", dry.0, real.0))
}
