//! Tests of an origin's headers, signature and client certificate, right and wrong.

use insta::assert_snapshot;

use super::*;
use seawall_upstream::sign::{CredentialSource, Service};

const SIGNED: &str = "region = \"eu-west-1\", service = \"s3\"";

/// Reads an origin with additional lines, with this environment and these files beside the
/// configuration.
fn read_with(lines: &str, set: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, problem_of) in files {
        std::fs::write(folder.path().join(name), problem_of).unwrap();
    }
    let environment = |variable: &str| {
        let found = set.iter().find(|(name, _)| *name == variable);
        found.map(|(_, value)| (*value).to_owned())
    };
    let path = folder.path().join("seawall.toml");
    let read = read(&format!("{ORIGIN}{lines}\n"), &path, &environment).finish();
    read.map(|(config, _)| config)
        .map_err(|problems| text_without_folder(&problems, folder.path()))
}

/// The sources of credentials, each as one word.
fn source_names(
    line: &str,
    set: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Vec<String>, String> {
    let config = read_with(&format!("sigv4 = {{ {SIGNED}{line} }}"), set, files)?;
    let sources = config.origins[0].sigv4.clone().unwrap().sources;
    let word = |source: CredentialSource| match source {
        CredentialSource::Given(_) => "environment".to_owned(),
        CredentialSource::File { path, profile } => {
            format!("{} {profile}", path.file_name().unwrap().display())
        }
        CredentialSource::Container { .. } => "container".to_owned(),
        CredentialSource::Instance { .. } => "instance".to_owned(),
    };
    Ok(sources.into_iter().map(word).collect())
}

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKID"),
    ("AWS_SECRET_ACCESS_KEY", "s3cret"),
    ("HOME", "/home/me"),
];
const FILE: (&str, &str) = (
    "aws",
    "[live]\naws_access_key_id = A\naws_secret_access_key = s3cret\n",
);

#[test]
fn reads_a_signature() {
    let config = read_with(&format!("sigv4 = {{ {SIGNED} }}"), &KEYS, &[]).unwrap();
    let sigv4 = config.origins[0].sigv4.as_ref().unwrap();
    assert_eq!(sigv4.region.as_deref(), Some("eu-west-1"));
    assert_eq!(sigv4.service, Service::S3);
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(
        read_with("", &KEYS, &[]).unwrap().origins[0]
            .sigv4
            .is_none()
    );
}

#[test]
fn reads_each_credential_source() {
    let all = ["environment", "credentials default", "instance"];
    assert_eq!(source_names("", &KEYS, &[]).unwrap(), all);
    assert_eq!(
        source_names(", credentials = \"auto\"", &KEYS, &[]).unwrap(),
        all
    );
    let environment = ", credentials = \"environment\"";
    assert_eq!(
        source_names(environment, &KEYS, &[]).unwrap(),
        ["environment"]
    );
    let instance = ", credentials = \"instance\"";
    assert_eq!(source_names(instance, &KEYS, &[]).unwrap(), ["instance"]);
    let file = ", credentials_file = \"aws\", profile = \"live\"";
    assert_eq!(source_names(file, &KEYS, &[FILE]).unwrap(), ["aws live"]);
    let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
    let problem_of = source_names(", credentials = \"container\"", &container, &[]);
    assert_eq!(problem_of.unwrap(), ["container"]);
}

#[test]
fn reports_missing_credentials_at_once() {
    let url = [(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://s3cret.example/",
    )];
    let disabled = [("AWS_EC2_METADATA_DISABLED", "true")];
    let cases: [(&str, &[_]); 9] = [
        (", credentials = \"environment\"", &[]),
        (", credentials = \"environment\"", &KEYS[1..]),
        (", credentials = \"container\"", &KEYS),
        (", credentials = \"instance\"", &disabled),
        (", profile = \"live\"", &[]),
        (", credentials_file = \"aws\", profile = \"other\"", &[]),
        (", credentials_file = \"gone\"", &[]),
        (", credentials = \"auto\", profile = \"live\"", &KEYS),
        ("", &url),
    ];
    let diagnostics = cases.map(|(line, set)| {
        let names: Vec<_> = set.iter().map(|(name, _)| *name).collect();
        let problems = source_names(line, set, &[FILE]).unwrap_err();
        assert!(!problems.contains("s3cret"), "{problems}");
        let lines = format!("sigv4 = {{ {SIGNED}{line} }} # set: {names:?}");
        beside_its_input(&lines, &problems)
    });
    assert_snapshot!(diagnostics.join("\n\n"));
}

#[test]
fn rejects_invalid_signature_settings() {
    let diagnostics = diagnostics(&[
        in_origin("sigv4 = { region = \"a\" }"),
        in_origin("sigv4 = { service = \"s3\" }"),
        in_origin("sigv4 = { region = \"EU West\", service = \"s3\" }"),
        in_origin("sigv4 = { region = \"eu-west-1\", service = \"mediapackage\" }"),
        in_origin(format!("sigv4 = {{ {SIGNED}, credentials = \"files\" }}")),
        in_origin(format!(
            "headers = {{ X-Amz-Date = \"a\" }}\nsigv4 = {{ {SIGNED} }}"
        )),
    ]);
    assert_snapshot!(diagnostics);
}

#[test]
fn rejects_a_certificate_without_key_or_over_plain_http() {
    let pair = |host: &str| rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let (one, two) = (pair("one.example"), pair("two.example"));
    let (pem, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    let other = two.signing_key.serialize_pem();
    let files = [("one.pem", &*pem), ("one.key", &*key), ("two.key", &*other)];
    let read_lines = |lines: &str| read_with(lines, &[], &files);
    let good = read_lines("client_certificate = \"one.pem\"\nclient_key = \"one.key\"").unwrap();
    let certificate = good.origins[0].client_certificate.as_ref().unwrap();
    assert!(certificate.key.ends_with("one.key"));
    let wrong = [
        "client_certificate = \"one.pem\"",
        "client_key = \"one.key\"",
        "client_certificate = \"one.pem\"\nclient_key = \"two.key\"",
        "client_certificate = \"gone.pem\"\nclient_key = \"one.key\"",
        "client_certificate = \"one.pem\"\nclient_key = \"one.key\"\n\
         [[origin]]\nendpoints = [\"http://b.example\"]\n\
         client_certificate = \"one.pem\"\nclient_key = \"one.key\"\n\
         [[route]]\norigin = \"main\"",
    ];
    let diagnostics = wrong.map(|lines| beside_its_input(lines, &read_lines(lines).unwrap_err()));
    assert_snapshot!(diagnostics.join("\n\n"));
}

#[test]
fn reads_the_region_of_endpoint_host_name_or_origin() {
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "B")];
    let unknown = "sigv4 = { service = \"s3\" }";
    let unknown_problems = read_with(unknown, &keys, &[]).unwrap_err();
    assert!(
        read_with(
            "sigv4 = { service = \"s3\", region = \"eu-west-1\" }",
            &keys,
            &[]
        )
        .is_ok()
    );
    let two = "[[origin]]\nsigv4 = { service = \"mediapackagev2\" }\nendpoints = [\n\
               \"https://a.egress.b.mediapackagev2.eu-west-1.amazonaws.com\",\n\
               { url = \"https://c.example\", region = \"eu-central-1\", priority = 1 }]\n";
    let environment = |variable: &str| {
        let found = keys.iter().find(|(name, _)| *name == variable);
        found.map(|(_, value)| (*value).to_owned())
    };
    let draft = read(two, Path::new("seawall.toml"), &environment);
    let (config, two_warnings) = draft.finish().unwrap();
    assert_eq!(
        config.origins[0].endpoints[1].region.as_deref(),
        Some("eu-central-1")
    );
    let idle =
        "[[origin]]\nendpoints = [{ url = \"https://c.example\", region = \"eu-central-1\" }]\n";
    let (_, idle_warnings) = read(idle, Path::new("seawall.toml"), &environment)
        .finish()
        .unwrap();
    let diagnostics = [
        beside_its_input(unknown, &unknown_problems),
        beside_its_input(two, &two_warnings.to_string()),
        beside_its_input(idle, &idle_warnings.to_string()),
    ];
    assert_snapshot!(diagnostics.join("\n\n"));
}

#[test]
fn checks_the_length_of_cdn_codes() {
    let header = |name: &str, code: &str| {
        read_with(&format!("headers = {{ {name} = \"{code}\" }}"), &[], &[]).map(drop)
    };
    for name in [
        "X-MediaPackageV2-CDNIdentifier",
        "x-mediapackage-cdnidentifier",
    ] {
        for length in [8, 256] {
            assert_eq!(header(name, &"c".repeat(length)), Ok(()), "{length}");
        }
        for length in [1, 7, 257] {
            let code = "c".repeat(length);
            let why = header(name, &code).unwrap_err();
            assert!(why.contains("8 to 256 characters"), "{why}");
            assert!(length == 1 || !why.contains(&code), "{why}");
        }
        let line = format!("headers = {{ {name} = {{ file = \"code\" }} }}");
        assert!(read_with(&line, &[], &[("code", "short\n")]).is_err());
        assert!(read_with(&line, &[], &[("code", "long-enough\n")]).is_ok());
    }
    assert_eq!(header("X-Token", "short"), Ok(()));
}
