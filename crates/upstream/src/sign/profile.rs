//! Parses a profile of a shared credentials file.

use super::Credentials;
use super::credential_error::CredentialError;

/// The credentials of one profile.
pub(super) fn read(text: &str, profile: &str) -> Result<Credentials, CredentialError> {
    let mut is_present = false;
    let mut in_profile = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            in_profile = name.strip_suffix(']').map(str::trim) == Some(profile);
            is_present |= in_profile;
        } else if in_profile
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            let value = Some(value.trim()).filter(|value| !value.is_empty());
            match key.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let token = token.map(str::to_owned);
            Ok(Credentials::new(id, secret, token, None))
        }
        _ if !is_present => Err(CredentialError::absent("no such profile in it")),
        _ => Err(CredentialError::broken("the profile has no complete key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n[default]\naws_access_key_id = ONE\n\
        aws_secret_access_key=s/+=#1\r\n\n[ live ]\n; not this: aws_access_key_id = X\n\
        AWS_ACCESS_KEY_ID=TWO\naws_secret_access_key = s2\naws_session_token = t2\nregion = x\n\
        [half]\naws_access_key_id = THREE\naws_secret_access_key =\n[sso]\nsso_session = x\n";

    fn key(profile: &str) -> Result<(String, String, Option<String>), bool> {
        let read = read(FILE, profile).map_err(|refusal| refusal.absent)?;
        let token = read.session_token().map(str::to_owned);
        let (id, secret) = (read.access_key_id(), read.secret_access_key());
        Ok((id.to_owned(), secret.to_owned(), token))
    }

    #[test]
    fn finds_profile_among_others() {
        let one = ("ONE".to_owned(), "s/+=#1".to_owned(), None);
        assert_eq!(key("default"), Ok(one));
        let two = ("TWO".to_owned(), "s2".to_owned(), Some("t2".to_owned()));
        assert_eq!(key("live"), Ok(two));
    }

    #[test]
    fn distinguishes_missing_profile_from_broken_one() {
        assert_eq!(key("gone"), Err(true));
        assert_eq!(key("half"), Err(false));
        assert_eq!(key("sso"), Err(false));
    }
}
