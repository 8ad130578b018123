//! Tests of epochs.

use super::super::epoch::EPOCH_BYTES;
use super::*;

#[test]
fn the_end_of_an_epoch_frees_all_that_was_bound_before() {
    let epochs = Epochs::default();
    let (here, there) = (Key::of(&[b"/a/"]), Key::of(&[b"/b/"]));
    let (old, other) = (
        epochs.token(Some(&here), None),
        epochs.token(Some(&there), None),
    );
    assert!(old.is_valid());
    epochs.end(&here);
    let new = epochs.token(Some(&here), None);
    assert!(!old.is_valid() && new.is_valid() && other.is_valid());
}

#[test]
fn what_lies_within_ends_with_either_directory() {
    let epochs = Epochs::default();
    let (here, parent) = (Key::of(&[b"/a/1/"]), Key::of(&[b"/a/#/"]));
    for ends in [&here, &parent] {
        let (epoch_token, outer) = (
            epochs.token(Some(&here), None),
            epochs.token(Some(&parent), None),
        );
        let epoch_token = epoch_token.within(&outer);
        assert!(
            epoch_token.is_valid()
                && epoch_token.is_bound_to_directory()
                && epoch_token.to_url().is_none()
        );
        epochs.end(ends);
        assert!(!epoch_token.is_valid());
    }
}

#[test]
fn an_optional_token_takes_two_words_and_one_object_bears_the_weight_of_an_epoch() {
    assert_eq!(size_of::<Option<EpochToken>>(), 16);
    let (epochs, here) = (Epochs::default(), Key::of(&[b"/a/"]));
    let token = || epochs.token(Some(&here), None);
    let (one, other) = (token(), token());
    assert_eq!(one.uncharged_bytes(), EPOCH_BYTES);
    assert_eq!(
        other.uncharged_bytes(),
        EPOCH_BYTES,
        "an estimate charges nothing"
    );
    one.charge();
    assert_eq!((one.uncharged_bytes(), other.uncharged_bytes()), (0, 0));
    drop((one, other));
    assert_eq!(token().uncharged_bytes(), EPOCH_BYTES);
}

#[test]
fn directories_without_tokens_are_forgotten() {
    let epochs = Epochs::default();
    let kept = epochs.token(Some(&Key::of(&[b"kept"])), None);
    for number in 0..10 * SHARDS * SWEEP_MIN {
        epochs.token(Some(&Key::of(&[&number.to_be_bytes()])), None);
    }
    let listed = epochs.shards.iter().map(|shard| shard.lock().epochs.len());
    assert!(listed.sum::<usize>() <= 2 * SHARDS * SWEEP_MIN);
    epochs.end(&Key::of(&[b"kept"]));
    assert!(!kept.is_valid());
}

#[test]
fn limits_keys_per_url_and_invalidates_them_together() {
    let epochs = Epochs::default();
    let (directory, url) = (Key::of(&[b"/a/"]), Key::of(&[b"/a/b"]));
    let epoch_token = epochs.token(Some(&directory), Some(&url));
    let key = |number: u8| Key::of(&[b"key", &[number]]);
    let all = |_: &Key| true;
    assert!(epoch_token.admit(&key(1), 2, all) && epoch_token.admit(&key(2), 2, all));
    assert!(!epoch_token.admit(&key(3), 2, all), "two are stored");
    assert!(epoch_token.admit(&key(1), 2, all), "one of the two");
    assert!(
        epoch_token.admit(&key(3), 2, |stored| *stored != key(1)),
        "one left"
    );
    let manifest = epoch_token.to_url().unwrap();
    epochs.end(&directory);
    assert!(!epoch_token.is_valid() && manifest.is_valid());
    epochs.end(&url);
    assert!(!manifest.is_valid());
    assert!(epochs.token(None, Some(&url)).admit(&key(4), 1, all));
}

#[test]
fn renewed_token_ends_with_a_hard_purge_only() {
    let epochs = Epochs::default();
    let (here, url) = (Key::of(&[b"/a/"]), Key::of(&[b"/a/b"]));
    let end = |key: &Key, mode| epochs.end_for(key, &mut EndedEpochs::new(mode));
    let token = epochs.token(Some(&here), Some(&url));
    end(&url, PurgeMode::Soft);
    assert!(!token.is_valid());
    let renewed = token.renewed().unwrap();
    assert!(renewed.is_valid());
    end(&here, PurgeMode::DryRun);
    assert!(renewed.is_valid());
    end(&here, PurgeMode::Hard);
    assert!(token.renewed().is_none() && renewed.renewed().is_none());
}

#[test]
fn soft_purge_of_a_url_keeps_its_keys() {
    let epochs = Epochs::default();
    let (url, key) = (Key::of(&[b"/a/b"]), Key::of(&[b"key"]));
    let token = epochs.token(None, Some(&url));
    assert!(token.admit(&key, 2, |_| true));
    epochs.end_for(&url, &mut EndedEpochs::new(PurgeMode::Soft));
    assert_eq!(epochs.keys_of(&url), std::slice::from_ref(&key));
    epochs.end_for(&url, &mut EndedEpochs::new(PurgeMode::Hard));
    assert_eq!(epochs.keys_of(&url), []);
}
