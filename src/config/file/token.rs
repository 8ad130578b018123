//! Reads the token that a route demands: `token`.

use std::path::PathBuf;
use std::sync::Arc;

use super::forwarded_headers::required_name;
use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use crate::proxy::read_token_key;
use seawall_policy::{RequiredToken, TokenKind};

const KEYS: &str = "key ids with the files of their keys such as { 2026 = \"url-key\" }";
const KIND: &str = "\"signed_url\" or \"cat\"";
const NAMES: &str = "a list of names";

/// The words for the kinds of tokens.
pub(in crate::config) const TOKEN_KINDS: [(&str, TokenKind); 2] = [
    ("signed_url", TokenKind::SignedUrl),
    ("cat", TokenKind::Cat),
];

/// `None` if a key is missing or has a problem, which is reported.
pub(super) fn read_token(table: &mut TomlTable<'_>) -> Option<Arc<RequiredToken>> {
    let examples = [
        ("kind", "kind = \"signed_url\""),
        ("keys", "keys = { 2026 = \"url-key\" }"),
    ];
    for (key, example) in examples {
        if table.value(key).is_none() {
            table.report_missing(key, example);
        }
    }
    let kind = table.get("kind", read::one_of(&TOKEN_KINDS, KIND));
    let keys = table.get("keys", |value| read_keys(value, kind));
    let mut token = RequiredToken {
        kind: kind.unwrap_or(TokenKind::Cat),
        keys: keys.clone().unwrap_or_default(),
        issuers: Vec::new(),
        audiences: Vec::new(),
        accepts_no_expiry: false,
        header: table.get("header", required_name),
        cookie: table.get("cookie", carrier_name),
        query: table.get("query", carrier_name),
        path: table.get("path", carrier_name),
    };
    let name = |value: TomlValue<'_>| value.text("a name");
    let names = || read::nonempty_list(name, NAMES);
    table.read_into("issuers", &mut token.issuers, names());
    table.read_into("audiences", &mut token.audiences, names());
    table.read_into("accept_no_expiry", &mut token.accepts_no_expiry, read::flag);
    if token.kind == TokenKind::SignedUrl {
        for key in ["issuers", "audiences", "accept_no_expiry"] {
            if let Some(value) = table.value(key) {
                let problem = Problem::new(format!("`{key}` is for Common Access Tokens"));
                let problem = problem.at(value.span(), "signed URLs have no such part");
                table.reader().add_problem(problem);
            }
        }
    }
    let carriers = ["header", "cookie", "query", "path"];
    if !carriers.iter().any(|key| table.value(key).is_some()) {
        let problem = Problem::new("`token` does not say where requests carry it");
        let problem = problem.at(table.span(), "nobody could enter");
        let help = "add query = \"seawall\", or cookie, header or path with a name";
        table.reader().add_problem(problem.help(help));
    }
    (kind.is_some() && keys.is_some()).then(|| Arc::new(token))
}

/// The ids, and the files, each of which contains a key already.
fn read_keys(value: TomlValue<'_>, kind: Option<TokenKind>) -> ReadResult<Vec<(String, PathBuf)>> {
    let mut keys = Vec::new();
    for entry in value.entries(KEYS)? {
        let (id, value) = (entry.key.to_owned(), entry.value);
        let reader = value.reader();
        let Some(path) = reader.value_or_report(value.path()) else {
            continue;
        };
        let read = kind.map_or(Ok(Vec::new()), |kind| read_token_key(kind, &id, &path));
        match read {
            Ok(_) => keys.push((id, path)),
            Err(why) => reader.add_problem(read::file_problem(value, &path, why)),
        }
    }
    if value
        .toml()
        .as_table()
        .is_some_and(toml::map::Map::is_empty)
    {
        return Err(value.problem(ValueError::new(KEYS, "this is empty")));
    }
    Ok(keys)
}

/// The name of a cookie, of a query parameter or of a segment: as it is in a request, unencoded.
fn carrier_name(value: TomlValue<'_>) -> ReadResult<String> {
    const EXPECTED: &str = "a name such as \"seawall\"";
    let name = value.text(EXPECTED)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        let why = "only letters, digits, `-`, `_` and `.`";
        return Err(value.problem(ValueError::new(EXPECTED, why)));
    }
    Ok(name)
}
