//! The tokens by which operators prove who they are. Their files are read again while the server
//! runs: a token is renewed without a restart.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use seawall_policy::FileSecrets;
use seawall_upstream::sign::HeaderFile;

use super::declaration::AdminRole;

/// A configured token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// The name in the audit log. Two entries with one name are the old and the new value of one
    /// token.
    pub name: String,
    /// The file that contains the token and nothing else.
    pub file: PathBuf,
    /// What its bearer may do.
    pub role: AdminRole,
}

/// All tokens with their values.
#[derive(Default)]
pub struct AdminTokens {
    tokens: Vec<TokenSettings>,
    files: Vec<HeaderFile>,
    secrets: ArcSwap<FileSecrets>,
}

/// A file without a usable token. Its content is not quoted.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the token in {}: {why}", .file.display())]
pub struct TokenFileError {
    file: PathBuf,
    why: String,
}

impl AdminTokens {
    /// Reads every file.
    pub fn read(tokens: Vec<TokenSettings>) -> Result<AdminTokens, TokenFileError> {
        let file_of = |token: &TokenSettings| {
            let file = HeaderFile::new(AUTHORIZATION, token.file.clone());
            file.map_err(|(file, why)| TokenFileError { file, why })
        };
        let files = tokens.iter().map(file_of).collect::<Result<Vec<_>, _>>()?;
        let read = AdminTokens {
            tokens,
            files,
            secrets: ArcSwap::default(),
        };
        read.store_secrets();
        Ok(read)
    }

    /// Whether nobody needs a token.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Reads the files again. Blocks. A file that cannot be read keeps its last token.
    pub(super) fn reread(&self) {
        let changed = self.files.iter().filter(|file| file.reread()).count();
        if changed > 0 {
            self.store_secrets();
        }
    }

    fn store_secrets(&self) {
        let files = self.tokens.iter().zip(&self.files);
        let secrets = files.map(|(token, file)| (token.file.clone(), file.current()));
        self.secrets.store(Arc::new(secrets.collect()));
    }

    /// The token with this value; the one with the wider role, if several have it. How long it
    /// takes says nothing about the values.
    pub(super) fn find(&self, guess: &[u8]) -> Option<&TokenSettings> {
        let secrets = self.secrets.load();
        let mut found: Option<&TokenSettings> = None;
        for token in &self.tokens {
            let is_it = secrets.accept(std::slice::from_ref(&token.file), guess);
            if is_it && found.is_none_or(|found| found.role < token.role) {
                found = Some(token);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_token_of_a_value_until_its_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let token = |name: &str, value: &str, role| {
            let file = folder.path().join(value);
            std::fs::write(&file, format!("{value}\n")).unwrap();
            TokenSettings {
                name: name.to_owned(),
                file,
                role,
            }
        };
        let tokens = AdminTokens::read(vec![
            token("deploy", "old-value", AdminRole::Write),
            token("deploy", "new-value", AdminRole::Write),
            token("prometheus", "read-value", AdminRole::Read),
        ])
        .unwrap();
        let name = |value: &str| tokens.find(value.as_bytes()).map(|token| &*token.name);
        assert_eq!(name("old-value"), Some("deploy"));
        assert_eq!(name("new-value"), Some("deploy"));
        assert_eq!(name("read-value"), Some("prometheus"));
        for wrong in ["", "old-valu", "old-value ", "old-value\0", "OLD-VALUE"] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
        std::fs::write(folder.path().join("old-value"), "newest-value").unwrap();
        tokens.reread();
        assert_eq!(name("old-value"), None);
        assert_eq!(name("newest-value"), Some("deploy"));
        std::fs::write(folder.path().join("old-value"), "").unwrap();
        tokens.reread();
        assert_eq!(
            name("newest-value"),
            Some("deploy"),
            "an empty file changes nothing"
        );
    }

    #[test]
    fn names_the_file_without_a_token() {
        let token = TokenSettings {
            name: "deploy".to_owned(),
            file: "/nowhere/at/all".into(),
            role: AdminRole::Write,
        };
        let error = AdminTokens::read(vec![token]).err().unwrap().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
