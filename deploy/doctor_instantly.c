/*
 * doctor_instantly.c: whether Instantly is there, takes our key, and lets it read what the
 * responder reads.  Never asks for a warm-up: whether the key may enable one only shows then.
 */
#include "doctor.h"

#include "clock.h"
#include "instantly.h"

#include <stdio.h>

static const char accounts_check[] = "instantly.accounts", jobs_check[] = "instantly.jobs";

/* What an answer to the first question means.  The first row that fits counts; UPSTREAM_NONE and
   status 0 fit all. */
static const struct meaning {
	enum upstream outcome;
	int status;
	enum doctor_result result;
	const char *found, *todo;
} meanings[] = {
	{ UPSTREAM_ACCEPTED, 0, DOCTOR_OK,
		"the key is taken and has accounts:read; accounts:update only shows when a warm-up "
		"is enabled",
		NULL },
	{ UPSTREAM_UNREACHABLE, 0, DOCTOR_FAIL, "no connection",
		"look at INSTANTLY_API_URL, name resolution and the firewall of this machine" },
	{ UPSTREAM_TIMEOUT, 0, DOCTOR_FAIL, "no answer in time",
		"look at the network, or raise WARMUP_UPSTREAM_TIMEOUT_MS" },
	{ UPSTREAM_TLS, 0, DOCTOR_FAIL,
		"the TLS handshake failed or its certificate is not trusted",
		"install ca-certificates, or name the right file in INSTANTLY_CA_FILE; if it was fine "
		"before, find out who answers there before the key goes anywhere" },
	{ UPSTREAM_NONE, 429, DOCTOR_WARN, "too many requests from this workspace (429)",
		"find out what else uses up the workspace's limit; callers get a 502 meanwhile" },
	{ UPSTREAM_REFUSED, 401, DOCTOR_FAIL, "the key was refused (401)",
		"set INSTANTLY_API_KEY to a key for API v2, whole and not revoked" },
	{ UPSTREAM_REFUSED, 402, DOCTOR_FAIL, "the workspace has no paid plan (402)",
		"see to the plan at Instantly" },
	{ UPSTREAM_REFUSED, 403, DOCTOR_FAIL, "the key lacks the scope accounts:read (403)",
		"give the key the scopes accounts:read, accounts:update, background-jobs:read" },
	{ UPSTREAM_NOT_JSON, 403, DOCTOR_FAIL, "refused by what stands before Instantly (403)",
		"ask Instantly whether its edge blocks this machine's address, or look at a proxy on "
		"the way" },
	{ UPSTREAM_NONE, 404, DOCTOR_FAIL, "there is no such API (404)",
		"correct INSTANTLY_API_URL; its default is https://api.instantly.ai/api/v2" },
	{ UPSTREAM_REFUSED, 0, DOCTOR_FAIL, "an answer that should not come",
		"try again later; if it stays, ask Instantly's status page or support" },
	{ UPSTREAM_NONE, 0, DOCTOR_FAIL, "no usable answer, not JSON as Instantly sends it",
		"correct INSTANTLY_API_URL, or look at a proxy on the way; if neither, try again "
		"later" },
};

static void
report_accounts(struct doctor *doctor, const struct upstream_reply *reply)
{
	const struct meaning *row = meanings;
	char found[CONFIG_URL_MAX + 256];

	while ((row->outcome != UPSTREAM_NONE && row->outcome != reply->outcome) ||
		(row->status != 0 && row->status != reply->status))
		row++;
	if (row->result == DOCTOR_OK || row->status != 0 || reply->status == 0)
		snprintf(found, sizeof(found), "%s: %s", doctor->config.instantly_api_url,
			row->found);
	else
		snprintf(found, sizeof(found), "%s: %s (%d)", doctor->config.instantly_api_url,
			row->found, reply->status);
	doctor_report(doctor, accounts_check, row->result, found, row->todo);
}

static void
report_jobs(struct doctor *doctor, const struct upstream_reply *reply)
{
	char found[128];

	if (reply->outcome == UPSTREAM_ACCEPTED)
		doctor_report(
			doctor, jobs_check, DOCTOR_OK, "the key has background-jobs:read", NULL);
	else if (reply->status == 401 || reply->status == 403)
		doctor_report(doctor, jobs_check, DOCTOR_WARN,
			"the key lacks the scope background-jobs:read: jobs that fail pass for "
			"success",
			"give the key that scope, or set WARMUP_JOB_WAIT_MS=0 to do without");
	else {
		snprintf(found, sizeof(found), "no usable answer on a job (%s, status %d)",
			instantly_reason(reply->outcome), reply->status);
		doctor_report(doctor, jobs_check, DOCTOR_WARN, found,
			"try again; if it stays, jobs that fail will pass for success");
	}
}

void
doctor_check_instantly(struct doctor *doctor, const char *why_not)
{
	const struct config *config = &doctor->config;
	struct instantly *instantly = NULL;
	struct upstream_reply reply = { 0 };

	if (why_not == NULL && instantly_open(config, &instantly) != ERR_OK)
		why_not = "not looked at: out of memory";
	if (why_not != NULL) {
		doctor_report(doctor, accounts_check, DOCTOR_SKIP, why_not, NULL);
		doctor_report(doctor, jobs_check, DOCTOR_SKIP, why_not, NULL);
		return;
	}
	instantly_probe(instantly, INSTANTLY_ACCOUNTS,
		clock_deadline_us(config->upstream_timeout_ms), &reply);
	report_accounts(doctor, &reply);
	if (config->job_wait_ms == 0) {
		doctor_report(doctor, jobs_check, DOCTOR_SKIP,
			"not looked at: WARMUP_JOB_WAIT_MS is 0", NULL);
	} else if (reply.outcome != UPSTREAM_ACCEPTED &&
		(reply.outcome != UPSTREAM_REFUSED || reply.status != 403)) {
		doctor_report(doctor, jobs_check, DOCTOR_SKIP,
			"not looked at: instantly.accounts comes first", NULL);
	} else {
		instantly_probe(instantly, INSTANTLY_JOBS,
			clock_deadline_us(config->upstream_timeout_ms), &reply);
		report_jobs(doctor, &reply);
	}
	instantly_close(instantly);
}
