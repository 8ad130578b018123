//! Derives from segment names how two versions of a playlist compare. Names may be re-signed in
//! each version: in the query, in a directory or in the file name.

/// Bytes at the end of a path that are searched for the number that names count.
const COUNTED_BYTES_MAX: usize = 256;
/// Number of last names that are searched for the number.
const COUNTED_MAX: usize = 4;

/// Fingerprints of names: of the last part of each path, which a signed directory does not change.
/// If that part is the same for all (`7/video.ts`, `8/video.ts`), of whole paths.
pub(super) fn fingerprints(uris: &[&str]) -> Box<[u64]> {
    let paths = uris.iter().map(|uri| path(uri));
    let file = |path: &str| path.rfind('/').map_or(0, |slash| slash + 1);
    let tells = match *uris {
        [.., before, last] => {
            let (before, last) = (path(before), path(last));
            before[file(before)..] != last[file(last)..]
        }
        _ => true,
    };
    paths
        .map(|path| fingerprint(if tells { &path[file(path)..] } else { path }))
        .collect()
}

/// The number in the segments' names less their media sequence number; the last of `uris` is
/// segment `last`. `None` if the names do not count.
pub(super) fn number_offset(uris: &[&str], last: u64) -> Option<u64> {
    let (newest, before) = uris.split_last()?;
    let before = &before[before.len().saturating_sub(COUNTED_MAX)..];
    if before.is_empty() {
        return None;
    }
    let counts = |number: u64| {
        let mut expected = number;
        before.iter().rev().all(|uri| {
            expected = expected.wrapping_sub(1);
            numbers(uri).any(|number| number == expected)
        })
    };
    let number = numbers(newest).find(|number| counts(*number))?;
    Some(number.wrapping_sub(last))
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): the same in every process and every version of the program.
/// Distinguishes names; not cryptographic.
fn fingerprint(name: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    name.bytes().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

fn path(uri: &str) -> &str {
    // Two searches for one character each are cheaper than one search for either.
    let uri = uri.split_once('?').map_or(uri, |(path, _)| path);
    uri.split_once('#').map_or(uri, |(path, _)| path)
}

/// The decimal numbers in a path.
fn numbers(uri: &str) -> impl Iterator<Item = u64> {
    let path = path(uri).as_bytes();
    let end = &path[path.len().saturating_sub(COUNTED_BYTES_MAX)..];
    let runs = end.split(|byte| !byte.is_ascii_digit());
    let runs = runs.filter(|run| !run.is_empty());
    let digits = runs.filter_map(|run| std::str::from_utf8(run).ok());
    digits.filter_map(|run| run.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &[&str], other: &[&str]) -> bool {
        fingerprints(one) == fingerprints(other)
    }

    #[test]
    fn fingerprint_ignores_signature_in_directory_or_query() {
        let plain = ["7.ts", "8.ts"];
        assert!(same(&plain, &["/a1/7.ts", "/a1/8.ts"]));
        assert!(same(&plain, &["https://h/b2/7.ts?t=1", "8.ts#x"]));
        assert!(!same(&plain, &["7.ts", "9.ts"]));
        assert!(!same(&["7/v.ts", "8/v.ts"], &["7/v.ts", "9/v.ts"]));
    }

    #[test]
    fn numbering_is_found_in_counting_names() {
        let zero = Some(0);
        assert_eq!(number_offset(&["seg6.ts", "seg7.ts"], 7), zero);
        assert_eq!(number_offset(&["a/0006.ts", "a/0007.ts"], 7), zero);
        assert_eq!(number_offset(&["9f3-6-x4.ts", "77-7-b.ts"], 7), zero);
        assert_eq!(number_offset(&["6/t12/v1.ts", "7/t12/v1.ts"], 7), zero);
        assert_eq!(number_offset(&["106.ts", "107.ts"], 7), Some(100));
        assert_eq!(
            number_offset(&["1.ts", "2.ts"], 7),
            Some(5_u64.wrapping_neg())
        );
    }

    #[test]
    fn no_numbering_for_names_that_do_not_count() {
        for uris in [
            &["7.ts"][..],
            &["a.ts", "b.ts"],
            &["540000.ts", "540540.ts"],
        ] {
            assert_eq!(number_offset(uris, 7), None, "{uris:?}");
        }
        assert_eq!(number_offset(&["1-5.ts", "9-6.ts", "2-9.ts"], 7), None);
        assert_eq!(number_offset(&[], 7), None);
    }

    // The test vectors of draft-eastlake-fnv, appendix C.
    #[test]
    fn fingerprint_matches_fnv_1a_test_vectors() {
        assert_eq!(fingerprint(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
    }
}
