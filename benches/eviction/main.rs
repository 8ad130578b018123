//! Compares eviction policies in a simulation: traces of live audiences and other traffic are
//! replayed on moka's policies, on the program's policy, and on the optimum. Without I/O or clock,
//! so the figures are the same on every machine.
//!
//! `cargo bench --bench eviction` prints a table; `-- --seeds N` sets the number of traces behind
//! each median.
#![allow(unreachable_pub, reason = "the modules are this binary's own")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "figures for people to read"
)]

mod audience;
mod contenders;
mod optimum;
#[path = "../shield/table.rs"]
#[expect(dead_code, reason = "shared with another bench")]
mod table;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use audience::{Scene, Trace};
use parking_lot::Mutex;

use contenders::{Moka, Seawall, Split, Tally, Told, replay};
use optimum::optimum;
use table::Table;

const HELP: &str = "\
Replays request traces on eviction policies, and prints hit ratios and byte hit ratios in percent.

cargo bench --bench eviction [-- [--seeds N] [--scene live|catalogue|scan|dvr]]

  --seeds N      medians of N traces (3)
  --scene NAME   this one only
";

/// Memory, in percent of the working set: the smallest memory with which the optimum loses nothing.
const SHARES: [u64; 5] = [5, 10, 20, 50, 100];

type Contender = (&'static str, fn(u64, &Trace) -> Tally);

const CONTENDERS: [Contender; 6] = [
    ("TinyLFU (moka)", |bytes, trace| {
        replay(trace, Moka::tiny_lfu(bytes, trace))
    }),
    ("LRU (moka)", |bytes, trace| {
        replay(trace, Moka::lru(bytes, trace))
    }),
    ("halves, live and rest", |bytes, trace| {
        replay(trace, Split::new(bytes, trace))
    }),
    ("Seawall", |bytes, trace| {
        replay(trace, Seawall::new(bytes, trace))
    }),
    (KNOWN_AUDIENCES, |bytes, trace| {
        replay(trace, Told::new(bytes, trace))
    }),
    ("optimum (Belady)", optimum),
];

/// The policy that knows all audiences; applies to live segments only.
const KNOWN_AUDIENCES: &str = "known audiences";

struct Order {
    seeds: u64,
    scenes: Vec<Scene>,
}

/// The results of each policy with each memory size, in this order.
type Run = Vec<Tally>;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    // Without arguments this is cargo's test of all targets.
    if words.is_empty() || words.iter().any(|word| word == "--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(order) = parse_arguments(words.into_iter()) else {
        eprint!("{HELP}");
        return ExitCode::FAILURE;
    };
    println!(
        "hit ratio / byte hit ratio in percent, medians of {} traces",
        order.seeds
    );
    let runs = simulate(&order);
    for (scene, runs) in order.scenes.iter().zip(runs.chunks(order.seeds as usize)) {
        println!("\n{}\n\n{}", scene.title(), table(*scene, runs));
    }
    ExitCode::SUCCESS
}

fn parse_arguments(mut words: impl Iterator<Item = String>) -> Option<Order> {
    let mut order = Order {
        seeds: 3,
        scenes: Scene::ALL.to_vec(),
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--seeds" => order.seeds = words.next()?.parse().ok().filter(|seeds| *seeds > 0)?,
            "--scene" => {
                let name = words.next()?;
                order.scenes.retain(|scene| scene.name() == name);
                order.scenes.first()?;
            }
            _ => return None,
        }
    }
    Some(order)
}

/// Replays the traces of every scene on as many threads as there are cores.
fn simulate(order: &Order) -> Vec<Run> {
    let tasks: Vec<(Scene, u64)> = order
        .scenes
        .iter()
        .flat_map(|&scene| (0..order.seeds).map(move |seed| (scene, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let runs = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            let (tasks, next, runs) = (&tasks, &next, &runs);
            scope.spawn(move || {
                while let Some((at, &(scene, seed))) = next_task(next, tasks) {
                    let run = run(&Trace::generate(scene, seed));
                    runs.lock().push((at, run));
                }
            });
        }
    });
    let mut runs: Vec<(usize, Run)> = runs.into_inner();
    runs.sort_by_key(|(at, _)| *at);
    runs.into_iter().map(|(_, run)| run).collect()
}

fn next_task<'t, T>(next: &AtomicUsize, tasks: &'t [T]) -> Option<(usize, &'t T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    tasks.get(at).map(|task| (at, task))
}

fn run(trace: &Trace) -> Run {
    let working_set = trace.working_set();
    let memories = SHARES.map(|share| working_set * share / 100);
    CONTENDERS
        .iter()
        .flat_map(|(_, contend)| memories.map(|bytes| contend(bytes, trace)))
        .collect()
}

fn table(scene: Scene, runs: &[Run]) -> String {
    let mut headings = vec!["memory, % of the working set".to_owned(), String::new()];
    headings.extend(SHARES.map(|share| share.to_string()));
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for (at, (name, _)) in CONTENDERS.iter().enumerate() {
        if *name == KNOWN_AUDIENCES && scene != Scene::Live {
            continue;
        }
        let figures = (0..SHARES.len()).map(|share| {
            let of = |ratio: fn(&Tally) -> f64| {
                median(
                    runs.iter()
                        .map(|run| ratio(&run[at * SHARES.len() + share])),
                )
            };
            let hits = of(|tally| 100.0 * tally.hits as f64 / tally.asked as f64);
            let bytes = of(|tally| 100.0 * tally.hit_bytes as f64 / tally.asked_bytes as f64);
            format!("{hits:.1} / {bytes:.1}")
        });
        let row = [(*name).to_owned(), String::new()]
            .into_iter()
            .chain(figures);
        table.row(row.collect());
    }
    table.text()
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
