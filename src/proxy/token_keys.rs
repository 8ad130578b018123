//! Reads the keys of tokens from files, and makes of them the rules that verify tokens.

use std::path::{Path, PathBuf};

use seawall_authorization::{
    CatKey, CatSettings, CatVerifier, KeyError, SigningKeys, TokenCarriers, TokenRules,
    TokenVerifier, is_pem, strip_line_end,
};
use seawall_policy::{RequiredToken, TokenKind};
use seawall_upstream::sign;

/// Reads the key of tokens of this kind from a file, and checks it. Blocks. An error quotes nothing
/// of the file.
pub fn read_token_key(kind: TokenKind, id: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut key = sign::file_bytes(path).map_err(|why| why.to_string())?;
    strip_line_end(&mut key);
    // Everyone may know a public key: as a secret it would let everyone sign.
    if kind == TokenKind::SignedUrl && is_pem(&key) {
        return Err("signed URLs need a secret, and this is a key in PEM".to_owned());
    }
    let key_error = match kind {
        TokenKind::SignedUrl => SigningKeys::new([(id, &*key)]).err(),
        TokenKind::Cat => CatKey::of_file(&key).err(),
    };
    key_error.map_or(Ok(key), |why| Err(why.to_string()))
}

/// What the files of all keys contain, in their order. An error names the file.
pub(super) fn read_keys(required: &RequiredToken) -> Result<Vec<Vec<u8>>, (PathBuf, String)> {
    let keys = required.keys.iter();
    keys.map(|(id, path)| {
        read_token_key(required.kind, id, path).map_err(|why| (path.clone(), why))
    })
    .collect()
}

/// The rules with these keys, in the order of the files that contain them.
pub(super) fn token_rules(
    required: &RequiredToken,
    keys: &[Vec<u8>],
) -> Result<TokenRules, KeyError> {
    let ids = required.keys.iter().map(|(id, _)| id.as_str());
    let keys = ids.zip(keys);
    let verifier = match required.kind {
        TokenKind::SignedUrl => {
            let secrets = keys.map(|(id, secret)| (id, secret.as_slice()));
            TokenVerifier::SignedUrl(SigningKeys::new(secrets)?)
        }
        TokenKind::Cat => {
            let keys = keys.map(|(id, key)| Ok((id.as_bytes().to_vec(), CatKey::of_file(key)?)));
            TokenVerifier::Cat(CatVerifier::new(CatSettings {
                keys: keys.collect::<Result<_, _>>()?,
                issuers: required.issuers.clone(),
                audiences: required.audiences.clone(),
                accepts_no_expiry: required.accepts_no_expiry,
            })?)
        }
    };
    let carriers = TokenCarriers {
        header: required.header.clone(),
        cookie: required.cookie.clone(),
        query: required.query.clone(),
        path: required.path.clone(),
    };
    Ok(TokenRules::new(carriers, verifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-of-at-least-32-bytes-for-urls";

    fn read(kind: TokenKind, content: &str) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, content).unwrap();
        read_token_key(kind, "k", &path)
    }

    #[test]
    fn one_line_end_is_no_part_of_a_secret() {
        for end in ["", "\n", "\r\n"] {
            let key = read(TokenKind::SignedUrl, &format!("{SECRET}{end}"));
            assert_eq!(key.as_deref(), Ok(SECRET.as_bytes()));
        }
        let key = read(TokenKind::Cat, &format!("{SECRET}\n\n")).unwrap();
        assert_eq!(key, format!("{SECRET}\n").as_bytes());
    }

    /// Who has the public key could else sign with it, as with a secret.
    #[test]
    fn key_in_pem_is_never_a_secret() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (public, private) = (pair.public_key_pem(), pair.serialize_pem());
        let error = read(TokenKind::SignedUrl, &public).unwrap_err();
        assert!(error.contains("need a secret"), "{error}");
        assert!(read(TokenKind::Cat, &public).is_ok());
        let key = CatKey::of_file(public.as_bytes());
        assert!(key.is_ok_and(|key| format!("{key:?}").contains("ES256")));
        let error = read(TokenKind::Cat, &private).unwrap_err();
        assert!(
            error.contains("public key") && !error.contains(SECRET),
            "{error}"
        );
    }

    #[test]
    fn short_secrets_and_missing_files_are_no_keys() {
        for kind in [TokenKind::SignedUrl, TokenKind::Cat] {
            for content in ["", "short", &SECRET[..31]] {
                let error = read(kind, content).unwrap_err();
                assert!(error.contains("32 bytes"), "{error}");
            }
            assert!(read_token_key(kind, "k", Path::new("/no/such/key")).is_err());
        }
        assert!(read(TokenKind::SignedUrl, SECRET).is_ok());
    }
}
