//! Tests that secrets and files of secrets are read, and never shown.

use insta::assert_snapshot;

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
    let diagnostics = diagnostics(&[
        in_origin(line),
        in_origin("headers = { X-Token = \"${NOPE\" }"),
    ]);
    assert_snapshot!(diagnostics);
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
        let finished = draft.finish().map(|(config, _)| config);
        finished.map_err(|problems| text_without_folder(&problems, folder.path()))
    };
    let good = read_line("headers = { X-Token = { file = \"token\" } }").unwrap();
    let (name, file) = &good.origins[0].header_files[0];
    assert_eq!(
        (name.as_str(), file),
        ("x-token", &folder.path().join("token"))
    );
    assert!(good.origins[0].headers.is_empty());
    assert!(!format!("{good:?}").contains("s3cret"));
    let wrong = [
        "headers = { X-Token = { file = \"empty\" } }",
        "headers = { X-Token = { file = \"gone\" } }",
        "headers = { X-Token = { fil = \"token\" } }",
    ];
    let diagnostics = wrong.map(|line| beside_its_input(line, &read_line(line).unwrap_err()));
    assert_snapshot!(diagnostics.join("\n\n"));
}

#[test]
fn reads_the_secrets_of_a_required_header() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("one", "s3cret-of-the-first\n"),
        ("two", "s3cret-of-the-second"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    std::fs::write(folder.path().join("short"), "s3cret\n").unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    let path = folder.path().join("seawall.toml");
    let read_lines = |lines: &str| {
        let source = format!("{ORIGIN}[[route]]\n{lines}\n");
        read(&source, &path, &environment).finish()
    };
    let header = |files: &str| {
        format!("require_header = {{ name = \"X-Origin-Secret\", secret_files = [{files}] }}")
    };
    let (good, warnings) = read_lines(&header("\"one\", \"two\"")).unwrap();
    assert!(warnings.is_empty(), "{warnings}");
    let required = good.rules.routes[0].access.require_header.as_ref();
    let required = required.unwrap();
    let files = ["one", "two"].map(|name| folder.path().join(name));
    assert_eq!(
        (required.name.as_str(), &required.secret_files[..]),
        ("x-origin-secret", &files[..])
    );
    assert!(!format!("{good:?}").contains("s3cret"));
    let doubtful = [
        header("\"short\""),
        header("\"empty\""),
        header("\"gone\""),
        header("\"one\", \"two\", \"one\""),
        format!(
            "{}\nforward_headers = [\"x-origin-secret\"]",
            header("\"one\"")
        ),
        format!(
            "{}\n[[route]]\npath = \"/a\"\nunkeyed_headers = [\"X-Origin-Secret\"]",
            header("\"one\"")
        ),
    ];
    let diagnostics = doubtful.map(|lines| {
        let problems =
            read_lines(&lines).map_or_else(|problems| problems, |(_, warnings)| warnings);
        let text = text_without_folder(&problems, folder.path());
        assert!(!text.contains("s3cret"), "{text}");
        beside_its_input(&lines, &text)
    });
    assert_snapshot!(diagnostics.join("\n\n"));
}

#[test]
fn checks_the_authorities_of_clients() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let pair = rcgen::generate_simple_self_signed(["one.example".to_owned()]).unwrap();
    write("one.pem", &pair.cert.pem());
    write("one.key", &pair.signing_key.serialize_pem());
    write("empty.pem", "");
    write(
        "junk.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let path = folder.path().join("seawall.toml");
    let tls = |keys: &str| {
        let source = format!(
            "[[listener]]\nlisten = \"[::]:8443\"\n[listener.tls]\ncertificates = \
             [{{ certificate = \"one.pem\", key = \"one.key\" }}]\n{keys}\n{ORIGIN}"
        );
        read(&source, &path, &environment)
            .finish()
            .map(|(config, _)| config)
            .map_err(|problems| text_without_folder(&problems, folder.path()))
    };
    for (demand, is_required) in [
        ("", true),
        ("client_certificates = \"required\"", true),
        ("client_certificates = \"optional\"", false),
    ] {
        let good = tls(&format!("client_ca = \"one.pem\"\n{demand}")).unwrap();
        let settings = good.frontend.listeners[0].tls.as_ref().unwrap();
        let client = settings.client.as_ref().unwrap();
        assert_eq!(client.ca, folder.path().join("one.pem"));
        assert_eq!(client.is_required, is_required, "{demand}");
    }
    let wrong = [
        "client_ca = \"gone.pem\"",
        "client_ca = \"empty.pem\"",
        "client_ca = \"one.key\"",
        "client_ca = \"junk.pem\"",
        "client_ca = \"one.pem\"\nclient_certificates = true",
        "client_certificates = \"optional\"",
    ];
    let diagnostics = wrong.map(|keys| beside_its_input(keys, &tls(keys).unwrap_err()));
    assert_snapshot!(diagnostics.join("\n\n"));
    // Whoever needs certificates is not the problem: viewers are to be asked.
    let users = "[[client_class]]\nname = \"a\"\ncertificate = \"any\"\n\
                 [[route]]\nrequire_certificate = \"any\"";
    for keys in wrong.iter().filter(|keys| keys.contains("client_ca =")) {
        let problems = tls(&format!("{keys}\n{users}")).unwrap_err();
        assert!(!problems.contains("no listener asks"), "{problems}");
    }
    let without = tls(&format!("client_certificates = \"optional\"\n{users}")).unwrap_err();
    assert!(without.contains("no listener asks"), "{without}");
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
            .map_err(|problems| text_without_folder(&problems, folder.path()))
    };
    let good = tls("one.pem", "one.key").unwrap();
    let settings = good.frontend.listeners[0].tls.as_ref().unwrap();
    assert_eq!(settings.certificates[0].key, folder.path().join("one.key"));
    assert!(settings.tls12);
    let wrong = [
        ("one.pem", "two.key"),
        ("junk.pem", "one.pem"),
        ("gone.pem", "one.key"),
    ];
    let diagnostics = wrong.map(|(certificate, key)| {
        let lines = format!("certificate = \"{certificate}\"\nkey = \"{key}\"");
        beside_its_input(&lines, &tls(certificate, key).unwrap_err())
    });
    assert_snapshot!(diagnostics.join("\n\n"));
}
