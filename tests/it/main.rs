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
mod a_fill_is_independent_of_its_viewers;
mod a_hit_waits_for_no_fetch;
mod a_purge_of_nothing_says_what_there_is;
mod a_purge_says_what_it_dropped;
mod a_purge_takes_what_it_names;
mod a_reload_changes_what_it_says;
mod a_repeated_response_is_the_right_one;
mod a_restart_leaves_nothing_behind;
mod a_sick_endpoint_is_asked_last;
mod a_slow_body_is_better_than_none;
mod a_slow_body_is_overtaken;
mod a_slow_endpoint_delays_no_viewer;
mod a_slow_log_reader_delays_no_viewer;
mod a_token_ends_when_it_says;
mod abandoned_fills_are_capped;
mod all_addresses_are_used;
mod ambiguous_requests_are_rejected;
mod an_empty_response_is_no_segment;
mod an_endpoint_that_never_unblocks_is_avoided;
mod an_error_body_delays_no_viewer;
mod an_error_of_one_viewer_reaches_no_other;
mod an_upgrade_costs_the_origin_nothing;
mod an_upgrade_loses_nobody;
mod another_endpoint_answers;
mod another_endpoint_answers_what_one_cannot;
mod check_names_every_difference;
mod check_reports_every_problem;
mod cmcd_next_objects_are_prefetched;
mod common_access_tokens_are_kept;
mod complete_media_may_not_stall;
mod dash_segments_come_on_time;
mod descriptor_shortage_blames_no_endpoint;
mod downstream_caches_get_remaining_freshness;
mod each_endpoint_has_its_own_cap;
mod each_kind_has_its_deadline;
mod endpoints_may_differ;
mod errors_have_the_operators_body;
mod every_transport_gets_the_same_responses;
mod explain_describes_a_url;
mod files_that_grow_are_not_frozen;
mod floods_are_ended;
mod header_rules_reach_every_response;
mod heads_and_conditions;
mod hits_wait_for_no_compression;
mod http2_viewers_have_deadlines;
mod invalid_paths_and_hosts_are_rejected;
mod it_leaves_without_a_trace;
mod large_objects_come_in_slices;
mod limits_change_under_way;
mod listeners_come_and_go;
mod live_streams_are_refreshed_and_prefetched;
mod live_versions_are_compared_in_any_coding;
mod logs_that_cannot_be_written_are_named;
mod low_latency_hls;
mod low_latency_versions_come_from_the_origin;
mod memory_has_a_bound;
mod memory_keeps_what_is_watched;
mod metrics_pass_the_linter;
mod new_connections_replace_idle_ones;
mod nobody_enters_without_a_token;
mod nobody_enters_without_permission;
mod nobody_exceeds_the_rate_limit;
mod one_fetch_for_many_viewers;
mod one_url_that_fails_harms_no_other;
mod only_whole_answers_are_kept;
mod operators_can_see;
mod operators_change_the_rest;
mod operators_have_commands;
mod operators_see_the_page;
mod origin_decides_how_long;
mod origins_may_come_and_go;
mod other_methods;
mod pinned_bodies_have_a_bound;
mod players_notice_nothing;
mod playlists_are_compressed_here;
mod private_kinds_are_shared_where_the_route_says_so;
mod purged_is_gone;
mod queries_that_defeat_the_cache_are_named;
mod quotas_are_kept_by_endpoint_and_kind;
mod ranges_get_exactly_their_bytes;
mod redirects_send_viewers_elsewhere;
mod refusals_say_why;
mod responses_say_how_they_were_produced;
mod s3_takes_our_signatures;
mod sessions_defeat_no_cache;
mod settings_change_under_way;
mod several_cdns_share_one_shield;
mod signals_mean_what_they_say;
mod slow_viewers_slow_no_other_viewer;
mod soft_purged_is_never_fresh;
mod stale_beats_an_error;
mod stored_means_there_is_room;
mod streams_follow_a_reload;
mod streams_have_viewers;
mod streams_never_go_backwards;
mod tags_purge_what_they_name;
mod the_admin_interface_is_as_declared;
mod the_admin_port_is_shut;
mod the_key_is_what_is_sent_upstream;
mod the_last_endpoint_is_never_given_up;
mod the_live_edge_stays_in_memory;
mod the_origin_is_never_flooded;
mod the_second_endpoint_takes_over;
mod the_service_manager_is_told;
mod the_simulator_follows_its_plan;
mod the_true_client_is_known;
mod time_servers_and_keys_are_never_stored;
mod truncated_is_never_complete;
mod unexpected_bodies_delay_no_response;
mod variants_never_cross;
mod viewers_see_what_is_sent;
mod viewers_show_their_certificate;
mod viewers_who_wait_share_a_response;
mod warm_fetches_the_lowest_of_each_set;
mod warm_fetches_what_a_stream_lists;
mod warm_goes_on_or_says_why;
mod warm_leaves_viewers_their_room;
mod warnings_reach_the_operator;
mod withdrawn_certificates_let_nobody_in;
