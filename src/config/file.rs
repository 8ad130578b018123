//! Reads the TOML file, table by table, and collects every problem in it.
//!
//! It maps keys to settings. The modules define the meaning of the settings, and their defaults.
//!
//! `[server]`, `[log]` and `[access_log]` are read here; `[[listener]]`, `[limits]` and `[admin]`
//! in `listeners`; `[cache]` and `[fill]` in `caching`; `[[client_class]]` in `client_classes`;
//! `[[error_page]]` in `error_pages`;
//! `[[origin]]` in `origins`, with `endpoints`, `resilience` (`retry`, `breaker`, `ejection`),
//! `health` and `upstream_auth` (headers, SigV4, client certificates); `[[route]]` in `routes`,
//! with `access`, `token`, `rate_limits`, `cookies` and `forwarded_headers`.

mod access;
mod caching;
mod client_classes;
mod cookies;
mod endpoints;
mod error_pages;
mod forwarded_headers;
mod header_rules;
mod health;
mod key_pair;
mod listeners;
mod origins;
mod rate_limits;
mod resilience;
mod routes;
mod store_private;
mod token;
mod upstream_auth;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::order::{self, PlacedRoute};
use super::problem::{Problem, Problems, SourceSpan};
use super::secret::EnvironmentReader;
use super::toml_reader::{TomlReader, TomlTable, TomlValue};
use super::{Config, THREADS, THREADS_MAX, ValueError, address, read};
use crate::telemetry::{self, AccessLogSettings, LogLevels};
use seawall_policy::{ErrorPages, Route, Rules};
use seawall_upstream::Endpoint;

pub(super) use access::CLIENT_FIELDS;
pub(super) use error_pages::status_text;
pub(super) use listeners::{AddressUse, CLIENT_CERTIFICATES, ConfiguredAddress, address_conflicts};
pub(super) use origins::{BALANCES, PROTOCOLS};
pub(super) use token::TOKEN_KINDS;

/// A configuration together with its problems.
pub(super) struct ConfigDraft {
    config: Config,
    /// The addresses of its listeners and of the admin server.
    pub(super) addresses: Vec<ConfiguredAddress>,
    /// The endpoints of its origins, with their position in the text.
    pub(super) endpoints: Vec<(Endpoint, SourceSpan)>,
    /// The position of `memory`.
    pub(super) memory: Option<SourceSpan>,
    /// The files of its logs.
    pub(super) logs: Vec<ConfiguredLog>,
    /// All errors and warnings.
    pub(super) problems: Problems,
}

/// The file of a log, and its position in the text.
pub(super) struct ConfiguredLog {
    /// The words for the log.
    pub(super) name: &'static str,
    /// Where it is.
    pub(super) path: PathBuf,
    /// The position of the key.
    pub(super) span: SourceSpan,
    /// Whether part of the path comes from the environment: messages must not quote it then.
    pub(super) has_variables: bool,
}

impl ConfiguredLog {
    /// The log at the path of this key.
    fn of(name: &'static str, key: Option<TomlValue<'_>>) -> Option<ConfiguredLog> {
        let key = key?;
        Some(ConfiguredLog {
            name,
            // An error is reported by whoever reads the key.
            path: key.path().ok()?,
            span: key.span(),
            has_variables: key.has_variables(),
        })
    }
}

impl ConfigDraft {
    /// The configuration and its warnings if there are no errors; else all problems.
    pub(super) fn finish(self) -> Result<(Config, Problems), Problems> {
        if self.problems.errors() == 0 {
            Ok((self.config, self.problems))
        } else {
            Err(self.problems)
        }
    }

    /// The limit of bytes for bodies, stored and in fills.
    pub(super) fn bodies_bytes_max(&self) -> u64 {
        let cache = &self.config.cache;
        cache.memory_bytes.saturating_add(cache.fill_bytes_max)
    }
}

/// Reads a file's text. Relative paths start at the folder of `path`.
pub(super) fn read(source: &str, path: &Path, environment: &EnvironmentReader<'_>) -> ConfigDraft {
    let (toml, errors) = DeTable::parse_recoverable(source);
    let reader = TomlReader::new(source, path, environment);
    let reading = TomlTable::root(&reader, toml.get_ref(), read_sections);
    let (mut found, mut secret_spans) = reader.into_problems();
    if !errors.is_empty() {
        // Values read from broken TOML would only cause false problems.
        found = syntax_problems(source, &errors);
        secret_spans.extend(
            errors
                .iter()
                .filter_map(|error| possible_secret(source, error.span()?)),
        );
    }
    let mut problems = Problems::new(path, source.to_owned(), &secret_spans);
    for problem in found {
        problems.push(problem);
    }
    ConfigDraft {
        config: reading.config,
        addresses: reading.addresses,
        endpoints: reading.endpoints,
        memory: reading.memory,
        logs: reading.logs,
        problems,
    }
}

/// The first error of each line: later errors on it are mostly consequences.
fn syntax_problems(source: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let line = |span: &SourceSpan| source[..span.start].matches('\n').count();
    let mut lines = HashSet::new();
    let first = errors
        .iter()
        .filter(|error| lines.insert(error.span().as_ref().map(line)));
    let problem = |error: &toml::de::Error| {
        let problem = Problem::new("this is not TOML");
        match error.span() {
            Some(span) => problem.at(span, error.message()),
            None => problem.help(error.message()),
        }
    };
    first.map(problem).collect()
}

/// The possible secret on a broken line: everything from its first string on, if the line may set a
/// header of an origin or a URL with a password. Other keys carry no secrets.
fn possible_secret(source: &str, error: SourceSpan) -> Option<SourceSpan> {
    let start = source[..error.start]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = source[start..]
        .find('\n')
        .map_or(source.len(), |length| start + length);
    let line = &source[start..end];
    let quote = line.find(['"', '\''])?;
    let may_be_secret = line.contains('@') || may_set_headers(&source[..end]);
    may_be_secret.then_some(start + quote..end)
}

/// Whether the last line of this text may be part of a `headers` table: no other table began, and
/// no brace closed, since the last `headers`.
fn may_set_headers(text: &str) -> bool {
    let Some(start) = text.rfind("headers") else {
        return false;
    };
    let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let is_title = text[line..].trim_start().starts_with('[');
    let since = &text[start..];
    let mut later_lines = since.lines().skip(1);
    let ended = if is_title {
        later_lines.any(|line| line.trim_start().starts_with('['))
    } else {
        let before_last_line = since.rfind('\n').map_or("", |newline| &since[..newline]);
        before_last_line.contains('}') || later_lines.any(|line| line.trim_start().starts_with('['))
    };
    !ended
}

/// The result of reading all sections.
struct SectionsRead {
    config: Config,
    addresses: Vec<ConfiguredAddress>,
    endpoints: Vec<(Endpoint, SourceSpan)>,
    memory: Option<SourceSpan>,
    logs: Vec<ConfiguredLog>,
}

/// Reads every table of the file.
fn read_sections(root: &mut TomlTable<'_>) -> SectionsRead {
    let mut config = Config::with_origins(Vec::new(), Vec::new());
    read_section(root, "server", "[server]", |table| {
        read_server(table, &mut config);
    });
    let mut addresses = listeners::read_listeners(root, &mut config.frontend.listeners);
    read_section(root, "limits", "[limits]", |table| {
        listeners::read_limits(table, &mut config.frontend.limits);
        table.read_into("ranges_max", &mut config.proxy.ranges_max, read::count);
    });
    let mut logs = Vec::new();
    read_section(root, "admin", "[admin]", |table| {
        addresses.extend(listeners::read_admin(table, &mut config.admin));
        logs.extend(ConfiguredLog::of("audit log", table.value("audit_log")));
    });
    let mut memory = None;
    read_section(root, "cache", "[cache]", |table| {
        memory = table.value("memory").map(|value| value.span());
        caching::read_cache(table, &mut config.cache);
        table.read_into(
            "uncacheable_ttl",
            &mut config.proxy.uncacheable_ttl,
            read::duration,
        );
    });
    read_section(root, "fill", "[fill]", |table| {
        caching::read_fill(table, &mut config.cache, &mut config.proxy);
    });
    read_section(root, "log", "[log]", |table| {
        read_log(table, &mut config.telemetry.log_levels);
    });
    read_section(root, "access_log", "[access_log]", |table| {
        read_access_log(table, &mut config.telemetry.access_log);
        let log = ConfiguredLog::of("access log", table.value("path"));
        logs.extend(log.filter(|_| config.telemetry.access_log.enabled));
    });
    for problem in address_conflicts(&addresses) {
        root.reader().add_problem(problem);
    }
    let mut groups = origins::read_groups(root, config.proxy.wait_max);
    let classes = client_classes::read_client_classes(root);
    let error_pages = error_pages::read_error_pages(root, "[[error_page]]");
    let error_pages = ErrorPages::general(error_pages);
    let configured = routes::read_routes(root, &mut groups, &classes);
    access::report_unasked_certificates(root, &configured);
    let mut routes = check_routes(root, &mut groups, configured);
    for route in &mut routes {
        route.error_pages.general = Arc::clone(&error_pages.general);
    }
    config.rules.routes = order::sort_routes(routes);
    config.proxy.error_pages = error_pages;
    config.rules.client_classes = classes;
    config.presets = groups
        .iter()
        .filter_map(|group| group.preset.clone())
        .collect();
    let endpoints = groups
        .iter()
        .flat_map(|group| group.endpoints.clone())
        .collect();
    config.origins = groups.into_iter().map(|group| group.settings).collect();
    SectionsRead {
        config,
        addresses,
        endpoints,
        memory,
        logs,
    }
}

/// Reads `[log]`.
fn read_log(table: &mut TomlTable<'_>, levels: &mut LogLevels) {
    const EXPECTED: &str = "a level such as \"debug\", or \"seawall=debug,pingora=info\"";
    let parse = |text: &str| {
        let levels = LogLevels::parse(text);
        levels.map_err(|_| ValueError::new(EXPECTED, "not a log level"))
    };
    table.read_into("level", levels, read::parsed(parse, EXPECTED));
}

/// Reads `[access_log]`.
fn read_access_log(table: &mut TomlTable<'_>, access_log: &mut AccessLogSettings) {
    table.read_into("enabled", &mut access_log.enabled, read::flag);
    table.read_into("sample", &mut access_log.sample, read::count);
    table.read_some_into("path", &mut access_log.path, |value| value.path());
}

/// Reads `[server]`.
fn read_server(table: &mut TomlTable<'_>, config: &mut Config) {
    table.read_into(
        "threads",
        &mut config.threads,
        |value| match read::count_or_zero::<usize>(value)? {
            many if many > THREADS_MAX => {
                Err(value.problem(ValueError::new(THREADS, "must be at most 1024")))
            }
            threads => Ok(threads),
        },
    );
    table.read_into("drain_max", &mut config.drain_max, read::duration);
    table.read_into("drain_delay", &mut config.drain_delay, read::duration);
    let Rules {
        name,
        trusted_proxies,
        ..
    } = &mut config.rules;
    let pseudonym = read::parsed(address::pseudonym, "a name");
    table.read_into("name", name, |value| Ok(pseudonym(value)?.into()));
    access::read_trusted_proxies(table, trusted_proxies);
}

/// The configured routes; or one default route, if there is a single origin.
fn check_routes(
    root: &mut TomlTable<'_>,
    groups: &mut [origins::OriginTable],
    configured_routes: Vec<PlacedRoute>,
) -> Vec<Route> {
    for problem in order::duplicates(&configured_routes) {
        root.reader().add_problem(problem);
    }
    match (configured_routes.is_empty(), groups) {
        (false, _) => configured_routes
            .into_iter()
            .map(|PlacedRoute { route, .. }| route)
            .collect(),
        (true, []) => {
            if root.value("origin").is_none() {
                root.reader().add_problem(no_origin());
            }
            Vec::new()
        }
        (true, [group]) => {
            let mut route = Route::everything(group.settings.name.clone());
            group.set_query(&mut route);
            if group.is_mediapackage() && group.preset.is_none() {
                root.reader()
                    .add_problem(routes::all_queries_warning(group.span.clone()));
            }
            vec![route]
        }
        (true, [_, second, ..]) => {
            let problem = Problem::new("no route says which origin answers what")
                .at(second.span.clone(), "there are several origins");
            root.reader()
                .add_problem(problem.help("add a [[route]] with `origin` for each of them"));
            Vec::new()
        }
    }
}

/// The problem of a configuration without origins.
pub(super) fn no_origin() -> Problem {
    Problem::new("no origin is named")
        .help("add [[origin]] with endpoints = [\"https://origin.example\"]")
}

/// The default log settings, with a sample rate of 1: a rate of 0 would mean nothing.
pub(super) fn telemetry() -> telemetry::Settings {
    let mut settings = telemetry::Settings::default();
    settings.access_log.sample = settings.access_log.sample.max(1);
    settings
}

/// Reads a table that may occur once.
fn read_section<'a>(
    root: &mut TomlTable<'a>,
    key: &'static str,
    title: &'static str,
    read: impl FnOnce(&mut TomlTable<'a>),
) {
    root.get(key, |value| value.table(title, read));
}

/// Reads a table that may occur any number of times.
fn read_tables<'a, T>(
    root: &mut TomlTable<'a>,
    key: &'static str,
    title: &'static str,
    mut read: impl FnMut(&mut TomlTable<'a>) -> T,
) -> Vec<T> {
    let Some(value) = root.value(key) else {
        return Vec::new();
    };
    let items = value.items("a list of tables").map_err(|problem| {
        problem.help(format!(
            "write {title} with double brackets: there may be several"
        ))
    });
    let items = value.reader().value_or_report(items).into_iter().flatten();
    let read_one =
        |item: TomlValue<'a>| item.reader().value_or_report(item.table(title, &mut read));
    items.filter_map(read_one).collect()
}

#[cfg(test)]
mod tests;
