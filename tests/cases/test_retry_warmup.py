"""The published example, from the request to the row."""

import json
import uuid

from conftest import WARMING

MEMBERS = ["id", "user_id", "type", "email_address", "status", "warmup_status", "agentmail_inbox_id", "daily_limit",
           "created_at", "updated_at", "email_domains"]


def test_stuck_account_answers_200_and_moves_once(host, world):
    domain = world.add_domain()
    account = world.add_account(domain_id=domain, agentmail_inbox_id="inb_abc123", daily_limit=50,
                                created_at="2026-04-20T15:00:00Z", updated_at="2026-04-20T15:00:00Z")
    answer = world.retry(host, account)
    row = world.account(account)
    updated = world.execute("SELECT to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
                            " FROM accounts WHERE id = %s", account)[0][0].rstrip("0").rstrip(".") + "Z"
    assert answer.status == 200
    assert answer.body.decode() == json.dumps({"account": {
        "id": account, "user_id": world.user, "type": "email", "email_address": row["email_address"],
        "status": "warming", "warmup_status": "warming", "agentmail_inbox_id": "inb_abc123", "daily_limit": 50,
        "created_at": "2026-04-20T15:00:00Z", "updated_at": updated,
        "email_domains": {"id": domain, "domain": "acme.com", "status": "verified"}}}, separators=(",", ":"))
    assert list(answer.json["account"]) == MEMBERS
    assert world.state(account) == WARMING
    assert row["updated_at"] > row["created_at"]
    calls = world.sandbox.enables(row["email_address"])
    assert [call.body for call in calls] == [b'{"emails":["%s"]}' % row["email_address"].encode()]

    again = world.retry(host, account)
    assert again.status == 409
    assert again.error["details"] == {"status": "warming", "warmup_status": "warming"}
    assert world.enables(account) == 1


def test_absent_values_are_null(host, world):
    account = world.add_account()
    answer = world.retry(host, account).json["account"]
    assert (answer["agentmail_inbox_id"], answer["daily_limit"], answer["email_domains"]) == (None, None, None)


def test_unknown_account_answers_404(host, world):
    answer = world.retry(host, uuid.uuid4())
    assert (answer.status, answer.error["code"]) == (404, "not_found")
