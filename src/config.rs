//! What does the program run on? A validated [`Config`], made from a person's TOML or from flags.
//!
//! What a person typed and what is made of it are two things: [`file`] reads the text, notes
//! everything wrong with it at once, and only a text with nothing wrong becomes a `Config`.
//! Defaults are the rooms' own; none is repeated here, except for what belongs to no room.

mod address;
#[cfg(test)]
mod examples;
mod file;
mod flags;
mod order;
mod pem;
mod preflight;
mod problem;
mod quantity;
mod read;
mod secret;
mod spelling;
mod toml_reader;
mod value_error;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{admin, cache, frontend, policy, proxy, telemetry, upstream};

pub(crate) use address::{endpoint, listen, socket};
pub use flags::Flags;
pub use problem::Problems;
pub use value_error::ValueError;

/// Reads how much memory finished objects may take.
pub(crate) fn memory(text: &str) -> Result<u64, ValueError> {
    match quantity::size(text)? {
        0 => Err(ValueError::new(
            "a size such as \"1GiB\"",
            "must be at least 1 byte",
        )),
        bytes => Ok(bytes),
    }
}

/// Reads a number of worker threads.
pub(crate) fn threads(text: &str) -> Result<usize, ValueError> {
    let threads = text.parse().ok().filter(|threads| *threads <= THREADS_MAX);
    threads.ok_or(ValueError::new(THREADS, "not a number from 0 to 1024"))
}

/// Everything, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Towards viewers.
    pub edge: frontend::Settings,
    /// Towards operators.
    pub admin: admin::Settings,
    /// Routes.
    pub rules: policy::Rules,
    /// Origin groups, in the order routes refer to them.
    pub origins: Vec<upstream::Settings>,
    /// Memory.
    pub cache: cache::Settings,
    /// Waits.
    pub shield: proxy::Settings,
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
const LISTEN: frontend::ListenAddress = frontend::ListenAddress::Tcp(std::net::SocketAddr::V4(
    std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 8080),
));

/// What a check may ask beyond the file itself and the files it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// Nothing: the file may be meant for another machine.
    Offline,
    /// This machine's addresses, and its resolver for the names of origins.
    Network,
}

impl Config {
    /// Reads and validates a file. Everything wrong with it is reported at once.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        Config::check(path, Preflight::Offline).map(|(config, _)| config)
    }

    /// As [`Config::load`], with everything that is doubtful, and further than a start needs: see
    /// [`Reach`].
    pub fn check(path: &Path, reach: Preflight) -> Result<(Config, Problems), Problems> {
        let source = std::fs::read_to_string(path).map_err(|why| {
            let mut problems = Problems::new(path, String::new(), &[]);
            problems.push(problem::Problem::new(format!(
                "cannot read this file: {why}"
            )));
            problems
        })?;
        let mut draft = file::read(&source, path, &secret::process_environment);
        if reach == Preflight::Network {
            let memory = preflight::machine_memory();
            preflight::check(&mut draft, &preflight::system_lookup(), memory);
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
    pub fn single(origin: &str, listeners: Vec<frontend::Listener>) -> Result<Config, ValueError> {
        let endpoint = address::endpoint(origin)?;
        let group = upstream::Settings::single(&endpoint.host.clone(), endpoint);
        Ok(Config::of(vec![group], listeners))
    }

    /// These origins behind these listeners, everything else at its default: the first origin
    /// answers everything.
    fn of(origins: Vec<upstream::Settings>, listeners: Vec<frontend::Listener>) -> Config {
        let name = origins
            .first()
            .map_or_else(|| "".into(), |origin| Arc::clone(&origin.name));
        Config {
            edge: frontend::Settings {
                listeners,
                limits: frontend::Limits::default(),
            },
            admin: admin::Settings::default(),
            rules: policy::Rules {
                routes: order::arrange(vec![policy::Route::everything(name)]),
                name: NAME.into(),
            },
            origins,
            cache: cache::Settings::default(),
            shield: proxy::Settings::default(),
            telemetry: file::telemetry(),
            threads: 0,
            lame_duck: LAME_DUCK,
            drain_max: DRAIN_MAX,
        }
    }
}
