//! Reads `store_private`: the kinds of which no response is one viewer's own, whatever the origin
//! says.

use super::header_rules;
use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlValue};
use crate::config::{ValueError, read};
use seawall_manifest::Kind;

const KINDS: &str = "a list of kinds such as [\"segment\", \"init\"]";

/// Each use is worth a warning: who is wrong gives one viewer's data to all.
pub(super) fn read_store_private(value: TomlValue<'_>) -> ReadResult<Vec<Kind>> {
    let kinds = read::list(kind, KINDS)(value)?;
    if !kinds.is_empty() {
        let what = "what the origin declares to be one viewer's own is given to everyone";
        let problem = Problem::warning(what).at(value.span(), "of these kinds");
        let help = "make sure that no response of these kinds depends on who requests it";
        value.reader().add_problem(problem.help(help));
    }
    Ok(kinds)
}

fn kind(value: TomlValue<'_>) -> ReadResult<Kind> {
    match header_rules::kind(value)? {
        Kind::DecryptionKey | Kind::TimeServer => {
            Err(value.problem(ValueError::new(KINDS, "neither keys nor time servers")))
        }
        kind => Ok(kind),
    }
}
