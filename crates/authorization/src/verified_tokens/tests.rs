//! What is remembered, for whom, and what has to go.

use super::*;
use crate::SignedUrl;

fn claims(path: &str) -> TokenClaims {
    TokenClaims::SignedUrl(SignedUrl {
        key_id: "a".to_owned(),
        path_prefix: path.to_owned(),
        expires_at: 60,
        network: None,
    })
}

fn room_for(entries_max: usize) -> VerifiedTokens {
    VerifiedTokens::new(entries_max, 1 << 20)
}

#[test]
fn finds_what_was_remembered_for_the_same_rules_only() {
    let mut verified = room_for(8);
    assert_eq!(verified.find(1, "T"), None);
    verified.remember(1, "T", claims("/a"));
    assert_eq!(verified.find(1, "T"), Some(&claims("/a")));
    assert_eq!(verified.find(2, "T"), None);
    assert_eq!(verified.find(1, "U"), None);
    verified.remember(2, "T", claims("/b"));
    assert_eq!(verified.find(1, "T"), Some(&claims("/a")));
    assert_eq!(verified.find(2, "T"), Some(&claims("/b")));
}

#[test]
fn forgotten_ones_are_gone_and_the_others_stay() {
    let mut verified = room_for(100);
    let names: Vec<_> = (0..100).map(|number| format!("/{number}")).collect();
    for name in &names {
        verified.remember(1, name, claims(name));
    }
    let (gone, kept): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.len() % 2 == 0);
    for name in &gone {
        verified.forget(1, name);
        verified.forget(1, name);
    }
    for name in kept {
        assert_eq!(verified.find(1, name), Some(&claims(name)));
    }
    for name in gone {
        assert_eq!(verified.find(1, name), None);
    }
}

#[test]
fn used_ones_stay_when_there_is_no_room() {
    let mut verified = room_for(4);
    for name in ["/a", "/b", "/c", "/d"] {
        verified.remember(1, name, claims(name));
    }
    for round in 0..100 {
        assert!(verified.find(1, "/a").is_some(), "{round}");
        let name = format!("/{round}");
        verified.remember(1, &name, claims(&name));
        assert!(verified.find(1, &name).is_some(), "{round}");
        assert!(verified.find(1, "/a").is_some(), "{round}");
    }
    let stats = verified.stats();
    assert_eq!((stats.entries, stats.evictions), (4, 100));
}

#[test]
fn memory_has_a_bound() {
    let bytes_max = 4096;
    let mut verified = VerifiedTokens::new(usize::MAX, bytes_max);
    for number in 0..100 {
        let token = format!("{number}{}", "t".repeat(500));
        verified.remember(1, &token, claims("/a"));
        let stats = verified.stats();
        assert!(stats.bytes <= bytes_max && stats.entries >= 1, "{stats:?}");
    }
    // What is larger than all of it pushes nothing out.
    let entries = verified.stats().entries;
    verified.remember(1, &"t".repeat(bytes_max), claims("/a"));
    assert_eq!(verified.stats().entries, entries);
}

#[test]
fn without_room_nothing_is_remembered() {
    for mut verified in [VerifiedTokens::new(0, 1 << 20), VerifiedTokens::new(8, 0)] {
        verified.remember(1, "T", claims("/a"));
        assert_eq!(verified.find(1, "T"), None);
        assert_eq!(verified.stats(), VerifiedTokenStats::default());
    }
}
