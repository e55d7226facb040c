"""The plan of faults: what can go wrong from the request to the answer, and where each of it is tried.

A row for each case: what, and either the tests that would fail if we fell for it, or one sentence why it cannot happen
here or cannot be tried. This file makes sure that the tests exist. A: the database before the call; B: Instantly; C:
between the acceptance and the answer; D: process and host; G: keys and secrets; H: settings and environment; I: many at
once. (E, the web servers, has its own table in hosts/test_pitfalls.py; F, the id, is unit/test_uuid.c.)
"""

import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]

CRASH = "faults/test_crash.py::test_killed_at_every_system_call"
FAILURES = "faults/test_failures.py::test_every_allocation_failed"
RANDOM = "faults/test_random.py::test_random_faults_break_no_promise"
CORE = "faults/test_hardening.py::test_crash_leaves_no_core"
HIDDEN = "faults/test_hardening.py::test_nobody_but_root_sees_its_environment_or_memory"

# Planned, and not there yet. Nothing else may be missing.
PENDING = set()

DATABASE, SWAP, UPSTREAM = "cases/test_database.py::", "cases/test_swap.py::", "cases/test_upstream.py::"
MESSAGES, SYSTEM, PROCESS = "faults/test_messages.py::", "faults/test_system.py::", "faults/test_process.py::"
FAILOVER, POOLER, SECURITY = "faults/test_failover.py::", "faults/test_pooler.py::", "faults/test_security.py::"
ENVIRONMENT, SETTINGS, AUTH = "faults/test_environment.py::", "cases/test_settings.py::", "cases/test_auth.py::"
VALUES, LIFECYCLE, TRANSPORT = "cases/test_values.py::", "cases/test_lifecycle.py::", "cases/test_transport.py::"
CONCURRENCY = "cases/test_concurrency.py::"

PLAN = {
    # --- A: the database before the call ---------------------------------------------------------
    "A01": ("connection ended while idle", [DATABASE + "test_connections_ended_while_idle_cost_no_request"]),
    "A02": ("connection ended while the account is read", [
        DATABASE + "test_connection_ended_while_the_account_is_read_is_replaced",
        MESSAGES + "test_connection_that_breaks_at_any_message_costs_at_most_a_503"]),
    "A03": ("server stopped, then started", [
        DATABASE + "test_stopped_server_answers_503_and_the_next_request_after_its_return_is_right"]),
    "A04": ("server paused: accepts, and nobody is there", [
        DATABASE + "test_paused_server_answers_503_within_the_limit"]),
    "A05": ("server process stopped while the account is read", [
        DATABASE + "test_stopped_server_process_answers_503_within_the_limit_and_is_discarded"]),
    "A06": ("black hole", [
        DATABASE + "test_silent_server_answers_503_within_the_limit",
        MESSAGES + "test_connection_that_falls_silent_at_any_message_is_given_up_in_time"]),
    "A07": ("reset in the middle of a row", [
        MESSAGES + "test_connection_that_breaks_at_any_message_costs_at_most_a_503",
        MESSAGES + "test_connections_that_break_from_some_message_on_lose_nothing"]),
    "A08": ("row locked by another session", [
        DATABASE + "test_row_locked_by_another_session_does_not_delay_the_gate",
        DATABASE + "test_nothing_is_held_while_instantly_is_asked"]),
    "A09": ("server out of connections", [
        DATABASE + "test_server_out_of_connections_answers_503_until_one_is_free",
        DATABASE + "test_one_open_connection_serves_all_while_the_server_grants_no_more"]),
    "A10": ("wrong password, role, table, column, privilege", [
        DATABASE + "test_refusal_answers_503_with_one_clear_line_until_it_is_mended"]),
    "A11": ("server starting or shutting down", [
        DATABASE + "test_server_that_is_starting_answers_503",
        DATABASE + "test_server_that_is_shutting_down_answers_503"]),
    "A12": ("only a standby, then promoted", [FAILOVER + "test_standby_alone_answers_503_until_it_is_promoted"]),
    "A13": ("standby that lags", [
        FAILOVER + "test_standby_that_lags_is_not_asked",
        FAILOVER + "test_standby_that_is_asked_all_the_same_moves_nothing"]),
    "A14": ("PgBouncer: both modes, restarted, full", [
        POOLER + "test_all_is_the_same_behind_it", POOLER + "test_restart_of_it_between_gate_and_swap_goes_unnoticed",
        POOLER + "test_restart_of_the_server_behind_it_between_gate_and_swap",
        POOLER + "test_it_is_away_and_comes_back",
        POOLER + "test_no_connection_of_it_comes_free_in_time",
        POOLER + "test_wrong_setting_for_its_mode_is_told_and_moves_nothing_twice"]),
    "A15": ("no address, another type, no domain", [
        DATABASE + "test_account_without_an_address_answers_409_of_its_own",
        DATABASE + "test_account_of_another_type_answers_404", DATABASE + "test_missing_or_foreign_domain_is_null"]),
    "A16": ("two rows for one id, unexpected types", [
        DATABASE + "test_two_rows_for_one_id_answer_500", VALUES + "test_other_types_and_views_serve_as_well"]),
    "A17": ("the database's own time limit", [DATABASE + "test_statement_timeout_of_the_database_answers_503"]),
    "A18": ("texts that would break JSON", [
        VALUES + "test_text_round_trips", VALUES + "test_megabytes_round_trip",
        UPSTREAM + "test_address_arrives_as_it_is"]),
    "A19": ("bytes that are not UTF-8", [
        VALUES + "test_bytes_of_a_database_without_an_encoding_come_out_as_utf_8"]),
    "A20": ("numbers at their limits", [
        VALUES + "test_daily_limit_is_exact", VALUES + "test_daily_limit_in_other_integer_types_is_exact"]),
    "A21": ("times at their limits", [
        VALUES + "test_time_is_utc_with_a_fraction_only_if_there_is_one",
        VALUES + "test_every_time_of_the_calendar_is_as_postgres_has_it"]),

    # --- B: Instantly ----------------------------------------------------------------------------
    "B01": ("refusals", [
        UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row",
        UPSTREAM + "test_refusals_that_only_the_operator_can_mend_are_logged_as_such",
        UPSTREAM + "test_words_of_instantly_reach_neither_the_caller_nor_the_log"]),
    "B02": ("429 with seconds", [UPSTREAM + "test_retry_after_in_seconds_is_handed_on_from_1_to_3600"]),
    "B03": ("429 with a date, or nonsense", [
        UPSTREAM + "test_retry_after_as_a_date_is_handed_on_as_seconds",
        UPSTREAM + "test_retry_after_in_seconds_is_handed_on_from_1_to_3600"]),
    "B04": ("fewer bytes than promised", [
        UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row",
        "faults/test_proxies.py::test_action_on_a_call"]),
    "B05": ("chunks without the last one", [
        UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row",
        UPSTREAM + "test_broken_http_is_no_acceptance"]),
    "B06": ("cut where nothing but the JSON tells", [UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row"]),
    "B07": ("reset or closed at every place", [
        UPSTREAM + "test_lost_reply_answers_502_and_leaves_the_row", "faults/test_proxies.py::test_action_on_a_call"]),
    "B08": ("no answer", [UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row"]),
    "B09": ("an answer byte by byte", [UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row"]),
    "B10": ("an endless body", [
        UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row",
        PROCESS + "test_trouble_of_every_kind_leaves_nothing_behind"]),
    "B11": ("endless headers, endless 100 Continue", [
        UPSTREAM + "test_boundless_headers_answer_502_and_leave_the_row",
        UPSTREAM + "test_broken_http_is_no_acceptance"]),
    "B12": ("no HTTP", [
        UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row",
        UPSTREAM + "test_broken_http_is_no_acceptance"]),
    "B13": ("two lengths", [UPSTREAM + "test_broken_http_is_no_acceptance"]),
    "B14": ("redirects", [
        UPSTREAM + "test_redirects_are_not_followed",
        UPSTREAM + "test_redirects_of_the_job_and_of_the_account_are_not_followed"]),
    "B15": ("a name that is none, or that nobody resolves", [
        UPSTREAM + "test_name_that_is_none_is_unreachable",
        SYSTEM + "test_name_that_nobody_resolves_is_given_up_in_time_and_nothing_piles_up"]),
    "B16": ("refused, black hole", [
        UPSTREAM + "test_closed_port_is_unreachable", UPSTREAM + "test_connecting_has_a_limit_of_its_own"]),
    # Chains signed with SHA-1 are OpenSSL's to refuse, and revocation is not asked for: libcurl asks nobody by itself.
    "B17": ("certificates and TLS of every wrong kind", [
        UPSTREAM + "test_wrong_certificate_is_refused_before_the_key_is_sent", UPSTREAM + "test_tls_1_1_is_too_old",
        UPSTREAM + "test_plain_http_on_the_port_is_no_tls",
        UPSTREAM + "test_silent_port_ends_the_handshake_by_timeout",
        UPSTREAM + "test_server_that_wants_a_certificate_of_ours_gets_none",
        ENVIRONMENT + "test_policy_of_openssl_cannot_make_it_weaker_than_ours"]),
    "B18": ("kept connection that turns out dead", [
        UPSTREAM + "test_kept_connection_that_turns_out_dead_costs_a_second_enable"]),
    "B19": ("2xx other than 200, 1xx before it, 304", [
        UPSTREAM + "test_every_2xx_is_an_acceptance", UPSTREAM + "test_acceptance_answers_200",
        UPSTREAM + "test_other_statuses_are_refusals"]),
    "B20": ("200 that means no, or nothing", [
        UPSTREAM + "test_reply_that_is_not_one_json_object_is_no_acceptance",
        UPSTREAM + "test_reply_that_says_no_is_no_acceptance",
        "unit/test_instantly_reply.c::test_reply_is_object_examples"]),
    "B21": ("job that failed", [
        UPSTREAM + "test_failed_job_answers_502_and_leaves_the_row",
        UPSTREAM + "test_job_that_fails_late_answers_502"]),
    "B22": ("accepted, and the reply lost", [
        UPSTREAM + "test_lost_reply_answers_502_and_leaves_the_row", "faults/test_proxies.py::test_action_on_a_call"]),
    "B23": ("a compressed bomb", [UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row"]),
    "B24": ("HTTP/2 going away", [SYSTEM + "test_http_2_is_not_spoken_even_if_offered"]),
    "B25": ("acceptance after our limit", [UPSTREAM + "test_no_acceptance_answers_502_and_leaves_the_row"]),
    "B26": ("two hundred callers while Instantly holds all", [
        SYSTEM + "test_two_hundred_callers_while_instantly_holds_all_cost_no_memory_and_lose_nothing"]),

    # --- C: between the acceptance and the answer ------------------------------------------------
    "C01": ("connections ended between gate and swap", [
        SWAP + "test_connections_ended_between_gate_and_swap_are_replaced"]),
    "C02": ("server stopped between gate and swap", [
        SWAP + "test_server_that_stops_and_stays_away_answers_500_within_the_limit",
        SWAP + "test_server_that_comes_back_within_the_limit_answers_200"]),
    "C03": ("cut after the commit, before the reply", [
        MESSAGES + "test_swap_that_is_cut_is_asked_for_once_and_moved_once",
        SWAP + "test_unseen_commit_that_cannot_be_read_again_answers_500_and_the_next_retry_409"]),
    "C04": ("ended while it waits for a standby", [
        SWAP + "test_commit_ended_while_it_waits_for_a_standby_answers_200"]),
    "C05": ("a wait for a standby that never ends", [
        SWAP + "test_commit_that_waits_for_a_standby_answers_500_within_the_limit"]),
    "C06": ("cut before the swap arrived, or late", [
        MESSAGES + "test_swap_that_is_cut_is_asked_for_once_and_moved_once",
        MESSAGES + "test_swap_that_arrives_late_undoes_nothing"]),
    "C07": ("server process stopped during the swap", [
        SWAP + "test_stopped_server_process_is_given_up_and_moves_nothing_later"]),
    "C08": ("row locked for longer than a limit", [
        SWAP + "test_limit_of_the_database_itself_answers_500",
        SWAP + "test_row_locked_for_longer_than_the_limit_answers_500_and_is_moved_at_most_once"]),
    "C09": ("moved to warming by another meanwhile", [
        SWAP + "test_row_moved_while_the_swap_waits_for_it_answers_409_with_its_present_state"]),
    "C10": ("banned by another meanwhile", [
        SWAP + "test_row_moved_while_the_swap_waits_for_it_answers_409_with_its_present_state",
        CONCURRENCY + "test_who_bans_an_account_meanwhile_is_never_overruled"]),
    "C11": ("trigger that raises", [SWAP + "test_vetoed_write_answers_500_and_leaves_the_row"]),
    "C12": ("trigger that swallows the write", [SWAP + "test_vetoed_write_answers_500_and_leaves_the_row"]),
    "C13": ("serialization failure, deadlock, unknown outcome", [
        SWAP + "test_rolled_back_swap_is_repeated", SWAP + "test_isolation_level_of_the_database_changes_nothing",
        SWAP + "test_swap_that_is_always_rolled_back_ends_within_the_limit_without_a_storm"]),
    "C14": ("failover between gate and swap", [
        FAILOVER + "test_failover_between_gate_and_swap_answers_200",
        FAILOVER + "test_demoted_primary_is_left_for_the_new_one",
        FAILOVER + "test_failover_while_many_retry_loses_none"]),
    "C15": ("write lost by a failover", [
        FAILOVER + "test_write_lost_by_a_failover_is_made_again_by_the_next_retry"]),
    # To mount a small file system takes rights. In its place one table's file lies on /dev/full, where the kernel gives
    # PostgreSQL the same ENOSPC, in the same transaction; a full pg_wal, which stops the server, is C02.
    "C16": ("full disk", [
        SYSTEM + "test_full_disk_answers_500_and_the_gate_still_works",
        SWAP + "test_vetoed_write_answers_500_and_leaves_the_row"]),
    "C17": ("write forbidden by privilege, constraint, policy", [
        SWAP + "test_forbidden_write_answers_500_and_leaves_the_row"]),
    "C18": ("row deleted meanwhile", [SWAP + "test_row_deleted_meanwhile_answers_404"]),
    "C19": ("owner changed meanwhile", [
        SWAP + "test_row_given_to_another_owner_meanwhile_answers_404_and_tells_nothing"]),
    "C20": ("moved away and back meanwhile: allowed, the states are equal", [
        SWAP + "test_row_moved_away_and_back_meanwhile_is_moved"]),
    "C21": ("clocks that jump", [
        SYSTEM + "test_clock_that_jumps_during_the_call_changes_nothing",
        SYSTEM + "test_clock_that_jumps_moves_no_time_limit",
        SYSTEM + "test_clock_that_jumps_while_the_swap_is_repeated_neither_ends_nor_prolongs_it"]),
    "C22": ("moved, and the answer cannot be made", ["unit/test_answer.c::test_answer_account_too_long", FAILURES]),

    # --- D: process and host ---------------------------------------------------------------------
    "D01": ("killed at every system call", [CRASH]),
    "D02": ("killed between acceptance and swap", [
        PROCESS + "test_killed_after_the_acceptance_and_before_the_swap_leaves_a_row_that_the_next_retry_moves"]),
    "D03": ("SIGTERM at every moment", [
        LIFECYCLE + "test_idle_workers_end_at_once_every_time",
        LIFECYCLE + "test_stop_at_any_instant_of_the_start_ends_it",
        LIFECYCLE + "test_requests_in_flight_and_queued_are_answered_before_the_end",
        LIFECYCLE + "test_stop_under_load_loses_no_answer"]),
    "D04": ("other signals at random", [TRANSPORT + "test_signal_storm_cuts_nothing_short"]),
    "D05": ("few descriptors, or numbers above a thousand", [
        TRANSPORT + "test_out_of_descriptors_it_neither_ends_nor_spins_and_then_goes_on",
        TRANSPORT + "test_few_descriptors_make_an_honest_answer",
        PROCESS + "test_more_than_a_thousand_inherited_descriptors_are_no_matter"]),
    "D06": ("memory that is not granted", [FAILURES]),
    "D07": ("log that cannot be written", [
        TRANSPORT + "test_full_log_disturbs_nothing",
        PROCESS + "test_log_that_nobody_reads_any_more_disturbs_nothing"]),
    "D08": ("standard descriptors closed, or no listener", [
        TRANSPORT + "test_closed_standard_descriptors_do_not_become_something_else",
        LIFECYCLE + "test_started_by_hand_it_says_what_it_is_for"]),
    "D09": ("settings that end it, a database that does not", [
        SETTINGS + "test_missing_setting_is_named",
        LIFECYCLE + "test_database_that_is_away_at_the_start_is_used_when_it_is_there"]),
    "D10": ("what crashes leave on the server", [
        PROCESS + "test_processes_killed_at_random_move_each_account_once",
        PROCESS + "test_trouble_of_every_kind_leaves_nothing_behind"]),
    "D11": ("stopped for a while, and continued", [
        PROCESS + "test_process_that_was_stopped_for_longer_than_every_limit_goes_on_and_answers_the_truth"]),
    # A day is not for every run: a hundred rounds of trouble show the same slope, and random runs may be as long as one
    # likes.
    "D12": ("a day of it", [PROCESS + "test_trouble_of_every_kind_leaves_nothing_behind", RANDOM]),
    "D13": ("connections shared over a fork",
            "The program never forks; processes are started by a web server or systemd, each from main()."),
    "D14": ("core files, memory, environment", [
        CORE, HIDDEN, SETTINGS + "test_secrets_are_not_where_others_can_see_them"]),
    "D15": ("two versions on one table",
            "There is one version yet; several processes of it on one socket and one table are I02 and I05, and all "
            "that joins them is the guard in the swap's statement."),

    # --- G: keys, owners, secrets, logs ----------------------------------------------------------
    "G01": ("malformed keys", [
        AUTH + "test_malformed_header_answers_the_one_401", AUTH + "test_two_headers_arrive_joined_and_are_malformed",
        AUTH + "test_malformed_header_costs_no_database_call", "unit/test_bearer.c::test_bearer_parse_any_byte"]),
    "G02": ("a good key for another's row", [AUTH + "test_account_of_others_or_of_another_type_looks_absent"]),
    "G03": ("another's row in every state", [AUTH + "test_account_of_others_or_of_another_type_looks_absent"]),
    # Time is not measured: what could be is an index lookup of a hash.
    "G04": ("keys guessed by time", [
        SECURITY + "test_keys_are_looked_up_by_hash_and_never_compared", AUTH + "test_prefix_of_a_key_is_no_key"]),
    "G05": ("revoked while its request runs", [
        AUTH + "test_key_revoked_while_its_request_runs_does_not_stop_it",
        AUTH + "test_key_is_revoked_from_the_moment_it_is_set"]),
    "G06": ("a flood of bad keys", [SECURITY + "test_flood_of_bad_keys_costs_nothing_that_grows"]),
    "G07": ("lines forged in the log", [
        SETTINGS + "test_hostile_texts_stay_in_one_line_or_out_of_the_log",
        "hosts/test_requests.py::test_odd_bytes_in_the_id_are_no_id_and_stay_out_of_log_and_headers"]),
    "G08": ("secrets anywhere", [
        SECURITY + "test_secrets_appear_in_no_form_anywhere",
        SETTINGS + "test_secrets_are_not_where_others_can_see_them"]),
    "G09": ("addresses and keys of Instantly that lead elsewhere", [
        SETTINGS + "test_malformed_settings_are_named_and_their_values_are_not",
        "unit/test_config.c::test_config_load_addresses",
        UPSTREAM + "test_job_id_cannot_change_the_address_of_the_call"]),
    # Wherever its name leads, the certificate must be the name's.
    "G10": ("Instantly's name leads to this machine", [
        UPSTREAM + "test_wrong_certificate_is_refused_before_the_key_is_sent"]),
    "G11": ("SQL injection", [SECURITY + "test_no_text_makes_a_statement_of_its_own"]),
    "G12": ("least privilege", [
        "cases/test_warmupctl.py::test_role_of_the_responder_may_do_its_work_and_nothing_else"]),
    "G13": ("systemd's protections", ["hosts/test_samples.py::test_systemd_finds_little_to_say_about_the_units"]),
    "G14": ("advisories of the libraries",
            "The libraries are the system's own and come with its security updates; the folder for shared hosting, "
            "which holds copies, says in its page when to build it anew."),

    # --- H: settings and environment -------------------------------------------------------------
    "H01": ("settings missing, empty, garbage", [
        SETTINGS + "test_missing_setting_is_named",
        SETTINGS + "test_malformed_settings_are_named_and_their_values_are_not"]),
    "H02": ("proxies of the environment", [SETTINGS + "test_proxy_of_the_environment_is_ignored"]),
    "H03": ("a proxy as a request's header", [
        "cases/test_paths.py::test_proxy_header_has_no_effect",
        "hosts/test_answers.py::test_headers_that_other_programs_obey_mean_nothing"]),
    # LD_PRELOAD and LD_LIBRARY_PATH are obeyed by the loader before our first line: who sets them owns the process.
    "H04": ("variables of other programs", [
        ENVIRONMENT + "test_variable_changes_nothing", ENVIRONMENT + "test_all_variables_together_change_nothing",
        ENVIRONMENT + "test_keys_of_tls_sessions_are_written_nowhere",
        ENVIRONMENT + "test_no_variable_adds_an_authority",
        ENVIRONMENT + "test_variables_of_libpq_fill_in_what_the_url_leaves_open",
        ENVIRONMENT + "test_list_of_web_servers_filters_peers_over_tcp"]),
    "H05": ("an empty environment", [ENVIRONMENT + "test_empty_environment_serves"]),
    "H06": ("a locale with a decimal comma", [ENVIRONMENT + "test_variable_changes_nothing"]),
    "H07": ("another time zone", [VALUES + "test_time_zone_of_the_process_changes_nothing"]),
    "H08": ("settings that change while requests run",
            "Settings are read once, at start; a process keeps them to its end, and a restart loses no request (D03)."),
    "H09": ("certificate of the database", [
        SECURITY + "test_certificate_of_the_database_is_verified",
        SECURITY + "test_sample_settings_ask_for_a_verified_database"]),

    # --- I: many at once -------------------------------------------------------------------------
    "I01": ("many retries of one account", [
        CONCURRENCY + "test_hundred_retries_of_one_account_move_it_once",
        SYSTEM + "test_two_hundred_callers_while_instantly_holds_all_cost_no_memory_and_lose_nothing", RANDOM]),
    "I02": ("the same, and processes are killed", [PROCESS + "test_processes_killed_at_random_move_each_account_once"]),
    "I03": ("the same, and another writer bans", [
        CONCURRENCY + "test_who_bans_an_account_meanwhile_is_never_overruled"]),
    "I04": ("many owners", [CONCURRENCY + "test_accounts_of_several_owners_are_never_mixed_up"]),
    "I05": ("two web servers, one database", [PROCESS + "test_two_web_servers_on_one_database_move_an_account_once"]),
    # The part "threads" of tests/run runs these under the thread sanitizer.
    "I06": ("races between threads", [CONCURRENCY + "test_hundred_retries_of_one_account_move_it_once"]),
}

COUNTS = {"A": 21, "B": 26, "C": 22, "D": 15, "G": 14, "H": 9, "I": 6}


def test_every_case_has_its_row():
    assert list(PLAN) == [f"{letter}{number:02}" for letter, count in COUNTS.items() for number in range(1, count + 1)]


@pytest.mark.parametrize("case", PLAN)
def test_case_is_tried_by_tests_that_exist(case):
    what, tests = PLAN[case]
    if isinstance(tests, str):
        assert what and tests.endswith(".") and len(tests) > 40
        return
    assert what and tests
    for test in tests:
        if test not in PENDING:
            file, name = test.split("::")
            assert re.search(rf"^(def )?{name}\(", (TESTS / file).read_text(), re.M), test


def test_what_is_pending_is_not_there_yet():
    """Or it is forgotten here."""
    for test in PENDING:
        file, name = test.split("::")
        assert not (TESTS / file).exists() or not re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.M), test
