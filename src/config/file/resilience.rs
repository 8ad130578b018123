//! Reads `[origin.retry]`, `[origin.breaker]` and `[origin.ejection]`.

use std::time::Duration;

use http::StatusCode;

use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_upstream::Settings;

/// More attempts would only add load to an origin that is down.
const ATTEMPTS_MAX: u32 = 3;
/// With shorter windows a breaker would open after single failures, or never.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// Reads the tables.
pub(super) fn read(table: &mut TomlTable<'_>, settings: &mut Settings) {
    let retry = &mut settings.retry;
    table.get("retry", |value| {
        value.table("retry", |table| {
            table.read_into("attempts", &mut retry.attempts_max, attempts);
            let statuses = read::list(status, "a list of statuses such as [502, 503, 504]");
            table.read_into("statuses", &mut retry.statuses, statuses);
            table.read_into("budget", &mut retry.budget.share, fraction);
            let smaller_key = &mut retry.budget.per_s_min;
            table.read_into("budget_per_s_min", smaller_key, read::count_or_zero);
            let backoff = &mut retry.backoff;
            table.read_into("wait", &mut backoff.base, read::duration);
            table.read_into("wait_max", &mut backoff.max, read::duration);
            table.read_into(
                "retry_after_max",
                &mut backoff.retry_after_max,
                read::duration,
            );
            check_order(table, ("wait", backoff.base), ("wait_max", backoff.max));
        })
    });
    let breaker = &mut settings.guards.breaker;
    table.get("breaker", |value| {
        value.table("breaker", |table| {
            table.read_into("error_share", &mut breaker.error_share, nonzero_fraction);
            table.read_into("window", &mut breaker.window, window);
            table.read_into("failed_urls_min", &mut breaker.failed_urls_min, read::count);
            let (first, last) = (&mut breaker.probe_after, &mut breaker.probe_after_max);
            table.read_into("probe_after", first, read::timeout);
            table.read_into("probe_after_max", last, read::timeout);
            check_order(table, ("probe_after", *first), ("probe_after_max", *last));
        })
    });
    let ejection = &mut settings.guards.ejection;
    table.get("ejection", |value| {
        value.table("ejection", |table| {
            table.read_into("failures", &mut ejection.failures, read::count);
            table.read_into("first", &mut ejection.base, read::timeout);
            table.read_into("longest", &mut ejection.max, read::timeout);
            check_order(table, ("first", ejection.base), ("longest", ejection.max));
            table.read_into("slow_factor", &mut ejection.slow_factor, slow_factor);
            table.read_into("slow_min", &mut ejection.slow_min, read::duration);
            table.read_into(
                "slow_judgements",
                &mut ejection.slow_judgements,
                read::count,
            );
        })
    });
}

/// Reports a pair of a first and a maximum duration in which the maximum is shorter.
fn check_order(
    table: &TomlTable<'_>,
    (smaller_key, smaller): (&str, Duration),
    (larger_key, larger): (&str, Duration),
) {
    if larger < smaller {
        let problem = Problem::new(format!("`{larger_key}` is shorter than `{smaller_key}`"));
        let problem = problem.at(table.span(), "in here");
        let help = format!("raise `{larger_key}`, or lower `{smaller_key}`");
        table.reader().add_problem(problem.help(help));
    }
}

/// A factor of 1 would make every endpoint slow.
fn slow_factor(value: TomlValue<'_>) -> ReadResult<f64> {
    match read::ratio(value)? {
        factor if factor > 1.0 => Ok(factor),
        _ => Err(value.problem(ValueError::new(
            "a number above 1 such as 4.0",
            "every endpoint would be slow",
        ))),
    }
}

fn attempts(value: TomlValue<'_>) -> ReadResult<u32> {
    const EXPECTED: &str = "a whole number from 0 to 3";
    match read::count_or_zero(value)? {
        attempts if attempts <= ATTEMPTS_MAX => Ok(attempts),
        _ => Err(value.problem(ValueError::new(
            EXPECTED,
            "more retries would overload an origin that fails",
        ))),
    }
}

fn fraction(value: TomlValue<'_>) -> ReadResult<f64> {
    match read::ratio(value)? {
        share if share <= 1.0 => Ok(share),
        _ => Err(value.problem(ValueError::new(
            "a number from 0 to 1 such as 0.1",
            "more than all",
        ))),
    }
}

/// A share of 0 would open a breaker at its first check.
fn nonzero_fraction(value: TomlValue<'_>) -> ReadResult<f64> {
    match fraction(value)? {
        share if share > 0.0 => Ok(share),
        _ => Err(value.problem(ValueError::new(
            "a number above 0, at most 1, such as 0.1",
            "no request would ever pass",
        ))),
    }
}

/// In a shorter time even the busiest origin sends too few responses for a meaningful share.
fn window(value: TomlValue<'_>) -> ReadResult<Duration> {
    match read::duration(value)? {
        window if window >= WINDOW_MIN => Ok(window),
        _ => Err(value.problem(ValueError::new(
            "a duration of at least 1s such as \"10s\"",
            "too short to tell a bad moment from a failing origin",
        ))),
    }
}

fn status(value: TomlValue<'_>) -> ReadResult<StatusCode> {
    const EXPECTED: &str = "a status from 400 to 599";
    let number = read::count::<u16>(value)?;
    StatusCode::from_u16(number)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .ok_or_else(|| value.problem(ValueError::new(EXPECTED, "not a status of an error")))
}
