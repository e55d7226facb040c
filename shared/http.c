/* http.c: see http.h.  The only file that includes curl/curl.h. */
#include "http.h"

#include "clock.h"
#include "version.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Instantly's edge refuses requests without a User-Agent, and libcurl sends none by itself. */
#define USER_AGENT "warmup-fcgi/" WARMUP_VERSION

#define URL_MAX 8192 /* the base address and a path, each below half of it */

struct http {
	CURL *curl;
	bool worn; /* to be reset before its next use */
	struct http_options options;
	struct curl_slist *get_headers, *post_headers;
	struct buf url;
	size_t base_len;
	bool bad_status; /* a status line was none of HTTP/1 */
};

enum err
http_global_init(void)
{
	return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? ERR_OK : ERR_INTERNAL;
}

/* libcurl's write callback: less than it gave ends the transfer. */
static size_t
take_body(char *data, size_t size, size_t count, void *context)
{
	struct buf *body = context;

	buf_add(body, data, size * count);
	return buf_check(body) == ERR_OK ? size * count : 0;
}

/* Whether a line of a head is the status line of an HTTP that we asked for: "HTTP/1.1 200 …". */
static bool
is_status_line(const char *line, size_t len)
{
	size_t i;

	if (len < 13 || (memcmp(line, "HTTP/1.1 ", 9) != 0 && memcmp(line, "HTTP/1.0 ", 9) != 0))
		return false;
	for (i = 9; i < 12; i++)
		if (line[i] < (i == 9 ? '1' : '0') || line[i] > '9')
			return false;
	return line[12] == ' ' || line[12] == '\r' || line[12] == '\n';
}

/* libcurl's header callback, for each line of a head.  7.88 takes any first line that begins with
   "HTTP/" for a status line, and makes 200 of "HTTP/2200" and of most that it cannot read. */
static size_t
take_header(char *line, size_t size, size_t count, void *context)
{
	struct http *http = context;

	if (size * count >= 5 && strncasecmp(line, "HTTP/", 5) == 0 &&
		!is_status_line(line, size * count))
		http->bad_status = true;
	return size * count;
}

/* The key is among them. */
static void
free_headers(struct curl_slist *headers)
{
	struct curl_slist *item;

	for (item = headers; item != NULL; item = item->next)
		explicit_bzero(item->data, strlen(item->data));
	curl_slist_free_all(headers);
}

static struct curl_slist *
make_headers(const struct http_options *options, bool post)
{
	struct curl_slist *list = curl_slist_append(NULL, "Accept: application/json"), *more = list;
	struct buf line, id;

	buf_init(&line, 1024);
	buf_printf(&line, "Authorization: Bearer %s", options->bearer);
	if (more != NULL && options->bearer[0] != '\0')
		more = curl_slist_append(list, buf_text(&line));
	if (more != NULL && options->request_id != NULL) {
		buf_init(&id, 1024);
		buf_printf(&id, "X-Request-Id: %s", options->request_id);
		more = buf_check(&id) == ERR_OK ? curl_slist_append(list, buf_text(&id)) : NULL;
		buf_free(&id);
	}
	if (more != NULL && post)
		more = curl_slist_append(list, "Content-Type: application/json");
	if (more == NULL || buf_check(&line) != ERR_OK) {
		free_headers(list);
		list = NULL;
	}
	if (line.data != NULL)
		explicit_bzero(line.data, line.len);
	buf_free(&line);
	return list;
}

/* The options that never change; each is here for a reason that a test knows. */
static bool
set_options(CURL *curl, const struct http_options *options)
{
	bool ok = true;

#define SET(option, value) ok = ok && curl_easy_setopt(curl, CURLOPT_##option, value) == CURLE_OK
	SET(NOSIGNAL, 1L);
	SET(USERAGENT, USER_AGENT);
	SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(HTTP09_ALLOWED, 0L);
	SET(PROTOCOLS_STR, "http,https");
	SET(FOLLOWLOCATION,
		0L);    /* the key must not travel, and a 200 from elsewhere means nothing */
	SET(PROXY, ""); /* over any http_proxy of the environment, which would see the key */
	SET(NOPROXY, "*");
	SET(NETRC, (long)CURL_NETRC_IGNORED);
	SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(SSL_VERIFYPEER, 1L);
	SET(SSL_VERIFYHOST, 2L);
	/* With TLS 1.3 one saves no round trip, and out of memory 7.88 frees one twice. */
	SET(SSL_SESSIONID_CACHE, 0L);
	SET(TCP_KEEPALIVE, 1L);
	SET(CONNECTTIMEOUT_MS, (long)options->connect_timeout_ms);
	SET(QUICK_EXIT, 1L); /* or that limit would wait for the resolver's, which is its own */
	SET(WRITEFUNCTION, take_body);
	SET(HEADERFUNCTION, take_header);
	if (options->ca_file[0] != '\0') {
		SET(CAINFO, options->ca_file);
		SET(CAPATH,
			(char *)NULL); /* these certificates instead of the system's, not besides */
	}
#undef SET
	return ok;
}

enum err
http_open(const struct http_options *options, struct http **out)
{
	struct http *http = calloc(1, sizeof(*http));

	if (http == NULL)
		return ERR_NO_MEMORY;
	http->options = *options;
	buf_init(&http->url, URL_MAX);
	buf_puts(&http->url, options->base_url);
	http->base_len = http->url.len;
	http->curl = curl_easy_init();
	http->get_headers = make_headers(options, false);
	http->post_headers = make_headers(options, true);
	if (buf_check(&http->url) != ERR_OK || http->curl == NULL || http->get_headers == NULL ||
		http->post_headers == NULL || !set_options(http->curl, options)) {
		http_close(http);
		return ERR_NO_MEMORY;
	}
	*out = http;
	return ERR_OK;
}

void
http_close(struct http *http)
{
	if (http == NULL)
		return;
	if (http->curl != NULL)
		curl_easy_cleanup(http->curl);
	free_headers(http->get_headers);
	free_headers(http->post_headers);
	buf_free(&http->url);
	free(http);
}

static enum http_end
end_of(CURLcode code, const struct buf *body)
{
	switch ((int)code) {
	case CURLE_OK:
		return HTTP_COMPLETE;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
		return HTTP_UNREACHABLE;
	case CURLE_OPERATION_TIMEDOUT:
		return HTTP_TIMEOUT;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CRL_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
		return HTTP_TLS;
	case CURLE_WRITE_ERROR: /* take_body() refused more */
		return buf_check(body) == ERR_TOO_LONG ? HTTP_OVERSIZED : HTTP_INCOMPLETE;
	case CURLE_OUT_OF_MEMORY: /* what 7.88 makes of one over-long header line */
	case 100:                 /* CURLE_TOO_LARGE, since 8.6 */
		return HTTP_OVERSIZED;
	case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9, that is: no status line */
	case CURLE_WEIRD_SERVER_REPLY:
		return HTTP_GARBLED;
	default:
		return HTTP_INCOMPLETE;
	}
}

static void
read_facts(CURL *curl, struct http_reply *reply)
{
	long status = 0;
	curl_off_t retry_after = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after);
	reply->status = (int)status;
	/* 7.88 gives a negative number for a date in the past, and there is no upper limit. */
	reply->retry_after_s = retry_after > 0 && retry_after < 1000000 ? (long)retry_after : 0;
}

/*
 * Until 8.17 libcurl counts the connections that turned out dead over all the calls of a handle, and
 * every sixth fails a call that it would have repeated.  A reset takes the count back; connections
 * and names stay.  It can only have grown in a call that connected.
 */
static bool
refresh(struct http *http)
{
	if (!http->worn)
		return true;
	curl_easy_reset(http->curl);
	http->worn = !set_options(http->curl, &http->options);
	return !http->worn;
}

static bool
has_connected(CURL *curl)
{
	long connects = 1;

	curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &connects);
	return connects > 0;
}

/* GET if body is NULL, else POST; under the name of another method if that is not NULL. */
static void
perform(struct http *http, const char *method, const char *path, const char *body,
	int64_t deadline_us, struct http_reply *reply)
{
	CURL *curl = http->curl;
	int left_ms = clock_left_ms(deadline_us);
	CURLcode code;

	buf_reset(&reply->body);
	reply->status = 0;
	reply->retry_after_s = 0;
	reply->end = HTTP_TIMEOUT;
	if (left_ms == 0)
		return; /* to libcurl 0 would mean: no limit */
	reply->end = HTTP_INCOMPLETE;
	if (!refresh(http))
		return; /* never without its options */
	http->url.len = http->base_len;
	buf_puts(&http->url, path);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)left_ms);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply->body);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, http);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	if (body != NULL) {
		curl_easy_setopt(curl, CURLOPT_POST, 1L);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, http->post_headers);
	} else {
		curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, http->get_headers);
	}
	code = buf_check(&http->url) == ERR_OK ?
		curl_easy_setopt(curl, CURLOPT_URL, buf_text(&http->url)) :
		CURLE_OUT_OF_MEMORY;
	http->bad_status = false;
	if (code == CURLE_OK)
		code = curl_easy_perform(curl);
	http->worn = has_connected(curl);
	reply->end = end_of(code, &reply->body);
	if (reply->end == HTTP_COMPLETE && http->bad_status)
		reply->end = HTTP_GARBLED;
	if (reply->end == HTTP_COMPLETE)
		read_facts(curl, reply);
}

void
http_call(struct http *http, const char *path, const char *body, int64_t deadline_us,
	struct http_reply *reply)
{
	perform(http, NULL, path, body, deadline_us, reply);
}

void
http_probe(struct http *http, const char *method, const char *path, int64_t deadline_us,
	struct http_reply *reply)
{
	perform(http, method, path, NULL, deadline_us, reply);
}

const char *
http_header(struct http *http, const char *name)
{
	struct curl_header *header;

	/* -1: of the last response, should there have been a 1xx before it. */
	if (curl_easy_header(http->curl, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	return header->value;
}

void
http_escape(struct buf *path, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~";

	for (; *text != '\0'; text++)
		if (strchr(plain, *text) != NULL)
			buf_add(path, text, 1);
		else
			buf_printf(path, "%%%02X", (unsigned char)*text);
}

/* This machine itself: the only place where a key may go unencrypted. */
static bool
is_loopback(const char *host)
{
	unsigned char address[4];

	if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return inet_pton(AF_INET, host, address) == 1 && address[0] == 127;
}

static bool
has_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;
	bool has = curl_url_get(url, part, &text, 0) == CURLUE_OK;

	curl_free(text);
	return has;
}

enum err
http_base_url_check(char *text)
{
	CURLU *url = curl_url();
	char *scheme = NULL, *host = NULL;
	size_t len = strlen(text);
	CURLUcode code = url != NULL ? CURLUE_OK : CURLUE_OUT_OF_MEMORY;
	enum err err = ERR_CONFIG;

	while (len > 0 && text[len - 1] == '/')
		text[--len] = '\0';
	/* "?" and "#" with nothing behind them are no parts to libcurl, but would swallow a path. */
	if (strpbrk(text, "?#") != NULL)
		goto out;
	if (code != CURLUE_OK ||
		(code = curl_url_set(url, CURLUPART_URL, text, CURLU_DISALLOW_USER)) != CURLUE_OK ||
		(code = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0)) != CURLUE_OK ||
		(code = curl_url_get(url, CURLUPART_HOST, &host, 0)) != CURLUE_OK ||
		has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
		goto out;
	if (strcmp(scheme, "https") == 0 || (strcmp(scheme, "http") == 0 && is_loopback(host)))
		err = ERR_OK;
out:
	if (code == CURLUE_OUT_OF_MEMORY)
		err = ERR_NO_MEMORY;
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(url);
	return err;
}
