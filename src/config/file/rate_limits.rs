//! Reads `rate_limit`: how much clients may request from a route, or all clients of a class.

use toml::de::DeValue;

use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_policy::RateLimits;
use seawall_policy::rate_limit::{Allowance, RateLimit};

const LIMITS: &str = "a table such as { requests_per_second = 50, burst = 100 }, or a list of them";
const PER: &str = "\"client\" or \"route\"";
const RATE: &str = "requests per second, from 0.01 to 1000000, such as 50 or 0.5";
const BURST: &str = "at most what is added in an hour";

/// What bytes may come at once by default: a player fetches its first segments as fast as it can.
const BYTE_BURST_SECONDS: f64 = 10.0;
const BURST_SECONDS_MAX: f64 = 3600.0;

/// Whom a limit counts together, in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CountedTogether {
    Client,
    Route,
}

/// Reads one limit, or a list of limits of which each counts others together.
pub(super) fn read_rate_limits(value: TomlValue<'_>) -> ReadResult<RateLimits> {
    let mut limits = RateLimits::default();
    if value.toml().is_table() {
        add_limit(value, &mut limits)?;
        return Ok(limits);
    }
    if value
        .toml()
        .as_array()
        .is_some_and(|items| items.is_empty())
    {
        return Err(value.problem(ValueError::new(LIMITS, "this is empty")));
    }
    for item in value.items(LIMITS)? {
        let added = add_limit(item, &mut limits);
        value.reader().value_or_report(added);
    }
    Ok(limits)
}

fn add_limit(value: TomlValue<'_>, limits: &mut RateLimits) -> ReadResult<()> {
    let (per, limit) = value.table("rate_limit", |table| {
        let words = [
            ("client", CountedTogether::Client),
            ("route", CountedTogether::Route),
        ];
        let mut per = CountedTogether::Client;
        table.read_into("per", &mut per, read::one_of(&words, PER));
        (per, read_limit(table))
    })?;
    let (place, word) = match per {
        CountedTogether::Client => (&mut limits.per_client, "client"),
        CountedTogether::Route => (&mut limits.per_route, "route"),
    };
    if place.is_some() {
        let problem = Problem::new(format!("two rate limits are per {word}"));
        let problem = problem.at(value.span(), "another one");
        let help = "one limit may have both requests_per_second and bytes_per_second";
        return Err(problem.help(help));
    }
    *place = Some(limit);
    Ok(())
}

/// Reads one limit, whoever is counted together.
pub(super) fn read_limit(table: &mut TomlTable<'_>) -> RateLimit {
    let has_any = ["requests_per_second", "bytes_per_second"]
        .map(|key| table.value(key).is_some())
        .contains(&true);
    if !has_any {
        table.report_missing("requests_per_second", "requests_per_second = 50");
    }
    let requests = table.get("requests_per_second", requests_per_second);
    let bytes = table.get("bytes_per_second", read::size::<u64>);
    let burst = read_burst(table, "burst", "requests_per_second", requests, |value| {
        read::count::<u32>(value).map(f64::from)
    });
    #[expect(clippy::cast_precision_loss, reason = "a size is below 2^52")]
    let as_float = |bytes: u64| bytes as f64;
    let byte_rate = bytes.map(as_float);
    let byte_burst = read_burst(
        table,
        "bytes_burst",
        "bytes_per_second",
        byte_rate,
        |value| read::size(value).map(as_float),
    );
    RateLimit {
        requests: requests.map(|per_second| Allowance {
            per_second,
            burst: burst.unwrap_or(per_second.ceil()),
        }),
        bytes: byte_rate.map(|per_second| Allowance {
            per_second,
            burst: byte_burst.unwrap_or(per_second * BYTE_BURST_SECONDS),
        }),
    }
}

/// Reads how much may come at once at this rate.
fn read_burst<'a>(
    table: &mut TomlTable<'a>,
    key: &'static str,
    rate_key: &'static str,
    per_second: Option<f64>,
    read: impl FnOnce(TomlValue<'a>) -> ReadResult<f64>,
) -> Option<f64> {
    let value = table.value(key)?;
    if table.value(rate_key).is_none() {
        table.report_missing(rate_key, &format!("{rate_key}: `{key}` alone is no limit"));
    }
    let burst = table.get(key, read)?;
    if per_second.is_some_and(|per_second| burst > per_second * BURST_SECONDS_MAX) {
        let error = ValueError::new(BURST, "this would be no limit");
        table.reader().add_problem(value.problem(error));
    }
    Some(burst)
}

fn requests_per_second(value: TomlValue<'_>) -> ReadResult<f64> {
    let text = match value.toml() {
        DeValue::Integer(whole) if whole.radix() == 10 => whole.as_str(),
        DeValue::Float(float) => float.as_str(),
        _ => return Err(value.wrong_type(RATE)),
    };
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err(value.problem(ValueError::new(RATE, "out of these bounds"))),
    }
}
