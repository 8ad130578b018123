//! What is in a small file? Its text, with a bound on how much that may be. Blocks.

use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// A longer file holds neither a secret nor a person's credentials.
const BYTES_MAX: u64 = 256 << 10;

/// Reads a file whole. Why it cannot be read quotes nothing of it.
pub(super) fn text(path: &Path) -> Result<String> {
    let refused = |why| Error::new(ErrorKind::InvalidData, why);
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused("this is not a plain file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    if file.take(BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > BYTES_MAX {
        return Err(refused("this file is larger than 256 KiB"));
    }
    String::from_utf8(bytes).map_err(|_| refused("not UTF-8 text"))
}
