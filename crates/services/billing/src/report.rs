//! Cost reports: usage rows added up by ticket, run, model, workflow or project, as a table, as CSV and as a chart.
//!
//! A report is read from the usage rows, which say what each call was for; the ledger says that their sum is what was
//! spent. It reads at most [`ROWS_MAX`] rows and says whether it reached the end. What was charged without being measured
//! stands in a column of its own. Sums of different currencies are different rows.
//!
//! Texts in a report come from anybody: a ticket's number, a workflow's name. In CSV a cell that a spreadsheet would take
//! for a formula gets an apostrophe; the chart is a page without scripts, without anything from outside, and with every
//! text escaped.

use crate::usage::UsageDoc;
use act::{Fault, QueryCtx};
use kernel::Id;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use store::key::Key;
use store::{PAGE_MAX, Range, View};

/// Most rows that a report adds up.
pub const ROWS_MAX: usize = 20_000;
/// Most bars of a chart; the rest is one more.
const BARS_MAX: usize = 40;

/// What rows are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// What the run was about, as its source names it.
    Ticket,
    /// Runs.
    Run,
    /// Models.
    Model,
    /// Workflows.
    Workflow,
    /// Projects.
    Project,
    /// Workflows and models.
    WorkflowModel,
}

impl By {
    fn parse(text: Option<&str>) -> Result<By, Fault> {
        match text {
            None => Ok(By::WorkflowModel),
            Some("ticket") => Ok(By::Ticket),
            Some("run") => Ok(By::Run),
            Some("model") => Ok(By::Model),
            Some("workflow") => Ok(By::Workflow),
            Some("project") => Ok(By::Project),
            Some(_) => {
                Err(Fault::invalid("request.invalid", "by is one of ticket, run, model, workflow, project"))
            }
        }
    }

    /// Column names of the key.
    fn columns(self) -> &'static [&'static str] {
        match self {
            By::Ticket => &["ticket"],
            By::Run => &["run"],
            By::Model => &["model"],
            By::Workflow => &["workflow"],
            By::Project => &["project"],
            By::WorkflowModel => &["workflow", "model"],
        }
    }

    fn key(self, doc: &UsageDoc) -> Vec<String> {
        let maybe = |text: &Option<String>| text.clone().unwrap_or_default();
        match self {
            By::Ticket => vec![maybe(&doc.ticket)],
            By::Run => vec![doc.run.to_string()],
            By::Model => vec![doc.model.clone()],
            By::Workflow => vec![doc.workflow.clone()],
            By::Project => vec![maybe(&doc.project)],
            By::WorkflowModel => vec![doc.workflow.clone(), doc.model.clone()],
        }
    }
}

/// One sum.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Sum {
    /// Calls.
    pub calls: u64,
    /// Runs that made them.
    pub runs: u64,
    /// What they cost, in millionths.
    pub cost_micros: i64,
    /// What was charged beyond that without being measured, in millionths.
    pub unmeasured_micros: i64,
    /// Tokens of input of all kinds.
    pub input_tokens: u64,
    /// Tokens of output.
    pub output_tokens: u64,
    /// Cost by runs, in millionths, rounded down.
    pub cost_per_run_micros: i64,
}

/// A report.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    by: By,
    /// The key's parts and the currency, with their sum; dearest first.
    items: Vec<(Vec<String>, String, Sum)>,
    rows: usize,
    complete: bool,
}

fn moment(query: &QueryCtx<'_>, name: &str) -> Result<Option<i64>, Fault> {
    query
        .param(name)
        .map(|text| {
            text.parse().map_err(|_| Fault::invalid("request.invalid", format!("{name} is a number")))
        })
        .transpose()
}

/// The report that a query asks for.
pub async fn report(query: &QueryCtx<'_>) -> Result<Report, Fault> {
    let by = By::parse(query.param("by"))?;
    let (from_ms, to_ms) = (moment(query, "from_ms")?, moment(query, "to_ms")?);
    read(query.view, by, from_ms, to_ms).await
}

async fn read(view: &View, by: By, from_ms: Option<i64>, to_ms: Option<i64>) -> Result<Report, Fault> {
    let mut sums: BTreeMap<(Vec<String>, String), (Sum, BTreeSet<Id>)> = BTreeMap::new();
    let mut range = Range::of("time", Vec::new());
    // Every usage id comes after this one.
    let least = Id::parse("aa_0").map_err(act::internal)?;
    range.after = from_ms.map(|from_ms| (Key::new().integer(from_ms).bytes(), least));
    let mut rows = 0;
    let complete = loop {
        let found = view.list::<UsageDoc>(range.clone()).await?;
        let within = found.iter().take_while(|row| to_ms.is_none_or(|to_ms| row.stored.at_ms < to_ms));
        let mut count = 0;
        for row in within {
            count += 1;
            let doc = &row.stored.doc;
            let (sum, runs) = sums.entry((by.key(doc), doc.currency.clone())).or_default();
            sum.calls += 1;
            sum.cost_micros = sum.cost_micros.saturating_add(doc.cost_micros);
            sum.unmeasured_micros = sum.unmeasured_micros.saturating_add(doc.unmeasured_micros);
            sum.output_tokens = sum.output_tokens.saturating_add(doc.tokens.output);
            let input = doc.tokens.total() - doc.tokens.output;
            sum.input_tokens = sum.input_tokens.saturating_add(input);
            runs.insert(doc.run.clone());
        }
        rows += count;
        match found.last() {
            Some(last) if found.len() == PAGE_MAX && count == PAGE_MAX => {
                range.after = Some((last.key.clone(), last.stored.id.clone()));
            }
            _ => break true,
        }
        if rows >= ROWS_MAX {
            break false;
        }
    };
    let mut items: Vec<_> = sums
        .into_iter()
        .map(|((key, currency), (mut sum, runs))| {
            sum.runs = runs.len() as u64;
            sum.cost_per_run_micros = sum.cost_micros / i64::try_from(runs.len().max(1)).unwrap_or(1);
            (key, currency, sum)
        })
        .collect();
    items.sort_by(|a, b| (b.2.cost_micros, &a.0).cmp(&(a.2.cost_micros, &b.0)));
    Ok(Report { by, items, rows, complete })
}

/// Millionths as a decimal number with six places.
fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char if char.is_control() => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

impl Report {
    /// As JSON: `items`, each with its key's columns, `currency` and the sums.
    pub fn json(&self) -> Value {
        let items: Vec<Value> = self
            .items
            .iter()
            .map(|(key, currency, sum)| {
                let mut item = json!(sum);
                item["currency"] = json!(currency);
                for (column, part) in self.by.columns().iter().zip(key) {
                    item[*column] = json!(part);
                }
                item
            })
            .collect();
        json!({"items": items, "rows": self.rows, "complete": self.complete})
    }

    /// As CSV (RFC 4180), lines ended by CR LF; money as a decimal number of the currency.
    pub fn csv(&self) -> String {
        let mut out = self.by.columns().join(",");
        out.push_str(",currency,calls,runs,cost,unmeasured,cost_per_run,input_tokens,output_tokens\r\n");
        for (key, currency, sum) in &self.items {
            let mut cells: Vec<String> = key.iter().map(|part| csv_cell(part)).collect();
            cells.push(csv_cell(currency));
            cells.extend([sum.calls.to_string(), sum.runs.to_string()]);
            cells.extend([sum.cost_micros, sum.unmeasured_micros, sum.cost_per_run_micros].map(decimal));
            cells.extend([sum.input_tokens.to_string(), sum.output_tokens.to_string()]);
            out.push_str(&cells.join(","));
            out.push_str("\r\n");
        }
        out
    }

    /// As a page of its own: one bar per row, dearest first. No script, nothing from outside.
    pub fn html(&self) -> String {
        let by = self.by.columns().join(" and ");
        let dearest = self.items.iter().map(|(_, _, sum)| sum.cost_micros).max().unwrap_or(0).max(1);
        let mut bars = String::new();
        for (key, currency, sum) in self.items.iter().take(BARS_MAX) {
            // In tenths of a percent; a bar is drawn for the least cost too.
            let width = (i128::from(sum.cost_micros.max(0)) * 1_000 / i128::from(dearest)).max(1);
            let name =
                key.iter().map(|part| if part.is_empty() { "(none)" } else { part }).collect::<Vec<_>>();
            bars.push_str(&format!(
                "<tr><th scope=\"row\">{}</th><td><span class=\"bar\" style=\"width:{}.{}%\"></span></td>\
                 <td class=\"n\">{} {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                escaped(&name.join(" · ")),
                width / 10,
                width % 10,
                decimal(sum.cost_micros),
                escaped(currency),
                decimal(sum.unmeasured_micros),
                sum.calls,
                sum.runs,
            ));
        }
        let more = match self.items.len().saturating_sub(BARS_MAX) {
            0 => String::new(),
            more => format!("<p>{more} more rows are in the table and the CSV.</p>\n"),
        };
        let cut = if self.complete { "" } else { "<p>There is more usage than one report reads.</p>\n" };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>Costs by {by}</title>\n<style>\n\
             body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #1a1a1a; background: #fff; }}\n\
             table {{ border-collapse: collapse; width: 100%; }}\n\
             th, td {{ padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #e3e3e3; }}\n\
             td:nth-child(2) {{ width: 45%; }}\n\
             .n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}\n\
             .bar {{ display: block; height: 1rem; background: #2563a8; }}\n\
             @media (prefers-color-scheme: dark) {{ body {{ color: #eee; background: #161616; }} \
             th, td {{ border-color: #333; }} .bar {{ background: #6aa6e8; }} }}\n\
             </style>\n</head>\n<body>\n<h1>Costs by {by}</h1>\n\
             <p>{} calls in {} rows.</p>\n{cut}<table>\n<thead><tr><th>{by}</th><th></th><th class=\"n\">cost</th>\
             <th class=\"n\">unmeasured</th><th class=\"n\">calls</th><th class=\"n\">runs</th></tr></thead>\n<tbody>\n\
             {bars}</tbody>\n</table>\n{more}</body>\n</html>\n",
            self.items.iter().map(|(_, _, sum)| sum.calls).sum::<u64>(),
            self.items.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(names: &[(&str, i64)]) -> Report {
        let items = names
            .iter()
            .map(|(name, cost_micros)| {
                let sum = Sum { calls: 2, runs: 1, cost_micros: *cost_micros, ..Sum::default() };
                (vec![(*name).to_owned()], "USD".to_owned(), sum)
            })
            .collect();
        Report { by: By::Ticket, items, rows: 4, complete: true }
    }

    #[test]
    fn money_is_written_exactly() {
        for (micros, text) in [
            (0, "0.000000"),
            (1, "0.000001"),
            (-1_500_000, "-1.500000"),
            (i64::MAX, "9223372036854.775807"),
            (i64::MIN, "-9223372036854.775808"),
        ] {
            assert_eq!(decimal(micros), text);
        }
    }

    #[test]
    fn d10_hostile_names_stay_text() {
        let hostile = ["=cmd|' /C calc'!A0", "a\",\"b\nc", "<script>alert(1)</script>", "@x", "\u{1b}[2J&"];
        let report = report(&hostile.map(|name| (name, 5)));
        let csv = report.csv();
        assert!(csv.contains("\n'=cmd|' /C calc'!A0,USD,2,1,0.000005,"), "{csv}");
        assert!(csv.contains("\n\"a\"\",\"\"b\nc\",USD,") && csv.contains("\n'@x,USD,"), "{csv}");
        let html = report.html();
        assert!(
            !html.contains("<script") && html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
            "{html}"
        );
        assert!(!html.contains('\u{1b}') && html.contains("[2J&amp;"));
        for outside in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn bars_are_drawn_to_the_dearest() {
        let html = report(&[("dear", 1_000), ("half", 500), ("free", 0)]).html();
        for width in ["width:100.0%", "width:50.0%", "width:0.1%"] {
            assert!(html.contains(width), "{width}");
        }
        let many: Vec<(String, i64)> = (0..45).map(|n| (format!("t{n}"), 45 - n)).collect();
        let many: Vec<(&str, i64)> = many.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        assert!(report(&many).html().contains("5 more rows"));
        assert!(report(&[]).html().contains("0 calls in 0 rows"));
    }
}
