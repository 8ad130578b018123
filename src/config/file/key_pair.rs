//! Reads a certificate and its key, for listeners and for client certificates: two files that must
//! match.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::pem::{self, PemError};
use crate::config::problem::Problem;
use crate::config::read;
use crate::config::toml_reader::{TomlTable, TomlValue};

/// A key of a table, and an example of it.
type KeyAndExample = (&'static str, &'static str);

/// Reads the paths of a certificate and of its key, and checks the content of the files.
pub(super) fn read_key_pair(
    table: &mut TomlTable<'_>,
    [certificate, key]: [KeyAndExample; 2],
) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (file(table, certificate), file(table, key));
    let ((certificate_value, certificate), (key_value, key)) = (certificate?, key?);
    if let Some(expiry) = pem::expiry(&certificate, SystemTime::now()) {
        let problem = Problem::warning(expiry.to_string());
        let problem = problem.at(certificate_value.span(), "this certificate");
        table
            .reader()
            .add_problem(problem.help("renew it; the file is read again when it changes"));
    }
    for error in pem::check_pair(&certificate, &key) {
        table.reader().add_problem(match error {
            PemError::Certificate(why) => read::file_problem(certificate_value, &certificate, why),
            PemError::Key(why) => read::file_problem(key_value, &key, why),
            PemError::Mismatch => Problem::new("this key does not belong to its certificate")
                .at(key_value.span(), "the key of another certificate")
                .other(certificate_value.span(), "its certificate"),
        });
    }
    Some((certificate, key))
}

fn file<'a>(
    table: &mut TomlTable<'a>,
    (key, example): KeyAndExample,
) -> Option<(TomlValue<'a>, PathBuf)> {
    let Some(value) = table.value(key) else {
        table.report_missing(key, example);
        return None;
    };
    let path = table.reader().value_or_report(value.path())?;
    Some((value, path))
}
