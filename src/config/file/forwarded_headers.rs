//! Reads `forward_headers` and `unkeyed_headers`: which of a viewer's headers are sent to the
//! origin, in the key or not; and which may carry a secret that a route requires.

use http::{HeaderName, header};

use super::upstream_auth::is_reserved;
use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_policy::{Route, headers};

const NAMES: &str = "a list of names";

/// Headers that differ with each viewer, or with each request.
const PER_VIEWER_HEADERS: [HeaderName; 8] = [
    header::COOKIE,
    header::FORWARDED,
    header::REFERER,
    header::USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-request-id"),
];

/// Reads both keys.
pub(super) fn read_forwarded_headers(table: &mut TomlTable<'_>, route: &mut Route) {
    let value = table.value("forward_headers");
    let keyed = &mut route.forward_headers;
    table.read_into("forward_headers", keyed, read::list(forwarded_name, NAMES));
    let differs = |name: &&HeaderName| PER_VIEWER_HEADERS.contains(name);
    if let Some((value, name)) = value.zip(keyed.iter().find(differs)) {
        let what = format!("`{name}` differs with each viewer, and is part of the key");
        let problem = Problem::warning(what).at(value.span(), "each value has its own copies");
        let help = if name == header::COOKIE {
            "name the cookies that the origin does not read in ignore_cookies"
        } else {
            "write it in unkeyed_headers if it changes no response"
        };
        table.reader().add_problem(problem.help(help));
    }
    let value = table.value("unkeyed_headers");
    let unkeyed = &mut route.unkeyed_headers;
    table.read_into("unkeyed_headers", unkeyed, read::list(unkeyed_name, NAMES));
    let Some(value) = value.filter(|_| !unkeyed.is_empty()) else {
        return;
    };
    if unkeyed.iter().any(|name| keyed.contains(name)) {
        let expected = "headers that are not in `forward_headers`, which are part of the key";
        let error = ValueError::new(expected, "one that is in both");
        return table.reader().add_problem(value.problem(error));
    }
    let names: Vec<_> = unkeyed.iter().map(|name| format!("`{name}`")).collect();
    let what = match &names[..] {
        [name] => format!("{name} reaches the origin and is NOT in the key"),
        names => format!(
            "{} reach the origin and are NOT in the key",
            names.join(", ")
        ),
    };
    let problem = Problem::warning(what).at(value.span(), "forwarded for all");
    let help = "one viewer's values fetch the response for all viewers";
    table.reader().add_problem(problem.help(help));
}

fn forwarded_name(value: TomlValue<'_>) -> ReadResult<HeaderName> {
    let name = read::header_name(value)?;
    if name == header::HOST {
        let problem = Problem::new("`Host` is not forwarded among the headers");
        return Err(problem
            .at(value.span(), "not here")
            .help("write forward_host = true"));
    }
    let what = "headers that may be forwarded";
    if headers::is_cmcd(&name) {
        let why = "CMCD goes to no origin";
        return Err(value.problem(ValueError::new(what, why)));
    }
    if is_reserved(&name) {
        return Err(value.problem(ValueError::new(what, "the shield sets this one itself")));
    }
    Ok(name)
}

/// A header that identifies a viewer determines the response: it must be in the key.
fn unkeyed_name(value: TomlValue<'_>) -> ReadResult<HeaderName> {
    let name = forwarded_name(value)?;
    if [header::AUTHORIZATION, header::COOKIE].contains(&name) {
        let what = "headers that change no response";
        let why =
            "one viewer's credentials would fetch the response for all; write forward_headers";
        return Err(value.problem(ValueError::new(what, why)));
    }
    Ok(name)
}

/// A header that a route requires: nothing else here reads it or sends it on.
pub(super) fn required_name(value: TomlValue<'_>) -> ReadResult<HeaderName> {
    const EXPECTED: &str = "a header of its own such as \"X-Origin-Secret\"";
    let name = read::header_name(value)?;
    let is_of_http = [header::HOST, header::VIA].contains(&name)
        || is_reserved(&name)
        || ["content-", "if-", "cdn-loop", "cmcd-"]
            .iter()
            .any(|beginning| name.as_str().starts_with(beginning));
    if is_of_http {
        return Err(value.problem(ValueError::new(EXPECTED, "this one has a meaning already")));
    }
    Ok(name)
}
