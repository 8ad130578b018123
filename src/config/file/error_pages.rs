//! Reads `[[error_page]]` and `[[route.error_page]]`: the bodies of the shield's own errors, with
//! the files that they are in.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::read_tables;
use crate::config::problem::{Problem, SourceSpan};
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_policy::{ErrorPage, ErrorStatus};

/// The key in both places.
const KEY: &str = "error_page";
const STATUSES: &str = "a list of statuses and classes such as [403, \"5xx\"]";
const CONTENT_TYPE: &str = "a media type such as \"application/json\"";

/// The words for classes of statuses.
pub(in crate::config) const CLASSES: [(&str, ErrorStatus); 2] =
    [("4xx", ErrorStatus::Client), ("5xx", ErrorStatus::Server)];

/// A page is sent as a whole, to everyone who is refused.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A file that is read as a page, with its content.
type PageFile = (PathBuf, Bytes);

/// A page, and where it is in the file.
type PlacedPage = (ErrorPage, SourceSpan);

/// Reads the pages in this table: that of a route, or the whole file.
pub(super) fn read_error_pages(table: &mut TomlTable<'_>, title: &'static str) -> Vec<ErrorPage> {
    let pages = read_tables(table, KEY, title, read_page);
    let pages: Vec<_> = pages.into_iter().flatten().collect();
    report_repeated_statuses(table, &pages);
    pages.into_iter().map(|(page, _)| page).collect()
}

/// `None` if a key is missing or has a problem, which is reported.
fn read_page(table: &mut TomlTable<'_>) -> Option<PlacedPage> {
    let examples = [
        ("statuses", "statuses = [403, \"5xx\"]"),
        ("file", "file = \"errors/down.html\""),
        (
            "content_type",
            "content_type = \"text/html; charset=utf-8\"",
        ),
    ];
    for (key, example) in examples {
        if table.value(key).is_none() {
            table.report_missing(key, example);
        }
    }
    let statuses = table.get("statuses", read::nonempty_list(status, STATUSES));
    let file = table.get("file", page_file);
    let content_type = table.get("content_type", content_type);
    let (file, body) = file?;
    let page = ErrorPage {
        statuses: statuses?,
        file,
        content_type: content_type?,
        body,
    };
    Some((page, table.span()))
}

fn status(value: TomlValue<'_>) -> ReadResult<ErrorStatus> {
    if value.toml().as_str().is_some() {
        return read::one_of(&CLASSES, STATUSES)(value);
    }
    let number = read::count::<u16>(value)?;
    let status = StatusCode::from_u16(number).ok();
    let error = status.filter(|status| status.is_client_error() || status.is_server_error());
    let status = error.ok_or_else(|| {
        let expected = "a status from 400 to 599, or \"4xx\" or \"5xx\"";
        value.problem(ValueError::new(expected, "this is no error"))
    })?;
    if is_never_given_a_page(status) {
        let what = format!("no response with the status {number} has an error page");
        let problem = Problem::warning(what).at(value.span(), "without effect");
        let help = "Seawall makes these without a body, or before it knows what is requested";
        value.reader().add_problem(problem.help(help));
    }
    Ok(ErrorStatus::One(status))
}

/// Responses to a condition or a range, which are about a stored object; and to heads that are over
/// a limit or of another version, which are not read to the end.
fn is_never_given_a_page(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::PRECONDITION_FAILED
            | StatusCode::URI_TOO_LONG
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            | StatusCode::HTTP_VERSION_NOT_SUPPORTED
    )
}

fn content_type(value: TomlValue<'_>) -> ReadResult<HeaderValue> {
    let text = value.text(CONTENT_TYPE)?;
    let media_type = text.split(';').next().unwrap_or_default().trim();
    let is_token = |part: &str| {
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !part.is_empty() && part.bytes().all(is_of_token)
    };
    let parts = media_type.split_once('/');
    let is_media_type = parts.is_some_and(|(kind, form)| is_token(kind) && is_token(form));
    let header = HeaderValue::from_str(&text).ok().filter(|_| is_media_type);
    header.ok_or_else(|| value.problem(ValueError::new(CONTENT_TYPE, "not a media type")))
}

fn page_file(value: TomlValue<'_>) -> ReadResult<PageFile> {
    let path = value.path()?;
    let body = read_file(&path).map_err(|why| read::file_problem(value, &path, why))?;
    Ok((path, body))
}

/// The content of a file, which is neither empty nor too large.
fn read_file(path: &Path) -> Result<Bytes, String> {
    let why = |error: std::io::Error| error.to_string();
    // Anything else could keep the reader waiting.
    if !std::fs::metadata(path).map_err(why)?.is_file() {
        return Err("this is not a file".to_owned());
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(why)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(why)?;
    match content.len() as u64 {
        0 => Err("this file is empty".to_owned()),
        bytes if bytes > FILE_BYTES_MAX => Err("this file is larger than 64 KiB".to_owned()),
        _ => Ok(content.into()),
    }
}

/// Reports statuses that two pages in one place name: only the first page would be sent.
fn report_repeated_statuses(table: &TomlTable<'_>, pages: &[PlacedPage]) {
    for (index, (page, span)) in pages.iter().enumerate() {
        let mut statuses = page.statuses.iter();
        let repeated = statuses.find_map(|status| {
            let has_it = |(earlier, _): &&PlacedPage| earlier.statuses.contains(status);
            let (_, earlier) = pages[..index].iter().find(has_it)?;
            Some((status, earlier))
        });
        if let Some((status, earlier)) = repeated {
            let what = format!("two error pages are for {}", status_text(*status));
            let problem = Problem::new(what).at(span.clone(), "the status again");
            table
                .reader()
                .add_problem(problem.other(earlier.clone(), "the status first"));
        }
    }
}

/// A status as the file writes it, without quotes.
pub(in crate::config) fn status_text(status: ErrorStatus) -> String {
    let mut classes = CLASSES.iter();
    match status {
        ErrorStatus::One(status) => status.as_str().to_owned(),
        class => {
            let word = classes.find(|(_, meaning)| *meaning == class);
            word.map_or("", |(word, _)| *word).to_owned()
        }
    }
}
