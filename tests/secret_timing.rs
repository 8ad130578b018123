//! Measures whether the time of a comparison with a secret says anything about the secret, by the
//! method of dudect (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017): two
//! classes of guesses, in random order, and Welch's t-test of their times.
//!
//! Ignored, as times depend on the machine. It prints a table, and asserts nothing:
//!
//! ```sh
//! cargo test --profile quick --test secret_timing -- --ignored --nocapture
//! ```
//!
//! Above |t| = 4.5 the classes differ with near certainty, below it nothing can be told from this
//! many samples. The last line is a control: a comparison that ends at the first wrong byte.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use http::HeaderValue;
use seawall_authorization::{CatKey, CatSettings, CatVerifier, SignedUrl, SigningKeys};
use seawall_policy::FileSecrets;

/// Samples of each pair of classes.
const SAMPLES: usize = 400_000;

/// Comparisons that are timed together: one alone is as short as reading the clock.
const BATCH: usize = 8;

const SECRET: &str = "8c1f6d0a52b34e97a0d8e3f1b6c25947e0a1d2c3b4f596877869a5b4c3d2e1f0";

/// Welch's t of the times of two guesses, the slowest ones left out: interrupts, not comparisons.
/// The greatest |t| of several limits, as dudect has it.
///
/// The guesses are as long as each other and lie at the same place: where one lies takes more time
/// than what is in it.
fn t_of(guesses: [&[u8]; 2], compare: impl Fn(&[u8]) -> bool) -> f64 {
    let mut samples = Vec::with_capacity(SAMPLES);
    let mut guess = guesses[0].to_vec();
    for _ in 0..SAMPLES {
        let class = usize::from(fastrand::bool());
        guess.copy_from_slice(black_box(guesses[class]));
        let begin = Instant::now();
        for _ in 0..BATCH {
            black_box(compare(black_box(&guess)));
        }
        samples.push((class, begin.elapsed().as_nanos()));
    }
    // What runs first warms the caches.
    samples.drain(..SAMPLES / 100);
    let mut times: Vec<u128> = samples.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let limits = [50, 75, 90, 95, 99].map(|percent| times[times.len() * percent / 100]);
    let cropped = limits.map(|limit| welch(samples.iter().filter(|(_, time)| *time <= limit)));
    // A limit that leaves one class without samples says nothing.
    let finite = cropped.into_iter().filter(|t| t.is_finite());
    let greatest = finite.max_by(|a, b| a.abs().total_cmp(&b.abs()));
    greatest.unwrap_or_default()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds, and counts of samples"
)]
fn welch<'a>(samples: impl Iterator<Item = &'a (usize, u128)>) -> f64 {
    // Count, mean and sum of squared differences of each class (Welford).
    let mut classes = [(0.0, 0.0, 0.0); 2];
    for (class, time) in samples {
        let (count, mean, squares) = &mut classes[*class];
        *count += 1.0;
        let difference = *time as f64 - *mean;
        *mean += difference / *count;
        *squares += difference * (*time as f64 - *mean);
    }
    let error = |(count, _, squares): (f64, f64, f64)| squares / (count - 1.0) / count;
    let [a, b] = classes;
    (a.1 - b.1) / (error(a) + error(b)).sqrt()
}

fn as_text(token: &[u8]) -> &str {
    std::str::from_utf8(token).unwrap_or_default()
}

/// The secret with one byte wrong.
fn wrong_at(place: usize) -> Vec<u8> {
    let mut guess = SECRET.as_bytes().to_vec();
    guess[place] ^= 1;
    guess
}

/// A token whose signature has one character wrong. The last one has bits that mean nothing.
fn forged_at(token: &str, from_end: usize) -> String {
    let place = token.len() - from_end;
    let other = if &token[place..=place] == "B" {
        "C"
    } else {
        "B"
    };
    format!("{}{other}{}", &token[..place], &token[place + 1..])
}

/// A Common Access Token without claims, with this MAC.
fn cat_with_mac(mac: [u8; 32]) -> String {
    let mut token = vec![
        0x84, 0x43, 0xa1, 0x01, 0x05, 0xa1, 0x04, 0x41, b'k', 0x41, 0xa0,
    ];
    token.extend([0x58, 0x20]);
    token.extend(mac);
    data_encoding::BASE64URL_NOPAD.encode(&token)
}

fn cat_mac(secret: &[u8]) -> [u8; 32] {
    let signed = [
        &[0x84, 0x64][..],
        b"MAC0",
        &[0x43, 0xa1, 0x01, 0x05, 0x40, 0x41, 0xa0],
    ];
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let mac = ring::hmac::sign(&key, &signed.concat());
    std::array::from_fn(|place| mac.as_ref()[place])
}

#[test]
#[ignore = "times depend on the machine"]
fn secrets_do_not_show_in_the_time_of_a_comparison() {
    let file = PathBuf::from("secret");
    let other = PathBuf::from("other");
    let value = |text: &str| HeaderValue::from_str(text).expect("text");
    let secrets = [
        (file.clone(), value(SECRET)),
        (other.clone(), value(&SECRET[1..])),
    ];
    let secrets: FileSecrets = secrets.into_iter().collect();
    let accept = |guess: &[u8]| secrets.accept(std::slice::from_ref(&file), guess);
    let both = [file.clone(), other];
    let (first, last) = (wrong_at(0), wrong_at(SECRET.len() - 1));
    let mut rows = vec![
        (
            "required header or operator's token: first or last byte wrong",
            t_of([&first[..], &last], accept),
        ),
        (
            "the same: no byte or all but the last right",
            t_of([&[b'~'; 64][..], &last], accept),
        ),
        (
            "the same: like one secret or the other of two",
            t_of([&first[..], &last], |guess| secrets.accept(&both, guess)),
        ),
    ];

    let keys = SigningKeys::new([("k", SECRET.as_bytes())]).expect("a key");
    let url = SignedUrl {
        key_id: "k".to_owned(),
        path_prefix: "/live".to_owned(),
        expires_at: 1_767_225_600,
        network: None,
    };
    let token = keys.sign(&url).expect("a token");
    let forged = [forged_at(&token, 43), forged_at(&token, 2)];
    let verify = |token: &[u8]| keys.verify(as_text(token)).is_ok();
    rows.push((
        "MAC of a signed URL: first or last byte wrong",
        t_of([forged[0].as_bytes(), forged[1].as_bytes()], verify),
    ));

    let cat_key = CatKey::hmac_256(SECRET.as_bytes()).expect("a key");
    let verifier = CatVerifier::new(CatSettings {
        keys: vec![(b"k".to_vec(), cat_key)],
        accepts_no_expiry: true,
        ..CatSettings::default()
    });
    let verifier = verifier.expect("one key");
    let mac = cat_mac(SECRET.as_bytes());
    let good = verifier.verify(&cat_with_mac(mac));
    assert!(
        good.is_ok(),
        "what is varied is all that is wrong: {good:?}"
    );
    let (mut first, mut last) = (mac, mac);
    first[0] ^= 1;
    last[31] ^= 1;
    let forged = [cat_with_mac(first), cat_with_mac(last)];
    let verify = |token: &[u8]| verifier.verify(as_text(token)).is_ok();
    rows.push((
        "MAC of a Common Access Token: first or last byte wrong",
        t_of([forged[0].as_bytes(), forged[1].as_bytes()], verify),
    ));

    let (first, last) = (wrong_at(0), wrong_at(SECRET.len() - 1));
    let ends_early = |guess: &[u8]| {
        let mut pairs = guess.iter().zip(SECRET.as_bytes());
        pairs.all(|(one, other)| black_box(one) == other)
    };
    rows.push((
        "control: ends at the first wrong byte",
        t_of([&first[..], &last], ends_early),
    ));
    for (what, t) in rows {
        println!("{t:>10.2}  {what}");
    }
}
