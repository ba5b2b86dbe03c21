//! What was found, for people or as JSON, and the exit code.

use std::{fmt::Write as _, io, process::ExitCode};

use dps_doctor::{Check, Finding, Hop, Report, Status, Verdict};
use serde::Serialize;

use super::Manner;
use crate::{
    interrupt, output,
    report::{NOT_CONNECTED, exit_code_of, json},
    style::{Color, Style},
};

/// The exit code where there was nothing to look at.
const NOTHING_SEEN: u8 = 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportJson<'a> {
    verdict: &'static str,
    ends_at: Option<&'static str>,
    checks: Vec<FindingJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingJson<'a> {
    id: &'static str,
    status: &'static str,
    seen: &'a str,
    advice: Option<&'a str>,
    elapsed_ms: u64,
}

pub(super) fn print(report: &Report, manner: Manner) -> ExitCode {
    let text = if manner.json { json(&object(report)) } else { lines(report, manner) };
    let printed = output::print(&text);
    match exit_code(report) {
        Some(code) if printed == ExitCode::SUCCESS => ExitCode::from(code),
        _ => printed,
    }
}

fn exit_code(report: &Report) -> Option<u8> {
    if !report.is_whole() {
        return Some(interrupt::exit_code());
    }
    if report.verdict() == Verdict::Unknown {
        return Some(NOTHING_SEEN);
    }
    let failure = report.failure()?;
    if failure.check.hop() == Hop::Hub {
        return Some(NOT_CONNECTED);
    }
    failure.kind.map(|kind| exit_code_of(kind, failure.is_retryable))
}

fn object(report: &Report) -> ReportJson<'_> {
    let finding =
        |finding: &'_ Finding| (finding.elapsed.as_millis()).try_into().unwrap_or(u64::MAX);
    ReportJson {
        verdict: report.verdict().as_str(),
        ends_at: report.ends_at().map(Hop::as_str),
        checks: report
            .findings()
            .iter()
            .map(|one| FindingJson {
                id: one.check.id,
                status: one.status.as_str(),
                seen: &one.seen,
                advice: one.advice.as_deref(),
                elapsed_ms: finding(one),
            })
            .collect(),
    }
}

fn lines(report: &Report, manner: Manner) -> String {
    let style = Style::of(&io::stdout());
    let mut text = String::new();
    if !manner.quiet {
        let _ = writeln!(text, "{}\n  {}\n", subject(report), picture(report, style));
    }
    for finding in report.findings() {
        let matters = match finding.status {
            Status::Failed => true,
            Status::Warning => !manner.quiet,
            _ => manner.verbose && !manner.quiet,
        };
        if matters {
            line(&mut text, finding, style);
        }
    }
    let _ = writeln!(text, "{}", verdict(report, manner, style));
    text
}

/// Who was looked at, as far as that is known.
fn subject(report: &Report) -> String {
    let of = |id| {
        let good = |one: &&Finding| one.check.id == id && one.status != Status::Failed;
        report.findings().iter().find(good).map(|one| one.seen.as_str())
    };
    match (of("settings.registration-id"), of("settings.transport")) {
        (Some(id), Some(transport)) => format!("{id} over {transport}\n"),
        _ => String::new(),
    }
}

/// The way to the hub, with a mark where it ends.
fn picture(report: &Report, style: Style) -> String {
    let end = report.ends_at();
    let mut text = String::new();
    for (hop, status) in report.path() {
        let name = if hop == Hop::Device { "this device" } else { hop.as_str() };
        let is_end = end == Some(hop);
        let is_behind = end.is_some_and(|end| hop > end);
        if !text.is_empty() {
            text.push_str(if is_behind { " ·· " } else { " ── " });
        }
        let name = match status {
            _ if is_end => style.paint(Color::Red, &format!("✗ {name}")).into_owned(),
            Status::Warning => style.paint(Color::Yellow, &format!("! {name}")).into_owned(),
            Status::Ok => style.paint(Color::Green, name).into_owned(),
            _ => name.to_owned(),
        };
        text.push_str(&name);
    }
    text
}

fn line(text: &mut String, finding: &Finding, style: Style) {
    let Finding { check: Check { id, .. }, seen, .. } = finding;
    let word = format!("{:<8}", finding.status.as_str());
    let word = match finding.status {
        Status::Failed => style.paint(Color::Red, &word),
        Status::Warning => style.paint(Color::Yellow, &word),
        Status::Ok => style.paint(Color::Green, &word),
        _ => word.as_str().into(),
    };
    let _ = writeln!(text, "{word} {id}: {seen}");
    if let Some(advice) = &finding.advice {
        let _ = writeln!(text, "         {} {advice}", style.paint(Color::Yellow, "next:"));
    }
}

fn verdict(report: &Report, manner: Manner, style: Style) -> String {
    let count = |status| report.findings().iter().filter(|one| one.status == status).count();
    let (ok, warnings) = (count(Status::Ok), count(Status::Warning));
    let (failed, skipped) = (count(Status::Failed), count(Status::Skipped));
    let counts = format!("{ok} ok, {warnings} warnings, {failed} failed, {skipped} skipped");
    let more = if manner.verbose || manner.quiet { "" } else { "; -v shows each" };
    let verdict = report.verdict();
    let (color, words) = match (verdict, report.ends_at()) {
        (Verdict::Healthy, _) => (Color::Green, "nothing stands in the way".to_owned()),
        (Verdict::Unknown, _) if !report.is_whole() => {
            (Color::Yellow, "it was interrupted before it had looked at all".to_owned())
        }
        (Verdict::Unknown, _) => (Color::Yellow, "there was nothing to look at".to_owned()),
        (Verdict::Warnings, _) => (Color::Yellow, "a registration gets through".to_owned()),
        (_, end) => (Color::Red, format!("a registration {}", ends(end))),
    };
    format!("{}: {words} ({counts}{more})", style.paint(color, verdict.as_str()))
}

fn ends(at: Option<Hop>) -> &'static str {
    match at {
        Some(Hop::Device) => "ends at this device",
        Some(Hop::Proxy) => "ends at the proxy",
        Some(Hop::Network) => "ends in the network",
        Some(Hop::Tls) => "ends in the TLS handshake",
        Some(Hop::Hub) => "gets through, and the device can't reach its hub",
        _ => "ends at the service",
    }
}
