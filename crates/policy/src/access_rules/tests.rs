//! Tests which viewers address lists and required headers admit.

use super::*;

fn list(entries: &[&str]) -> AddressList {
    let entry = |text: &&str| match *text {
        "unix" => AddressListEntry::UnixSocket,
        text => {
            let network = text.parse::<IpNet>();
            let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            AddressListEntry::Network(network.unwrap())
        }
    };
    entries.iter().map(entry).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    (text != "unix").then(|| text.parse().unwrap())
}

fn admits(rules: &AccessRules, viewer: &str) -> bool {
    let (headers, secrets) = (HeaderMap::new(), FileSecrets::default());
    let refused = rules.refused_by(address(viewer), (None, None), &headers, &secrets);
    assert!(refused.is_none() || refused == Some(AccessRuleKind::Address));
    refused.is_none()
}

#[test]
fn everyone_may_enter_without_rules() {
    let rules = AccessRules::default();
    assert!(rules.is_open());
    for viewer in ["192.0.2.1", "2001:db8::1", "unix"] {
        assert!(admits(&rules, viewer), "{viewer}");
    }
}

#[test]
fn allow_list_refuses_all_others() {
    let rules = AccessRules {
        allow: Some(list(&["192.0.2.0/24", "198.51.100.7", "2001:db8:1::/48"])),
        ..AccessRules::default()
    };
    assert!(!rules.is_open());
    for viewer in ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8:1::9"] {
        assert!(admits(&rules, viewer), "{viewer}");
    }
    for viewer in [
        "192.0.1.255",
        "192.0.3.0",
        "198.51.100.6",
        "198.51.100.8",
        "2001:db8:2::9",
        "::1",
        "unix",
    ] {
        assert!(!admits(&rules, viewer), "{viewer}");
    }
}

#[test]
fn deny_wins_over_allow() {
    let rules = AccessRules {
        allow: Some(list(&["192.0.2.0/24", "unix"])),
        deny: Some(list(&["192.0.2.128/25", "unix"])),
        ..AccessRules::default()
    };
    assert!(admits(&rules, "192.0.2.127"));
    assert!(!admits(&rules, "192.0.2.128"));
    assert!(!admits(&rules, "unix"));
}

#[test]
fn deny_list_alone_refuses_only_its_own() {
    let rules = AccessRules {
        deny: Some(list(&["192.0.2.0/24"])),
        ..AccessRules::default()
    };
    assert!(!admits(&rules, "192.0.2.9"));
    assert!(admits(&rules, "192.0.3.9") && admits(&rules, "::1") && admits(&rules, "unix"));
}

#[test]
fn unix_socket_passes_an_allow_list_only_with_the_word_unix() {
    let everyone = ["0.0.0.0/0", "::/0"];
    let rules = |entries: &[&str]| AccessRules {
        allow: Some(list(entries)),
        ..AccessRules::default()
    };
    assert!(!admits(&rules(&everyone), "unix"));
    assert!(admits(&rules(&["192.0.2.1", "unix"]), "unix"));
    assert!(!admits(&rules(&["192.0.2.1", "unix"]), "192.0.2.2"));
}

#[test]
fn ipv4_address_in_ipv6_form_counts_as_ipv4() {
    let rules = AccessRules {
        allow: Some(list(&["192.0.2.0/24"])),
        deny: Some(list(&["192.0.2.66"])),
        ..AccessRules::default()
    };
    assert!(admits(&rules, "::ffff:192.0.2.1"));
    assert!(!admits(&rules, "::ffff:192.0.2.66"));
    assert!(!admits(&rules, "::ffff:192.0.3.1"));
    let all_of_ipv6 = AccessRules {
        deny: Some(list(&["::/0"])),
        ..AccessRules::default()
    };
    assert!(admits(&all_of_ipv6, "::ffff:192.0.2.1"));
}

/// The search finds a network only while none of the list is inside another one.
#[test]
fn networks_inside_others_hide_none() {
    let entries = [
        "10.1.2.3",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.0.0.0/8",
    ];
    for first in 0..entries.len() {
        let mut entries = entries;
        entries.rotate_left(first);
        let rules = AccessRules {
            allow: Some(list(&entries)),
            ..AccessRules::default()
        };
        for viewer in [
            "10.0.0.0",
            "10.1.2.2",
            "10.1.2.4",
            "10.1.3.0",
            "10.255.255.255",
        ] {
            assert!(admits(&rules, viewer), "{viewer}: {entries:?}");
        }
        assert!(!admits(&rules, "9.255.255.255") && !admits(&rules, "11.0.0.0"));
    }
}

const NAME: HeaderName = HeaderName::from_static("x-origin-secret");

fn with_header(files: &[&str]) -> AccessRules {
    AccessRules {
        require_header: Some(RequiredHeader {
            name: NAME,
            secret_files: files.iter().map(PathBuf::from).collect(),
        }),
        ..AccessRules::default()
    }
}

fn refused(rules: &AccessRules, values: &[&'static str]) -> Option<AccessRuleKind> {
    let secrets = [("old", "first-secret"), ("new", "second-secret")];
    let secrets = secrets.map(|(file, secret)| (file.into(), HeaderValue::from_static(secret)));
    let values = values
        .iter()
        .map(|&value| (NAME, HeaderValue::from_static(value)));
    rules.refused_by(
        None,
        (None, None),
        &values.collect(),
        &secrets.into_iter().collect(),
    )
}

#[test]
fn header_must_have_a_secret_of_one_of_the_files() {
    let rules = with_header(&["old", "new"]);
    assert_eq!(refused(&rules, &["first-secret"]), None);
    assert_eq!(refused(&rules, &["second-secret"]), None);
    for wrong in ["", "first-secre", "first-secret1", "First-secret", "other"] {
        let by = refused(&rules, &[wrong]);
        assert_eq!(by, Some(AccessRuleKind::Header), "{wrong:?}");
    }
    assert_eq!(refused(&rules, &[]), Some(AccessRuleKind::Header));
    let after = with_header(&["new"]);
    assert_eq!(
        refused(&after, &["first-secret"]),
        Some(AccessRuleKind::Header)
    );
}

#[test]
fn secret_of_any_length_is_compared_whole() {
    let long = "s".repeat(SECRET_BLOCK_BYTES);
    for length in [1, 255, 256] {
        let secret = Secret::of(&long.as_bytes()[..length]);
        for guessed in 0..=long.len() {
            let is_same: bool = secret.is(&long.as_bytes()[..guessed]).into();
            assert_eq!(is_same, guessed == length, "{guessed} of {length}");
        }
        let longer: bool = secret.is(&[b's'; 1000]).into();
        assert!(!longer);
    }
}

#[test]
fn second_value_of_the_header_is_refused() {
    let rules = with_header(&["old"]);
    let both = refused(&rules, &["guess", "first-secret"]);
    assert_eq!(both, Some(AccessRuleKind::Header));
    let twice = refused(&rules, &["first-secret", "first-secret"]);
    assert_eq!(twice, Some(AccessRuleKind::Header));
}

#[test]
fn file_that_is_not_readable_admits_nobody() {
    let rules = with_header(&["gone"]);
    for values in [&[][..], &[""], &["first-secret"]] {
        assert_eq!(refused(&rules, values), Some(AccessRuleKind::Header));
    }
}

#[test]
fn secrets_are_not_shown() {
    let secret = HeaderValue::from_static("first-secret");
    let secrets: FileSecrets = [(PathBuf::from("old"), secret)].into_iter().collect();
    assert!(!format!("{secrets:?}").contains("first"));
}

#[test]
fn only_named_client_classes_may_enter() {
    let rules = AccessRules {
        client_classes: Some(vec!["one".into(), "two".into()]),
        ..AccessRules::default()
    };
    assert!(!rules.is_open());
    let refused = |class| {
        let (headers, secrets) = (HeaderMap::new(), FileSecrets::default());
        rules.refused_by(None, (class, None), &headers, &secrets)
    };
    assert_eq!((refused(Some("one")), refused(Some("two"))), (None, None));
    for class in [Some("other"), Some("on"), Some(""), None] {
        assert_eq!(refused(class), Some(AccessRuleKind::ClientClass));
    }
}
