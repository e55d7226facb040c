"""What is known to go wrong between web servers and FastCGI or CGI programs, and where each is tried.

A row for each pitfall: what it is, and the tests that would fail if we fell for it. This file makes sure that they exist.
"""

import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]

PITFALLS = [
    ("path variables are missing, or the path is another than it seems", [
        "cases/test_paths.py::test_every_host_leads_to_the_route", "cases/test_paths.py::test_anything_else_is_no_route",
        "hosts/test_requests.py::test_path_is_the_one_that_the_server_decoded",
        "hosts/test_answers.py::test_paths_that_only_look_alike_are_the_sites"]),
    ("a newline or invalid UTF-8 in the path", [
        "hosts/test_requests.py::test_odd_bytes_in_the_id_are_no_id_and_stay_out_of_log_and_headers",
        "cases/test_settings.py::test_hostile_texts_stay_in_one_line_or_out_of_the_log"]),
    ("Authorization is dropped, renamed, empty, joined or forged", [
        "hosts/test_answers.py::test_no_good_key_answers_401",
        "hosts/test_answers.py::test_other_names_of_the_header_do_not_count",
        "hosts/test_samples.py::test_apache_without_its_line_for_the_key_answers_a_clean_401",
        "cases/test_auth.py::test_header_of_an_apache_rewrite_counts",
        "cases/test_auth.py::test_two_headers_arrive_joined_and_are_malformed"]),
    ("CONTENT_LENGTH is absent, empty, huge, negative, no number or wrong", [
        "cases/test_errors.py::test_announced_length_and_body_must_agree",
        "cases/test_errors.py::test_chunked_body_without_a_length_is_read_to_its_end",
        "hosts/test_requests.py::test_lengths_that_make_no_sense_are_refused_or_mean_nothing"]),
    ("a body is cut short and looks complete", [
        "hosts/test_requests.py::test_body_cut_short_has_no_effect_or_a_whole_one",
        "cases/test_errors.py::test_cut_stream_of_a_body_answers_400_and_changes_nothing"]),
    ("a body that is not read costs the answer", [
        "hosts/test_answers.py::test_large_body_answers_413",
        "hosts/test_answers.py::test_large_body_with_a_bad_key_gets_its_401",
        "cases/test_errors.py::test_answer_arrives_although_the_client_sends_on"]),
    ("idle workers do not notice the signal to stop", ["cases/test_lifecycle.py::test_idle_workers_end_at_once_every_time"]),
    ("a stop or restart under load loses requests", [
        "hosts/test_lifecycle.py::test_graceful_restart_under_load_loses_no_accepted_request",
        "cases/test_lifecycle.py::test_requests_in_flight_and_queued_are_answered_before_the_end",
        "cases/test_lifecycle.py::test_stop_under_load_loses_no_answer"]),
    ("a stop takes for ever while a call hangs, and leaves an orphan", [
        "hosts/test_lifecycle.py::test_responder_never_outlives_lighttpd",
        "hosts/test_lifecycle.py::test_responder_that_mod_fcgid_no_longer_needs_ends_cleanly",
        "cases/test_lifecycle.py::test_stop_while_instantly_hangs_is_answered_and_bounded",
        "cases/test_lifecycle.py::test_stop_while_the_database_hangs_is_answered_and_bounded"]),
    ("a signal cuts a worker's reading short", ["cases/test_transport.py::test_signal_storm_cuts_nothing_short"]),
    ("slow, silent or half-open peers hold all workers", [
        "cases/test_transport.py::test_unfinished_requests_do_not_delay_others_and_are_shed",
        "cases/test_transport.py::test_more_silent_peers_than_workers_do_not_keep_a_request_out",
        "cases/test_lifecycle.py::test_tcp_socket_is_served_too"]),
    ("kept connections hold all workers", [
        "cases/test_transport.py::test_connections_to_be_kept_are_answered_and_hold_no_worker",
        "hosts/test_pitfalls.py::test_no_sample_keeps_connections_or_takes_errors_away"]),
    ("the queue or the descriptors run out", [
        "hosts/test_lifecycle.py::test_two_hundred_requests_at_once_are_all_answered",
        "cases/test_transport.py::test_out_of_descriptors_it_neither_ends_nor_spins_and_then_goes_on"]),
    ("descriptor 0 is non-blocking, or no listener at all", [
        "cases/test_transport.py::test_listener_that_does_not_block_is_served_like_any",
        "cases/test_paths.py::test_without_a_request_it_says_so_and_exits_64",
        "cases/test_lifecycle.py::test_idle_process_uses_no_processor"]),
    ("a query string becomes the command line", [
        "hosts/test_answers.py::test_query_means_nothing", "cases/test_paths.py::test_command_line_is_never_read"]),
    ("HTTP_PROXY of a client, and headers that become the same variable", [
        "hosts/test_answers.py::test_headers_that_other_programs_obey_mean_nothing",
        "cases/test_paths.py::test_proxy_header_has_no_effect",
        "cases/test_paths.py::test_first_of_several_with_one_name_counts"]),
    ("the server changes headers, status or length, or refuses a long head", [
        "hosts/test_answers.py::test_answer_has_the_bytes_that_the_program_wrote",
        "hosts/test_answers.py::test_refusal_by_instantly_answers_502",
        "unit/test_answer.c::test_answer_finish_longest_head"]),
    ("error pages of the site replace the JSON", [
        # Every server of these tests is configured with such pages.
        "hosts/test_answers.py::test_no_good_key_answers_401", "hosts/test_answers.py::test_absent_account_answers_404",
        "hosts/test_answers.py::test_shut_database_answers_503_and_recovers",
        "hosts/test_pitfalls.py::test_no_sample_keeps_connections_or_takes_errors_away"]),
    ("another method acts", [
        "hosts/test_requests.py::test_other_method_changes_nothing",
        "hosts/test_answers.py::test_head_has_the_headers_and_no_body",
        "hosts/test_answers.py::test_options_answers_204_with_allow"]),
    ("the server loses patience and the caller repeats", [
        "hosts/test_samples.py::test_host_that_loses_patience_does_not_double_the_effect",
        "hosts/test_samples.py::test_slowest_answer_is_waited_for"]),
    ("the caller hangs up", [
        "hosts/test_requests.py::test_caller_who_hangs_up_changes_nothing",
        "cases/test_transport.py::test_peer_that_hangs_up_before_the_answer_changes_nothing"]),
    ("a record with overlong lengths ends the process, by libfcgi", [
        "hosts/test_lifecycle.py::test_killed_responder_is_started_again",
        "hosts/test_answers.py::test_nobody_else_may_write_to_the_socket"]),
    ("many processes act at once, each with connections of its own", [
        "hosts/test_lifecycle.py::test_many_processes_have_one_winner_and_no_more_connections_than_promised",
        "cases/test_concurrency.py::test_several_processes_behind_one_server_move_an_account_once"]),
    ("plain CGI answers other than FastCGI", ["hosts/test_answers.py::test_answer_has_the_bytes_that_the_program_wrote"]),
    ("something is written to standard output, or a secret to the log", [
        "cases/test_transport.py::test_nothing_is_written_to_standard_output",
        "cases/test_settings.py::test_secrets_are_not_where_others_can_see_them"]),
]


def test_there_are_twenty_five():
    assert len(PITFALLS) == 25


@pytest.mark.parametrize("number", range(1, len(PITFALLS) + 1))
def test_pitfall_is_tried_by_tests_that_exist(number):
    _, tests = PITFALLS[number - 1]
    assert tests
    for test in tests:
        file, name = test.split("::")
        assert re.search(rf"^(def )?{name}\(", (TESTS / file).read_text(), re.M), test


def test_no_sample_keeps_connections_or_takes_errors_away():
    """Any of these spoils it: fastcgi_keep_conn, enablereuse; fastcgi_intercept_errors, ProxyErrorOverride, error-intercept."""
    for sample in (TESTS.parent / "deploy" / "hosts").rglob("*"):
        if sample.is_file():
            lines = [line for line in sample.read_text().splitlines() if not line.lstrip().startswith("#")]
            assert not re.search(r"(?i)(fastcgi_keep_conn|fastcgi_intercept_errors|ProxyErrorOverride)\s+on"
                                 r"|enablereuse=on|error-intercept\"?\s*=>?\s*\"enable", "\n".join(lines)), sample
