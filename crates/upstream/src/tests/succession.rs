//! A group with other settings goes on where the one before it was.

mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderName, HeaderValue};
use seawall_policy::EndpointSet;
use tokio::time::{advance, sleep};

use super::scripted::Scripted;
use super::tls::{answered, secured, trusting};
use super::{LONG, endpoint, get, no_lookup, origin, settings, until, whole};
use crate::endpoint::{AttemptEnd, EndpointSlot, EndpointState, std_now};
use crate::guard::{EndpointFault, FailureSubject, breaker, health};
use crate::limit::Permit;
use crate::sign::{CredentialSource, Credentials, Service, Sigv4};
use crate::{
    Check, Endpoint, Failure, Guards, Origin, Quota, RequestClass, Resolver, Settings,
    UpstreamRequest,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// Addresses that no test connects to.
fn unused(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 80))
}

fn group_of(addresses: &[SocketAddr]) -> Settings {
    let mut settings = settings(addresses[0]);
    settings.endpoints = addresses.iter().map(|&address| endpoint(address)).collect();
    settings
}

/// The successor with these settings, in effect.
fn succeeded(former: &Arc<Origin>, settings: Settings) -> Arc<Origin> {
    let origin = former.succeed(settings, &no_lookup()).unwrap();
    assert!(!Arc::ptr_eq(&origin, former), "the settings differ");
    origin.take_effect();
    origin
}

fn state(origin: &Origin, index: usize) -> &Arc<EndpointState> {
    &origin.group.selector.endpoints[index]
}

fn slot(origin: &Origin, index: usize) -> Option<EndpointSlot> {
    state(origin, index).try_slot(RequestClass::Other, false)
}

fn fail_url(origin: &Origin, index: usize, url: u64) {
    let subject = FailureSubject {
        url,
        directory: url,
    };
    let end = AttemptEnd::Failure(Failure::Reset);
    let what = (subject, EndpointFault::Gateway);
    state(origin, index).record_failure(None, std_now(), what, end);
}

fn free_permit(origin: &Origin) -> Option<Permit> {
    origin.group.limits.try_permit()
}

#[tokio::test]
async fn equal_settings_are_the_same_group() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("code");
    std::fs::write(&file, "secret").unwrap();
    let settings = Settings {
        headers: vec![(USER_AGENT, HeaderValue::from_static("seawall"))],
        header_files: vec![(HeaderName::from_static("x-code"), file)],
        health: Some(Check::default()),
        ..group_of(&[unused(1), unused(2)])
    };
    let former = origin(settings.clone());
    let same = former.succeed(settings, &no_lookup()).unwrap();
    assert!(Arc::ptr_eq(&former, &same));
    same.take_effect();
    assert!(former.group.health_checks.is_some());
}

#[tokio::test]
async fn a_successor_that_is_dropped_changes_nothing() {
    let mut settings = group_of(&[unused(1)]);
    // One of three is kept for manifests.
    settings.concurrency_max = 3;
    settings.endpoints[0].requests_per_second_max = Some(Quota::All(20));
    let former = origin(settings.clone());
    settings.concurrency_max = 1;
    settings.endpoints[0].requests_per_second_max = Some(Quota::All(1));
    settings.endpoints.push(endpoint(unused(2)));
    drop(former.succeed(settings.clone(), &no_lookup()).unwrap());
    let _both = [free_permit(&former).unwrap(), free_permit(&former).unwrap()];
    let quotas = former.stats().endpoints[0].quotas.clone();
    assert_eq!(quotas[0].per_second, 20);
    settings.ca_file = Some("/nowhere".into());
    settings.endpoints[0].tls = true;
    assert!(former.succeed(settings, &no_lookup()).is_err());
    assert!(free_permit(&former).is_none(), "both are in use");
}

#[tokio::test]
async fn open_breaker_stays_open() {
    let script = Scripted::always(BUSY).await;
    let mut settings = settings(script.address);
    settings.retry.attempts_max = 0;
    settings.guards.breaker = breaker::Settings {
        failed_urls_min: 3,
        probe_after: LONG,
        probe_after_max: LONG,
        ..breaker::Settings::default()
    };
    let former = origin(settings.clone());
    for path in ["/a/x", "/b/x", "/c/x"] {
        assert_eq!(whole(&former, get(path)).await.unwrap().0, 503);
    }
    settings.deadlines.total = LONG;
    settings.guards.breaker.failed_urls_min = 30;
    let origin = succeeded(&former, settings);
    let condition = origin.stats().endpoints[0].condition.clone();
    assert_eq!((condition.breaker, condition.breaker_opened), ("open", 1));
    let (failure, _) = whole(&origin, get("/a/x")).await.unwrap_err();
    assert_eq!(failure, Failure::BreakerOpen);
}

#[tokio::test]
async fn half_filled_window_stays() {
    let script = Scripted::always(BUSY).await;
    let mut settings = settings(script.address);
    settings.retry.attempts_max = 0;
    settings.guards.breaker.failed_urls_min = 3;
    let mut origin = origin(settings.clone());
    for path in ["/a/x", "/b/x", "/c/x"] {
        assert_eq!(origin.stats().endpoints[0].condition.breaker, "closed");
        assert_eq!(whole(&origin, get(path)).await.unwrap().0, 503);
        settings.queue_max += 1;
        settings.guards.breaker.window *= 2;
        origin = succeeded(&origin, settings.clone());
    }
    assert_eq!(origin.stats().endpoints[0].condition.breaker, "open");
}

#[tokio::test(start_paused = true)]
async fn ejected_endpoint_stays_ejected_when_weights_change() {
    let mut settings = group_of(&[unused(1), unused(2)]);
    let former = origin(settings.clone());
    (0..5).for_each(|url| fail_url(&former, 1, url));
    assert!(former.stats().endpoints[1].condition.ejected);
    settings.endpoints.reverse();
    settings.endpoints[0].weight = 9;
    let origin = succeeded(&former, settings);
    let ejected = || {
        let endpoints = origin.stats().endpoints.clone();
        endpoints
            .iter()
            .map(|endpoint| endpoint.condition.ejected)
            .collect::<Vec<_>>()
    };
    assert_eq!(ejected(), [true, false]);
    assert!(!state(&origin, 0).is_in_good_standing(std_now()));
    advance(Duration::from_secs(5)).await;
    assert_eq!(ejected(), [false, false]);
}

#[tokio::test]
async fn pooled_connection_is_reused() {
    let script = Scripted::always(OK).await;
    let mut settings = settings(script.address);
    let mut origin = origin(settings.clone());
    whole(&origin, get("/x")).await.unwrap();
    for _ in 0..3 {
        settings.deadlines.manifest += Duration::from_secs(1);
        origin = succeeded(&origin, settings.clone());
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
    }
    assert_eq!(script.accepted(), 1);
}

#[tokio::test]
async fn new_ca_file_uses_no_old_connection() {
    let secured = secured(&["http/1.1"]).await;
    let mut settings = trusting(&secured);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::copy(settings.ca_file.as_ref().unwrap(), &file).unwrap();
    settings.ca_file = Some(file.clone());
    let former = origin(settings.clone());
    assert_eq!(answered(&former).await.unwrap(), "one");
    let (_, other) = super::tls::authority();
    std::fs::copy(other.path(), &file).unwrap();
    let origin = succeeded(&former, settings);
    assert_eq!(answered(&origin).await, Err(Failure::Tls));
    assert_eq!(answered(&former).await.unwrap(), "one", "its own goes on");
}

#[tokio::test]
async fn renamed_host_resolves_anew() {
    let script = Scripted::always(OK).await;
    let address = script.address;
    let asked = Arc::new(AtomicUsize::new(0));
    let lookup: Resolver = {
        let asked = Arc::clone(&asked);
        Arc::new(move |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(vec![address])
        })
    };
    let named = |host: &str| Endpoint::new(false, host, address.port());
    let mut settings = settings(address);
    settings.endpoints = vec![named("one.example")];
    let mut origin = Arc::new(Origin::new(settings.clone(), Arc::clone(&lookup)).unwrap());
    for (host, expected) in [("one.example", 1), ("one.example", 1), ("two.example", 2)] {
        settings.endpoints = vec![named(host)];
        settings.queue_max += 1;
        origin = origin.succeed(settings.clone(), &lookup).unwrap();
        origin.take_effect();
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "ok");
        assert_eq!(asked.load(Ordering::SeqCst), expected, "{host}");
    }
}

#[tokio::test]
async fn counters_never_go_back() {
    let [one, two] = [Scripted::always(OK).await, Scripted::always(BUSY).await];
    let mut both = group_of(&[one.address, two.address]);
    both.retry.attempts_max = 0;
    let mut only_two = both.clone();
    only_two.endpoints.remove(0);
    let mut origin = origin(both.clone());
    whole(&origin, get("/x")).await.unwrap();
    let mut before = origin.stats();
    assert_eq!((before.total.success, before.total.connections_new), (1, 1));
    for settings in [only_two.clone(), both.clone(), only_two, both] {
        origin = succeeded(&origin, settings);
        let stats = origin.stats();
        assert_eq!(stats.total, before.total);
        whole(&origin, get("/x")).await.unwrap();
        before = origin.stats();
    }
    assert_eq!((before.total.success, before.total.server_error), (3, 2));
    assert_eq!(before.endpoints[0].counts.success, 3, "it is known again");
}

#[tokio::test(start_paused = true)]
async fn health_checks_do_not_double() {
    let script = Scripted::always(OK).await;
    let mut settings = settings(script.address);
    let check = Check {
        schedule: health::Settings {
            every: Duration::from_secs(1),
            ..health::Settings::default()
        },
        ..Check::default()
    };
    settings.health = Some(check.clone());
    let former = origin(settings.clone());
    former.start_health_checks();
    sleep(Duration::from_secs(5)).await;
    let passed = |origin: &Origin| {
        let health = origin.stats().endpoints[0].condition.health.clone();
        health.expect("checks").passed
    };
    let before = passed(&former);
    assert!((4..=6).contains(&before), "{before}");
    settings.queue_max += 1;
    let origin = succeeded(&former, settings.clone());
    origin.start_health_checks();
    assert_eq!(passed(&origin), before);
    // A request of the former group does not start its checks again.
    whole(&former, get("/x")).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let more = passed(&origin) - before;
    assert!((9..=12).contains(&more), "{more}");
    settings.health = None;
    let origin = succeeded(&origin, settings);
    assert_eq!(origin.stats().endpoints[0].condition.health, None);
}

#[tokio::test(start_paused = true)]
async fn unhealthy_endpoint_stays_so_until_the_check_asks_for_something_else() {
    let script = Scripted::answering(|head| {
        let status = if head.starts_with("GET /wrong ") {
            404
        } else {
            200
        };
        format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let check = |path: &str, every| Check {
        kind: crate::CheckKind::Http {
            path: path.parse().unwrap(),
            expect: Vec::new(),
        },
        schedule: health::Settings {
            every: Duration::from_secs(every),
            ..health::Settings::default()
        },
        ..Check::default()
    };
    let mut settings = settings(script.address);
    settings.health = Some(check("/wrong", 1));
    let former = origin(settings.clone());
    former.start_health_checks();
    let healthy = |origin: &Origin| {
        let health = origin.stats().endpoints[0].condition.health.clone();
        health.expect("checks").healthy
    };
    until("unhealthy", || !healthy(&former)).await;
    settings.health = Some(check("/wrong", 3600));
    let second = succeeded(&former, settings.clone());
    assert!(!healthy(&second));
    settings.health = Some(check("/right", 3600));
    assert!(healthy(&succeeded(&second, settings)));
}

#[tokio::test]
async fn an_avoided_endpoint_is_the_same_one_in_another_list() {
    let [one, two] = [Scripted::always(OK).await, Scripted::always(OK).await];
    let mut settings = group_of(&[one.address, two.address]);
    let former = origin(settings.clone());
    let response = former.fetch(get("/x")).await.unwrap();
    let number = response.endpoint;
    super::body(response).await.unwrap();
    assert_eq!((one.accepted(), two.accepted()), (1, 0));
    settings.endpoints.insert(0, endpoint(unused(3)));
    settings.endpoints[0].priority = 9;
    settings.endpoints.swap(1, 2);
    let origin = succeeded(&former, settings.clone());
    for _ in 0..3 {
        let request = UpstreamRequest {
            avoided: EndpointSet::of(number + 1),
            ..get("/x")
        };
        let response = origin.fetch(request).await.unwrap();
        assert_eq!(response.endpoint, number, "the second is avoided");
        super::body(response).await.unwrap();
    }
    assert_eq!(two.accepted(), 0);
    assert!(origin.take_over(number, true).is_some());
    assert_eq!(origin.stats().endpoints[2].counts.takeovers, 1);
    settings.endpoints.remove(2);
    let third = succeeded(&origin, settings);
    assert!(third.take_over(number, true).is_none(), "it is not there");
    assert!(origin.take_over(number, true).is_some());
}

#[tokio::test]
async fn secrets_and_credentials_are_kept_while_their_sources_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("code");
    std::fs::write(&file, "first").unwrap();
    let mut settings = group_of(&[unused(1)]);
    settings.header_files = vec![(HeaderName::from_static("x-code"), file.clone())];
    let credentials = Credentials::new("AKID", "hunter2", None, None);
    settings.sigv4 = Some(Sigv4 {
        region: Some("eu-central-1".to_owned()),
        service: Service::S3,
        sources: vec![CredentialSource::Given(credentials)],
    });
    let former = origin(settings.clone());
    former
        .group
        .signer
        .wait_for_credentials(tokio::time::Instant::now() + LONG)
        .await
        .unwrap();
    std::fs::write(&file, "second").unwrap();
    former.group.signer.reread_files();
    settings.queue_max += 1;
    let second = succeeded(&former, settings.clone());
    let auth = second.group.signer.request_auth().unwrap();
    assert_eq!(auth.headers()[0].1, "second");
    let other = auth.other().expect("the value before is kept");
    assert_eq!(other.headers()[0].1, "first");
    settings.sigv4.as_mut().unwrap().sources.clear();
    let third = succeeded(&second, settings);
    assert_eq!(
        third.group.signer.request_auth().map(drop),
        Err(Failure::Credentials)
    );
}

#[tokio::test]
async fn unreachable_address_is_known_to_the_successor() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = free.local_addr().unwrap();
    drop(free);
    let script = Scripted::always(OK).await;
    let mut settings = group_of(&[dead, script.address]);
    let former = origin(settings.clone());
    whole(&former, get("/x")).await.unwrap();
    let reachable = |origin: &Origin| {
        let endpoints = origin.stats().endpoints.clone();
        endpoints
            .iter()
            .map(|endpoint| endpoint.condition.reachable)
            .collect::<Vec<_>>()
    };
    assert_eq!(reachable(&former), [false, true]);
    let before = std_now();
    assert!(!former.has_recovered_since(before));
    settings.endpoints.reverse();
    let second = succeeded(&former, settings.clone());
    assert_eq!(reachable(&second), [true, false]);
    assert!(second.has_recovered_since(before), "what failed may work");
    settings.protocol = crate::Protocol::Auto;
    let third = succeeded(&second, settings);
    assert_eq!(
        reachable(&third),
        [true, true],
        "it connects in another way"
    );
}

#[tokio::test]
async fn request_of_the_former_group_ends_there() {
    let script = Scripted::then_silent("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await;
    let mut settings = settings(script.address);
    settings.guards = Guards::default();
    let former = origin(settings.clone());
    let mut response = former.fetch(get("/x")).await.unwrap();
    assert_eq!(response.body.next().await.unwrap().unwrap(), "ha");
    settings.endpoints = vec![endpoint(unused(1))];
    let origin = succeeded(&former, settings);
    let stats = origin.stats();
    assert_eq!((stats.in_flight, stats.total.in_flight), (1, 1));
    let group = Arc::downgrade(&former.group);
    drop((former, response));
    until("the former group is gone", || group.strong_count() == 0).await;
    let stats = origin.stats();
    assert_eq!((stats.in_flight, stats.total.in_flight), (0, 0));
    assert_eq!(stats.total.abandoned, 1);
}
