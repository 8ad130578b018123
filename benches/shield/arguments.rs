//! What does the person want measured?

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::scenario::Scenario;

/// The command line, understood.
pub struct Arguments {
    /// How often each scenario is run on each server.
    pub rounds: usize,
    /// How long each load lasts.
    pub seconds: u64,
    /// How many ask at once in the stampede.
    pub viewers: usize,
    /// The program to measure, where it is not the one built with this bench.
    pub program: Option<PathBuf>,
    /// What to run, in this order.
    pub scenarios: Vec<Scenario>,
}

/// What can be asked.
pub fn help() -> String {
    let mut text = String::from(
        "cargo bench --bench shield -- [--rounds N] [--seconds S] [--viewers V] [--program FILE] \
         [SCENARIO…]\n\n\
         Starts the shield, and nginx if it is installed, in front of an origin of its own, and\n\
         measures both in turns. Nothing passes or fails: it only tells.\n\n  \
         --rounds N      how often each scenario is run on each server [3]\n  \
         --seconds S     how long each load lasts [2]\n  \
         --viewers V     how many ask at once in the stampede [1000]\n  \
         --program FILE  a seawall built elsewhere, such as target/release/seawall\n\nScenarios:\n",
    );
    for scenario in Scenario::ALL {
        let _ = writeln!(text, "  {:13} {}", scenario.name(), scenario.title());
    }
    text
}

/// Reads the command line. `None`: help is wanted.
pub fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Option<Arguments>> {
    let mut arguments = Arguments {
        rounds: 3,
        seconds: 2,
        viewers: 1000,
        program: None,
        scenarios: Vec::new(),
    };
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--rounds" => arguments.rounds = count(&value()?)?,
            "--seconds" => arguments.seconds = count(&value()?)?,
            "--viewers" => arguments.viewers = count(&value()?)?,
            "--program" => arguments.program = Some(value()?.into()),
            // What `cargo bench` says to every bench.
            "--bench" => {}
            name => match Scenario::ALL.into_iter().find(|known| known.name() == name) {
                Some(scenario) => arguments.scenarios.push(scenario),
                None => bail!("there is no scenario {name}\n\n{}", help()),
            },
        }
    }
    if arguments.scenarios.is_empty() {
        arguments.scenarios = Scenario::ALL.to_vec();
    }
    Ok(Some(arguments))
}

fn count<N: std::str::FromStr + Default + PartialOrd>(text: &str) -> anyhow::Result<N> {
    text.parse()
        .ok()
        .filter(|count| *count > N::default())
        .with_context(|| format!("{text} is not a number of 1 or more"))
}
