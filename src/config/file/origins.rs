//! Reads `[[origin]]`: endpoints, connections, limits and deadlines.

use std::path::PathBuf;
use std::time::Duration;

use super::endpoints::read_endpoints;
use super::{health, read_tables, resilience, upstream_auth};
use crate::config::origin_kinds::{KINDS, OriginKind, OriginPreset};
use crate::config::problem::{Problem, SourceSpan};
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{address, pem, read};
use seawall_policy::Route;
use seawall_upstream::{Balance, Deadlines, Endpoint, Protocol, Settings};

/// An origin group, and its positions in the file.
pub(super) struct OriginTable {
    /// Its settings.
    pub(super) settings: Settings,
    /// The position of its name, or of its table if it has none.
    pub(super) span: SourceSpan,
    /// Its endpoints.
    pub(super) endpoints: Vec<(Endpoint, SourceSpan)>,
    /// What its kind sets.
    pub(super) preset: Option<OriginPreset>,
}

impl OriginTable {
    /// Gives a route without a `query` the one of this origin's kind, if it has one.
    pub(super) fn set_query(&mut self, route: &mut Route) {
        if let Some(preset) = &mut self.preset {
            preset.set_query(route);
        }
    }

    /// Whether one of its endpoints is an egress endpoint of AWS Elemental MediaPackage.
    pub(super) fn is_mediapackage(&self) -> bool {
        let is_egress = |host: &str| {
            host.ends_with(".amazonaws.com")
                && host
                    .split('.')
                    .any(|label| label.starts_with("mediapackage"))
        };
        self.endpoints
            .iter()
            .any(|(endpoint, _)| is_egress(&endpoint.host))
    }
}

const BALANCE: &str = "\"failover\", \"round_robin\", \"least_in_flight\" or \"hash\"";
/// The words of `balance`.
pub(in crate::config) const BALANCES: [(&str, Balance); 4] = [
    ("failover", Balance::Failover),
    ("round_robin", Balance::RoundRobin),
    ("least_in_flight", Balance::LeastInFlight),
    ("hash", Balance::Hash),
];

/// The words of `protocol`.
pub(in crate::config) const PROTOCOLS: [(&str, Protocol); 3] = [
    ("auto", Protocol::Auto),
    ("h1", Protocol::H1),
    ("h2", Protocol::H2),
];

/// Reads every `[[origin]]`. `wait_max`: how long viewers wait.
pub(super) fn read_groups(root: &mut TomlTable<'_>, wait_max: Duration) -> Vec<OriginTable> {
    let groups = read_tables(root, "origin", "[[origin]]", |table| {
        read_group(table, wait_max)
    });
    for (index, later) in groups.iter().enumerate() {
        let name = &later.settings.name;
        let same = |earlier: &&OriginTable| earlier.settings.name == *name && !name.is_empty();
        if let Some(earlier) = groups[..index].iter().find(same) {
            let problem = Problem::new(format!("two origins are called `{name}`"))
                .at(later.span.clone(), "the name again")
                .other(earlier.span.clone(), "the name first");
            root.reader()
                .add_problem(problem.help("give each origin its own `name`"));
        }
    }
    groups
}

fn read_group(table: &mut TomlTable<'_>, wait_max: Duration) -> OriginTable {
    let name = table.value("name");
    let span = name.map_or(table.span(), |name| name.span());
    let name_given = table.get("name", read::parsed(address::name, "a name"));
    let endpoints = read_endpoints(table);
    let first = endpoints.first().map(|(endpoint, _)| endpoint.clone());
    let host = first.as_ref().map(|first| first.host.clone());
    // Missing endpoints are reported already; the table still has other keys to read.
    let placeholder = Endpoint::new(false, String::new(), 0);
    let name = name_given.or(host).unwrap_or_default();
    let mut settings = Settings::single(&name, first.unwrap_or(placeholder));
    settings.endpoints = endpoints
        .iter()
        .map(|(endpoint, _)| endpoint.clone())
        .collect();
    let kind = read_kind(table);
    let mut preset = kind.map(|kind| OriginPreset::new(&settings.name, kind));
    read_connection(table, &mut settings);
    upstream_auth::read(table, &mut settings, preset.as_mut());
    warn_of_sessions(table, kind, &settings);
    table.read_into(
        "balance",
        &mut settings.balance,
        read::one_of(&BALANCES, BALANCE),
    );
    table.read_into("hedge", &mut settings.retry.hedge, read::flag);
    let deadlines = &mut settings.deadlines;
    table.get("deadlines", |value| {
        value.table("deadlines", |table| {
            read_deadlines(table, deadlines);
            warn_of_long_deadlines(table, deadlines, wait_max);
        })
    });
    table.read_some_into("health", &mut settings.health, |value| {
        value.table("health", |table| health::read_check(table, preset.as_mut()))
    });
    read_request_limits(table, &mut settings);
    table.read_into("resolve_every", &mut settings.resolve_every, read::timeout);
    resilience::read(table, &mut settings);
    OriginTable {
        settings,
        span,
        endpoints,
        preset,
    }
}

fn read_kind(table: &mut TomlTable<'_>) -> Option<&'static OriginKind> {
    const EXPECTED: &str = "\"mediamtx\", \"ovenmediaengine\", \"srs\", \"nimble\", \"wowza\", \
                            \"unified\", \"mediapackage\" or \"s3\"";
    table.get(
        "kind",
        read::one_of(&KINDS.map(|kind| (kind.name, kind)), EXPECTED),
    )
}

/// Warns of a missing header by which a server of this kind knows that its client is a cache.
fn warn_of_sessions(
    table: &mut TomlTable<'_>,
    kind: Option<&'static OriginKind>,
    settings: &Settings,
) {
    let Some((kind, header)) = kind.and_then(|kind| Some((kind, kind.header?))) else {
        return;
    };
    let mut names = settings.headers.iter().map(|(name, _)| name);
    let mut file_names = settings.header_files.iter().map(|(name, _)| name);
    let is_sent = names.any(|name| name == header) || file_names.any(|name| name == header);
    if let Some(value) = table.value("kind").filter(|_| !is_sent) {
        let what = format!("without `{header}`, this server gives each viewer a session");
        let problem = Problem::warning(what).at(value.span(), "no such header is set here");
        let advice = kind.advice.unwrap_or_default();
        table
            .reader()
            .add_problem(problem.help(format!("at the server: {advice}")));
    }
}

/// TLS and protocol of the connections to endpoints.
fn read_connection(table: &mut TomlTable<'_>, settings: &mut Settings) {
    table.read_some_into(
        "host",
        &mut settings.host,
        read::parsed(address::authority, "a host"),
    );
    table.read_some_into(
        "sni",
        &mut settings.sni,
        read::parsed(address::server_name, "a host name"),
    );
    table.read_some_into("ca_file", &mut settings.ca_file, ca_file);
    table.read_into("verify", &mut settings.verify, read::flag);
    if let Some(value) = table.value("verify").filter(|_| !settings.verify) {
        let problem = Problem::warning("the certificates of this origin are not checked");
        let problem = problem.at(value.span(), "anybody on the way can pose as the origin");
        table
            .reader()
            .add_problem(problem.help("name the authority that signed them with `ca_file`"));
    }
    let protocol = read::one_of(&PROTOCOLS, "\"auto\", \"h1\" or \"h2\"");
    table.read_into("protocol", &mut settings.protocol, protocol);
}

/// Limits of concurrent requests and of request rates.
fn read_request_limits(table: &mut TomlTable<'_>, settings: &mut Settings) {
    table.read_into(
        "concurrency_max",
        &mut settings.concurrency_max,
        read::count,
    );
    table.read_into("blocking_max", &mut settings.blocking_max, read::count);
    table.read_into(
        "slow_viewers_max",
        &mut settings.slow_viewers_max,
        read::count,
    );
    table.read_into("queue_max", &mut settings.queue_max, read::count_or_zero);
    table.read_some_into(
        "requests_per_second_max",
        &mut settings.requests_per_second_max,
        read::count,
    );
}

fn ca_file(value: TomlValue<'_>) -> ReadResult<PathBuf> {
    let path = value.path()?;
    match pem::certificates(&path) {
        Ok(_) => Ok(path),
        Err(why) => Err(read::file_problem(value, &path, why)),
    }
}

fn read_deadlines(table: &mut TomlTable<'_>, deadlines: &mut Deadlines) {
    table.read_into("queue", &mut deadlines.queue, read::timeout);
    table.read_into("connect", &mut deadlines.connect, read::timeout);
    table.read_into("manifest", &mut deadlines.manifest, read::timeout);
    table.read_into("first_byte", &mut deadlines.first_byte, read::timeout);
    table.read_into("blocking", &mut deadlines.blocking, read::timeout);
    table.read_into("between_bytes", &mut deadlines.between_bytes, read::timeout);
    table.read_into("total", &mut deadlines.total, read::timeout);
    for (key, part) in [
        ("connect", deadlines.connect),
        ("manifest", deadlines.manifest),
        ("first_byte", deadlines.first_byte),
        ("blocking", deadlines.blocking),
    ] {
        // Only a configured value is reported; `total` shortens a default silently.
        if part > deadlines.total
            && let Some(name_given) = table.value(key)
        {
            let problem = Problem::new(format!("`{key}` is longer than `total`"));
            let problem = problem.at(name_given.span(), "longer than everything together");
            table
                .reader()
                .add_problem(problem.help(format!("lower `{key}`, or raise `total`")));
        }
    }
}

/// Warns of deadlines longer than `wait_max`: a response may then begin after all viewers gave up.
fn warn_of_long_deadlines(table: &mut TomlTable<'_>, deadlines: &Deadlines, wait_max: Duration) {
    for (key, part) in [
        ("manifest", deadlines.manifest),
        ("first_byte", deadlines.first_byte),
    ] {
        if part > wait_max
            && let Some(name_given) = table.value(key)
        {
            let problem = Problem::new(format!("`{key}` outlasts `wait_max` of [fill]"));
            let label = format!("viewers wait for an answer for {wait_max:?} at most");
            let help = format!("lower `{key}`, or raise `wait_max` in [fill]");
            table
                .reader()
                .add_problem(problem.at(name_given.span(), label).help(help));
        }
    }
}
