//! Writes a configuration as a file would: every key with its value, defaults filled in.
//!
//! Two configurations with the same tables mean the same, however their files are written. Secrets
//! are kept to be compared, and never shown. `examples.rs` tests that no key is missing.

mod origins;
mod routes;

use std::fmt;
use std::path::Path;

use http::StatusCode;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::Config;
use super::file::{CLIENT_CERTIFICATES, CLIENT_FIELDS, status_text};
use super::origin_kinds::PresetDefault;
use super::quantity::{duration_text, size_text};
use crate::frontend::{ClientAuthority, Listener, Tls};
use seawall_manifest::Kind;
use seawall_policy::access_rules::AddressList;
use seawall_policy::{ClientClass, ErrorPage};
use seawall_upstream::CheckKind;

/// A table of the file.
#[derive(Debug)]
pub(super) struct WrittenTable {
    /// As the file writes it: `[cache]`, `[[route]]`. Inside another table its key: `health`.
    pub(super) title: &'static str,
    /// What tells it from others of this title: a name, an address, a URL or a path.
    pub(super) name: Option<String>,
    /// Whether its position among these others matters.
    pub(super) is_ordered: bool,
    /// Its keys. A table that is always there is part of them: `deadlines.queue`.
    pub(super) keys: Vec<WrittenKey>,
    /// The tables in it of which there may be none, or several.
    pub(super) tables: Vec<WrittenTable>,
}

/// A key and its value.
#[derive(Debug, PartialEq)]
pub(super) struct WrittenKey {
    /// Its name in the table.
    pub(super) key: String,
    /// Its value.
    pub(super) value: WrittenValue,
    /// Whether a file without this key has the same value.
    pub(super) is_default: bool,
}

/// A value. `Display` and `Debug` show it as TOML, but no secret.
#[derive(Clone, PartialEq)]
pub(crate) enum WrittenValue {
    /// A value; null if the key is not set.
    Plain(Value),
    /// A value that is never shown.
    Secret(Vec<u8>),
}

/// The value of a key that is not set.
const UNSET: WrittenValue = WrittenValue::Plain(Value::Null);

/// Every table of a configuration, in the order of the reference.
pub(super) fn tables(config: &Config) -> Vec<WrittenTable> {
    let mut tables = vec![server(config)];
    tables.extend(config.frontend.listeners.iter().map(listener));
    tables.extend([
        limits(config),
        admin(config),
        cache(config),
        fill(config),
        log(config),
        access_log(config),
    ]);
    let classes = config.rules.client_classes.iter();
    tables.extend(classes.map(|class| client_class(class)));
    let pages = &config.proxy.error_pages.general;
    tables.extend(error_pages("[[error_page]]", pages));
    tables.extend(config.origins.iter().map(|origin| {
        let mut presets = config.presets.iter();
        let preset = presets.find(|preset| preset.origin == origin.name);
        origins::table(origin, preset.map(|preset| preset.kind.name))
    }));
    tables.extend(routes::tables(&config.rules.routes));
    tables
}

/// A key that the kind of an origin set, as the file would write it.
pub(super) fn preset_default(default: &PresetDefault) -> String {
    match default {
        PresetDefault::Query(route, policies) => {
            let query = WrittenValue::Plain(routes::queries(policies));
            format!("[[route]] \"{route}\": query = {query}")
        }
        PresetDefault::Check(CheckKind::Tcp) => "[origin.health]: kind = \"tcp\"".to_owned(),
        PresetDefault::Check(CheckKind::Http { path, expect }) => {
            let statuses: Vec<&str> = expect.iter().map(StatusCode::as_str).collect();
            let statuses = statuses.join(", ");
            format!("[origin.health]: path = \"{path}\", expect = [{statuses}]")
        }
        PresetDefault::Service(service) => {
            format!("[origin.sigv4]: service = \"{}\"", service.as_str())
        }
    }
}

fn server(config: &Config) -> WrittenTable {
    let proxies = &config.rules.trusted_proxies;
    WrittenTable::new("[server]")
        .key("threads", config.threads)
        .key("drain_delay", duration_text(config.drain_delay))
        .key("drain_max", duration_text(config.drain_max))
        .key("name", &*config.rules.name)
        .key("trusted_proxies", proxies.addresses.as_ref().map(addresses))
        .key(
            "client_header",
            origins::word(&CLIENT_FIELDS, proxies.field),
        )
}

fn listener(listener: &Listener) -> WrittenTable {
    let sources = listener.proxy_protocol.as_ref().map(addresses);
    let table = WrittenTable::new("[[listener]]").name(listener.address.to_string());
    let table = table.key("proxy_protocol.from", sources);
    table.tables(listener.tls.as_ref().map(tls))
}

fn tls(tls: &Tls) -> WrittenTable {
    let certificates = tls.certificates.iter().map(|files| {
        let table = WrittenTable::new("certificates").name(path_text(&files.certificate));
        table.ordered().key("key", path_text(&files.key))
    });
    let keys = |tls12: bool, client: Option<&ClientAuthority>| {
        let demand = |client: &ClientAuthority| {
            origins::word(&CLIENT_CERTIFICATES, client.is_required).unwrap_or_default()
        };
        WrittenTable::new("tls")
            .key("tls12", tls12)
            .key("client_ca", client.map(|client| path_text(&client.ca)))
            .key("client_certificates", client.map(demand))
    };
    let table = keys(tls.tls12, tls.client.as_ref()).mark_defaults(&keys(true, None));
    table.tables(certificates)
}

fn limits(config: &Config) -> WrittenTable {
    let limits = &config.frontend.limits;
    WrittenTable::new("[limits]")
        .key("connections_max", limits.connections_max)
        .key(
            "connections_per_client_max",
            limits.connections_per_client_max,
        )
        .key("streams_max", limits.streams_max)
        .key("head_max", size_text(limits.head_bytes_max as u64))
        .key("header_max", size_text(limits.header_bytes_max as u64))
        .key("headers_max", limits.headers_max)
        .key("uri_max", size_text(limits.uri_bytes_max as u64))
        .key("ranges_max", config.proxy.ranges_max)
        .key("handshake_timeout", duration_text(limits.handshake_timeout))
        .key("head_timeout", duration_text(limits.head_timeout))
        .key("idle_timeout", duration_text(limits.idle_timeout))
        .key(
            "send_rate_min",
            size_text(limits.send_rate_min_bytes_per_second),
        )
        .key("send_rate_window", duration_text(limits.send_rate_window))
        .key(
            "unwanted_body_max",
            size_text(limits.unwanted_body_bytes_max),
        )
        .key("request_body_max", size_text(limits.request_body_bytes_max))
}

fn admin(config: &Config) -> WrittenTable {
    let admin = &config.admin;
    let listen = admin.listen.as_ref().map(ToString::to_string);
    let tokens = admin.tokens.iter().map(|token| {
        json!({
            "name": token.name,
            "file": path_text(&token.file),
            "role": token.role.as_str(),
        })
    });
    WrittenTable::new("[admin]")
        .key("listen", listen)
        .key("hosts", admin.hosts.clone())
        .key("tokens", tokens.collect::<Vec<_>>())
        .key("audit_log", admin.audit_log.as_deref().map(path_text))
}

fn client_class(class: &ClientClass) -> WrittenTable {
    WrittenTable::new("[[client_class]]")
        .name(&*class.name)
        .ordered()
        .key("header", class.header.as_ref().map(routes::required_header))
        .key("addresses", class.addresses.as_ref().map(addresses))
        .key(
            "rate_limit",
            class.rate_limit.as_ref().map(routes::rate_limit),
        )
        .key(
            "certificate",
            class.certificate.as_ref().map(routes::certificate),
        )
}

/// No two pages in one place have a status in common.
fn error_pages<'p>(
    title: &'static str,
    pages: &'p [ErrorPage],
) -> impl Iterator<Item = WrittenTable> + use<'p> {
    pages.iter().map(move |page| {
        let statuses = page.statuses.iter().copied();
        let statuses: Vec<_> = statuses.map(status_text).collect();
        let content_type = page.content_type.to_str().unwrap_or_default();
        WrittenTable::new(title)
            .name(statuses.join(", "))
            .key("file", path_text(&page.file))
            .key("file.content", content_text(&page.body))
            .key("content_type", content_type)
    })
}

/// What tells the content of a file from another one.
fn content_text(content: &[u8]) -> String {
    let hash = digest(&SHA256, content);
    let first_8_bytes = hash.as_ref().iter().take(8);
    let hash = first_8_bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{} bytes, sha256 {hash:016x}…", content.len())
}

fn cache(config: &Config) -> WrittenTable {
    let cache = &config.cache;
    let mut table = WrittenTable::new("[cache]")
        .key("memory", size_text(cache.memory_bytes))
        .key("object_max", size_text(cache.object_bytes_max))
        .key("variants_max", cache.variants_max)
        .key("tags_max", cache.tags_max);
    for kind in Kind::ALL {
        let mut limits = cache.kind_bytes_max.iter();
        let limit = limits.find(|(limited, _)| *limited == kind);
        let limit = limit.map(|(_, bytes_max)| size_text(*bytes_max));
        table = table.key(format!("kind_max.{}", kind.as_str()), limit);
    }
    table.key(
        "uncacheable_ttl",
        duration_text(config.proxy.uncacheable_ttl),
    )
}

fn fill(config: &Config) -> WrittenTable {
    let (cache, proxy) = (&config.cache, &config.proxy);
    WrittenTable::new("[fill]")
        .key("memory", size_text(cache.fill_bytes_max))
        .key("waiters_max", cache.waiters_max)
        .key("wait_max", duration_text(proxy.wait_max))
        .key("stale_wait_max", duration_text(proxy.stale_wait_max))
        .key("failure_backoff", duration_text(proxy.failure_backoff))
        .key("finish_abandoned", proxy.finish_abandoned)
        .key("whole_max", size_text(proxy.whole_fetch_max))
        .key("slice", size_text(proxy.slice_bytes))
        .key("manifest_max", size_text(proxy.manifest_bytes_max))
}

fn log(config: &Config) -> WrittenTable {
    WrittenTable::new("[log]").key("level", config.telemetry.log_levels.as_str())
}

fn access_log(config: &Config) -> WrittenTable {
    let access_log = &config.telemetry.access_log;
    WrittenTable::new("[access_log]")
        .key("enabled", access_log.enabled)
        .key("sample", access_log.sample)
        .key("path", access_log.path.as_deref().map(path_text))
}

fn addresses(list: &AddressList) -> Vec<String> {
    list.entries().map(|entry| entry.to_string()).collect()
}

/// A path, with the folder of the file that names it.
fn path_text(path: &Path) -> String {
    path.display().to_string()
}

impl WrittenTable {
    fn new(title: &'static str) -> WrittenTable {
        WrittenTable {
            title,
            name: None,
            is_ordered: false,
            keys: Vec::new(),
            tables: Vec::new(),
        }
    }

    fn name(mut self, name: impl Into<String>) -> WrittenTable {
        self.name = Some(name.into());
        self
    }

    fn ordered(mut self) -> WrittenTable {
        self.is_ordered = true;
        self
    }

    fn key(self, key: impl Into<String>, value: impl Into<Value>) -> WrittenTable {
        self.add(key, WrittenValue::Plain(value.into()))
    }

    fn secret(self, key: impl Into<String>, value: &[u8]) -> WrittenTable {
        self.add(key, WrittenValue::Secret(value.to_owned()))
    }

    fn add(mut self, key: impl Into<String>, value: WrittenValue) -> WrittenTable {
        self.keys.push(WrittenKey {
            key: key.into(),
            is_default: value == UNSET,
            value,
        });
        self
    }

    fn tables(mut self, tables: impl IntoIterator<Item = WrittenTable>) -> WrittenTable {
        self.tables.extend(tables);
        self
    }

    /// Marks the keys that have the same value in `default`, the table without any key of its own.
    fn mark_defaults(mut self, default: &WrittenTable) -> WrittenTable {
        for written in &mut self.keys {
            written.is_default = *default.value(&written.key) == written.value;
        }
        self
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> &WrittenValue {
        let written = self.keys.iter().find(|written| written.key == key);
        written.map_or(&UNSET, |written| &written.value)
    }
}

impl WrittenValue {
    /// The value as JSON.
    pub(super) fn to_json(&self) -> Value {
        match self {
            WrittenValue::Plain(value) => value.clone(),
            WrittenValue::Secret(_) => self.to_string().into(),
        }
    }
}

impl fmt::Display for WrittenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WrittenValue::Plain(Value::Null) => f.write_str("not set"),
            WrittenValue::Plain(value) => write_toml(value, f),
            WrittenValue::Secret(_) => f.write_str("(secret)"),
        }
    }
}

impl fmt::Debug for WrittenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Writes a value as inline TOML. Its strings, numbers and flags are those of JSON.
fn write_toml(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Array(items) => {
            f.write_str("[")?;
            for (at, item) in items.iter().enumerate() {
                f.write_str(if at == 0 { "" } else { ", " })?;
                write_toml(item, f)?;
            }
            f.write_str("]")
        }
        Value::Object(entries) => {
            f.write_str("{ ")?;
            for (at, (key, value)) in entries.iter().enumerate() {
                f.write_str(if at == 0 { "" } else { ", " })?;
                write!(f, "{key} = ")?;
                write_toml(value, f)?;
            }
            f.write_str(" }")
        }
        value => write!(f, "{value}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_toml() {
        let cases = [
            (json!("say \"2s\""), r#""say \"2s\"""#),
            (json!(1.0), "1.0"),
            (json!([502, 503]), "[502, 503]"),
            (json!({ "only": ["a", "b"] }), r#"{ only = ["a", "b"] }"#),
            (json!([]), "[]"),
            (json!(null), "not set"),
        ];
        for (value, text) in cases {
            assert_eq!(WrittenValue::Plain(value).to_string(), text);
        }
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let secret = |text: &str| WrittenValue::Secret(text.into());
        assert_eq!(secret("s3cret"), secret("s3cret"));
        assert_ne!(secret("s3cret"), secret("other"));
        let shown = format!(
            "{0} {0:?} {1}",
            secret("s3cret"),
            secret("s3cret").to_json()
        );
        assert_eq!(shown, "(secret) (secret) \"(secret)\"");
    }
}
