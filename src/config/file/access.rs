//! Reads who may enter a route: `allow`, `deny`, `require_header`, `require_certificate`,
//! `client_classes` and `token`.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;

use super::forwarded_headers::required_name;
use super::token::read_token;
use crate::config::order::PlacedRoute;
use crate::config::problem::{Problem, SourceSpan};
use crate::config::spelling::nearest;
use crate::config::toml_reader::{ReadResult, TomlTable, TomlValue};
use crate::config::{ValueError, address, read};
use seawall_policy::access_rules::{AddressList, AddressListEntry, RequiredHeader};
use seawall_policy::{
    AccessRules, ClientClasses, ClientField, RequiredCertificate, TrustedProxies,
};
use seawall_upstream::sign;

const ADDRESSES: &str = "a list of addresses and networks such as [\"192.0.2.7\", \
                         \"2001:db8::/32\"]";
const CLASSES: &str = "a list of names of client classes such as [\"cloudfront\"]";
const CLIENT_FIELD: &str = "\"X-Forwarded-For\" or \"Forwarded\"";
const CERTIFICATE_NAMES: &str = "a list of names such as [\"edge.cdn.example\"]";
const ASK_HELP: &str = "add client_ca = \"clients.pem\" to `tls` of a [[listener]]";
const SECRET_FILES: &str = "one file, or two while the secret is rotated";

/// The words for the field in which proxies name the viewer.
pub(in crate::config) const CLIENT_FIELDS: [(&str, ClientField); 2] = [
    ("X-Forwarded-For", ClientField::XForwardedFor),
    ("Forwarded", ClientField::Forwarded),
];

/// A shorter secret can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// Reads all six keys.
pub(super) fn read_access(
    table: &mut TomlTable<'_>,
    access: &mut AccessRules,
    classes: &ClientClasses,
) {
    table.read_some_into("allow", &mut access.allow, addresses);
    table.read_some_into("deny", &mut access.deny, addresses);
    let required = table.get("require_header", |value| {
        value.table("require_header", read_required_header)
    });
    access.require_header = required.flatten();
    let class = |value: TomlValue<'_>| client_class(value, classes);
    let admitted = &mut access.client_classes;
    table.read_some_into(
        "client_classes",
        admitted,
        read::nonempty_list(class, CLASSES),
    );
    let certificate = &mut access.require_certificate;
    table.read_some_into("require_certificate", certificate, required_certificate);
    let token = table.get("token", |value| value.table("token", read_token));
    access.token = token.flatten();
}

fn client_class(value: TomlValue<'_>, classes: &ClientClasses) -> ReadResult<Arc<str>> {
    let written = value.text(CLASSES)?;
    let names = || {
        classes
            .iter()
            .map(|class| &*class.name)
            .chain(classes.other_name())
    };
    if names().any(|name| name == written) {
        return Ok(written.into());
    }
    let problem = Problem::new("this route names a client class that is not there");
    Err(match nearest(&written, names()) {
        Some(name) => problem.at(value.span(), format!("did you mean \"{name}\"?")),
        None if classes.is_empty() => problem.at(value.span(), "there is no [[client_class]]"),
        None => {
            let all: Vec<_> = names().collect();
            let help = format!("the client classes are {}", all.join(", "));
            let problem = problem.at(value.span(), "no [[client_class]] has this name");
            problem.help(help)
        }
    })
}

/// Reads `trusted_proxies` and `client_header`.
pub(super) fn read_trusted_proxies(table: &mut TomlTable<'_>, trusted: &mut TrustedProxies) {
    table.read_some_into("trusted_proxies", &mut trusted.addresses, proxies);
    let field = read::one_of(&CLIENT_FIELDS, CLIENT_FIELD);
    table.read_into("client_header", &mut trusted.field, field);
}

/// Reads `proxy_protocol`. `None` if the key is missing or has a problem, which is reported.
pub(super) fn read_proxy_sources(table: &mut TomlTable<'_>) -> Option<AddressList> {
    if table.value("from").is_none() {
        table.report_missing("from", "from = [\"10.0.0.0/8\"]");
    }
    table.get("from", proxies)
}

/// Addresses of which no list can be right if it has all of them: any viewer could then be anyone.
fn proxies(value: TomlValue<'_>) -> ReadResult<AddressList> {
    let list = addresses(value)?;
    let is_everyone =
        |entry| matches!(entry, AddressListEntry::Network(network) if network.prefix_len() == 0);
    if list.entries().any(is_everyone) {
        let problem = Problem::warning("every viewer is trusted to say who it is");
        let problem = problem.at(value.span(), "all addresses");
        let help = "list the addresses of your load balancers or CDN only";
        value.reader().add_problem(problem.help(help));
    }
    Ok(list)
}

pub(super) fn addresses(value: TomlValue<'_>) -> ReadResult<AddressList> {
    let entry = read::parsed(address::address_list_entry, ADDRESSES);
    let entries = read::nonempty_list(entry, ADDRESSES)(value)?;
    Ok(entries.into_iter().collect())
}

/// `None` if a key is missing or has a problem, which is reported.
pub(super) fn read_required_header(table: &mut TomlTable<'_>) -> Option<RequiredHeader> {
    let examples = [
        ("name", "name = \"X-Origin-Secret\""),
        ("secret_files", "secret_files = [\"/run/secrets/origin\"]"),
    ];
    for (key, example) in examples {
        if table.value(key).is_none() {
            table.report_missing(key, example);
        }
    }
    let name = table.get("name", required_name);
    let secret_files = table.get("secret_files", secret_files);
    Some(RequiredHeader {
        name: name?,
        secret_files: secret_files?,
    })
}

/// `"any"`, or whom it must name.
pub(super) fn required_certificate(value: TomlValue<'_>) -> ReadResult<RequiredCertificate> {
    const EXPECTED: &str = "\"any\" or { names = [\"edge.cdn.example\"] }";
    if !value.toml().is_table() {
        return read::one_of(&[("any", RequiredCertificate::Any)], EXPECTED)(value);
    }
    let names = value.table("require_certificate", |table| {
        if table.value("names").is_none() {
            table.report_missing("names", "names = [\"edge.cdn.example\"]");
        }
        table.get(
            "names",
            read::nonempty_list(certificate_name, CERTIFICATE_NAMES),
        )
    })?;
    // A problem with the names is reported: nobody is named meanwhile.
    Ok(RequiredCertificate::Named(names.unwrap_or_default().into()))
}

fn certificate_name(value: TomlValue<'_>) -> ReadResult<String> {
    let name = value.text(CERTIFICATE_NAMES)?;
    if name.is_empty() {
        return Err(value.problem(ValueError::new(CERTIFICATE_NAMES, "this is empty")));
    }
    if name.contains('*') {
        let problem = Problem::warning("`*` stands for no other name: write each name");
        value
            .reader()
            .add_problem(problem.at(value.span(), "matches only itself"));
    }
    Ok(name)
}

/// Warns of routes that nobody may enter, because no viewer is asked for its certificate.
pub(super) fn report_unasked_certificates(root: &mut TomlTable<'_>, routes: &[PlacedRoute]) {
    if asks_for_certificates(root) {
        return;
    }
    for PlacedRoute { route, span, .. } in routes {
        if route.access.require_certificate.is_some() {
            let what = "nobody may enter this route: no listener asks viewers for certificates";
            let problem = Problem::warning(what).at(span.clone(), "requires a certificate");
            root.reader().add_problem(problem.help(ASK_HELP));
        }
    }
}

/// Warns of classes, at these places, that have nobody by a certificate, because no viewer is asked
/// for it.
pub(super) fn report_unasked_classes<'s>(
    root: &mut TomlTable<'_>,
    certified: impl Iterator<Item = &'s SourceSpan>,
) {
    if asks_for_certificates(root) {
        return;
    }
    for span in certified {
        let what = "this client class has nobody by a certificate: no listener asks viewers for it";
        let problem = Problem::warning(what).at(span.clone(), "told by a certificate");
        root.reader().add_problem(problem.help(ASK_HELP));
    }
}

/// Whether a listener of the file is to ask viewers for certificates. A listener with a problem, or
/// with a `client_ca` that cannot be read, asks too: that problem is reported.
fn asks_for_certificates(root: &mut TomlTable<'_>) -> bool {
    let listeners = root.value("listener");
    let listeners = listeners.and_then(|listeners| listeners.toml().as_array());
    listeners.into_iter().flatten().any(|listener| {
        let tls = listener
            .get_ref()
            .as_table()
            .and_then(|table| table.get("tls"));
        let tls = tls.and_then(|tls| tls.get_ref().as_table());
        tls.is_some_and(|tls| tls.get("client_ca").is_some())
    })
}

fn secret_files(value: TomlValue<'_>) -> ReadResult<Vec<PathBuf>> {
    let files = read::nonempty_list(secret_file, SECRET_FILES)(value)?;
    if files.len() > 2 {
        return Err(value.problem(ValueError::new(SECRET_FILES, "more than two")));
    }
    Ok(files)
}

/// A file that contains a secret already.
pub(super) fn secret_file(value: TomlValue<'_>) -> ReadResult<PathBuf> {
    let path = value.path()?;
    let secret = sign::header_value(&path).map_err(|why| read::file_problem(value, &path, why))?;
    if secret.len() < SECRET_BYTES_MIN {
        let problem = Problem::warning("a secret is so short that it can be guessed");
        let problem = problem.at(value.span(), "fewer than 16 characters");
        let help = "make one with `openssl rand -hex 32`";
        value.reader().add_problem(problem.help(help));
    }
    Ok(path)
}

/// Reports routes that send on a secret that tells a class of clients: an origin needs none.
pub(super) fn report_forwarded_class_secrets(
    table: &TomlTable<'_>,
    routes: &[(PlacedRoute, bool)],
    classes: &ClientClasses,
) {
    for (forwarding, _) in routes {
        let route = &forwarding.route;
        let mut forwarded = route.forward_headers.iter().chain(&route.unkeyed_headers);
        let secrets = || classes.iter().filter_map(|class| class.header.as_ref());
        if let Some(name) = forwarded.find(|name| secrets().any(|secret| secret.name == **name)) {
            let what = format!("`{name}` carries a secret, and this route sends it to the origin");
            let problem = Problem::new(what).at(forwarding.span.clone(), "forwards the header");
            let help = format!("leave `{name}` out of forward_headers and unkeyed_headers");
            table.reader().add_problem(problem.help(help));
        }
    }
}

/// Reports routes that send a secret on which some route requires: an origin needs none.
pub(super) fn report_forwarded_secrets(table: &TomlTable<'_>, routes: &[(PlacedRoute, bool)]) {
    for (forwarding, _) in routes {
        let route = &forwarding.route;
        let forwards = |name: &HeaderName| {
            route.forward_headers.contains(name) || route.unkeyed_headers.contains(name)
        };
        let secret = routes.iter().find_map(|(requiring, _)| {
            let access = &requiring.route.access;
            let required = access.require_header.iter().map(|header| &header.name);
            let token = access
                .token
                .iter()
                .filter_map(|token| token.header.as_ref());
            let name = required.chain(token).find(|name| forwards(name))?;
            Some((requiring, name))
        });
        let Some((requiring, name)) = secret else {
            continue;
        };
        let what = format!("`{name}` carries a secret, and this route sends it to the origin");
        let problem = Problem::new(what).at(forwarding.span.clone(), "forwards the header");
        let problem = if requiring.span == forwarding.span {
            problem
        } else {
            problem.other(requiring.span.clone(), "requires it")
        };
        let help = format!("leave `{name}` out of forward_headers and unkeyed_headers");
        table.reader().add_problem(problem.help(help));
    }
}
