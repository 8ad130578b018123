//! The shield of a scenario: the real one, on free ports, in front of a scripted origin.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use seawall::config::Config;
use seawall::frontend::{self, CertificateFiles, Limits, ListenAddress, Listener, Tls};
use seawall::server::{self, RunningServer};
use seawall::{admin, proxy, telemetry};
use seawall_policy::access_rules::{AddressList, AddressListEntry};
use seawall_policy::{Route, Rules};
use seawall_upstream::{Endpoint, Resolver};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

use super::crowd::Crowd;
use super::metrics::{QUEUED_BY_PRIORITY, is_listed};
use super::origin::Origin;
use super::patience::{eventually, within};
use super::viewer::{Arriving, Ask, H2Viewer, Identity, Response, Viewer, ask, get};

/// The shield's name in `Via`, `CDN-Loop` and `Cache-Status`.
pub const NAME: &str = "seawall";

/// The name of the one origin group and of the one route.
const ONLY: &str = "only";

/// A shield that is being configured.
pub struct Builder {
    config: Config,
    lookup: Resolver,
}

/// A running shield. It stops when dropped.
pub struct Shield {
    running: RunningServer,
    config: Config,
}

impl Shield {
    /// One listener, one route for everything, one origin group with one endpoint, default limits.
    pub fn in_front_of(origin: &Origin) -> Builder {
        let protocol = origin.protocol();
        Shield::in_front_of_endpoint(endpoint(origin)).origin(|group| group.protocol = protocol)
    }

    /// The same in front of an endpoint that is no scripted origin.
    pub fn in_front_of_endpoint(endpoint: Endpoint) -> Builder {
        Builder {
            config: config(endpoint),
            lookup: Arc::new(|host, port| {
                use std::net::ToSocketAddrs;
                Ok((host, port).to_socket_addrs()?.collect())
            }),
        }
    }

    /// Changes the configuration while it runs, as a reload does.
    pub fn reload(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        let applied = self.running.apply(self.config.clone());
        applied.expect("a sound configuration");
    }

    /// The same where it may be refused.
    pub fn try_reload(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), String> {
        change(&mut self.config);
        let applied = self.running.apply(self.config.clone());
        applied.map_err(|why| why.to_string())
    }

    /// The settings that decide about requests now.
    pub fn settings_in_use(&self) -> Weak<proxy::Shield> {
        Arc::downgrade(&self.running.shield.current())
    }

    /// The viewers' listener.
    pub fn address(&self) -> SocketAddr {
        self.running.viewers[0]
    }

    /// A new HTTP/1.1 connection.
    pub async fn viewer(&self) -> Viewer {
        Viewer::connect(self.address()).await
    }

    /// A connection from one of the addresses of this machine.
    pub async fn stream_from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind((address, 0).into())
            .expect("a loopback address");
        let stream = within("a connection", socket.connect(self.address())).await;
        stream.expect("the shield accepts viewers")
    }

    /// A new HTTP/1.1 connection from this address.
    pub async fn viewer_from(&self, address: [u8; 4]) -> Viewer {
        Viewer::over(self.stream_from(address).await)
    }

    /// A new HTTP/2 connection from this address.
    pub async fn h2_viewer_from(&self, address: [u8; 4]) -> H2Viewer {
        H2Viewer::over(self.stream_from(address).await, "http").await
    }

    /// A new HTTP/2 connection by prior knowledge.
    pub async fn h2_viewer(&self) -> H2Viewer {
        let stream = within("a connection", TcpStream::connect(self.address())).await;
        H2Viewer::over(stream.expect("the shield accepts viewers"), "http").await
    }

    /// GET on a new connection.
    pub async fn get(&self, target: &str) -> Response {
        self.ask(get(target)).await
    }

    /// Whether each of these was a hit, requested in this order.
    pub async fn are_hits(&self, targets: &[&str]) -> Vec<bool> {
        let mut hits = Vec::new();
        for target in targets {
            hits.push(self.get(target).await.is_hit());
        }
        hits
    }

    /// A request on a new connection.
    pub async fn ask(&self, ask: Ask) -> Response {
        self.viewer().await.ask(ask).await
    }

    /// The head of a response on a new connection.
    pub async fn begin(&self, ask: Ask) -> Arriving {
        self.viewer().await.begin(ask).await
    }

    /// Repeats a request until the response is as expected, for changes in the background.
    pub async fn repeat_until(&self, ask: Ask, reached: impl Fn(&Response) -> bool) -> Response {
        let mut last = None;
        eventually(format!("another answer to {ask}"), async || {
            let answer = self.ask(ask.clone()).await;
            let done = reached(&answer);
            last = Some(answer);
            done
        })
        .await;
        last.expect("asked at least once")
    }

    /// This many viewers, each on a new connection, who have all sent the same request.
    pub async fn crowd(&self, count: usize, ask: Ask) -> Crowd {
        Crowd::connect(self, count, ask).await
    }

    /// A request to the admin listener.
    pub async fn admin(&self, ask: Ask) -> Response {
        let address = self.running.admin.expect("an admin listener");
        self.admin_as(&address.to_string(), ask).await
    }

    /// The same with another `Host`.
    pub async fn admin_as(&self, host: &str, ask: Ask) -> Response {
        let address = self.running.admin.expect("an admin listener");
        Viewer::connect(address).await.ask(ask.host(host)).await
    }

    /// One warm request, as the command sends it. Returns what became of the target.
    pub async fn warm(&self, target: &str) -> Value {
        let url = percent_encoded(&format!("http://shield.test{target}"));
        let answer = self.admin(ask("POST", &format!("/warm?url={url}"))).await;
        let mut answer: Value = serde_json::from_str(answer.assert_200_text()).unwrap();
        answer["objects"][0].take()
    }

    /// Purges a target as viewers know it, and fails unless the shield agrees.
    pub async fn purge(&self, target: &str) {
        self.purge_as("url", target).await;
    }

    /// Purges the whole stream of a manifest.
    pub async fn purge_stream(&self, target: &str) {
        self.purge_as("stream", target).await;
    }

    async fn purge_as(&self, what: &str, target: &str) {
        let url = format!("http://{}{target}", super::viewer::HOST);
        self.purge_query(&format!("{what}={}", percent_encoded(&url)))
            .await;
    }

    /// The number of objects that a purge with this query dropped.
    pub async fn purge_query(&self, query: &str) -> u64 {
        let (objects, is_complete) = self.send_purge(query).await;
        assert!(is_complete, "{query}");
        objects
    }

    /// The same for a stream, and whether the purge was complete.
    pub async fn purge_stream_counted(&self, target: &str) -> (u64, bool) {
        let url = format!("http://{}{target}", super::viewer::HOST);
        let query = format!("stream={}", percent_encoded(&url));
        self.send_purge(&query).await
    }

    /// The whole answer to a purge with this query.
    pub async fn purge_answer(&self, query: &str) -> serde_json::Value {
        let answer = self.admin(ask("POST", &format!("/purge?{query}"))).await;
        let is_good = (200..300).contains(&answer.status);
        assert!(is_good, "purge of {query}: {answer:?}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    async fn send_purge(&self, query: &str) -> (u64, bool) {
        let told = self.purge_answer(query).await;
        let objects = told["objects"].as_u64().expect("a count");
        assert_eq!(told["purged"].as_bool(), Some(objects > 0), "{told}");
        (
            objects,
            told["complete"].as_bool().expect("complete or not"),
        )
    }

    /// The same for a target as viewers know it: `what` is `url`, `stream` or `prefix`.
    pub async fn purge_counted(&self, what: &str, target: &str) -> u64 {
        let url = format!("http://{}{target}", super::viewer::HOST);
        self.purge_query(&format!("{what}={}", percent_encoded(&url)))
            .await
    }

    /// The metrics as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        let answer = self.admin(get("/metrics")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().to_owned()
    }

    /// The sum of a counter over all series with these labels; 0 before its first increase.
    pub async fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        assert!(is_listed(name), "docs/metrics.md does not list {name}");
        series(&self.metrics().await, name, labels).sum()
    }

    /// A gauge, which always exists.
    pub async fn gauge(&self, name: &str) -> u64 {
        let text = self.metrics().await;
        let values: Vec<u64> = series(&text, name, &[]).collect();
        assert!(!values.is_empty(), "no {name} in:\n{text}");
        values.iter().sum()
    }

    /// Waits until this many requests of a priority are queued before the origin.
    pub async fn wait_queued(&self, priority: &str, expected: u64) {
        eventually(
            format!("{expected} of priority {priority} queued"),
            async || {
                self.counter(QUEUED_BY_PRIORITY, &[("priority", priority)])
                    .await
                    == expected
            },
        )
        .await;
    }

    /// Waits until a gauge has reached a value.
    pub async fn wait_gauge(&self, name: &str, reached: impl Fn(u64) -> bool) {
        let what = format!("{name} to come to what it should be");
        eventually(what, async || reached(self.gauge(name).await)).await;
    }
}

/// The values of a metric (whole numbers) in every series with these labels.
fn series<'a>(
    text: &'a str,
    name: &'a str,
    labels: &'a [(&str, &str)],
) -> impl Iterator<Item = u64> + 'a {
    let wanted = move |(series, _): &(&str, &str)| {
        let (given, rest) = series.split_once('{').unwrap_or((series, ""));
        let has = |(label, value): &(&str, &str)| rest.contains(&format!("{label}=\"{value}\""));
        given == name && labels.iter().all(has)
    };
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let whole = |value: &str| value.split('.').next()?.parse().ok();
    samples
        .filter(wanted)
        .filter_map(move |(_, value)| whole(value))
}

impl Builder {
    /// Changes anything in the configuration.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Builder {
        change(&mut self.config);
        self
    }

    /// Changes the one route.
    #[must_use]
    pub fn route(self, change: impl FnOnce(&mut Route)) -> Builder {
        self.with(|config| change(Arc::make_mut(&mut config.rules.routes[0])))
    }

    /// Changes the one origin group.
    #[must_use]
    pub fn origin(self, change: impl FnOnce(&mut seawall_upstream::Settings)) -> Builder {
        self.with(|config| change(&mut config.origins[0]))
    }

    /// Adds an endpoint behind those that are there.
    #[must_use]
    pub fn and_endpoint(self, origin: &Origin) -> Builder {
        self.origin(|group| group.endpoints.push(endpoint(origin)))
    }

    /// No deadline of an origin and no wait of a viewer ends within the scenario: what arrives
    /// arrived for another reason.
    #[must_use]
    pub fn without_deadlines(self) -> Builder {
        const HOUR: Duration = Duration::from_hours(1);
        self.origin(|group| {
            let deadlines = &mut group.deadlines;
            deadlines.manifest = HOUR;
            deadlines.first_byte = HOUR;
            deadlines.blocking = HOUR;
            deadlines.between_bytes = HOUR;
            deadlines.total = HOUR;
        })
        .proxy_settings(|waits| waits.wait_max = HOUR)
    }

    /// Changes the viewers' deadlines and the settings of fills.
    #[must_use]
    pub fn proxy_settings(self, change: impl FnOnce(&mut proxy::Settings)) -> Builder {
        self.with(|config| change(&mut config.proxy))
    }

    /// Resolves names by this script instead of the system.
    #[must_use]
    pub fn with_resolver(mut self, lookup: Resolver) -> Builder {
        self.lookup = lookup;
        self
    }

    /// Adds a listener on a Unix socket.
    #[must_use]
    pub fn on_unix(self, path: PathBuf) -> Builder {
        let listener = Listener {
            address: ListenAddress::Unix(path),
            tls: None,
            proxy_protocol: None,
        };
        self.with(|config| config.frontend.listeners.push(listener))
    }

    /// Uses TLS on the one listener; the first identity is the default for viewers without SNI.
    #[must_use]
    pub fn with_tls(self, identities: &[&Identity]) -> Builder {
        let files = |identity: &&Identity| CertificateFiles {
            certificate: identity.certificate_file.clone(),
            key: identity.key_file.clone(),
        };
        let tls = Tls {
            certificates: identities.iter().map(files).collect(),
            tls12: true,
            client: None,
        };
        self.with(|config| config.frontend.listeners[0].tls = Some(tls))
    }

    /// Starts it on free ports.
    pub async fn start(self) -> Shield {
        let running =
            server::start(self.config.clone(), self.lookup).expect("a sound configuration");
        // One turn of the runtime, so that spawned tasks have begun.
        tokio::task::yield_now().await;
        Shield {
            running,
            config: self.config,
        }
    }
}

fn free_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn config(endpoint: Endpoint) -> Config {
    let listener = Listener {
        address: ListenAddress::Tcp(free_port()),
        tls: None,
        proxy_protocol: None,
    };
    let rules = Rules {
        routes: vec![Arc::new(route())],
        name: NAME.into(),
        trusted_proxies: seawall_policy::TrustedProxies::default(),
        client_classes: seawall_policy::ClientClasses::default(),
    };
    Config {
        frontend: frontend::Settings {
            listeners: vec![listener],
            limits: Limits::default(),
        },
        admin: admin::Settings {
            listen: Some(free_port().into()),
            ..admin::Settings::default()
        },
        rules,
        origins: vec![seawall_upstream::Settings::single(ONLY, endpoint)],
        presets: Vec::new(),
        cache: seawall_cache::Settings::default(),
        proxy: proxy::Settings::default(),
        telemetry: telemetry::Settings::default(),
        threads: 1,
        drain_delay: std::time::Duration::ZERO,
        drain_max: super::patience::PATIENCE,
    }
}

/// An origin's address in the configuration.
pub fn endpoint(origin: &Origin) -> Endpoint {
    endpoint_at(origin.address())
}

/// The same for any other address.
pub fn endpoint_at(address: SocketAddr) -> Endpoint {
    Endpoint::new(false, address.ip().to_string(), address.port())
}

/// The one route, for every host and path.
fn route() -> Route {
    Route {
        name: ONLY.into(),
        ..Route::everything(ONLY)
    }
}

pub fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// A list of networks, and `unix` for viewers on Unix sockets.
pub fn address_list(entries: &[&str]) -> AddressList {
    let entry = |text: &&str| match *text {
        "unix" => AddressListEntry::UnixSocket,
        network => AddressListEntry::Network(network.parse().expect("a network")),
    };
    entries.iter().map(entry).collect()
}
