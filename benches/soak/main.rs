//! Soak test: the shield must keep its promises for hours, with memory full and many faults at
//! once.
//!
//! The real program runs in its own process: 50 live streams with two origins each, some of which
//! lag and restart; 200 viewers, 20 of them at 4 KB/s; an uncacheable file, downloaded by 20; an
//! on-demand catalogue twice the size of memory; origins that break off; purges; a manifest of 10
//! MB. The test fails when a viewer sees an error that no origin caused, when a truncated body ends
//! cleanly, when bytes differ from the origin's, or when memory or descriptors exceed their limits.
//!
//! `cargo bench --bench soak -- MINUTES`, or `./x soak MINUTES`.
#![allow(unreachable_pub, reason = "the modules are this binary's own")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people to read"
)]

mod audience;
mod book;
mod download;
mod library;
mod program;
mod streams;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep_until};

use crate::audience::Audience;
use crate::book::Book;
use crate::library::Library;
use crate::program::{Bounds, Program};
use crate::streams::Streams;

/// Live streams, each on its own address.
const STREAMS: usize = 50;

/// The cache memory of the program, in MiB: small, so that it is full soon.
const MEMORY_MIB: u64 = 64;
/// The memory of fills, in MiB.
const FILL_MIB: u64 = 64;

/// The share of the time with the live audience alone, for comparison.
const CALM_SHARE: f64 = 0.2;

/// The interval of checks of memory and descriptors.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(word) = words.next() else {
        // Without arguments this may be cargo's test of all targets, which must not take minutes.
        println!("cargo bench --bench soak -- MINUTES");
        return ExitCode::SUCCESS;
    };
    let minutes = word
        .parse::<f64>()
        .ok()
        .filter(|minutes| (0.2..=600.0).contains(minutes));
    let Some(minutes) = minutes else {
        eprintln!("{word} is not a number of minutes from 0.2 to 600");
        return ExitCode::from(2);
    };
    match soak(Duration::from_secs_f64(minutes * 60.0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(lasts: Duration) -> anyhow::Result<()> {
    let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
    ensure!(
        descriptors > 8000,
        "only {descriptors} open files are allowed (ulimit -n)"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(lasts))
}

async fn run(lasts: Duration) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let streams = Streams::start(STREAMS).context("no live origins")?;
    let library = Library::start(MEMORY_MIB << 20)
        .await
        .context("no library")?;
    let bounds = Bounds {
        memory_mib: MEMORY_MIB,
        fill_mib: FILL_MIB,
    };
    let mut program = Program::start(folder.path(), &streams, &library, bounds).await?;
    let book = Book::default();
    let audience = Audience::new(&program, &streams, &library, &book);

    let begun = Instant::now();
    let calm_until = begun + lasts.mul_f64(CALM_SHARE);
    let until = begun + lasts;
    audience.watch_live();
    monitor(&mut program, &book, calm_until).await?;
    println!(
        "{} s of calm are over: all clients start",
        lasts.mul_f64(CALM_SHARE).as_secs()
    );
    book.begin_storm();
    audience.start_storm();
    streams.start_faults();
    monitor(&mut program, &book, until).await?;
    audience.stop().await;

    println!("{}", book.table());
    println!("{}", program.summary().await?);
    let mut faults = book.faults();
    faults.extend(program.faults(bounds));
    ensure!(faults.is_empty(), "{}", faults.join("\n       "));
    println!(
        "all promises held for {:.1} minutes",
        lasts.as_secs_f64() / 60.0
    );
    Ok(())
}

/// Checks the program until a moment; an error if it has ended.
async fn monitor(program: &mut Program, book: &Book, until: Instant) -> anyhow::Result<()> {
    let mut next = Instant::now();
    while next < until {
        next = (next + CHECK_INTERVAL).min(until);
        sleep_until(next).await;
        program.record_usage()?;
        book.count_second();
    }
    Ok(())
}
