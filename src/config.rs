//! What does the program run on? A validated [`Config`], made from a person's TOML or from flags.
//!
//! What a person typed and what is made of it are two things: [`file`] reads the text, notes
//! everything wrong with it at once, and only a text with nothing wrong becomes a `Config`.
//! Defaults are the rooms' own; none is repeated here, except for what belongs to no room.

mod address;
#[cfg(test)]
mod examples;
mod fault;
mod file;
mod flags;
mod order;
mod page;
mod pem;
mod problem;
mod quantity;
mod reach;
mod read;
mod secret;
mod spelling;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{admin, cache, edge, origin, policy, shield, telemetry};

pub(crate) use address::{endpoint, listen, socket};
pub use fault::Fault;
pub use flags::Flags;
pub use problem::Problems;

/// Reads how much memory finished objects may take.
pub(crate) fn memory(text: &str) -> Result<u64, Fault> {
    match quantity::size(text)? {
        0 => Err(Fault::new(
            "a size such as \"1GiB\"",
            "must be at least 1 byte",
        )),
        bytes => Ok(bytes),
    }
}

/// Reads a number of worker threads.
pub(crate) fn threads(text: &str) -> Result<usize, Fault> {
    let threads = text.parse().ok().filter(|threads| *threads <= THREADS_MAX);
    threads.ok_or(Fault::new(THREADS, "not a number from 0 to 1024"))
}

/// Everything, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Towards viewers.
    pub edge: edge::Settings,
    /// Towards operators.
    pub admin: admin::Settings,
    /// Routes.
    pub rules: policy::Rules,
    /// Origin groups, in the order routes refer to them.
    pub origins: Vec<origin::Settings>,
    /// Memory.
    pub cache: cache::Settings,
    /// Waits.
    pub shield: shield::Settings,
    /// Metrics and logs.
    pub telemetry: telemetry::Settings,
    /// Worker threads; 0: one per core.
    pub threads: usize,
    /// How long a server that has been told to stop goes on letting viewers in, while `/readyz` says
    /// that it is leaving.
    pub lame_duck: Duration,
    /// How long a stopping server waits for answers under way.
    pub drain_max: Duration,
}

/// How long a stopping server waits: longer than a viewer takes over a segment.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How long a stopping server still lets viewers in: short enough that a restart by hand does not wait
/// noticeably; load balancers that look less often need more.
const LAME_DUCK: Duration = Duration::from_secs(1);

/// What this shield calls itself towards other caches.
const NAME: &str = "seawall";

/// More threads than this are a slip of the finger.
const THREADS_MAX: usize = 1024;

const THREADS: &str = "a whole number of threads, 0 for one per core";

/// Where viewers come in when nobody says where.
const LISTEN: edge::Address = edge::Address::Tcp(std::net::SocketAddr::V4(
    std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 8080),
));

/// What a check may ask beyond the file itself and the files it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: the file may be meant for another machine.
    Offline,
    /// This machine's addresses, and its resolver for the names of origins.
    Network,
}

impl Config {
    /// Reads and validates a file. Everything wrong with it is reported at once.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        Config::check(path, Reach::Offline).map(|(config, _)| config)
    }

    /// As [`Config::load`], with everything that is doubtful, and further than a start needs: see
    /// [`Reach`].
    pub fn check(path: &Path, reach: Reach) -> Result<(Config, Problems), Problems> {
        let source = std::fs::read_to_string(path).map_err(|why| {
            let mut problems = Problems::new(path, String::new(), &[]);
            problems.push(problem::Problem::new(format!(
                "cannot read this file: {why}"
            )));
            problems
        })?;
        let mut draft = file::read(&source, path, &secret::process_environment);
        if reach == Reach::Network {
            let memory = reach::machine_memory();
            reach::check(&mut draft, &reach::system_lookup(), memory);
        }
        draft.finish()
    }

    /// As [`Config::load`], of a text that the program itself has written. `name` is what problems
    /// call it.
    pub fn read(source: &str, name: &Path) -> Result<Config, Problems> {
        let draft = file::read(source, name, &secret::process_environment);
        draft.finish().map(|(config, _)| config)
    }

    /// One origin, no file: what the program's flags say.
    pub fn from_flags(flags: Flags) -> Result<Config, Problems> {
        flags::config(flags)
    }

    /// One origin behind these listeners, everything else at its default.
    pub fn single(origin: &str, listeners: Vec<edge::Listener>) -> Result<Config, Fault> {
        let endpoint = address::endpoint(origin)?;
        let group = origin::Settings::single(&endpoint.host.clone(), endpoint);
        Ok(Config::of(vec![group], listeners))
    }

    /// These origins behind these listeners, everything else at its default: the first origin
    /// answers everything.
    fn of(origins: Vec<origin::Settings>, listeners: Vec<edge::Listener>) -> Config {
        let name = origins
            .first()
            .map_or_else(|| "".into(), |origin| Arc::clone(&origin.name));
        Config {
            edge: edge::Settings {
                listeners,
                limits: edge::Limits::default(),
            },
            admin: admin::Settings::default(),
            rules: policy::Rules {
                routes: order::arrange(vec![policy::Route::everything(name)]),
                name: NAME.into(),
            },
            origins,
            cache: cache::Settings::default(),
            shield: shield::Settings::default(),
            telemetry: file::telemetry(),
            threads: 0,
            lame_duck: LAME_DUCK,
            drain_max: DRAIN_MAX,
        }
    }
}
