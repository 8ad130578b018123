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

fn timer(protocol: ViewerProtocol) -> ConnectionTimer {
    let limits = Arc::new(limits());
    let connection = Arc::new(ConnectionState::new(Arc::new(|_| {}), None, false, None));
    ConnectionTimer::new(protocol, limits, connection)
}

/// Polls the timer until it returns an action; also returns the elapsed seconds.
async fn next_action(timer: &mut ConnectionTimer) -> (TimerAction, u64) {
    let start = Instant::now();
    let action = poll_fn(|cx| match timer.check(cx) {
        TimerAction::Wait => Poll::Pending,
        action => Poll::Ready(action),
    });
    let action = action.await;
    (action, start.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn cuts_a_quiet_viewer_after_the_idle_timeout() {
    let mut timer = timer(ViewerProtocol::Http1);
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::IdleTimeout), 75)
    );
}

/// hyper has written the whole response, and the socket is still full: neither the idle timeout nor
/// the shutdown of the server discards it.
#[tokio::test(start_paused = true)]
async fn sends_the_end_of_a_response_before_the_idle_timeout_counts() {
    for is_finishing in [false, true] {
        let mut timer = timer(ViewerProtocol::Http1);
        timer.shutdown_since = is_finishing.then(Instant::now);
        timer.connection.finish_response(Instant::now());
        timer.connection.set_blocked(true);
        let connection = timer.connection.clone();
        let receiving = async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(19)).await;
                connection.record_written(20_000);
            }
        };
        tokio::select! {
            () = receiving => {}
            next_action = next_action(&mut timer) => panic!("{next_action:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn applies_the_head_timeout_from_the_first_byte() {
    let mut timer = timer(ViewerProtocol::Http1);
    tokio::time::advance(Duration::from_secs(30)).await;
    timer.connection.record_request_bytes();
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::HeadTimeout), 10)
    );
}

#[tokio::test(start_paused = true)]
async fn more_head_bytes_do_not_extend_the_head_timeout() {
    let mut timer = timer(ViewerProtocol::Http1);
    timer.connection.record_request_bytes();
    tokio::time::advance(Duration::from_secs(6)).await;
    timer.connection.record_request_bytes();
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::HeadTimeout), 4)
    );
}

#[tokio::test(start_paused = true)]
async fn has_no_deadline_while_waiting_for_the_origin() {
    let mut timer = timer(ViewerProtocol::Http1);
    timer.connection.record_request_bytes();
    timer.connection.begin_request();
    let wait_max = Duration::from_hours(1);
    assert!(
        tokio::time::timeout(wait_max, next_action(&mut timer))
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn cuts_a_viewer_that_receives_nothing_after_the_window() {
    let mut timer = timer(ViewerProtocol::Http1);
    timer.connection.begin_request();
    timer.connection.set_blocked(true);
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::SlowViewer), 20)
    );
}

#[tokio::test(start_paused = true)]
async fn keeps_a_viewer_at_the_rate_and_cuts_it_below() {
    let mut timer = timer(ViewerProtocol::Http1);
    timer.connection.begin_request();
    timer.connection.set_blocked(true);
    let connection = timer.connection.clone();
    let receiving = async move {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(19)).await;
            connection.record_written(10_000);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        connection.record_written(9_999);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = receiving => {}
        next_action = next_action(&mut timer) => {
            assert_eq!(next_action, (TimerAction::Cut(ConnectionEvent::SlowViewer), 80));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn applies_the_head_timeout_among_streams() {
    let mut timer = timer(ViewerProtocol::Http2);
    timer.connection.record_stream_start();
    timer
        .connection
        .set_incomplete_frame_since(Some(Instant::now()));
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::HeadTimeout), 10)
    );
}

#[tokio::test(start_paused = true)]
async fn cuts_a_blocked_connection_one_second_after_a_memory_cut() {
    let mut timer = timer(ViewerProtocol::Http2);
    timer.connection.record_stream_start();
    timer.connection.record_reset_stream();
    let waits = tokio::time::timeout(Duration::from_secs(10), next_action(&mut timer));
    assert!(waits.await.is_err(), "its socket accepts everything");
    timer.connection.set_blocked(true);
    timer.connection.record_reset_stream();
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::CutForMemory), 1)
    );
    let was_cut = timer.connection.stored_bodies.was_cut();
    assert!(
        was_cut,
        "the other streams are logged as cut for memory too"
    );
}

#[tokio::test(start_paused = true)]
async fn sends_goaway_before_cutting_an_idle_http2_connection() {
    let mut timer = timer(ViewerProtocol::Http2);
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::StartShutdown, 75)
    );
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::Cut(ConnectionEvent::IdleTimeout), 20)
    );
}

#[tokio::test(start_paused = true)]
async fn gives_a_shed_connection_one_second() {
    for protocol in [ViewerProtocol::Http1, ViewerProtocol::Http2] {
        let mut timer = timer(protocol);
        assert!(
            !timer.connection.ask_to_close(),
            "its timer does not run yet"
        );
        let waits = tokio::time::timeout(Duration::from_secs(1), next_action(&mut timer));
        assert!(waits.await.is_err());
        assert!(timer.connection.idle_since().is_some() && timer.connection.ask_to_close());
        assert_eq!(timer.connection.idle_since(), None, "it is asked once");
        assert_eq!(
            next_action(&mut timer).await,
            (TimerAction::StartShutdown, 0)
        );
        assert_eq!(
            next_action(&mut timer).await,
            (TimerAction::Cut(ConnectionEvent::IdleTimeout), 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn answers_a_request_that_arrives_before_shedding() {
    let mut timer = timer(ViewerProtocol::Http1);
    let waits = tokio::time::timeout(Duration::from_secs(1), next_action(&mut timer));
    assert!(waits.await.is_err());
    timer.connection.ask_to_close();
    timer.connection.begin_request();
    let waits = tokio::time::timeout(Duration::from_mins(1), next_action(&mut timer));
    assert!(waits.await.is_err());
    timer.connection.finish_response(Instant::now());
    assert_eq!(
        next_action(&mut timer).await,
        (TimerAction::StartShutdown, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn closes_quiet_viewers_after_the_grace_time() {
    let mut serving = timer(ViewerProtocol::Http1);
    serving.connection.begin_request();
    serving.connection.begin_closing(Instant::now());
    assert_eq!(
        next_action(&mut serving).await,
        (TimerAction::StartShutdown, 0)
    );

    let mut quiet = timer(ViewerProtocol::Http1);
    quiet.connection.begin_closing(Instant::now());
    let start = Instant::now();
    assert_eq!(next_action(&mut quiet).await.0, TimerAction::StartShutdown);
    assert!(start.elapsed() >= SHUTDOWN_GRACE);
}

#[tokio::test(start_paused = true)]
async fn cuts_withdrawn_viewers_although_a_request_is_in_progress() {
    for protocol in [ViewerProtocol::Http1, ViewerProtocol::Http2] {
        let mut timer = timer(protocol);
        timer.connection.record_stream_start();
        let drain_max = Duration::from_mins(1);
        timer.connection.withdraw(Instant::now(), drain_max);
        let start = Instant::now();
        assert_eq!(next_action(&mut timer).await.0, TimerAction::StartShutdown);
        let cut = TimerAction::Cut(ConnectionEvent::CutAtDrain);
        assert_eq!(next_action(&mut timer).await.0, cut);
        assert!(start.elapsed() >= drain_max);
    }
}
