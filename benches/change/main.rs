//! Change test: an operator changes the configuration of the running program, and replaces the
//! program itself, and no viewer may notice.
//!
//! The real program runs in its own process. Viewers send 1,000 requests a second: on kept
//! connections, on a new connection for each request, over HTTP/2, and in downloads of a minute.
//! Meanwhile its file is changed and reloaded every few seconds; one of its listeners comes and
//! goes, with viewers. The program is upgraded twice, and once to one that ends at its start. The
//! test fails when a request fails, a body is cut or wrong, a connection is refused, a change is
//! not applied, or the origin is asked again for what a process holds.
//!
//! `cargo bench --bench change -- SECONDS RELOAD_SECONDS`, or `./x change`.
#![allow(unreachable_pub, reason = "the modules are this binary's own")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people to read"
)]

mod configuration;
mod operator;
mod origin;
mod tally;
mod viewers;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep_until};

use crate::operator::Operator;
use crate::origin::Origin;
use crate::tally::Tally;
use crate::viewers::Viewers;

/// When the program is replaced, in parts of the test.
#[derive(Clone, Copy)]
enum Upgrade {
    /// By one that ends at its start.
    Broken(f64),
    /// By itself.
    Good(f64),
}

const UPGRADES: [Upgrade; 3] = [
    Upgrade::Broken(0.15),
    Upgrade::Good(0.25),
    Upgrade::Good(0.6),
];

impl Upgrade {
    fn at(self, lasts: Duration) -> Duration {
        let (Upgrade::Broken(part) | Upgrade::Good(part)) = self;
        lasts.mul_f64(part)
    }
}

/// A download lasts as long, or half of a shorter test.
const DOWNLOAD: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let seconds = |word: &String, from: f64, to: f64| {
        let seconds = word.parse::<f64>().ok();
        seconds
            .filter(|seconds| (from..=to).contains(seconds))
            .map(Duration::from_secs_f64)
    };
    let (lasts, reload_every) = match words.as_slice() {
        // Without arguments this may be cargo's test of all targets, which must not take minutes.
        [] => {
            println!("cargo bench --bench change -- SECONDS RELOAD_SECONDS");
            return ExitCode::SUCCESS;
        }
        [lasts, every] => (seconds(lasts, 10.0, 36_000.0), seconds(every, 0.2, 600.0)),
        _ => (None, None),
    };
    let (Some(lasts), Some(reload_every)) = (lasts, reload_every) else {
        eprintln!("the arguments are SECONDS (from 10) and RELOAD_SECONDS (from 0.2)");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let tested = runtime
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(run(lasts, reload_every)));
    match tested {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(lasts: Duration, reload_every: Duration) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let folder = tempfile::tempdir()?;
    let origin = Origin::start().await.context("no origin")?;
    let mut operator = Operator::start_program(folder.path(), &origin).await?;
    let viewers = Viewers::new(operator.viewer_address(), DOWNLOAD.min(lasts / 2));
    viewers.fill_memory().await?;
    let held = origin.requests();

    let tally = Tally::default();
    let begun = Instant::now();
    let until = begun + lasts;
    let mut watching = viewers.watch(&tally, until);
    let mut upgrades = UPGRADES.into_iter().peekable();
    let mut reload_at = begun + reload_every;
    while reload_at < until {
        sleep_until(reload_at).await;
        operator.reload().await?;
        if let Some(listener) = operator.new_listener() {
            viewers::visit(listener, reload_every, (&tally, until), &mut watching);
        }
        if let Some(upgrade) = upgrades.next_if(|upgrade| begun + upgrade.at(lasts) <= reload_at) {
            match upgrade {
                Upgrade::Broken(_) => operator.upgrade_to_broken_program().await?,
                Upgrade::Good(_) => operator.upgrade().await?,
            }
        }
        reload_at = Instant::now().max(reload_at + reload_every);
    }
    while let Some(ended) = watching.join_next().await {
        ended.context("a viewer panicked")?;
    }
    let fetched = origin.requests();
    let evictions = operator.evictions().await?;

    println!("{}", tally.table());
    println!(
        "{} reloads, {} upgrades; the origin was asked {} times for what was held; the last process \
         evicted {evictions} objects",
        operator.reloads,
        operator.upgrades,
        fetched - held
    );
    let mut faults = tally.faults();
    if upgrades.next().is_some() {
        faults.push("there was no time for all upgrades".to_owned());
    }
    // What a process holds, the next one gets from it.
    if fetched > held {
        faults.push(format!(
            "the origin was asked {} times for what was held",
            fetched - held
        ));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n       "));
    println!("nobody noticed in {:.0} s", lasts.as_secs_f64());
    Ok(())
}
