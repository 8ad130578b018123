//! The command line of the bench.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use seawall_simulator::Packaging;

use crate::live::Programme;
use crate::scenario::Scenario;
use crate::{audience, blocked};

/// Segments of a low-latency stream.
pub const LOW_LATENCY_SEGMENT: Duration = Duration::from_secs(2);

/// The parsed command line.
pub struct Arguments {
    /// Runs of each scenario on each server.
    pub rounds: usize,
    /// The duration of each load, or of the audience, if not its own.
    pub seconds: Option<u64>,
    /// Viewers of a scenario with a crowd, if not its own number.
    pub viewers: Option<usize>,
    /// How often a crowd waits.
    pub turns: usize,
    /// Live streams of the audience, renditions of each, and their target duration in seconds.
    pub streams: usize,
    pub renditions: usize,
    pub target_duration: u64,
    /// Viewers of a live stream.
    pub players: usize,
    /// The duration of a live run, in seconds.
    pub live_seconds: u64,
    /// The response delay of the live stream's origin, in milliseconds.
    pub thinks_millis: u64,
    /// Measures a live stream only on this server.
    pub only: Option<String>,
    /// The program to measure, if not the one built with this bench.
    pub program: Option<PathBuf>,
    /// The scenarios to run, in this order.
    pub scenarios: Vec<Scenario>,
}

impl Arguments {
    /// The viewers of a scenario with a crowd.
    pub fn viewers(&self, scenario: Scenario) -> usize {
        let usual = match scenario {
            Scenario::Audience => 50_000,
            _ => 1000,
        };
        self.viewers.unwrap_or(usual)
    }

    /// The duration of each load.
    pub fn load_duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(2))
    }

    /// The large audience.
    pub fn audience_size(&self) -> audience::Size {
        audience::Size {
            viewers: self.viewers(Scenario::Audience),
            streams: self.streams,
            renditions: self.renditions,
            segment: Duration::from_secs(self.target_duration),
            lasts: Duration::from_secs(self.seconds.unwrap_or(60)),
        }
    }

    /// The size of the crowds that wait.
    pub fn blocked_size(&self) -> blocked::Size {
        blocked::Size {
            viewers: self.viewers(Scenario::Blocked),
            turns: self.turns,
            load: self.load_duration(),
        }
    }

    /// The stream of a scenario with players.
    pub fn programme(&self, scenario: Scenario) -> Programme {
        let (form, segment) = match scenario {
            Scenario::LowLatency => (Packaging::LowLatency, LOW_LATENCY_SEGMENT),
            _ => (Packaging::Cmaf, Duration::from_secs(4)),
        };
        Programme {
            form,
            segment,
            thinks: Duration::from_millis(self.thinks_millis),
            players: self.players,
            lasts: Duration::from_secs(self.live_seconds),
        }
    }
}

/// The help text.
pub fn help() -> String {
    let mut text = String::from(
        "cargo bench --bench shield -- [--rounds N] [--seconds S] [--viewers V] [--turns N]\n    \
         [--streams N] [--renditions N] [--target-duration S] [--players P]\n    \
         [--live-seconds S] [--thinks MS] [--only SERVER] [--program FILE] [SCENARIO…]\n\n\
         Starts the shield, and nginx if it is installed, in front of an origin of its own, and\n\
         measures both in turn; for plain hits also the bound, a loop of one recv and one send\n\
         without HTTP. It reports figures, and never fails because of them.\n\n  \
         --rounds N      how often each scenario is run on each server [3]\n  \
         --seconds S     how long each load lasts [2], and the measured audience [60]\n  \
         --viewers V     viewers of stampede and blocked [1000], of the audience [50000]\n  \
         --turns N       how often the crowds of blocked wait [20]\n  \
         --streams N, --renditions N, --target-duration S\n  \
                         what the audience watches: live streams [500], renditions of each [3],\n  \
                         the duration of a segment in seconds [4]\n  \
         --players P     viewers of a live stream [200]\n  \
         --live-seconds S  the measured time of a live stream, in seconds [20]\n  \
         --thinks MS     the response delay of the live stream's origin, in ms [40]\n  \
         --only SERVER   measures a live stream only on seawall, passive, nginx or varnish\n  \
         --program FILE  a seawall built elsewhere, such as target/release/seawall\n\nScenarios:\n",
    );
    for scenario in Scenario::ALL {
        let _ = writeln!(text, "  {:13} {}", scenario.name(), scenario.title());
    }
    text
}

/// Parses the command line. `None`: help was requested.
pub fn read(words: impl Iterator<Item = String>) -> anyhow::Result<Option<Arguments>> {
    let mut arguments = Arguments {
        rounds: 3,
        seconds: None,
        viewers: None,
        turns: 20,
        streams: 500,
        renditions: 3,
        target_duration: 4,
        players: 200,
        live_seconds: 20,
        thinks_millis: 40,
        only: None,
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
            "--seconds" => arguments.seconds = Some(count(&value()?)?),
            "--viewers" => arguments.viewers = Some(count(&value()?)?),
            "--turns" => arguments.turns = count(&value()?)?,
            "--streams" => arguments.streams = count(&value()?)?,
            "--renditions" => arguments.renditions = count(&value()?)?,
            "--target-duration" => arguments.target_duration = count(&value()?)?,
            "--players" => arguments.players = count(&value()?)?,
            "--live-seconds" => arguments.live_seconds = count(&value()?)?,
            "--thinks" => {
                let value = value()?;
                let millis = value.parse().ok();
                let millis = millis.with_context(|| format!("{value} is not a number"))?;
                arguments.thinks_millis = millis;
            }
            "--only" => arguments.only = Some(value()?),
            "--program" => arguments.program = Some(value()?.into()),
            // The argument that `cargo bench` passes to every bench.
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
