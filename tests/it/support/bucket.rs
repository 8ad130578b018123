//! An independent S3 implementation that checks signatures: moto.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::patience::within_at_most;
use super::viewer::{Ask, Response, Viewer, ask};

/// Names moto's server if it is not in the path.
const PROGRAM: &str = "SEAWALL_MOTO_SERVER";
/// Python takes its time to start.
const START: Duration = Duration::from_mins(1);

/// A running S3 with the bucket `media`. Killed when dropped.
pub struct Bucket {
    child: Child,
    address: SocketAddr,
    key: (String, String),
    _folder: TempDir,
}

impl Bucket {
    /// Starts it with these objects, and one key that may read them. Fails if moto is not
    /// installed.
    pub async fn start(objects: &[(&str, &str)]) -> Bucket {
        let program = std::env::var(PROGRAM).unwrap_or_else(|_| "moto_server".to_owned());
        let folder = tempfile::tempdir().expect("a writable folder");
        let said = folder.path().join("said");
        let out = || File::create(&said).expect("a writable folder");
        let child = Command::new(&program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out())
            .spawn();
        let child = child.unwrap_or_else(|why| {
            panic!("no S3 to sign for: {program}: {why} (see CONTRIBUTING.md)")
        });
        let mut bucket = Bucket {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: Default::default(),
            _folder: folder,
        };
        bucket.address = within_at_most(START, "moto to listen", async {
            loop {
                let text = fs::read_to_string(&said).unwrap_or_default();
                let at = text.split_once("http://").map(|(_, rest)| rest);
                let whole = at.and_then(|rest| rest.split_once('\n'));
                if let Some(address) = whole.and_then(|(address, _)| address.trim().parse().ok()) {
                    return address;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        bucket.upload_objects(objects).await;
        bucket
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The text of a credentials file with its key, or with a wrong secret.
    pub fn credentials(&self, right: bool) -> String {
        let (id, secret) = &self.key;
        let secret = if right { secret } else { "wrong" };
        format!("[shield]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
    }

    async fn upload_objects(&mut self, objects: &[(&str, &str)]) {
        self.ask("s3", ask("PUT", "/media")).await;
        for (path, text) in objects {
            let put = ask("PUT", &format!("/media{path}")).body(text.as_bytes());
            self.ask("s3", put).await;
        }
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect\
            %22%3A%22Allow%22%2C%22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        self.command("Action=CreateUser").await;
        let read = format!("Action=PutUserPolicy&PolicyName=read&PolicyDocument={policy}");
        self.command(&read).await;
        let answer = self.command("Action=CreateAccessKey").await;
        let text = |name: &str| {
            let (_, rest) = answer.text().split_once(&format!("<{name}>")).expect(name);
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        self.key = (text("AccessKeyId"), text("SecretAccessKey"));
        // From here on every request needs a valid signature.
        let strict = ask("POST", "/moto-api/reset-auth").header("Content-Type", "text/plain");
        self.ask("s3", strict.body(b"0")).await;
    }

    /// An IAM command about the one user.
    async fn command(&self, command: &str) -> Response {
        let form = format!("{command}&UserName=shield&Version=2010-05-08");
        let command = ask("POST", "/").header("Content-Type", "application/x-www-form-urlencoded");
        self.ask("iam", command.body(form.as_bytes())).await
    }

    /// A request before signatures are checked: they only name the service.
    async fn ask(&self, service: &str, ask: Ask) -> Response {
        let scope = format!("x/20250101/us-east-1/{service}/aws4_request");
        let signature =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=x");
        let ask = ask.host(&self.address.to_string());
        let ask = ask.header("Authorization", &signature);
        let answer = Viewer::connect(self.address).await.ask(ask).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
