//! Measures the same hit on one thread and on two at once: hits share nothing that they write, so
//! two threads serve nearly twice as many. The kernel is left out.

#[path = "in_process/shield.rs"]
mod shield;
#[path = "in_process/viewer.rs"]
mod viewer;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use shield::{InProcess, get};

const ROUNDS: usize = 9;
const HITS: u32 = 200_000;
/// Sent on one connection at a time.
const BATCH: u32 = 1_000;

fn main() {
    // Cargo passes this to all benchmarks; `cargo test` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let shield = InProcess::start();
    for (name, lines) in [
        ("repeated hit", ""),
        ("looked-up hit", "X-Request-Id: 1\r\n"),
    ] {
        let mut ratios: Vec<(f64, u128)> = (0..ROUNDS)
            .map(|_| {
                let (one, two) = (time(&shield, 1, lines), time(&shield, 2, lines));
                let each = one.as_nanos() / u128::from(HITS);
                (2.0 * one.as_secs_f64() / two.as_secs_f64(), each)
            })
            .collect();
        ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (median, each) = ratios[ROUNDS / 2];
        let (least, most) = (ratios[0].0, ratios[ROUNDS - 1].0);
        println!(
            "{name}: two threads serve {median:.2} times as many as one ({least:.2} to {most:.2}, \
             {ROUNDS} rounds); {each} ns each on one"
        );
    }
}

/// The time in which each of the threads serves [`HITS`].
fn time(shield: &InProcess, threads: usize, lines: &str) -> Duration {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let times: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let worker = shield.worker();
                    let requests = |count| vec![get("/playlist/a.m3u8", lines); count as usize];
                    worker.serve(requests(3));
                    start.wait();
                    let began = Instant::now();
                    for _ in 0..HITS / BATCH {
                        worker.serve(requests(BATCH));
                    }
                    began.elapsed()
                })
            })
            .collect();
        let times = times.into_iter().filter_map(|thread| thread.join().ok());
        times.max().unwrap_or_default()
    })
}
