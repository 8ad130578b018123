//! Reads `[origin.health]`: the active checks of endpoints.

use http::StatusCode;
use http::uri::PathAndQuery;

use crate::config::origin_kinds::OriginPreset;
use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_upstream::{Check, CheckKind};

const PATH: &str = "a path such as \"/health\"";
const STATUSES: &str = "a list of statuses such as [200]";

/// Reads the table. Its presence enables the checks.
pub(super) fn read_check(table: &mut TomlTable<'_>, preset: Option<&mut OriginPreset>) -> Check {
    let mut check = Check::default();
    let http = read::one_of(&[("http", true), ("tcp", false)], "\"http\" or \"tcp\"");
    let has_kind = table.value("kind").is_some();
    let is_http = table.get("kind", http).unwrap_or(true);
    let http_only_keys: Vec<_> = ["path", "expect"]
        .iter()
        .filter_map(|key| table.value(key))
        .collect();
    let path = table.get("path", read::parsed(path, PATH));
    let expected = table.get("expect", read::nonempty_list(status, STATUSES));
    if let Some(preset) = preset.filter(|_| is_http && http_only_keys.is_empty())
        && let Some(kind) = preset.check(has_kind)
    {
        check.kind = kind;
    } else if let CheckKind::Http {
        path: current_path,
        expect,
    } = &mut check.kind
    {
        *current_path = path.unwrap_or_else(|| current_path.clone());
        *expect = expected.unwrap_or_default();
    }
    if !is_http {
        check.kind = CheckKind::Tcp;
        for value in http_only_keys {
            let what = format!("`{}` means nothing to a check by \"tcp\"", value.name());
            let problem = Problem::new(what).at(value.span(), "this check sends no request");
            table
                .reader()
                .add_problem(problem.help("leave it out, or write kind = \"http\""));
        }
    }
    table.read_into("every", &mut check.schedule.every, read::timeout);
    table.read_into("timeout", &mut check.timeout, read::timeout);
    if check.timeout > check.schedule.every {
        // Only a configured value is reported; the default is shortened silently.
        if let Some(value) = table.value("timeout") {
            let problem = Problem::new("`timeout` is longer than `every`");
            let problem = problem.at(value.span(), "the next check would be due before");
            table
                .reader()
                .add_problem(problem.help("lower `timeout`, or raise `every`"));
        }
        check.timeout = check.schedule.every;
    }
    table.read_into("successes", &mut check.schedule.successes, read::count);
    table.read_into("failures", &mut check.schedule.failures, read::count);
    check
}

/// The path to request, with an optional query.
fn path(text: &str) -> Result<PathAndQuery, ValueError> {
    if !text.starts_with('/') {
        return Err(ValueError::new(PATH, "a path starts with /").suggestion(format!("/{text}")));
    }
    let path = text.parse::<PathAndQuery>().ok();
    // Text after a `#` would be dropped silently.
    path.filter(|path| path.as_str() == text)
        .ok_or(ValueError::new(PATH, "characters that a path cannot have"))
}

fn status(value: TomlValue<'_>) -> ReadResult<StatusCode> {
    const EXPECTED: &str = "a status from 200 to 599";
    let number: u16 = read::count(value)?;
    let status = StatusCode::from_u16(number).ok();
    status
        .filter(|_| (200..600).contains(&number))
        .ok_or_else(|| value.problem(ValueError::new(EXPECTED, "must be from 0 to 1000")))
}
