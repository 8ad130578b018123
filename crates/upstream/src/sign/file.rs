//! Reads a small text file with a size limit. Blocks.

use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// A longer file is neither a secret nor a credentials file.
const BYTES_MAX: u64 = 256 << 10;

/// Reads a whole file as text. Errors quote nothing of it.
pub(super) fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|_| refused("not UTF-8 text"))
}

/// Reads a whole file of at most 256 KiB. Blocks. Errors quote nothing of it.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    // Checked first: opening a named pipe would block.
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused("this is not a plain file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    if file.take(BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > BYTES_MAX {
        return Err(refused("this file is larger than 256 KiB"));
    }
    Ok(bytes)
}

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}
