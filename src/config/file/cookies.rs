//! Reads `ignore_cookies` and `strip_set_cookie`: the cookies that change no response.

use http::header;

use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, read};
use seawall_policy::Route;

const COOKIES: &str = "a list of cookies such as [\"AWSALB*\"]";

/// Reads both keys, after `forward_headers`.
pub(super) fn read_cookies(table: &mut TomlTable<'_>, route: &mut Route) {
    let names = || read::list(cookie_name, COOKIES);
    table.read_into("strip_set_cookie", &mut route.strip_set_cookie, names());
    table.read_into("ignore_cookies", &mut route.ignore_cookies, names());
    let is_forwarded = route.forward_headers.contains(&header::COOKIE);
    let value = table.value("ignore_cookies");
    if let Some(value) = value.filter(|_| !is_forwarded && !route.ignore_cookies.is_empty()) {
        let problem = Problem::warning("`ignore_cookies` changes nothing: no cookie is forwarded");
        let problem = problem.at(value.span(), "all cookies are ignored");
        let help = "it is for routes with \"Cookie\" in forward_headers";
        table.reader().add_problem(problem.help(help));
    }
}

fn cookie_name(value: TomlValue<'_>) -> ReadResult<String> {
    const EXPECTED: &str = "the name of a cookie such as \"AWSALB\" or \"AWSALB*\"";
    let name = value.text(EXPECTED)?;
    let bare = name.strip_suffix('*').unwrap_or(&name);
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}*".contains(&byte);
    let why = match bare {
        "" => "names every cookie, those of viewers' sessions too",
        _ if !bare.bytes().all(is_token) => "characters that the name of a cookie cannot have",
        _ => return Ok(name),
    };
    Err(value.problem(ValueError::new(EXPECTED, why)))
}
