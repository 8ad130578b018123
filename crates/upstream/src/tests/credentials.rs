//! Requests are signed with credentials from ECS, EKS and EC2, and a lack of credentials is
//! reported clearly.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method, Response};
use parking_lot::Mutex;
use seawall_manifest::{calendar_date, date_time};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::scripted::Scripted;
use super::{Failure, LONG, SHORT, get, origin, settings, until, whole};
use crate::check::HealthChecks;
use crate::sign::{CredentialSource, Credentials, Message, Scope, Service, Sigv4};
use crate::{Check, Origin, Protocol, Settings};

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

const NOTHING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Credentials that expire after this many seconds.
fn document(id: &str, seconds: u64) -> String {
    let expiry = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + seconds;
    let (year, month, day) = calendar_date(expiry / 86_400);
    let (hour, minute, second) = (expiry / 3600 % 24, expiry / 60 % 60, expiry % 60);
    let expiry = format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    ok(&format!(
        "{{\"Code\":\"Success\",\"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"hunter2\",\
         \"Token\":\"session-of-{id}\",\"Expiration\":\"{expiry}\"}}"
    ))
}

/// A media origin that records request heads.
async fn media() -> (Scripted, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&heads);
    let script = Scripted::answering(move |head| {
        kept.lock().push(head.to_owned());
        ok("media")
    })
    .await;
    (script, heads)
}

/// An origin whose requests are signed with the credentials of this environment.
fn signing(media: &Scripted, environment: &[(&str, String)]) -> Arc<Origin> {
    origin(signed_settings(media.address, environment))
}

fn signed_settings(address: SocketAddr, environment: &[(&str, String)]) -> Settings {
    let environment = |wanted: &str| {
        let found = environment.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value.clone())
    };
    let mut settings = settings(address);
    settings.sigv4 = Some(Sigv4 {
        region: Some("eu-west-1".to_owned()),
        service: Service::MediaPackageV2,
        sources: CredentialSource::chain(&environment).unwrap(),
    });
    settings
}

fn line<'a>(head: &'a str, name: &str) -> &'a str {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut named = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
    named.next().unwrap_or_else(|| panic!("{name} in {head}")).1
}

fn disabled() -> (&'static str, String) {
    ("AWS_EC2_METADATA_DISABLED", "true".to_owned())
}

#[tokio::test]
async fn container_credentials_are_fetched_once_and_sign_requests() {
    let shown = Arc::new(Mutex::new(String::new()));
    let container = Scripted::answering({
        let shown = shown.clone();
        move |head| {
            *shown.lock() = head.to_owned();
            document("ASIACONTAINER", 3600)
        }
    })
    .await;
    let (media, heads) = media().await;
    let token = tempfile::NamedTempFile::new().unwrap();
    token.as_file().write_all(b"its-token\n").unwrap();
    let url = format!("http://{}/v1/credentials?role=x", container.address);
    let path = token.path().to_str().unwrap().to_owned();
    let origin = signing(
        &media,
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path),
        ],
    );
    for _ in 0..2 {
        assert_eq!(whole(&origin, get("/out/a.m3u8")).await.unwrap().1, "media");
    }
    let shown = shown.lock();
    assert!(shown.starts_with("GET /v1/credentials?role=x "), "{shown}");
    assert_eq!(line(&shown, "authorization"), "its-token");
    assert_eq!(container.accepted(), 1);
    let head = &heads.lock()[1];
    let signature = line(head, "authorization");
    assert!(
        signature.starts_with("AWS4-HMAC-SHA256 Credential=ASIACONTAINER/"),
        "{head}"
    );
    assert!(
        signature.contains("/eu-west-1/mediapackagev2/aws4_request"),
        "{head}"
    );
    assert!(
        signature.contains("=host;x-amz-date;x-amz-security-token,"),
        "{head}"
    );
    assert_eq!(
        line(head, "x-amz-security-token"),
        "session-of-ASIACONTAINER"
    );
}

#[tokio::test]
async fn ec2_credentials_are_fetched_with_imds_session_token() {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let instance = Scripted::answering(|head| {
        let head = head.to_lowercase();
        let in_session = head.contains("x-aws-ec2-metadata-token: its-session\r\n");
        match head.split(' ').nth(1).unwrap() {
            "/latest/api/token" if head.starts_with("put ") => {
                assert_eq!(line(&head, "x-aws-ec2-metadata-token-ttl-seconds"), "60");
                ok("its-session")
            }
            ROLES if in_session => ok("shield-role\n"),
            path if in_session && path.strip_prefix(ROLES) == Some("shield-role") => {
                document("ASIAINSTANCE", 3600)
            }
            _ => NOTHING.to_owned(),
        }
    })
    .await;
    let (media, heads) = media().await;
    let endpoint = format!("http://{}", instance.address);
    let origin = signing(&media, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)]);
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "media");
    let signature = line(&heads.lock()[0], "authorization").to_owned();
    assert!(
        signature.contains("Credential=ASIAINSTANCE/"),
        "{signature}"
    );
}

#[tokio::test]
async fn expired_credentials_are_renewed_without_a_request() {
    let rounds = Arc::new(Mutex::new(0));
    let container = Scripted::answering({
        let rounds = rounds.clone();
        move |_| {
            *rounds.lock() += 1;
            document("ASIA", if *rounds.lock() == 1 { 1 } else { 3600 })
        }
    })
    .await;
    let (media, _) = media().await;
    let url = format!("http://{}/", container.address);
    let _origin = signing(&media, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]);
    // In the background: there are no requests.
    until("a second round", || *rounds.lock() == 2).await;
}

#[tokio::test]
async fn signs_with_profile_of_shared_credentials_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = b"[live]\naws_access_key_id = AKIALIVE\naws_secret_access_key = hunter2\n";
    file.as_file().write_all(text).unwrap();
    let (media, heads) = media().await;
    let path = file.path().to_str().unwrap().to_owned();
    let origin = signing(
        &media,
        &[
            ("AWS_SHARED_CREDENTIALS_FILE", path),
            ("AWS_PROFILE", "live".to_owned()),
        ],
    );
    assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "media");
    let signature = line(&heads.lock()[0], "authorization").to_owned();
    assert!(signature.contains("Credential=AKIALIVE/"), "{signature}");
}

/// Signs with credentials from an endpoint that accepts connections and never answers.
async fn without_credentials() -> (TcpListener, Settings) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let settings = signed_settings(
        silent.local_addr().unwrap(),
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)],
    );
    (silent, settings)
}

#[tokio::test]
async fn request_waiting_for_credentials_holds_no_permit() {
    let (_silent, settings) = without_credentials().await;
    let origin = origin(settings);
    let mut waiting = Box::pin(origin.fetch(get("/x")));
    let begun = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
    assert!(begun.await, "it waits");
    assert_eq!(origin.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn wait_for_credentials_ends_at_its_deadline() {
    let (_silent, mut settings) = without_credentials().await;
    settings.deadlines.queue = SHORT;
    let origin = origin(settings);
    let asked = Instant::now();
    let failed = origin.fetch(get("/x")).await.map(drop);
    assert_eq!(failed, Err(Failure::Credentials));
    assert_eq!(asked.elapsed(), SHORT);
    assert_eq!(origin.stats().total.failed(Failure::Credentials), 1);

    let asked = Instant::now();
    let path = "/".parse().unwrap();
    let group = &origin.group;
    let endpoints = &group.selector.endpoints;
    let checks = HealthChecks::new(Check::default(), &group.client, &group.signer, endpoints);
    let failed = checks.request(&endpoints[0], &path, asked + SHORT).await;
    assert_eq!(failed, Err(Failure::Credentials));
    assert_eq!(asked.elapsed(), SHORT);
}

/// The log output.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn request_without_credentials_fails_and_sources_are_logged_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let broken = Scripted::always("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhunter2").await;
    let (media, heads) = media().await;
    let url = format!("http://{}/", broken.address);
    let origin = signing(
        &media,
        &[
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                "/nowhere/credentials".to_owned(),
            ),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
            disabled(),
        ],
    );
    for _ in 0..2 {
        let failed = tokio::time::timeout(LONG, whole(&origin, get("/x")))
            .await
            .unwrap();
        assert_eq!(failed.unwrap_err().0, Failure::Credentials);
    }
    assert!(heads.lock().is_empty());
    let stats = origin.stats();
    let counted = stats.total.failed(Failure::Credentials);
    assert_eq!(counted, 2);
    let log_text = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!(log_text.matches("no credentials").count(), 1, "{log_text}");
    assert!(
        log_text.contains("file: /nowhere/credentials, profile default: No such file"),
        "{log_text}"
    );
    assert!(
        log_text.contains("container: answered with something else"),
        "{log_text}"
    );
    assert!(
        !log_text.contains("hunter2") && !log_text.contains("not reached"),
        "{log_text}"
    );
}

/// Recomputes the signature of a received request.
fn resigned(host: &str, target: &str, date: &str) -> HeaderValue {
    let (day, time) = date.trim_end_matches('Z').split_once('T').unwrap();
    let spaced = |text: &str, between: &str| {
        let (rest, last) = text.split_at(text.len() - 2);
        let (first, middle) = rest.split_at(rest.len() - 2);
        [first, middle, last].join(between)
    };
    let moment = format!("{}T{}Z", spaced(day, "-"), spaced(time, ":"));
    let moment = date_time(&moment).unwrap();
    let message = Message {
        method: &Method::GET,
        host: &HeaderValue::from_str(host).unwrap(),
        target: &target.parse().unwrap(),
        headers: &HeaderMap::new(),
        bodiless: true,
    };
    let scope = Scope {
        regions: vec!["eu-west-1".to_owned()],
        service: Service::MediaPackageV2,
    };
    let credentials = Credentials::new("AKID", "hunter2", None, None);
    let signed = scope.sign(0, &message, &credentials, moment);
    let mut signed = signed.unwrap().into_iter();
    signed.find(|(name, _)| name == "authorization").unwrap().1
}

fn keys() -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", "AKID".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hunter2".to_owned()),
        disabled(),
    ]
}

#[tokio::test]
async fn signature_matches_the_sent_target_and_host() {
    let (media, heads) = media().await;
    let origin = signing(&media, &keys());
    let mut request = get("//a%2f../b;c?x=%20&y");
    for name in ["authorization", "x-amz-date", "x-amz-security-token"] {
        request.headers.insert(name, "theirs".parse().unwrap());
    }
    whole(&origin, request).await.unwrap();
    let mut forwarded = get("/x");
    forwarded.host = Some("viewer.example".parse().unwrap());
    whole(&origin, forwarded).await.unwrap();
    let heads = heads.lock();
    for (head, host) in heads
        .iter()
        .zip([&*media.address.to_string(), "viewer.example"])
    {
        assert!(!head.contains("theirs"), "{head}");
        assert_eq!(line(head, "host"), host);
        let target = head.split(' ').nth(1).unwrap();
        let again = resigned(host, target, line(head, "x-amz-date"));
        assert_eq!(line(head, "authorization"), again);
    }
}

#[tokio::test]
async fn http2_signature_covers_the_authority() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        let gone = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        (request, gone)
    });
    let mut settings = signed_settings(address, &keys());
    settings.protocol = Protocol::H2;
    let origin = origin(settings);
    whole(&origin, get("/out/v1/a.m3u8?x=1")).await.unwrap();
    let (request, _gone) = served.await.unwrap();
    let (host, headers) = (request.uri().authority().unwrap(), request.headers());
    let target = request.uri().path_and_query().unwrap().as_str();
    let again = resigned(
        host.as_str(),
        target,
        headers["x-amz-date"].to_str().unwrap(),
    );
    assert_eq!(headers["authorization"], again);
}
