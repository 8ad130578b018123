//! Reads `[[route.headers]]`: header fields that a route sets or removes.

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::upstream_auth::is_reserved;
use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlEntry, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_manifest::Kind;
use seawall_policy::headers;
use seawall_policy::route::{HeaderRule, HeaderRules};

const TO: &str = "\"viewer\" or \"origin\"";
const NAMES: &str = "a list of names";
const STATUSES: &str = "a list of statuses such as [200, 206]";
const KINDS: &str = "a list of kinds such as [\"hls\", \"dash\"]";
const FIELDS: &str = "a table such as { X-Name = \"value\" }";

/// Fields of a response that say what its body is, or which response it is. A cache or a player
/// that reads another value breaks.
const BOUND_TO_RESPONSE: [HeaderName; 12] = [
    header::ACCEPT_RANGES,
    header::AGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::VARY,
    header::VIA,
    HeaderName::from_static("x-request-id"),
];

/// Whom a rule's fields reach.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recipient {
    Viewer,
    Origin,
}

/// Reads the rules of a route.
pub(super) fn read_header_rules(value: TomlValue<'_>) -> ReadResult<HeaderRules> {
    let mut rules = HeaderRules::default();
    let items = value.items("a list of tables").map_err(|problem| {
        problem.help("write [[route.headers]] with double brackets: there may be several")
    });
    for item in items? {
        let rule = item.table("the header rule", read_rule);
        match value.reader().value_or_report(rule).flatten() {
            Some((Recipient::Viewer, rule)) => rules.to_viewer.push(rule),
            Some((Recipient::Origin, rule)) => rules.to_origin.push(rule),
            None => {}
        }
    }
    Ok(rules)
}

fn read_rule(table: &mut TomlTable<'_>) -> Option<(Recipient, HeaderRule)> {
    if table.value("to").is_none() {
        table.report_missing("to", "to = \"viewer\"");
    }
    let words = [("viewer", Recipient::Viewer), ("origin", Recipient::Origin)];
    let recipient = table.get("to", read::one_of(&words, TO));
    let mut rule = HeaderRule::default();
    table.read_into("kinds", &mut rule.kinds, read::nonempty_list(kind, KINDS));
    let (set, remove, statuses) = (
        table.value("set"),
        table.value("remove"),
        table.value("statuses"),
    );
    let statuses_read = read::nonempty_list(status, STATUSES);
    table.read_into("statuses", &mut rule.statuses, statuses_read);
    let to_origin = recipient == Some(Recipient::Origin);
    table.read_into("set", &mut rule.set, |value| fields(value, to_origin));
    let name = |value| removed_name(value);
    table.read_into("remove", &mut rule.remove, read::nonempty_list(name, NAMES));
    if to_origin {
        for value in [remove, statuses].into_iter().flatten() {
            let what = format!("a rule for the origin has no `{}`", value.name());
            let problem = Problem::new(what).at(value.span(), "not here");
            let help = "a request has no status, and carries no header that is not listed";
            table.reader().add_problem(problem.help(help));
        }
    }
    if set.is_none() && remove.is_none() {
        table.report_missing("set", "set = { X-Name = \"value\" }");
    }
    Some((recipient?, rule))
}

/// Any final status.
fn status(value: TomlValue<'_>) -> ReadResult<StatusCode> {
    const EXPECTED: &str = "a status from 200 to 599";
    let number = read::count::<u16>(value)?;
    let status = StatusCode::from_u16(number).ok();
    status
        .filter(|_| (200..600).contains(&number))
        .ok_or_else(|| value.problem(ValueError::new(EXPECTED, "not a final status")))
}

pub(super) fn kind(value: TomlValue<'_>) -> ReadResult<Kind> {
    let words = Kind::ALL.map(|kind| (kind.as_str(), kind));
    read::one_of(&words, KINDS)(value)
}

fn fields(value: TomlValue<'_>, to_origin: bool) -> ReadResult<Vec<(HeaderName, HeaderValue)>> {
    let reader = value.reader();
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for entry in value.entries(FIELDS)? {
        let name = reader.value_or_report(set_name(&entry, to_origin));
        let content = reader.value_or_report(field_value(entry.value));
        let (Some(name), Some(content)) = (name, content) else {
            continue;
        };
        if fields.iter().any(|(earlier, _)| *earlier == name) {
            let what = format!("the header `{name}` is set twice");
            reader.add_problem(Problem::new(what).at(entry.span, "names differ in case only"));
            continue;
        }
        fields.push((name, content));
    }
    Ok(fields)
}

fn field_value(value: TomlValue<'_>) -> ReadResult<HeaderValue> {
    const EXPECTED: &str = "a string that a header can carry";
    let text = value.text(EXPECTED)?;
    HeaderValue::from_str(&text)
        .map_err(|_| value.problem(ValueError::new(EXPECTED, "other characters")))
}

fn set_name(entry: &TomlEntry<'_>, to_origin: bool) -> ReadResult<HeaderName> {
    let name = read::header_key(entry)?;
    let is_secret = [header::AUTHORIZATION, header::COOKIE].contains(&name);
    if to_origin && is_secret {
        let refused = Problem::new(format!("`{name}` is not set by a route"));
        let refused = refused.at(entry.span.clone(), "not here");
        return Err(refused.help("write it in `headers` of [[origin]], which also takes a file"));
    }
    if is_set_by_shield(&name) || to_origin && headers::is_set_by_shield(&name) {
        return Err(read::not_settable(entry, &name));
    }
    Ok(name)
}

fn removed_name(value: TomlValue<'_>) -> ReadResult<HeaderName> {
    let name = read::header_name(value)?;
    if is_set_by_shield(&name) {
        let expected = "headers that may be missing";
        let why = "a response without this one would be understood wrongly";
        return Err(value.problem(ValueError::new(expected, why)));
    }
    Ok(name)
}

fn is_set_by_shield(name: &HeaderName) -> bool {
    is_reserved(name) || BOUND_TO_RESPONSE.contains(name)
}
