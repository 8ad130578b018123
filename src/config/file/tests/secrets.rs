//! Tests that secrets and files of secrets are read, and never shown.

use super::*;

#[test]
fn substitutes_variables_and_names_missing_ones() {
    let good = config(&format!(
        "{ORIGIN}headers = {{ X-Token = \"Bearer ${{TOKEN}}\" }}\n"
    ));
    let (name, value) = &good.origins[0].headers[0];
    assert_eq!(name, "x-token");
    assert_eq!(value, "Bearer s3cret-token");
    let line = "headers = { X-Token = \"Bearer ${NOPE}\" }";
    assert_origin_problem(line, 31, "${NOPE}", &["no variable `NOPE`", "set NOPE"]);
    assert_origin_problem(
        "headers = { X-Token = \"${NOPE\" }",
        24,
        "******",
        &["variable's name and `}`"],
    );
}

#[test]
fn never_shows_secrets() {
    let filled = config(&format!(
        "{ORIGIN}headers = {{ X-Token = \"${{TOKEN}}\" }}\n"
    ));
    assert!(!format!("{filled:?}").contains("s3cret"));
    let lines = [
        "headers = { X-Token = \"${BROKEN}\" }",
        "sni = \"${SLOW} x\"",
        "deadlines = { total = \"${SLOW}\" }",
        "protocol = \"${SLOW}\"",
        "endpoints_ = 1\nca_file = \"${SLOW}\"",
        "headers = { X-Token = \"s3cret\", \"bad name\" = \"s3cret\", Host = 's3cret' }",
        "headers = { X-Token = \"s3cret\"",
        "headers = { X-Token = \"s3cret }",
        "headers = { X-Token = s3cret }",
        "headers = { X-Token = \"s3cret\\q\" }",
        "headers = { X-Token: \"s3cret\" }",
        "headers = { X-Token = \"a\" \"s3cret\" }",
        "[origin.headers]\nX-Token = \"s3cret",
        "headers = { X-Token = { file = \"${SLOW}\" } }",
    ];
    for line in lines {
        let source = format!("colour = 1\n{ORIGIN}{line}\n");
        let problems = draft(&source).finish().expect_err("something wrong");
        let text = format!("{problems}{problems:?}{}", problems.render(true));
        assert!(!text.contains("s3cret"), "{text}");
    }
    let user = draft("[[origin]]\nendpoints = [\"https://me:s3cret@a.example\"]\n");
    let text = user.finish().expect_err("userinfo").to_string();
    assert!(
        text.contains("no user or password") && !text.contains("s3cret"),
        "{text}"
    );
}

#[test]
fn reads_secrets_from_files_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    let path = folder.path().join("seawall.toml");
    let read_line = |line: &str| {
        let draft = read(&format!("{ORIGIN}{line}\n"), &path, &environment);
        draft.finish().map(|(config, _)| config)
    };
    let good = read_line("headers = { X-Token = { file = \"token\" } }").unwrap();
    let (name, file) = &good.origins[0].header_files[0];
    assert_eq!(
        (name.as_str(), file),
        ("x-token", &folder.path().join("token"))
    );
    assert!(good.origins[0].headers.is_empty());
    assert!(!format!("{good:?}").contains("s3cret"));
    let empty = read_line("headers = { X-Token = { file = \"empty\" } }").unwrap_err();
    assert!(empty.to_string().contains("this file is empty"), "{empty}");
    let gone = read_line("headers = { X-Token = { file = \"gone\" } }").unwrap_err();
    assert!(gone.to_string().contains("No such file"), "{gone}");
    let unnamed = read_line("headers = { X-Token = { fil = \"token\" } }").unwrap_err();
    assert!(
        unnamed.to_string().contains("did you mean `file`?"),
        "{unnamed}"
    );
}

#[test]
fn checks_certificates_with_their_keys() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let pair = |host: &str| rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let (one, two) = (pair("one.example"), pair("two.example"));
    write("one.pem", &one.cert.pem());
    write("one.key", &one.signing_key.serialize_pem());
    write("two.key", &two.signing_key.serialize_pem());
    write("junk.pem", "not a certificate");
    let path = folder.path().join("seawall.toml");
    let tls = |certificate: &str, key: &str| {
        let source = format!(
            "[[listener]]\nlisten = \"[::]:8443\"\n[[listener.tls.certificates]]\n\
             certificate = \"{certificate}\"\nkey = \"{key}\"\n{ORIGIN}"
        );
        read(&source, &path, &environment)
            .finish()
            .map(|(config, _)| config)
            .map_err(|problems| problems.to_string())
    };
    let good = tls("one.pem", "one.key").unwrap();
    let settings = good.frontend.listeners[0].tls.as_ref().unwrap();
    assert_eq!(settings.certificates[0].key, folder.path().join("one.key"));
    assert!(settings.tls12);
    let other = tls("one.pem", "two.key").unwrap_err();
    assert!(
        other.contains("does not belong to its certificate"),
        "{other}"
    );
    assert!(
        other.contains("seawall.toml:5:7") && other.contains("its certificate"),
        "{other}"
    );
    let junk = tls("junk.pem", "one.pem").unwrap_err();
    assert!(
        junk.contains("seawall.toml:4:15") && junk.contains("no certificate in"),
        "{junk}"
    );
    assert!(
        junk.contains("seawall.toml:5:7") && junk.contains("no private key in"),
        "{junk}"
    );
    let gone = tls("gone.pem", "one.key").unwrap_err();
    assert!(
        gone.contains("No such file") && gone.contains("gone.pem"),
        "{gone}"
    );
}
