//! Keeps `docs/admin.md` true: its list of endpoints is written from their declarations.
//! `UPDATE_DOCS=1 ./x test admin_reference` rewrites it.

use std::fmt::Write;

use super::metrics_reference::wrapped;
use crate::admin::ADMIN_ENDPOINTS;
use crate::admin::answers::{AdminAnswer, AnswerBody, AnswerField, COMMON_ANSWERS};
use crate::admin::declaration::AdminEndpoint;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md");

/// What stands before and after the list in the page.
const START: &str = "<!-- Written from src/admin/endpoints.rs: change that, then run
     `UPDATE_DOCS=1 ./x test admin_reference`. -->\n";
const END: &str = "<!-- The end of what is written from src/admin/endpoints.rs. -->\n";

fn list() -> String {
    let mut list = String::new();
    for endpoint in ADMIN_ENDPOINTS {
        list.push_str(&section(endpoint));
    }
    list.push_str("\n### Every path\n\n");
    list.push_str("The server itself answers, with `error` in a JSON object:\n\n");
    for answer in COMMON_ANSWERS {
        list.push_str(&answer_lines(answer));
    }
    list.push('\n');
    list
}

fn section(endpoint: &AdminEndpoint) -> String {
    let mut section = format!("\n### `{} {}`\n\n", endpoint.method.as_str(), endpoint.path);
    let role = endpoint.role.map_or("none", |role| role.as_str());
    let about = format!("{}. {}", endpoint.summary, endpoint.help);
    let about = format!("{} Role: {role}.", about.trim_end());
    section.push_str(&wrapped(&about, ""));
    if !endpoint.parameters.is_empty() {
        section.push_str("\nParameters:\n\n");
    }
    for parameter in endpoint.parameters {
        let mut line = format!("- `{}`", parameter.name);
        if parameter.is_required {
            line.push_str(" (required)");
        }
        if parameter.is_repeatable {
            line.push_str(" (may be repeated)");
        }
        let _ = write!(line, ": {}", parameter.help);
        section.push_str(&wrapped(&line, "  "));
    }
    section.push_str("\nAnswers:\n\n");
    let mut fields_before = None;
    for answer in endpoint.answers {
        let fields = answer_fields(answer);
        if fields.is_some_and(|fields| fields_before == Some(fields.as_ptr())) {
            let line = format!("{} The fields are the same.", answer.when);
            section.push_str(&status_lines(answer, &line));
        } else {
            section.push_str(&answer_lines(answer));
        }
        fields_before = fields.map(<[AnswerField]>::as_ptr);
    }
    section
}

fn answer_fields(answer: &AdminAnswer) -> Option<&'static [AnswerField]> {
    match answer.body {
        AnswerBody::Json(fields) => Some(fields),
        AnswerBody::Text | AnswerBody::Events | AnswerBody::Prometheus => None,
    }
}

fn status_lines(answer: &AdminAnswer, when: &str) -> String {
    wrapped(&format!("- {}: {when}", answer.status.as_u16()), "  ")
}

fn answer_lines(answer: &AdminAnswer) -> String {
    let mut lines = status_lines(answer, answer.when);
    let fields = answer_fields(answer).unwrap_or_default();
    for field in fields.iter().filter(|field| field.name != "error") {
        let maybe = if field.is_always_there {
            ""
        } else {
            " (maybe)"
        };
        // No line breaks in its indent.
        let line = format!("\u{a0}\u{a0}- `{}`{maybe}: {}", field.name, field.help);
        lines.push_str(&wrapped(&line, "    ").replace('\u{a0}', " "));
    }
    lines
}

#[test]
fn admin_reference_page_matches_the_declared_endpoints() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(START).expect("the start of the list");
    let (_, after) = rest.split_once(END).expect("the end of the list");
    let written = format!("{before}{START}{}{END}{after}", list());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &written).unwrap();
        return;
    }
    assert!(
        page == written,
        "docs/admin.md is not up to date: run `UPDATE_DOCS=1 ./x test admin_reference`"
    );
}
