//! Runs `wrk` and parses its report.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::{Load, Paths, Yield, number_before};
use crate::process::Program;

/// Time allowed beyond the load itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    wrk: &Path,
    load: &Load,
    lasting: Duration,
    folder: &Path,
) -> anyhow::Result<Yield> {
    let mut command = Command::new(wrk);
    command.arg("-t1");
    command.arg(format!("-c{}", load.connections));
    command.arg(format!("-d{}s", lasting.as_secs()));
    if let Paths::Each { prefix, suffix } = &load.paths {
        let file = folder.join("paths.lua");
        fs::write(&file, script(prefix, suffix))?;
        command.arg("-s").arg(file);
    }
    command.arg(load.url());
    let report = Program::start("wrk", command, folder)?
        .finish(lasting + PATIENCE)
        .await?;
    read(&report).with_context(|| format!("cannot read what wrk says:\n{report}"))
}

fn script(prefix: &str, suffix: &str) -> String {
    format!(
        "local number = 0\n\
         request = function()\n  \
           number = number + 1\n  \
           return wrk.format(\"GET\", \"{prefix}\" .. number .. \"{suffix}\")\n\
         end\n"
    )
}

fn read(report: &str) -> Option<Yield> {
    let requests = number_before(report, " requests in")? as u64;
    let rate = report.split_once("Requests/sec:")?.1;
    let number_after = |mark: &str| {
        let rest = report.split_once(mark)?.1.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse::<u64>().ok()
    };
    let refused = number_after("Non-2xx or 3xx responses:").unwrap_or(0);
    // wrk omits these lines when the counts are 0.
    let broken = report.split_once("Socket errors:").map_or(0, |(_, rest)| {
        let line = rest.lines().next().unwrap_or_default();
        line.split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse::<u64>().ok())
            .sum()
    });
    Some(Yield {
        requests,
        failed: refused + broken,
        rate: rate.split_whitespace().next()?.parse().ok()?,
    })
}
