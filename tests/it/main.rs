//! Scenarios: each file tests one promise of Seawall over real sockets, with a scripted origin, the
//! shield in front of it, and raw clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a scenario fails by panicking"
)]
#![allow(
    unreachable_pub,
    reason = "the support module is the public face of this binary"
)]

mod support;

mod a_broken_manifest_is_a_failed_fetch;
mod a_container_is_healthy;
mod a_failing_origin_is_left_alone;
mod a_hit_waits_for_no_fetch;
mod a_purge_says_what_it_dropped;
mod a_restart_leaves_nothing_behind;
mod a_sick_endpoint_is_asked_last;
mod a_slow_body_is_better_than_none;
mod a_slow_body_is_overtaken;
mod a_slow_endpoint_holds_nobody_up;
mod a_twin_takes_over;
mod a_twin_that_holds_back_is_left;
mod all_addresses_are_used;
mod an_errors_page_holds_nobody_up;
mod another_endpoint_answers;
mod answers_say_how;
mod caches_behind_are_told_what_is_left;
mod dash_segments_come_on_time;
mod each_endpoint_has_its_own_cap;
mod each_kind_has_its_deadline;
mod files_that_grow_are_not_frozen;
mod floods_are_ended;
mod heads_and_conditions;
mod hits_wait_for_no_compression;
mod http2_viewers_have_deadlines;
mod large_objects_come_in_slices;
mod leaving_harms_nobody;
mod live_streams_are_kept_ahead_of;
mod low_latency_hls;
mod many_ways_in;
mod memory_has_a_bound;
mod memory_keeps_what_is_watched;
mod metrics_pass_the_linter;
mod newcomers_find_room;
mod nothing_is_no_segment;
mod nothing_odd_reaches_the_origin;
mod one_fetch_for_many_viewers;
mod one_url_that_fails_harms_no_other;
mod one_viewers_trouble_is_his_own;
mod only_what_the_origin_needs;
mod only_whole_answers_are_kept;
mod operators_are_told_why;
mod operators_can_see;
mod origin_decides_how_long;
mod origins_may_come_and_go;
mod other_methods;
mod our_own_shortage_is_nobodys_failure;
mod parts_of_an_object;
mod pinned_bodies_have_a_bound;
mod players_notice_nothing;
mod playlists_are_compressed_here;
mod purged_is_gone;
mod quotas_are_kept_by_endpoint_and_kind;
mod requests_mean_one_thing;
mod s3_takes_our_signatures;
mod signals_mean_what_they_say;
mod slow_viewers_slow_nobody;
mod some_things_are_never_kept;
mod stale_beats_an_error;
mod states_are_told_as_they_are;
mod stored_means_there_is_room;
mod streams_go_on_in_any_coding;
mod streams_never_go_backwards;
mod the_demo_is_live;
mod the_last_endpoint_is_never_given_up;
mod the_live_edge_stays_in_memory;
mod the_log_holds_nobody_up;
mod the_origin_is_never_flooded;
mod truncated_is_never_complete;
mod twins_may_differ;
mod unwanted_bodies_hold_nobody_up;
mod variants_never_cross;
mod viewers_see_what_is_sent;
mod what_is_complete_has_to_come;
mod what_nobody_waits_for_is_capped;
mod what_one_cannot_another_can;
mod what_players_announce_is_there;
