//! Work that is done in other processes, a few at a time: this program calls itself.

use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
};

use dps_client::Transport;

use crate::{
    cancellation,
    matrix::{self, Only, Shard},
};

/// One process's share.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// `matrix` or `cancellation`.
    pub(crate) section: &'static str,
    pub(crate) transport: Transport,
    pub(crate) shard: Shard,
    pub(crate) only: Only,
}

/// How many processes there are at once. Most of their time is waiting.
const AT_ONCE: usize = 20;

/// Does all the shares, and gives each line that they write to `take`.
///
/// # Errors
/// What became of a process that did not end well.
pub(crate) fn share_out(shares: Vec<Share>, mut take: impl FnMut(&str)) -> Result<(), String> {
    let (lines, taken) = mpsc::channel();
    let queue = std::sync::Arc::new(std::sync::Mutex::new(shares));
    let threads: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (queue, lines) = (std::sync::Arc::clone(&queue), lines.clone());
            thread::spawn(move || {
                loop {
                    let next = queue.lock().expect("no holder of the lock panics").pop();
                    let Some(share) = next else { return Ok::<_, String>(()) };
                    start(&share, &lines)?;
                }
            })
        })
        .collect();
    drop(lines);
    for line in taken {
        take(&line);
    }
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked".to_owned())??;
    }
    Ok(())
}

fn start(share: &Share, lines: &mpsc::Sender<String>) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{share:?}: {error}");
    let program = std::env::current_exe().map_err(named)?;
    let mut process = Command::new(program)
        .args(["work", share.section, share.transport.as_str()])
        .args([share.shard.number.to_string(), share.shard.of.to_string()])
        .args([share.only.row.clone(), share.only.step.clone()].map(Option::unwrap_or_default))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(named)?;
    if let Some(output) = process.stdout.take() {
        for line in BufReader::new(output).lines() {
            // Whoever listens outlives this thread.
            let _ = lines.send(line.map_err(named)?);
        }
    }
    let status = process.wait().map_err(named)?;
    if status.success() { Ok(()) } else { Err(format!("{share:?}: {status}")) }
}

/// Does one share, in the process that was started for it.
pub(crate) fn work(arguments: &[String]) -> ExitCode {
    let [section, transport, number, of, row, step] = arguments else { return ExitCode::from(2) };
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let only = Only { row: given(row), step: given(step) };
    let transport: Transport = transport.parse().expect("a transport");
    let shard =
        Shard { number: number.parse().expect("a number"), of: of.parse().expect("a number") };
    if section == "matrix" {
        matrix::run(transport, shard, &only, |report| println!("{}", report.to_line()));
    } else {
        let only = only.row.as_deref();
        cancellation::run(transport, shard, only, |report| println!("{}", report.to_line()));
    }
    ExitCode::SUCCESS
}
