"""The checker itself: a history in which all is well passes, and each way to break a promise is found."""

import copy

import pytest
from faults.audit import Change
from faults.checker import MESSAGE_500, MESSAGE_GATE, STUCK, WARMING, Call, Fault, History, Key, Request, check

ACCOUNT, OWNER, OTHER = "a1", "owner-1", "owner-2"
ADDRESS = "joe@acme.example"
BANNED = ("error", "banned")


def row(of_state=STUCK, updated="2026-04-22T08:00:00+00:00", owner=OWNER, **columns):
    return {"id": ACCOUNT, "user_id": owner, "email_address": ADDRESS, "status": of_state[0],
            "warmup_status": of_state[1], "updated_at": updated, "daily_limit": 50, **columns}


def change(n, at, old, new, by_whom="warmup"):
    operation = "INSERT" if old is None else "DELETE" if new is None else "UPDATE"
    return Change(n, at, n, 77, "warmup", by_whom, operation, ACCOUNT, old, new)


MOVED = row(WARMING, "2026-04-22T08:00:12.5+00:00")


def shown(stored, **changes):
    return {"account": {**stored, "updated_at": stored["updated_at"].partition("+")[0] + "Z", **changes}}


def error(message, of_state=None):
    details = {"details": {"status": of_state[0], "warmup_status": of_state[1]}} if of_state else {}
    return {"error": {"message": message, **details}}


def request(sent, ended, status, body, owner=OWNER, **more):
    return Request(f"r{sent}", ACCOUNT, owner, f"key of {owner}", sent, ended, status, body, **more)


def good():
    """One retry at 12 that moves the row, one at 13 that comes too late, one of somebody else."""
    return History(
        requests=[request(12.0, 12.8, 200, shown(MOVED), upstream=True),
                  request(13.0, 13.1, 409, error(MESSAGE_GATE, WARMING), upstream=False),
                  request(13.5, 13.6, 404, error("No such email account"), owner=OTHER, upstream=False)],
        calls=[Call(12.2, ADDRESS, "accepted")],
        changes=[change(1, 10.0, None, row(), "postgres"), change(2, 12.5, row(), MOVED)],
        keys={f"key of {owner}": Key(owner) for owner in (OWNER, OTHER)},
        sweep={ACCOUNT: [request(20.0, 20.1, 409, error(MESSAGE_GATE, WARMING))]})


def test_good_history_has_no_violation():
    assert check(good()) == []


# Each: the invariant that is broken, and what breaks it.

def no_acceptance(history):
    history.calls = [Call(12.2, ADDRESS, "refused", "refused")]


def acceptance_of_another_address(history):
    history.calls = [Call(12.2, "ann@acme.example", "accepted")]


def move_before_acceptance(history):
    history.calls[0].at = 12.6


def second_move(history):
    history.changes.append(change(3, 12.6, MOVED, MOVED))


def banned_is_overwritten(history):
    history.changes[1:] = [change(2, 12.3, row(), row(BANNED), "postgres"), change(3, 12.5, row(BANNED), MOVED)]


def move_to_another_state(history):
    history.changes[1] = change(2, 12.5, row(), row(("active", "warming")))


def another_column(history):
    history.changes[1] = change(2, 12.5, row(), {**MOVED, "daily_limit": 1})


def owner_is_changed(history):
    history.changes[1] = change(2, 12.5, row(), {**MOVED, "user_id": OTHER})


def row_is_deleted_by_the_responder(history):
    history.changes.append(change(3, 13.7, MOVED, None))


def change_without_entry(history):
    history.changes.append(change(3, 14.0, row(), row(BANNED), "postgres"))


def success_without_a_move(history):
    del history.changes[1]
    history.sweep = {}


def success_shows_a_row_that_never_was(history):
    history.requests[0].body = shown(MOVED, updated_at="2026-04-22T08:00:12.6Z")


def success_shows_a_stuck_row(history):
    history.requests[0].body = shown(row())


def success_before_the_move(history):
    history.requests[0].ended = 12.4


def success_with_the_move_of_another(history):
    for success in history.requests[0], request(12.1, 12.9, 200, shown(MOVED), upstream=True):
        success.troubled = False
    history.requests.append(success)
    history.calls.append(Call(12.3, ADDRESS, "accepted"))


def conflict_with_a_state_that_never_was(history):
    history.requests[1].body = error(MESSAGE_GATE, BANNED)


def conflict_that_is_none(history):
    history.requests[1].body = error(MESSAGE_GATE, STUCK)


def missing_that_was_there(history):
    history.requests[2].owner, history.requests[2].key = OWNER, f"key of {OWNER}"


def refusal_that_moved(history):
    history.requests[0] = request(12.0, 12.8, 502, error("Instantly refused"), upstream=True)


def unavailable_that_moved(history):
    history.requests[0] = request(12.0, 12.8, 503, error("unavailable"), upstream=False)


def move_out_of_nothing(history):
    history.changes[1] = change(2, 19.0, row(), MOVED)
    history.requests[0] = request(12.0, 12.8, 500, error(MESSAGE_500), upstream=True)
    history.requests[1:] = []


def gate_that_asked(history):
    history.requests[1].upstream = True


def call_by_nobody(history):
    history.calls.append(Call(13.05, ADDRESS, "refused", "refused"))


def three_calls_for_one_request(history):
    history.calls += [Call(12.3, ADDRESS, "accepted"), Call(12.4, ADDRESS, "accepted")]


def message_without_acceptance(history):
    history.requests.append(request(14.0, 14.1, 500, error(MESSAGE_500)))


def message_with_another_status(history):
    history.requests[1].body = error(MESSAGE_500, WARMING)


def other_500(history):
    history.requests.append(request(14.0, 14.1, 500, error("Something went wrong")))


def stuck_for_ever(history):
    history.changes.append(change(3, 14.0, MOVED, row(), "postgres"))
    history.sweep = {ACCOUNT: [request(20.0, 20.1, 502, error("Instantly refused"), upstream=True)]}


def never_settled(history):
    history.sweep = {ACCOUNT: [request(20.0, 20.1, 503, error("unavailable"))] * 2}


def another_account_is_shown(history):
    history.requests[0].body = shown(MOVED, id="a2")


def another_owner_gets_an_answer(history):
    history.requests[2] = request(13.5, 13.6, 409, error(MESSAGE_GATE, WARMING), owner=OTHER)


def another_owner_may_call(history):
    history.requests[2] = request(13.5, 13.6, 502, error("Instantly refused"), owner=OTHER, upstream=True)


def another_owner_moves(history):
    history.requests[0] = request(12.0, 12.8, 200, shown(MOVED), owner=OTHER)


def revoked_key_counts(history):
    history.keys[f"key of {OWNER}"] = Key(OWNER, 12.85, 12.9)


def good_key_is_refused(history):
    history.requests[1] = request(13.0, 13.1, 401, error("Missing or invalid API key"), upstream=False)


def slow_answer(history):
    history.requests[1].ended = 19.0
    history.requests[1].sent = 13.0


def no_answer(history):
    history.requests[1].status = history.requests[1].body = None


def web_servers_answer(history):
    history.requests[1].status, history.requests[1].body = 500, None


def unknown_status(history):
    history.requests[1].status = 418


def key_in_the_log(history):
    history.leaks.append("somebody's key")


def slow_recovery(history):
    history.faults.append(Fault("restart", 11.0, 11.5, 2.5))


def slow_respawn(history):
    history.faults.append(Fault("kill responder", 11.0, 11.5, 5.5, refused_by_server=True))


@pytest.mark.parametrize("invariant, broken", [
    ("I1", no_acceptance), ("I1", acceptance_of_another_address), ("I1", move_before_acceptance),
    ("I2", second_move), ("I3", banned_is_overwritten), ("I3", move_to_another_state), ("I3", another_column),
    ("I3", owner_is_changed), ("I3", row_is_deleted_by_the_responder), ("I3", change_without_entry),
    ("I4", success_without_a_move), ("I4", success_shows_a_row_that_never_was), ("I4", success_shows_a_stuck_row),
    ("I4", success_before_the_move), ("I4", success_with_the_move_of_another),
    ("I4", conflict_with_a_state_that_never_was), ("I4", conflict_that_is_none),
    ("I4", missing_that_was_there), ("I5", refusal_that_moved), ("I5", unavailable_that_moved),
    ("I5", move_out_of_nothing), ("I5", gate_that_asked), ("I5", call_by_nobody), ("I5", three_calls_for_one_request),
    ("I6", message_without_acceptance), ("I6", message_with_another_status), ("I6", other_500),
    ("I7", stuck_for_ever), ("I7", never_settled), ("I9", another_account_is_shown),
    ("I9", another_owner_gets_an_answer), ("I9", another_owner_may_call), ("I9", another_owner_moves),
    ("I9", revoked_key_counts), ("I10", good_key_is_refused), ("I10", slow_answer), ("I10", no_answer),
    ("I10", web_servers_answer), ("I10", unknown_status), ("I8", key_in_the_log), ("I11", slow_recovery),
    ("I11", slow_respawn),
], ids=lambda value: getattr(value, "__name__", value))
def test_broken_promise_is_found(invariant, broken):
    history = copy.deepcopy(good())
    broken(history)
    assert invariant in {violation.invariant for violation in check(history)}


# What looks odd but is allowed.

def killed(history):
    history.requests[1].status = history.requests[1].body = None
    history.faults.append(Fault("kill responder", 12.9, 12.9, 0.5))


def hung_up(history):
    history.requests[1] = request(13.0, 13.01, None, None, hung_up=True)


def moved_after_the_500(history):
    history.requests[0] = request(12.0, 12.4, 500, error(MESSAGE_500), upstream=True)


def moved_by_another_meanwhile(history):
    history.requests.append(request(12.1, 12.9, 409, error("The account was changed", WARMING), upstream=True))
    history.calls.append(Call(12.3, ADDRESS, "accepted"))


def repeated_by_libcurl(history):
    history.calls.insert(0, Call(12.1, ADDRESS, "none", "close-after-second"))


def success_after_a_lost_try(history):
    history.requests[0].troubled = False
    history.requests.append(request(12.1, 12.9, 200, shown(MOVED), upstream=True, troubled=True))
    history.calls.append(Call(12.3, ADDRESS, "accepted"))


def call_is_read_after_the_answer(history):
    history.requests.append(request(14.0, 14.1, 502, error("Instantly gave no usable answer"), upstream=True))
    history.calls.append(Call(14.2, ADDRESS, "already"))


def banned_and_put_back(history):
    history.changes += [change(3, 15.0, MOVED, row(BANNED), "postgres"),
                        change(4, 15.5, row(BANNED), row(), "postgres")]
    history.sweep = {}


def deleted_and_found_missing(history):
    history.changes.append(change(3, 15.0, MOVED, None, "postgres"))
    history.sweep[ACCOUNT] = [request(20.0, 20.1, 404, error("No such email account"))]


def handed_over(history):
    history.changes.append(change(3, 13.5, MOVED, {**MOVED, "user_id": OTHER}, "postgres"))
    history.requests.append(request(13.55, 13.6, 409, error(MESSAGE_GATE, WARMING), owner=OTHER))
    history.sweep = {}


def revoked_meanwhile(history):
    history.keys[f"key of {OWNER}"] = Key(OWNER, 12.95, 13.05)
    history.requests[1] = request(13.0, 13.1, 401, error("Missing or invalid API key"), upstream=False)


@pytest.mark.parametrize("odd", [killed, hung_up, moved_after_the_500, moved_by_another_meanwhile, repeated_by_libcurl,
                                 success_after_a_lost_try, call_is_read_after_the_answer,
                                 banned_and_put_back, deleted_and_found_missing, handed_over, revoked_meanwhile],
                         ids=lambda value: value.__name__)
def test_what_is_allowed_passes(odd):
    history = copy.deepcopy(good())
    odd(history)
    assert check(history) == []
