//! The phases of a connection.

use super::*;

fn connection() -> ConnectionState {
    ConnectionState::new(Arc::new(|_| {}), None, false, None)
}

#[test]
fn follows_the_phases_of_a_request() {
    let connection = connection();
    assert_eq!(connection.phase(), Phase::Quiet);
    connection.record_request_bytes();
    assert_eq!(connection.phase(), Phase::Head);
    connection.begin_request();
    assert_eq!(connection.phase(), Phase::Serving);
    connection.finish_response(Instant::now());
    assert_eq!(connection.phase(), Phase::Quiet);
}

#[test]
fn is_not_quiet_with_a_pipelined_head() {
    let connection = connection();
    connection.record_request_bytes();
    connection.begin_request();
    connection.record_request_bytes();
    connection.finish_response(Instant::now());
    assert_eq!(connection.phase(), Phase::Head);
}

#[test]
fn becomes_quiet_after_the_last_stream() {
    let connection = connection();
    connection.record_stream_start();
    connection.record_stream_start();
    connection.record_stream_end(Instant::now());
    assert_eq!(connection.phase(), Phase::Serving);
    connection.record_stream_end(Instant::now());
    assert_eq!(connection.phase(), Phase::Quiet);
}

#[test]
fn is_not_quiet_with_a_head_that_arrived_during_a_wait() {
    let connection = connection();
    connection.record_request_bytes();
    connection.begin_fast_response();
    connection.record_request_bytes();
    connection.begin_request();
    connection.finish_response(Instant::now());
    assert_eq!(connection.phase(), Phase::Head);
}
