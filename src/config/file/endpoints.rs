//! `endpoints` in `[[origin]]`: a URL, or a table with a URL, a priority, a weight and limits.

use std::collections::HashSet;

use crate::config::problem::{Problem, SourceSpan};
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::value_error::ValueError;
use crate::config::{address, read};
use seawall_upstream::{Endpoint, Quota, RequestClass};

const URL: &str = "an origin such as \"https://origin.example\"";

/// Reads the list of endpoints: at least one, and no duplicates.
pub(super) fn read_endpoints(table: &mut TomlTable<'_>) -> Vec<(Endpoint, SourceSpan)> {
    const EXPECTED: &str = "a list of origins such as [\"https://origin.example\"]";
    if table.value("endpoints").is_none() {
        table.report_missing("endpoints", "endpoints = [\"https://origin.example\"]");
    }
    let listed = table
        .get("endpoints", read::nonempty_list(endpoint, EXPECTED))
        .unwrap_or_default();
    let mut seen = HashSet::new();
    for (endpoint, span) in &listed {
        if !seen.insert((endpoint.host.as_str(), endpoint.port)) {
            let what = "this endpoint is in the list already";
            table
                .reader()
                .add_problem(Problem::new(what).at(span.clone(), "the same host and port again"));
        }
    }
    listed
}

fn endpoint(value: TomlValue<'_>) -> ReadResult<(Endpoint, SourceSpan)> {
    if !value.toml().is_table() {
        return Ok((url(value)?, value.span()));
    }
    let endpoint = value.table("the endpoint", |table| {
        if table.value("url").is_none() {
            table.report_missing("url", "url = \"https://origin.example\"");
        }
        // An invalid URL is reported already; the table still has other keys to read.
        let placeholder = || Endpoint::new(false, String::new(), 0);
        let mut endpoint = table.get("url", url).unwrap_or_else(placeholder);
        table.read_into("priority", &mut endpoint.priority, read::count_or_zero);
        table.read_into("weight", &mut endpoint.weight, read::count);
        table.read_some_into(
            "concurrency_max",
            &mut endpoint.concurrency_max,
            read::count,
        );
        table.read_some_into(
            "requests_per_second_max",
            &mut endpoint.requests_per_second_max,
            quota,
        );
        let region = read::parsed(address::region, "a region");
        table.read_some_into("region", &mut endpoint.region, region);
        endpoint
    })?;
    Ok((endpoint, value.span()))
}

/// One rate for all requests, or a table of rates by kind.
fn quota(value: TomlValue<'_>) -> ReadResult<Quota> {
    const EXPECTED: &str =
        "requests per second, as 500 for all or { manifest = 100, segment = 400 } by kind";
    if value.toml().as_integer().is_some() {
        return read::count(value).map(Quota::All);
    }
    if !value.toml().is_table() {
        return Err(value.wrong_type(EXPECTED));
    }
    let rates = value.table("`requests_per_second_max`", |table| {
        RequestClass::ALL.map(|class| table.get(class.as_str(), read::count))
    })?;
    let has_keys = value
        .toml()
        .as_table()
        .is_some_and(|table| !table.is_empty());
    if !has_keys {
        return Err(value.problem(ValueError::new(EXPECTED, "this names no kind")));
    }
    Ok(Quota::ByClass(rates))
}

fn url(value: TomlValue<'_>) -> ReadResult<Endpoint> {
    // A password typed into a URL is rejected, and must not be shown in the message.
    if value.toml().as_str().is_some_and(|text| text.contains('@')) {
        value.reader().mask(value.span());
    }
    read::parsed(address::parse_endpoint, URL)(value)
}
