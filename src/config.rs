//! Reads the configuration: TOML or flags in, a validated [`Config`] out.
//!
//! `file` reads the text and reports all problems at once. Only a text without errors becomes a
//! `Config`. Each module defines the defaults of its own settings; only settings of no module have
//! their default here. `written` writes a `Config` as a file would, and `diff` compares two by key.

mod address;
mod diff;
mod effect;
#[cfg(test)]
mod examples;
mod file;
mod flags;
mod order;
mod origin_kinds;
mod pem;
mod preflight;
mod problem;
mod quantity;
mod read;
mod secret;
mod spelling;
mod toml_reader;
mod value_error;
mod written;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{admin, frontend, proxy, telemetry};

pub(crate) use address::{
    parse_admin_address, parse_endpoint, parse_listen_address, parse_socket_address,
};
pub(crate) use diff::Change;
pub(crate) use effect::ReloadEffect;
pub use flags::Flags;
pub use origin_kinds::{OriginKind, OriginPreset};
pub use problem::Problems;
pub(crate) use quantity::{duration as parse_duration, size as parse_size};
pub use value_error::ValueError;

/// Reads the size of the memory for stored objects.
pub(crate) fn parse_memory(text: &str) -> Result<u64, ValueError> {
    match quantity::size(text)? {
        0 => Err(ValueError::new(
            "a size such as \"1GiB\"",
            "must be at least 1 byte",
        )),
        bytes => Ok(bytes),
    }
}

/// Reads a number of worker threads.
pub(crate) fn parse_threads(text: &str) -> Result<usize, ValueError> {
    let threads = text.parse().ok().filter(|threads| *threads <= THREADS_MAX);
    threads.ok_or(ValueError::new(THREADS, "not a number from 0 to 1024"))
}

/// The validated configuration of the whole program.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listeners and limits for viewers.
    pub frontend: frontend::Settings,
    /// The admin server.
    pub admin: admin::Settings,
    /// Routes.
    pub rules: seawall_policy::Rules,
    /// Origin groups; routes refer to them by position in this list.
    pub origins: Vec<seawall_upstream::Settings>,
    /// What the kinds of origins set in their tables and in those of their routes.
    pub presets: Vec<OriginPreset>,
    /// Storage in memory.
    pub cache: seawall_cache::Settings,
    /// Time limits and fills.
    pub proxy: proxy::Settings,
    /// Metrics and logs.
    pub telemetry: telemetry::Settings,
    /// Worker threads; 0: one per core.
    pub threads: usize,
    /// At the start of a drain: how long the server still accepts connections, while `/readyz`
    /// answers 503.
    pub drain_delay: Duration,
    /// How long a draining server waits for responses in progress.
    pub drain_max: Duration,
}

/// Longer than a viewer usually needs to read a segment.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Short enough that a manual restart is not noticeably slower. Load balancers that check less
/// often than once a second need a higher value.
const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// The default name in Via, CDN-Loop and Cache-Status.
const NAME: &str = "seawall";

/// A higher number is probably a typing error.
const THREADS_MAX: usize = 1024;

const THREADS: &str = "a whole number of threads, 0 for one per core";

/// The default listener.
const LISTEN: frontend::ListenAddress = frontend::ListenAddress::Tcp(std::net::SocketAddr::V4(
    std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 8080),
));

/// What a check may use beyond the file and the files that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckScope {
    /// Nothing: the file may be for another machine.
    Offline,
    /// This machine's addresses and memory, and its resolver for the hosts of origins.
    Network,
}

impl Config {
    /// Reads and validates a file. Reports all problems at once.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        Config::check(path, CheckScope::Offline).map(|(config, _)| config)
    }

    /// Like [`Config::load`], but also returns the warnings. See [`CheckScope`] for the additional
    /// checks.
    pub fn check(path: &Path, scope: CheckScope) -> Result<(Config, Problems), Problems> {
        Config::check_text(&Config::read_text(path)?, path, scope)
    }

    /// The text of a file.
    pub(crate) fn read_text(path: &Path) -> Result<String, Problems> {
        std::fs::read_to_string(path).map_err(|why| {
            let mut problems = Problems::new(path, String::new(), &[]);
            problems.push(problem::Problem::new(format!(
                "cannot read this file: {why}"
            )));
            problems
        })
    }

    /// Like [`Config::check`], for the text of the file at this path.
    pub(crate) fn check_text(
        source: &str,
        path: &Path,
        scope: CheckScope,
    ) -> Result<(Config, Problems), Problems> {
        let mut draft = file::read(source, path, &secret::process_environment);
        if scope == CheckScope::Network {
            let memory = preflight::machine_memory();
            preflight::check(&mut draft, &preflight::system_lookup(), memory);
        }
        draft.finish()
    }

    /// Like [`Config::load`], for a text that the program wrote itself. `name` is the file name in
    /// problems.
    pub fn read(source: &str, name: &Path) -> Result<Config, Problems> {
        let draft = file::read(source, name, &secret::process_environment);
        draft.finish().map(|(config, _)| config)
    }

    /// What the kind of an origin set, and what has to be set at the server, one a line.
    pub(crate) fn preset_lines(&self, origin: &str) -> Vec<String> {
        let mut presets = self.presets.iter();
        let Some(preset) = presets.find(|preset| *preset.origin == *origin) else {
            return Vec::new();
        };
        let kind = preset.kind.name;
        let defaults = preset.defaults.iter().map(|default| {
            let default = written::preset_default(default);
            format!("kind \"{kind}\" sets {default}")
        });
        let advice = preset.kind.advice.iter();
        let advice = advice.map(|advice| format!("kind \"{kind}\" needs at the server: {advice}"));
        defaults.chain(advice).collect()
    }

    /// The differences from this configuration to another one, by key.
    pub(crate) fn changes_to(&self, after: &Config) -> Vec<Change> {
        diff::compare(&written::tables(self), &written::tables(after))
    }

    /// One origin, from the program's flags instead of a file.
    pub fn from_flags(flags: Flags) -> Result<Config, Problems> {
        flags::config(flags)
    }

    /// One origin behind these listeners, everything else at its default.
    pub fn single(origin: &str, listeners: Vec<frontend::Listener>) -> Result<Config, ValueError> {
        let endpoint = address::parse_endpoint(origin)?;
        let group = seawall_upstream::Settings::single(&endpoint.host.clone(), endpoint);
        Ok(Config::with_origins(vec![group], listeners))
    }

    /// These origins behind these listeners, everything else at its default. All requests go to the
    /// first origin.
    fn with_origins(
        origins: Vec<seawall_upstream::Settings>,
        listeners: Vec<frontend::Listener>,
    ) -> Config {
        let name = origins
            .first()
            .map_or_else(|| "".into(), |origin| Arc::clone(&origin.name));
        Config {
            frontend: frontend::Settings {
                listeners,
                limits: frontend::Limits::default(),
            },
            admin: admin::Settings::default(),
            rules: seawall_policy::Rules {
                routes: order::sort_routes(vec![seawall_policy::Route::everything(name)]),
                name: NAME.into(),
                trusted_proxies: seawall_policy::TrustedProxies::default(),
                client_classes: seawall_policy::ClientClasses::default(),
            },
            origins,
            presets: Vec::new(),
            cache: seawall_cache::Settings::default(),
            proxy: proxy::Settings::default(),
            telemetry: file::telemetry(),
            threads: 0,
            drain_delay: DRAIN_DELAY,
            drain_max: DRAIN_MAX,
        }
    }
}
