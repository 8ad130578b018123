//! `[[origin]]`: where does content come from, and how is it asked for?

use std::collections::HashSet;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::tables;
use crate::config::page::{Entry, Read, Table, Value};
use crate::config::problem::{Problem, Span};
use crate::config::{Fault, address, pem, read};
use crate::origin::{Deadlines, Endpoint, Protocol, Settings};

/// An origin group, and where things about it are said.
pub(super) struct Group {
    /// Its settings.
    pub(super) settings: Settings,
    /// Its name, or its table where it has none.
    pub(super) span: Span,
    /// Its endpoints.
    pub(super) endpoints: Vec<(Endpoint, Span)>,
}

/// Fields that say how a message is framed or where it goes: the shield's own business.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads every `[[origin]]`.
pub(super) fn groups(root: &mut Table<'_>) -> Vec<Group> {
    let groups = tables(root, "origin", "[[origin]]", group);
    for (at, later) in groups.iter().enumerate() {
        let name = &later.settings.name;
        let same = |earlier: &&Group| earlier.settings.name == *name && !name.is_empty();
        if let Some(earlier) = groups[..at].iter().find(same) {
            let problem = Problem::new(format!("two origins are called `{name}`"))
                .at(later.span.clone(), "the name again")
                .other(earlier.span.clone(), "the name first");
            root.page()
                .note(problem.help("give each origin its own `name`"));
        }
    }
    groups
}

fn group(table: &mut Table<'_>) -> Group {
    let name = table.value("name");
    let span = name.map_or(table.span(), |name| name.span());
    let typed = table.get("name", read::parsed(address::name, "a name"));
    let endpoints = endpoints(table);
    let first = endpoints.first().map(|(endpoint, _)| endpoint.clone());
    let host = first.as_ref().map(|first| first.host.clone());
    // An origin without endpoints is a problem noted already; it still has other keys to read.
    let nowhere = Endpoint {
        tls: false,
        host: String::new(),
        port: 0,
    };
    let name = typed.or(host).unwrap_or_default();
    let mut settings = Settings::single(&name, first.unwrap_or(nowhere));
    settings.endpoints = endpoints
        .iter()
        .map(|(endpoint, _)| endpoint.clone())
        .collect();
    table.put_some(
        "host",
        &mut settings.host,
        read::parsed(address::authority, "a host"),
    );
    table.put_some(
        "sni",
        &mut settings.sni,
        read::parsed(address::server_name, "a host name"),
    );
    table.put_some("ca_file", &mut settings.ca_file, ca_file);
    table.put("verify", &mut settings.verify, read::flag);
    let words = [
        ("auto", Protocol::Auto),
        ("h1", Protocol::H1),
        ("h2", Protocol::H2),
    ];
    let protocol = read::word(&words, "\"auto\", \"h1\" or \"h2\"");
    table.put("protocol", &mut settings.protocol, protocol);
    table.put("headers", &mut settings.headers, headers);
    let deadlines = &mut settings.deadlines;
    table.get("deadlines", |value| {
        value.table("deadlines", |table| read_deadlines(table, deadlines))
    });
    table.put(
        "concurrency_max",
        &mut settings.concurrency_max,
        read::count,
    );
    table.put("queue_max", &mut settings.queue_max, read::count_or_zero);
    table.put("resolve_every", &mut settings.resolve_every, read::deadline);
    Group {
        settings,
        span,
        endpoints,
    }
}

fn endpoints(table: &mut Table<'_>) -> Vec<(Endpoint, Span)> {
    const WANTED: &str = "a list of origins such as [\"https://origin.example\"]";
    if table.value("endpoints").is_none() {
        table.note_missing("endpoints", "endpoints = [\"https://origin.example\"]");
    }
    let listed = table
        .get("endpoints", read::some_of(endpoint, WANTED))
        .unwrap_or_default();
    let mut seen = HashSet::new();
    for (endpoint, span) in &listed {
        if !seen.insert((endpoint.host.as_str(), endpoint.port)) {
            let what = "this endpoint is in the list already";
            table
                .page()
                .note(Problem::new(what).at(span.clone(), "the same host and port again"));
        }
    }
    listed
}

fn endpoint(value: Value<'_>) -> Read<(Endpoint, Span)> {
    hide_password(value);
    let endpoint = read::parsed(
        address::endpoint,
        "an origin such as \"https://origin.example\"",
    );
    Ok((endpoint(value)?, value.span()))
}

/// A password typed into a URL is refused, and must not be shown while that is said.
fn hide_password(value: Value<'_>) {
    if value.toml().as_str().is_some_and(|text| text.contains('@')) {
        value.page().hide(value.span());
    }
}

fn ca_file(value: Value<'_>) -> Read<PathBuf> {
    let path = value.path()?;
    match pem::certificates(&path) {
        Ok(_) => Ok(path),
        Err(why) => Err(read::file_problem(value, &path, why)),
    }
}

fn read_deadlines(table: &mut Table<'_>, deadlines: &mut Deadlines) {
    table.put("queue", &mut deadlines.queue, read::deadline);
    table.put("connect", &mut deadlines.connect, read::deadline);
    table.put("first_byte", &mut deadlines.first_byte, read::deadline);
    table.put(
        "between_bytes",
        &mut deadlines.between_bytes,
        read::deadline,
    );
    table.put("total", &mut deadlines.total, read::deadline);
}

fn headers(value: Value<'_>) -> Read<Vec<(HeaderName, HeaderValue)>> {
    let page = value.page();
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for entry in value.entries("a table such as { X-Name = \"value\" }")? {
        let (name, content) = (header_name(&entry), header_value(entry.value));
        let (name, content) = (page.keep(name), page.keep(content).flatten());
        let (Some(name), Some(content)) = (name, content) else {
            continue;
        };
        if headers.iter().any(|(earlier, _)| *earlier == name) {
            let what = format!("the header `{name}` is set twice");
            page.note(Problem::new(what).at(entry.span, "names differ in case only"));
        } else {
            headers.push((name, content));
        }
    }
    Ok(headers)
}

fn header_name(entry: &Entry<'_>) -> Read<HeaderName> {
    let problem = |what: String, why| Problem::new(what).at(entry.span.clone(), why);
    let Ok(name) = HeaderName::from_bytes(entry.key.as_bytes()) else {
        return Err(problem(
            format!("`{}` cannot be a header", entry.key),
            "not a header's name",
        ));
    };
    if name == http::header::HOST {
        let refused = problem("`Host` is not set among the headers".to_owned(), "not here");
        return Err(refused.help("write host = \"…\" in [[origin]]"));
    }
    if is_reserved(&name) {
        return Err(problem(
            format!("the shield sets `{name}` itself"),
            "not settable",
        ));
    }
    Ok(name)
}

/// Whether the shield alone decides over this field.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str())
}

/// A header's value, always treated as a secret: typed, from the environment, or from a file.
/// `None` where the table that names the file has problems, noted already.
fn header_value(value: Value<'_>) -> Read<Option<HeaderValue>> {
    const WANTED: &str = "a string, or { file = \"path\" }";
    let text = if value.toml().is_table() {
        match value.table("the header's value", secret_file)? {
            Some(text) => text,
            None => return Ok(None),
        }
    } else {
        value.page().hide(value.span());
        value.text(WANTED)?
    };
    let fault = |why| value.problem(Fault::new(WANTED, why));
    if text.is_empty() {
        return Err(fault("this is empty"));
    }
    let content = HeaderValue::from_str(&text);
    let mut content = content.map_err(|_| fault("characters that a header cannot carry"))?;
    content.set_sensitive(true);
    Ok(Some(content))
}

/// The text of the file named by `file`, without the line end that editors leave.
fn secret_file(table: &mut Table<'_>) -> Option<String> {
    let Some(value) = table.value("file") else {
        table.note_missing("file", "file = \"/run/secrets/token\"");
        return None;
    };
    let path = table.page().keep(value.path())?;
    let text = pem::read(&path).and_then(|bytes| {
        let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err("this file is empty".to_owned()),
            text => Ok(text.to_owned()),
        }
    });
    table
        .page()
        .keep(text.map_err(|why| read::file_problem(value, &path, why)))
}
