//! Health checks run as long as their group lives, in any runtime.

use std::sync::Arc;
use std::time::Duration;

use super::super::guard::health;
use super::super::{Check, Origin};
use super::scripted::Scripted;
use super::{get, origin, settings, until, whole};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn checked(script: &Scripted) -> Arc<Origin> {
    let mut settings = settings(script.address);
    settings.health = Some(Check {
        schedule: health::Settings {
            every: Duration::from_millis(5),
            ..health::Settings::default()
        },
        ..Check::default()
    });
    origin(settings)
}

fn passed(origin: &Origin) -> u64 {
    let health = origin.stats().endpoints[0].condition.health.clone();
    health.expect("checks").passed
}

#[tokio::test]
async fn health_checks_end_with_the_group() {
    let script = Scripted::always(OK).await;
    let origin = checked(&script);
    origin.start_health_checks();
    until("checks", || passed(&origin) > 1).await;
    let group = Arc::downgrade(&origin.group);
    let checks = Arc::downgrade(origin.group.health_checks.as_ref().expect("checks"));
    drop(origin);
    until("nothing holds the group", || group.strong_count() == 0).await;
    until("no check is running", || checks.strong_count() == 0).await;
}

#[test]
fn health_checks_continue_in_another_runtime() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let home = runtime();
    let script = home.block_on(Scripted::always(OK));
    let origin = checked(&script);
    for _ in 0..2 {
        // Each runtime, with its checks, ends before the next begins.
        let before = passed(&origin);
        runtime().block_on(async {
            whole(&origin, get("/x")).await.unwrap();
            until("checks", || passed(&origin) > before + 1).await;
        });
    }
    assert_eq!(origin.stats().total.success, 2);
}
