//! Writes `[[origin]]`.

use http::StatusCode;
use serde_json::{Map, Value};

use super::{WrittenTable, path_text};
use crate::config::file::{BALANCES, PROTOCOLS};
use crate::config::quantity::duration_text;
use seawall_upstream::sign::{CredentialSource, Sigv4};
use seawall_upstream::{Check, CheckKind, Deadlines, Endpoint, Quota, RequestClass, Settings};

/// One origin, and the word of its kind.
pub(super) fn table(settings: &Settings, kind: Option<&str>) -> WrittenTable {
    let default = keys(&Settings::single("", Endpoint::new(false, "", 0)), None);
    keys(settings, kind)
        .mark_defaults(&default)
        .name(&*settings.name)
        .tables(settings.endpoints.iter().map(endpoint))
        .tables(settings.health.as_ref().map(health))
        .tables(settings.sigv4.as_ref().map(sigv4))
}

fn keys(settings: &Settings, kind: Option<&str>) -> WrittenTable {
    let certificate = settings.client_certificate.as_ref();
    let mut table = WrittenTable::new("[[origin]]")
        .key("kind", kind)
        .key("balance", word(&BALANCES, settings.balance))
        .key("host", settings.host.clone())
        .key("sni", settings.sni.clone())
        .key("ca_file", settings.ca_file.as_deref().map(path_text))
        .key("verify", settings.verify)
        .key("protocol", word(&PROTOCOLS, settings.protocol));
    for (name, value) in &settings.headers {
        table = table.secret(format!("headers.{name}"), value.as_bytes());
    }
    for (name, path) in &settings.header_files {
        let file = Map::from_iter([("file".to_owned(), path_text(path).into())]);
        table = table.key(format!("headers.{name}"), file);
    }
    let table = table
        .key(
            "client_certificate",
            certificate.map(|files| path_text(&files.certificate)),
        )
        .key("client_key", certificate.map(|files| path_text(&files.key)))
        .key("hedge", settings.retry.hedge)
        .key("concurrency_max", settings.concurrency_max)
        .key("blocking_max", settings.blocking_max)
        .key("slow_viewers_max", settings.slow_viewers_max)
        .key("queue_max", settings.queue_max)
        .key("requests_per_second_max", settings.requests_per_second_max)
        .key("resolve_every", duration_text(settings.resolve_every));
    resilience(deadlines(table, &settings.deadlines), settings)
}

/// The word of the file for a setting.
pub(super) fn word<T: PartialEq + Copy>(
    words: &[(&'static str, T)],
    setting: T,
) -> Option<&'static str> {
    let mut words = words.iter();
    let named = words.find(|(_, meaning)| *meaning == setting)?;
    Some(named.0)
}

fn deadlines(table: WrittenTable, deadlines: &Deadlines) -> WrittenTable {
    table
        .key("deadlines.queue", duration_text(deadlines.queue))
        .key("deadlines.connect", duration_text(deadlines.connect))
        .key("deadlines.manifest", duration_text(deadlines.manifest))
        .key("deadlines.first_byte", duration_text(deadlines.first_byte))
        .key("deadlines.blocking", duration_text(deadlines.blocking))
        .key(
            "deadlines.between_bytes",
            duration_text(deadlines.between_bytes),
        )
        .key("deadlines.total", duration_text(deadlines.total))
}

/// `retry`, `breaker` and `ejection`.
fn resilience(table: WrittenTable, settings: &Settings) -> WrittenTable {
    let retry = &settings.retry;
    let (breaker, ejection) = (&settings.guards.breaker, &settings.guards.ejection);
    table
        .key("retry.attempts", retry.attempts_max)
        .key("retry.statuses", status_codes(&retry.statuses))
        .key("retry.budget", retry.budget.share)
        .key("retry.budget_per_s_min", retry.budget.per_s_min)
        .key("retry.wait", duration_text(retry.backoff.base))
        .key("retry.wait_max", duration_text(retry.backoff.max))
        .key(
            "retry.retry_after_max",
            duration_text(retry.backoff.retry_after_max),
        )
        .key("breaker.error_share", breaker.error_share)
        .key("breaker.window", duration_text(breaker.window))
        .key("breaker.failed_urls_min", breaker.failed_urls_min)
        .key("breaker.probe_after", duration_text(breaker.probe_after))
        .key(
            "breaker.probe_after_max",
            duration_text(breaker.probe_after_max),
        )
        .key("ejection.failures", ejection.failures)
        .key("ejection.first", duration_text(ejection.base))
        .key("ejection.longest", duration_text(ejection.max))
        .key("ejection.slow_factor", ejection.slow_factor)
        .key("ejection.slow_min", duration_text(ejection.slow_min))
        .key("ejection.slow_judgements", ejection.slow_judgements)
}

fn status_codes(statuses: &[StatusCode]) -> Vec<u16> {
    statuses.iter().map(StatusCode::as_u16).collect()
}

fn endpoint(endpoint: &Endpoint) -> WrittenTable {
    let default = endpoint_keys(&Endpoint::new(false, "", 0));
    endpoint_keys(endpoint)
        .mark_defaults(&default)
        .name(endpoint.url())
        // The first is preferred where `balance` is "failover".
        .ordered()
}

fn endpoint_keys(endpoint: &Endpoint) -> WrittenTable {
    WrittenTable::new("endpoints")
        .key("priority", endpoint.priority)
        .key("weight", endpoint.weight)
        .key("region", endpoint.region.clone())
        .key("concurrency_max", endpoint.concurrency_max)
        .key(
            "requests_per_second_max",
            endpoint.requests_per_second_max.map(quota),
        )
}

fn quota(quota: Quota) -> Value {
    match quota {
        Quota::All(rate) => rate.into(),
        Quota::ByClass(rates) => {
            let rates = RequestClass::ALL.into_iter().zip(rates);
            let set = rates
                .filter_map(|(class, rate)| Some((class.as_str().to_owned(), Value::from(rate?))));
            Value::Object(set.collect())
        }
    }
}

fn health(check: &Check) -> WrittenTable {
    health_keys(check).mark_defaults(&health_keys(&Check::default()))
}

fn health_keys(check: &Check) -> WrittenTable {
    let table = WrittenTable::new("health");
    let table = match &check.kind {
        CheckKind::Tcp => table.key("kind", "tcp"),
        CheckKind::Http { path, expect } => {
            let table = table.key("kind", "http");
            let expect = Some(status_codes(expect)).filter(|expect| !expect.is_empty());
            // A query may hold a token.
            let table = match path.query() {
                None => table.key("path", path.as_str()),
                Some(_) => table.secret("path", path.as_str().as_bytes()),
            };
            table.key("expect", expect)
        }
    };
    table
        .key("every", duration_text(check.schedule.every))
        .key("timeout", duration_text(check.timeout))
        .key("successes", check.schedule.successes)
        .key("failures", check.schedule.failures)
}

fn sigv4(sigv4: &Sigv4) -> WrittenTable {
    let (credentials, file) = match &sigv4.sources[..] {
        [CredentialSource::Given(_)] => ("environment", None),
        [CredentialSource::File { path, profile }] => ("file", Some((path, profile))),
        [CredentialSource::Container { .. }] => ("container", None),
        [CredentialSource::Instance { .. }] => ("instance", None),
        _ => ("auto", None),
    };
    WrittenTable::new("sigv4")
        .key("region", sigv4.region.clone())
        .key("service", sigv4.service.as_str())
        .key("credentials", credentials)
        .key("credentials_file", file.map(|(path, _)| path_text(path)))
        .key("profile", file.map(|(_, profile)| profile.clone()))
}
