//! Tests of an origin's headers, signature and client certificate, right and wrong.

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
        .map_err(|problems| problems.to_string())
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
    let problem_of = |line, set: &[_]| source_names(line, set, &[FILE]).unwrap_err();
    let environment = ", credentials = \"environment\"";
    let missing = problem_of(environment, &[]);
    assert!(
        missing.contains("AWS_ACCESS_KEY_ID is not set"),
        "{missing}"
    );
    let half = problem_of(environment, &KEYS[1..]);
    assert!(
        half.contains("AWS_SECRET_ACCESS_KEY: the other half"),
        "{half}"
    );
    let container = problem_of(", credentials = \"container\"", &KEYS);
    assert!(
        container.contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        "{container}"
    );
    let off = problem_of(
        ", credentials = \"instance\"",
        &[("AWS_EC2_METADATA_DISABLED", "true")],
    );
    assert!(off.contains("AWS_EC2_METADATA_DISABLED"), "{off}");
    let homeless = problem_of(", profile = \"live\"", &[]);
    assert!(homeless.contains("HOME is not set"), "{homeless}");
    let other = problem_of(", credentials_file = \"aws\", profile = \"other\"", &[]);
    assert!(other.contains("no such profile"), "{other}");
    assert!(other.contains("seawall.toml:4:68"), "{other}");
    let gone = problem_of(", credentials_file = \"gone\"", &[]);
    assert!(
        gone.contains("No such file") && gone.contains("looked for is /"),
        "{gone}"
    );
    let unused = problem_of(", credentials = \"auto\", profile = \"live\"", &KEYS);
    assert!(unused.contains("`profile` is about a file"), "{unused}");
    let url = [(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://s3cret.example/",
    )];
    let plain = problem_of("", &url);
    assert!(
        plain.contains("without TLS") && !plain.contains("s3cret"),
        "{plain}"
    );
}

#[test]
fn rejects_invalid_signature_settings() {
    let words = ["has no `service`", "add service ="];
    assert_origin_problem(
        "sigv4 = { region = \"a\" }",
        9,
        "{ region = \"a\" }",
        &words,
    );
    let words = ["which region an endpoint is signed for", "add region ="];
    assert_origin_problem(
        "sigv4 = { service = \"s3\" }",
        9,
        "{ service = \"s3\" }",
        &words,
    );
    assert_origin_problem(
        "sigv4 = { region = \"EU West\", service = \"s3\" }",
        20,
        "\"EU West\"",
        &["a region such as \"eu-west-1\""],
    );
    assert_origin_problem(
        "sigv4 = { region = \"eu-west-1\", service = \"mediapackage\" }",
        43,
        "\"mediapackage\"",
        &["did you mean \"mediapackagev2\"?"],
    );
    assert_origin_problem(
        &format!("sigv4 = {{ {SIGNED}, credentials = \"files\" }}"),
        63,
        "\"files\"",
        &["did you mean \"file\"?"],
    );
    assert_origin_problem(
        &format!("headers = {{ X-Amz-Date = \"a\" }}\nsigv4 = {{ {SIGNED} }}"),
        13,
        "X-Amz-Date",
        &["is set by the signature"],
    );
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
    let half = read_lines("client_certificate = \"one.pem\"").unwrap_err();
    assert!(half.contains("has no `client_key`"), "{half}");
    let half = read_lines("client_key = \"one.key\"").unwrap_err();
    assert!(half.contains("has no `client_certificate`"), "{half}");
    let mixed =
        read_lines("client_certificate = \"one.pem\"\nclient_key = \"two.key\"").unwrap_err();
    assert!(
        mixed.contains("does not belong to its certificate"),
        "{mixed}"
    );
    let gone =
        read_lines("client_certificate = \"gone.pem\"\nclient_key = \"one.key\"").unwrap_err();
    assert!(gone.contains("No such file"), "{gone}");
    let plain = read_lines(
        "client_certificate = \"one.pem\"\nclient_key = \"one.key\"\n\
         [[origin]]\nendpoints = [\"http://b.example\"]\n\
         client_certificate = \"one.pem\"\nclient_key = \"one.key\"\n\
         [[route]]\norigin = \"main\"",
    )
    .unwrap_err();
    assert!(plain.contains("shown to nobody"), "{plain}");
    assert!(plain.contains("seawall.toml:8:22"), "{plain}");
}

#[test]
fn reads_the_region_of_endpoint_host_name_or_origin() {
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "B")];
    let unknown = read_with("sigv4 = { service = \"s3\" }", &keys, &[]).unwrap_err();
    assert!(
        unknown.contains("which region an endpoint is signed for"),
        "{unknown}"
    );
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
    let (config, warnings) = draft.finish().unwrap();
    assert_eq!(
        config.origins[0].endpoints[1].region.as_deref(),
        Some("eu-central-1")
    );
    assert!(
        warnings.to_string().contains("every query parameter"),
        "{warnings}"
    );
    let idle =
        "[[origin]]\nendpoints = [{ url = \"https://c.example\", region = \"eu-central-1\" }]\n";
    let (_, warnings) = read(idle, Path::new("seawall.toml"), &environment)
        .finish()
        .unwrap();
    assert!(
        warnings.to_string().contains("nothing is signed"),
        "{warnings}"
    );
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
