//! What the person in front of the screen sees while it runs: how far the work has come, and the moments worth a line.
//!
//! On a terminal these are bars that stay where they are; elsewhere, and for programs, a line whenever a tenth is done. All
//! of it goes to standard error: standard output is for results.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};

/// A stage of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Deliveries that the hook has taken.
    Delivered,
    /// Incidents fetched and classified.
    Classified,
    /// Write-backs that policy or a person has decided on.
    Decided,
    /// Incidents changed in ServiceNow.
    Written,
    /// Runs that have come to an end.
    Finished,
}

const MARKS: [(Mark, &str); 5] = [
    (Mark::Delivered, "delivered"),
    (Mark::Classified, "classified"),
    (Mark::Decided, "approved or denied"),
    (Mark::Written, "written back"),
    (Mark::Finished, "finished"),
];
/// Plain lines are written each time this share is done, in percent.
const STEP_PERCENT: u64 = 10;

/// The display.
pub struct Progress {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    plain: bool,
    total: u64,
    said: u64,
}

impl Progress {
    /// A display of work on `total` incidents. `plain` forces lines.
    pub fn new(total: u64, plain: bool) -> Progress {
        let plain = plain || !std::io::stderr().is_terminal();
        let all = MultiProgress::with_draw_target(if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        });
        let style = ProgressStyle::with_template("  {prefix:>20} {bar:36} {pos:>5} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        let bars = MARKS.iter().map(|(_, name)| {
            let bar = all.add(ProgressBar::new(total));
            bar.set_style(style.clone());
            bar.set_prefix(*name);
            bar
        });
        Progress { bars: bars.collect(), all, plain, total, said: 0 }
    }

    fn bar(&self, mark: Mark) -> Option<&ProgressBar> {
        MARKS.iter().position(|(other, _)| *other == mark).and_then(|at| self.bars.get(at))
    }

    /// Shows how far a stage is.
    pub fn set(&mut self, mark: Mark, count: usize) {
        let count = count as u64;
        if let Some(bar) = self.bar(mark) {
            bar.set_position(count);
        }
        if self.plain && mark == Mark::Finished && self.total > 0 {
            let percent = count * 100 / self.total;
            if percent >= self.said + STEP_PERCENT {
                self.said = percent - percent % STEP_PERCENT;
                self.line(&format!("{count} of {} finished", self.total));
            }
        }
    }

    /// Shows how many wait for a person.
    pub fn waiting(&self, count: usize) {
        if let Some(bar) = self.bar(Mark::Decided) {
            bar.set_message(if count == 0 { String::new() } else { format!("({count} waiting)") });
        }
    }

    /// Says something above the bars.
    pub fn line(&self, text: &str) {
        if self.plain {
            // A reader that has gone away is no reason to stop.
            let _ = writeln!(std::io::stderr(), "  {text}");
        } else {
            let _ = self.all.println(format!("  {text}"));
        }
    }

    /// Leaves the bars where they are.
    pub fn end(&self) {
        self.bars.iter().for_each(ProgressBar::abandon);
    }
}
