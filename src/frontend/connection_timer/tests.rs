//! A connection is ended only for what its viewer does.

use super::*;
use std::future::poll_fn;

fn limits() -> Limits {
    Limits {
        idle_timeout: Duration::from_secs(75),
        head_timeout: Duration::from_secs(10),
        send_rate_window: Duration::from_secs(20),
        send_rate_min_bytes_per_second: 500,
        ..Limits::default()
    }
}

fn watch(protocol: ViewerProtocol) -> ConnectionTimer {
    let limits = Arc::new(limits());
    let gauge = Arc::new(ConnectionState::new(Arc::new(|_| {}), None, false, None));
    ConnectionTimer::new(
        protocol,
        limits.clone(),
        ConnectionTable::new(&limits),
        gauge,
    )
}

/// Polls the timer until it returns an action; also returns the elapsed seconds.
async fn verdict(watch: &mut ConnectionTimer) -> (TimerAction, u64) {
    let start = Instant::now();
    let look = poll_fn(|cx| match watch.check(cx) {
        TimerAction::Wait => Poll::Pending,
        look => Poll::Ready(look),
    });
    let look = look.await;
    (look, start.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_quiet_viewer_has_the_idle_time() {
    let mut watch = watch(ViewerProtocol::Http1);
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::IdleTimeout), 75)
    );
}

/// hyper has written the whole response, and the socket is still full: neither the idle timeout nor
/// the shutdown of the server discards it.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_answer_leaves_before_a_quiet_connection_is_closed() {
    for is_finishing in [false, true] {
        let mut watch = watch(ViewerProtocol::Http1);
        watch.finishing = is_finishing.then(Instant::now);
        watch.gauge.finish_response(Instant::now());
        watch.gauge.set_blocked(true);
        let gauge = watch.gauge.clone();
        let taking = async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(19)).await;
                gauge.wrote(20_000);
            }
        };
        tokio::select! {
            () = taking => {}
            verdict = verdict(&mut watch) => panic!("{verdict:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_own_shorter_time_from_its_first_byte() {
    let mut watch = watch(ViewerProtocol::Http1);
    tokio::time::advance(Duration::from_secs(30)).await;
    watch.gauge.record_request_bytes();
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::HeadTimeout), 10)
    );
}

#[tokio::test(start_paused = true)]
async fn more_bytes_do_not_extend_the_head_time() {
    let mut watch = watch(ViewerProtocol::Http1);
    watch.gauge.record_request_bytes();
    tokio::time::advance(Duration::from_secs(6)).await;
    watch.gauge.record_request_bytes();
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::HeadTimeout), 4)
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_origin_is_not_the_viewers_fault() {
    let mut watch = watch(ViewerProtocol::Http1);
    watch.gauge.record_request_bytes();
    watch.gauge.begin_request();
    let patience = Duration::from_hours(1);
    assert!(
        tokio::time::timeout(patience, verdict(&mut watch))
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_takes_nothing_is_cut_after_the_window() {
    let mut watch = watch(ViewerProtocol::Http1);
    watch.gauge.begin_request();
    watch.gauge.set_blocked(true);
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::SlowViewer), 20)
    );
}

#[tokio::test(start_paused = true)]
async fn a_viewer_at_the_rate_is_kept_and_cut_once_below_it() {
    let mut watch = watch(ViewerProtocol::Http1);
    watch.gauge.begin_request();
    watch.gauge.set_blocked(true);
    let gauge = watch.gauge.clone();
    let taking = async move {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(19)).await;
            gauge.wrote(10_000);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        gauge.wrote(9_999);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = taking => {}
        verdict = verdict(&mut watch) => {
            assert_eq!(verdict, (TimerAction::Cut(ConnectionEvent::SlowViewer), 80));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_among_streams_has_the_same_time() {
    let mut watch = watch(ViewerProtocol::Http2);
    watch.gauge.stream_opened();
    watch.gauge.set_unfinished(Some(Instant::now()));
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::HeadTimeout), 10)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stuck_connection_goes_a_second_after_a_stream_was_cut_for_memory() {
    let mut watch = watch(ViewerProtocol::Http2);
    watch.gauge.stream_opened();
    watch.gauge.stream_cut();
    let moves = tokio::time::timeout(Duration::from_secs(10), verdict(&mut watch));
    assert!(moves.await.is_err(), "its socket takes everything");
    watch.gauge.set_blocked(true);
    watch.gauge.stream_cut();
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::MemoryShort), 1)
    );
    let told = watch.gauge.reading.was_cut();
    assert!(told, "the log says so of the other streams too");
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_asked_to_finish_before_it_is_cut() {
    let mut watch = watch(ViewerProtocol::Http2);
    assert_eq!(verdict(&mut watch).await, (TimerAction::Finish, 75));
    assert_eq!(
        verdict(&mut watch).await,
        (TimerAction::Cut(ConnectionEvent::IdleTimeout), 20)
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_must_make_room_has_a_second() {
    for protocol in [ViewerProtocol::Http1, ViewerProtocol::Http2] {
        let mut watch = watch(protocol);
        assert!(!watch.gauge.ask_to_close(), "nobody looks yet");
        let looks = tokio::time::timeout(Duration::from_secs(1), verdict(&mut watch));
        assert!(looks.await.is_err());
        assert!(watch.gauge.idle_since().is_some() && watch.gauge.ask_to_close());
        assert_eq!(watch.gauge.idle_since(), None, "it is told once");
        assert_eq!(verdict(&mut watch).await, (TimerAction::Finish, 0));
        assert_eq!(
            verdict(&mut watch).await,
            (TimerAction::Cut(ConnectionEvent::IdleTimeout), 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_meanwhile_is_answered_first() {
    let mut watch = watch(ViewerProtocol::Http1);
    let looks = tokio::time::timeout(Duration::from_secs(1), verdict(&mut watch));
    assert!(looks.await.is_err());
    watch.gauge.ask_to_close();
    watch.gauge.begin_request();
    let looks = tokio::time::timeout(Duration::from_mins(1), verdict(&mut watch));
    assert!(looks.await.is_err());
    watch.gauge.finish_response(Instant::now());
    assert_eq!(verdict(&mut watch).await, (TimerAction::Finish, 0));
}

#[tokio::test(start_paused = true)]
async fn closing_finishes_answers_at_once_and_quiet_viewers_after_the_last_call() {
    let mut busy = watch(ViewerProtocol::Http1);
    busy.gauge.begin_request();
    busy.roll.close();
    assert_eq!(verdict(&mut busy).await, (TimerAction::Finish, 0));

    let mut quiet = watch(ViewerProtocol::Http1);
    quiet.roll.close();
    let start = Instant::now();
    assert_eq!(verdict(&mut quiet).await.0, TimerAction::Finish);
    assert!(start.elapsed() >= SHUTDOWN_GRACE);
}
