//! Runs `h2load` and parses its report.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::{Load, Yield, number_before};
use crate::process::Program;

/// Time allowed beyond the load itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    h2load: &Path,
    load: &Load,
    streams: usize,
    lasting: Duration,
    folder: &Path,
) -> anyhow::Result<Yield> {
    let mut command = Command::new(h2load);
    command.arg(format!("-c{}", load.connections));
    command.arg(format!("-m{streams}"));
    command.arg(format!("-D{}", lasting.as_secs()));
    command.arg(load.url());
    let report = Program::start("h2load", command, folder)?
        .finish(lasting + PATIENCE)
        .await?;
    read(&report).with_context(|| format!("cannot read what h2load says:\n{report}"))
}

fn read(report: &str) -> Option<Yield> {
    // The first line with figures is: "finished in 2.00s, 47000.50 req/s, 130.05MB/s".
    let summary = &report[report.find("requests: ")?..];
    let failed = number_before(summary, " failed,")? + number_before(summary, " errored,")?;
    Some(Yield {
        requests: number_before(summary, " succeeded,")? as u64,
        failed: failed as u64,
        rate: number_before(report, " req/s")?,
    })
}
