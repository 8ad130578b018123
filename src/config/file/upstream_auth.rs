//! Reads how an `[[origin]]` authenticates this shield: headers, signature, client certificate.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

use super::key_pair;
use crate::config::origin_kinds::OriginPreset;
use crate::config::problem::Problem;
use crate::config::toml_reader::{ReadResult, TomlEntry, TomlTable, TomlValue};
use crate::config::{ValueError, address, read};
use seawall_upstream::sign::{self, ClientCertificate, CredentialSource, Service, Sigv4};
use seawall_upstream::{Endpoint, Settings};

/// Header fields for message framing and routing: only the shield sets them.
const RESERVED: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads all of them.
pub(super) fn read(
    table: &mut TomlTable<'_>,
    settings: &mut Settings,
    preset: Option<&mut OriginPreset>,
) {
    let headers = table.value("headers");
    let read = table.get("headers", read_headers).unwrap_or_default();
    (settings.headers, settings.header_files) = (read.values, read.files);
    let signature = table.value("sigv4");
    settings.sigv4 = table.get("sigv4", |value| sigv4(value, preset)).flatten();
    if let (Some(value), Some(sigv4)) = (signature, &settings.sigv4) {
        report_unknown_region(value, sigv4, &settings.endpoints);
    }
    warn_of_idle_regions(table, settings);
    if let (Some(headers), Some(signature)) = (headers, signature) {
        report_signed_twice(headers, signature);
    }
    read_client_certificate(table, settings);
}

/// Whether only the shield may set this field.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str())
}

/// Headers by the source of their values.
#[derive(Default)]
struct AddedHeaders {
    values: Vec<(HeaderName, HeaderValue)>,
    files: Vec<(HeaderName, PathBuf)>,
}

/// The source of a header's value.
enum HeaderContent {
    Value(HeaderValue),
    /// A file, and its content now.
    File(PathBuf, HeaderValue),
}

fn read_headers(value: TomlValue<'_>) -> ReadResult<AddedHeaders> {
    let reader = value.reader();
    let mut headers = AddedHeaders::default();
    let mut seen: Vec<HeaderName> = Vec::new();
    for entry in value.entries("a table such as { X-Name = \"value\" }")? {
        let value = entry.value;
        let (name, content) = (header_name(&entry), header_content(value));
        let (name, content) = (
            reader.value_or_report(name),
            reader.value_or_report(content).flatten(),
        );
        let (Some(name), Some(content)) = (name, content) else {
            continue;
        };
        if seen.contains(&name) {
            let what = format!("the header `{name}` is set twice");
            reader.add_problem(Problem::new(what).at(entry.span, "names differ in case only"));
            continue;
        }
        seen.push(name.clone());
        reader.value_or_report(check_cdn_code(value, &name, &content));
        match content {
            HeaderContent::Value(value) => headers.values.push((name, value)),
            HeaderContent::File(path, _) => headers.files.push((name, path)),
        }
    }
    Ok(headers)
}

/// MediaPackage accepts codes of 8 to 256 characters; a channel rejects every request with another
/// code.
fn check_cdn_code(
    value: TomlValue<'_>,
    name: &HeaderName,
    content: &HeaderContent,
) -> ReadResult<()> {
    const NAMES: [&str; 2] = [
        "x-mediapackage-cdnidentifier",
        "x-mediapackagev2-cdnidentifier",
    ];
    const EXPECTED: &str = "a CDN authorization code of 8 to 256 characters";
    let (HeaderContent::Value(code) | HeaderContent::File(_, code)) = content;
    if !NAMES.contains(&name.as_str()) || (8..=256).contains(&code.len()) {
        return Ok(());
    }
    let why = if code.len() < 8 {
        "shorter than MediaPackage takes"
    } else {
        "longer than MediaPackage takes"
    };
    Err(value.problem(ValueError::new(EXPECTED, why)))
}

fn header_name(entry: &TomlEntry<'_>) -> ReadResult<HeaderName> {
    let name = read::header_key(entry)?;
    if name == http::header::HOST {
        let refused = Problem::new("`Host` is not set among the headers");
        let refused = refused.at(entry.span.clone(), "not here");
        return Err(refused.help("write host = \"…\" in [[origin]]"));
    }
    if is_reserved(&name) {
        return Err(read::not_settable(entry, &name));
    }
    Ok(name)
}

/// A header's value, always a secret: written here, from the environment, or from a file.
/// `None` if the table that names the file has problems, which are reported already.
fn header_content(value: TomlValue<'_>) -> ReadResult<Option<HeaderContent>> {
    const EXPECTED: &str = "a string, or { file = \"path\" }";
    if value.toml().is_table() {
        return value.table("the header's value", read_header_file);
    }
    value.reader().mask(value.span());
    let text = value.text(EXPECTED)?;
    let error = |why| value.problem(ValueError::new(EXPECTED, why));
    if text.is_empty() {
        return Err(error("this is empty"));
    }
    let content = HeaderValue::from_str(&text);
    let mut content = content.map_err(|_| error("characters that a header cannot carry"))?;
    content.set_sensitive(true);
    Ok(Some(HeaderContent::Value(content)))
}

/// The file named by `file`, which must contain a value already.
fn read_header_file(table: &mut TomlTable<'_>) -> Option<HeaderContent> {
    let Some(value) = table.value("file") else {
        table.report_missing("file", "file = \"/run/secrets/token\"");
        return None;
    };
    let path = table.reader().value_or_report(value.path())?;
    let good = sign::header_value(&path).map_err(|why| read::file_problem(value, &path, why));
    Some(HeaderContent::File(
        path,
        table.reader().value_or_report(good)?,
    ))
}

/// Reports headers that the signature sets itself.
fn report_signed_twice(headers: TomlValue<'_>, signature: TomlValue<'_>) {
    let entries = headers.entries("").into_iter().flatten();
    for entry in entries.filter(|entry| sign::is_of_signature(entry.key)) {
        let what = format!("`{}` is set by the signature", entry.key);
        let problem = Problem::new(what).at(entry.span, "set here too");
        let problem = problem.other(signature.span(), "the signature");
        headers.reader().add_problem(problem);
    }
}

/// `None` if a key is missing, which is reported already.
fn sigv4(value: TomlValue<'_>, preset: Option<&mut OriginPreset>) -> ReadResult<Option<Sigv4>> {
    value.table("sigv4", |table| {
        let is_named = table.value("service").is_some();
        let preset = preset.filter(|_| !is_named);
        let default_service = preset.and_then(OriginPreset::service);
        if !is_named && default_service.is_none() {
            table.report_missing("service", "service = \"mediapackagev2\"");
        }
        let is_set = table.value("region").is_some();
        let region = table.get("region", read::parsed(address::region, "a region"));
        // An unreadable region is reported already, and not as missing too.
        let region = if is_set { Some(region?) } else { None };
        let services = [Service::MediaPackageV2, Service::S3].map(|one| (one.as_str(), one));
        let service = read::one_of(&services, "\"mediapackagev2\" or \"s3\"");
        let service = table.get("service", service).or(default_service);
        let sources = read_sources(table);
        Some(Sigv4 {
            region,
            service: service?,
            sources: sources?,
        })
    })
}

/// Reports the first endpoint without a region: not configured, not in its name, not in the group.
fn report_unknown_region(value: TomlValue<'_>, sigv4: &Sigv4, endpoints: &[Endpoint]) {
    let is_known = |endpoint: &&Endpoint| {
        endpoint.region.is_some() || endpoint.region_in_host().is_some() || sigv4.region.is_some()
    };
    if endpoints.iter().all(|endpoint| is_known(&endpoint)) {
        return;
    }
    let problem = Problem::new("it is not known which region an endpoint is signed for");
    let problem = problem.at(value.span(), "expected in here");
    let help = "add region = \"eu-west-1\" here, or to the endpoint where they differ";
    value.reader().add_problem(problem.help(help));
}

/// Warns of an endpoint's region that no signature uses.
fn warn_of_idle_regions(table: &mut TomlTable<'_>, settings: &Settings) {
    let is_set = settings
        .endpoints
        .iter()
        .any(|endpoint| endpoint.region.is_some());
    if let Some(value) = table
        .value("endpoints")
        .filter(|_| is_set && settings.sigv4.is_none())
    {
        let problem = Problem::warning("an endpoint has a `region`, and nothing is signed");
        let problem = problem.at(value.span(), "no `sigv4` in this origin");
        value.reader().add_problem(problem);
    }
}

/// The configured source of credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CredentialSupply {
    /// The first source that has credentials.
    Auto,
    Environment,
    File,
    Container,
    Instance,
}

const SUPPLIES: [(&str, CredentialSupply); 5] = [
    ("auto", CredentialSupply::Auto),
    ("environment", CredentialSupply::Environment),
    ("file", CredentialSupply::File),
    ("container", CredentialSupply::Container),
    ("instance", CredentialSupply::Instance),
];

fn read_sources(table: &mut TomlTable<'_>) -> Option<Vec<CredentialSource>> {
    const WORDS: &str = "\"auto\", \"environment\", \"file\", \"container\" or \"instance\"";
    let credentials = table.value("credentials");
    let file_key = table.value("credentials_file");
    let file_key = file_key.or(table.value("profile"));
    let path = table.get("credentials_file", |value| value.path());
    let profile = table.get("profile", |value| value.text("the name of a profile"));
    let supply = match (credentials, file_key) {
        (Some(_), _) => table.get("credentials", read::one_of(&SUPPLIES, WORDS))?,
        (None, Some(_)) => CredentialSupply::File,
        (None, None) => CredentialSupply::Auto,
    };
    let reader = table.reader();
    if let Some(value) = file_key.filter(|_| supply != CredentialSupply::File) {
        let what = format!("`{}` is about a file that is not read", value.name());
        let problem = Problem::new(what).at(value.span(), "never used");
        reader
            .add_problem(problem.help("leave `credentials` out, or write credentials = \"file\""));
    }
    let span = file_key
        .or(credentials)
        .map_or(table.span(), |value| value.span());
    let problem = |what: String, why: String| Problem::new(what).at(span.clone(), why);
    let sources = find_sources(reader.environment(), supply, path, profile);
    let sources = sources.map_err(|why| problem("no credentials can be found".to_owned(), why));
    let sources = reader.value_or_report(sources)?;
    if let (CredentialSupply::File, [CredentialSource::File { path, profile }]) =
        (supply, &sources[..])
        && let Err(why) = sign::check_profile(path, profile)
    {
        let problem = problem("this file has no such credentials".to_owned(), why);
        let has_variables = file_key.is_some_and(|value| value.has_variables());
        reader.add_problem(if has_variables {
            problem
        } else {
            problem.help(format!("the file looked for is {}", path.display()))
        });
    }
    Some(sources)
}

/// The sources to try, or why there are none.
fn find_sources(
    environment: &sign::AwsEnvironment<'_>,
    supply: CredentialSupply,
    path: Option<PathBuf>,
    profile: Option<String>,
) -> Result<Vec<CredentialSource>, String> {
    let bad = |bad: sign::BadVariable| bad.to_string();
    let (source, missing) = match supply {
        CredentialSupply::Auto => return CredentialSource::chain(environment).map_err(bad),
        CredentialSupply::Environment => (
            CredentialSource::given(environment).map_err(bad)?,
            "AWS_ACCESS_KEY_ID is not set",
        ),
        CredentialSupply::File => (
            CredentialSource::file(environment, path, profile),
            "no `credentials_file`, and HOME is not set",
        ),
        CredentialSupply::Container => (
            CredentialSource::container(environment).map_err(bad)?,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
        ),
        CredentialSupply::Instance => (
            CredentialSource::instance(environment).map_err(bad)?,
            "AWS_EC2_METADATA_DISABLED is set",
        ),
    };
    source
        .map(|source| vec![source])
        .ok_or_else(|| missing.to_owned())
}

/// The client certificate for TLS: both files, or none.
fn read_client_certificate(table: &mut TomlTable<'_>, settings: &mut Settings) {
    let expected = [
        ("client_certificate", "client_certificate = \"shield.pem\""),
        ("client_key", "client_key = \"shield.key\""),
    ];
    let [certificate, key] = expected.map(|(name, _)| table.value(name));
    let Some(first_given) = certificate.or(key) else {
        return;
    };
    if !settings.endpoints.iter().any(|endpoint| endpoint.tls) {
        let what = format!("`{}` is shown to no endpoint", first_given.name());
        let problem = Problem::new(what).at(first_given.span(), "no endpoint speaks TLS");
        table
            .reader()
            .add_problem(problem.help("write https:// in `endpoints`"));
    }
    let pair = key_pair::read_key_pair(table, expected);
    settings.client_certificate =
        pair.map(|(certificate, key)| ClientCertificate { certificate, key });
}
