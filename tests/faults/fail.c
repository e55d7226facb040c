/*
 * fail.c: preloaded into warmup.fcgi, lets its n-th allocation or call into the system fail, once or
 * from then on, as the file that FAIL_CONTROL names says: struct control, shared with a test that
 * writes the upper half and reads the lower.  It counts what is made by the program and by its
 * libraries; what the C library does inside (the sockets of getaddrinfo(), the open() of fopen()) it
 * cannot see, so there the whole function fails.
 *
 * Other programs that inherit the variables are left alone.
 */
/* For the declaration of what it calls. */
#undef NDEBUG
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define PROGRAM "warmup.fcgi"

enum what { ALLOCATIONS = 1, CALLS = 2 };
enum scope {
	SCOPE_ALL,     /* the whole life of the process */
	SCOPE_START,   /* each thread until it first waits */
	SCOPE_REQUEST, /* a worker, from a connection's arrival until it waits for the next */
};

/* OpenSSL makes tens of thousands of allocations where all others together make a thousand. */
enum part { PART_ALL, PART_CRYPTO, PART_OTHERS };

struct control {
	_Atomic int64_t armed;
	int64_t what, scope;
	int64_t at;         /* the number that fails; 0 = none */
	int64_t persistent; /* and all after it: every allocation, or every call of that name */
	int64_t choice;     /* which of the errors that such a call can have */
	int64_t part;       /* of the allocations */

	_Atomic int64_t count, failed;
	int64_t choices; /* how many errors the call that failed can have */
	int64_t passing; /* the error is one that passes by itself: never persistent */
	_Atomic int64_t done;
	_Atomic int64_t live; /* blocks that are allocated */
	char name[64], caller[128], asserted[128];
};

static struct control *control;
static uintptr_t crypto_start, crypto_end; /* libcrypto's place in memory */
static __thread bool counting __attribute__((tls_model("initial-exec")));
/* Volatile: the compiler takes the C library's word that its functions never come back to this file. */
static __thread volatile bool inside __attribute__((tls_model("initial-exec")));

/* --- which one fails --------------------------------------------------------------------------- */

static bool
counts(enum what what)
{
	if (control == NULL || inside || atomic_load(&control->armed) == 0 ||
		control->what != (int64_t)what)
		return false;
	return control->scope == SCOPE_ALL || counting;
}

static bool
is_in_part(const void *caller)
{
	uintptr_t at = (uintptr_t)caller;
	bool crypto = at >= crypto_start && at < crypto_end;

	return control->part == PART_ALL || (control->part == PART_CRYPTO) == crypto;
}

static void
note_failure(const char *name, const void *caller)
{
	Dl_info info;

	inside = true;
	snprintf(control->name, sizeof(control->name), "%s", name);
	if (dladdr(caller, &info) != 0 && info.dli_fname != NULL)
		snprintf(control->caller, sizeof(control->caller), "%s", info.dli_fname);
	inside = false;
}

static bool
allocation_fails(const char *name, const void *caller)
{
	int64_t number;

	if (!counts(ALLOCATIONS) || !is_in_part(caller))
		return false;
	number = atomic_fetch_add(&control->count, 1) + 1;
	if (control->at == 0 || number < control->at ||
		(number > control->at && control->persistent == 0))
		return false;
	if (atomic_fetch_add(&control->failed, 1) == 0)
		note_failure(name, caller);
	errno = ENOMEM;
	return true;
}

/* Errors that pass by themselves, so that whoever gets one may try again at once. */
#define PASSING 0x10000
/* No error, but the end of the file. */
#define ENDED 0x20000

/* The error with which a call is to fail; 0: it is to be made. */
static int
call_fails(const char *name, const int *errors, size_t count, const void *caller)
{
	int64_t number;
	int error;

	if (!counts(CALLS))
		return 0;
	number = atomic_fetch_add(&control->count, 1) + 1;
	if (control->at == 0 || number < control->at)
		return 0;
	if (number > control->at &&
		(control->persistent == 0 || control->passing != 0 ||
			strcmp(control->name, name) != 0))
		return 0;
	error = errors[(size_t)control->choice < count ? (size_t)control->choice : 0];
	if (atomic_fetch_add(&control->failed, 1) == 0) {
		control->choices = (int64_t)count;
		control->passing = (error & PASSING) != 0;
		note_failure(name, caller);
	}
	return error;
}

/* --- the real ones ------------------------------------------------------------------------------ */

static char early[16384]; /* for what dlsym() itself allocates */
static size_t early_used;

static void *
early_block(size_t size)
{
	void *block = early + early_used;

	early_used += (size + 15) / 16 * 16;
	if (early_used > sizeof(early))
		_exit(99);
	return block;
}

static bool
is_early(const void *block)
{
	return (uintptr_t)block >= (uintptr_t)early &&
		(uintptr_t)block < (uintptr_t)early + sizeof(early);
}

static void *
find(const char *name)
{
	bool before = inside; /* one search may lead to another */
	void *address;

	inside = true;
	address = dlsym(RTLD_NEXT, name);
	inside = before;
	if (address == NULL)
		_exit(98);
	return address;
}

/* A pointer to the function that would have been called without us. */
#define REAL(name)                                                                                 \
	static __typeof__(&(name)) real;                                                           \
	if (real == NULL) {                                                                        \
		void *found_ = find(#name);                                                        \
		memcpy(&real, &found_, sizeof(real));                                              \
	}

static void *
kept(void *block)
{
	if (control != NULL && block != NULL)
		atomic_fetch_add(&control->live, 1);
	return block;
}

#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

void *
malloc(size_t size)
{
	static __typeof__(&malloc) real;
	void *address;

	if (real == NULL) {
		if (inside)
			return early_block(size);
		address = find("malloc");
		memcpy(&real, &address, sizeof(real));
	}
	return allocation_fails("malloc", CALLER) ? NULL : kept(real(size));
}

void *
calloc(size_t count, size_t size)
{
	static __typeof__(&calloc) real;
	void *address;

	if (real == NULL) {
		if (inside)
			return early_block(count * size);
		address = find("calloc");
		memcpy(&real, &address, sizeof(real));
	}
	return allocation_fails("calloc", CALLER) ? NULL : kept(real(count, size));
}

void *
realloc(void *block, size_t size)
{
	REAL(realloc)

	if (is_early(block))
		_exit(97);
	if (allocation_fails("realloc", CALLER))
		return NULL;
	return block == NULL ? kept(real(block, size)) : real(block, size);
}

void
free(void *block)
{
	static __typeof__(&free) real;
	void *address;

	if (block == NULL || is_early(block) || (real == NULL && inside))
		return;
	if (real == NULL) {
		address = find("free");
		memcpy(&real, &address, sizeof(real));
	}
	if (control != NULL)
		atomic_fetch_sub(&control->live, 1);
	real(block);
}

int
posix_memalign(void **block, size_t alignment, size_t size)
{
	int error;
	REAL(posix_memalign)

	if (allocation_fails("posix_memalign", CALLER))
		return ENOMEM;
	error = real(block, alignment, size);
	if (error == 0)
		kept(*block);
	return error;
}

void *
aligned_alloc(size_t alignment, size_t size)
{
	REAL(aligned_alloc)

	return allocation_fails("aligned_alloc", CALLER) ? NULL : kept(real(alignment, size));
}

/* --- calls -------------------------------------------------------------------------------------- */

/* Fails with one of these errors and -1 if it is this call's turn; else the real one is in real. */
#define OR_FAIL(name, ...)                                                                         \
	static const int errors[] = { __VA_ARGS__ };                                               \
	int error = call_fails(#name, errors, sizeof(errors) / sizeof(errors[0]), CALLER);         \
	REAL(name)                                                                                 \
	if (error == ENDED)                                                                        \
		return 0;                                                                          \
	if (error != 0) {                                                                          \
		errno = error & ~PASSING;                                                          \
		return -1;                                                                         \
	}

#define AGAIN (EAGAIN | PASSING)
#define INTR  (EINTR | PASSING)

int
socket(int domain, int type, int protocol)
{
	OR_FAIL(socket, EMFILE, ENOBUFS, EAFNOSUPPORT)
	return real(domain, type, protocol);
}

int
socketpair(int domain, int type, int protocol, int fds[2])
{
	OR_FAIL(socketpair, EMFILE, ENOBUFS)
	return real(domain, type, protocol, fds);
}

int
connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
	OR_FAIL(connect, ECONNREFUSED, ENETUNREACH, ETIMEDOUT, EADDRNOTAVAIL)
	return real(fd, address, size);
}

int
accept4(int fd, __SOCKADDR_ARG address, socklen_t *restrict size, int flags)
{
	OR_FAIL(accept4, ECONNABORTED, EMFILE, ENOMEM, INTR, AGAIN)
	return real(fd, address, size, flags);
}

ssize_t
send(int fd, const void *data, size_t size, int flags)
{
	OR_FAIL(send, ECONNRESET, EPIPE, ENOBUFS, INTR, AGAIN)
	return real(fd, data, size, flags);
}

ssize_t
sendto(int fd, const void *data, size_t size, int flags, __CONST_SOCKADDR_ARG to, socklen_t len)
{
	OR_FAIL(sendto, ECONNRESET, EPIPE, ENOBUFS, INTR, AGAIN)
	return real(fd, data, size, flags, to, len);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
	OR_FAIL(sendmsg, ECONNRESET, EPIPE, ENOBUFS, INTR, AGAIN)
	return real(fd, message, flags);
}

ssize_t
write(int fd, const void *data, size_t size)
{
	OR_FAIL(write, EPIPE, ECONNRESET, ENOSPC, EIO, INTR)
	return real(fd, data, size);
}

ssize_t
writev(int fd, const struct iovec *parts, int count)
{
	OR_FAIL(writev, EPIPE, ECONNRESET, ENOSPC, INTR)
	return real(fd, parts, count);
}

ssize_t
recv(int fd, void *data, size_t size, int flags)
{
	OR_FAIL(recv, ECONNRESET, ETIMEDOUT, ENDED, INTR, AGAIN)
	return real(fd, data, size, flags);
}

ssize_t
recvfrom(int fd, void *restrict data, size_t size, int flags, __SOCKADDR_ARG from,
	socklen_t *restrict len)
{
	OR_FAIL(recvfrom, ECONNRESET, ETIMEDOUT, ENDED, INTR, AGAIN)
	return real(fd, data, size, flags, from, len);
}

ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
	OR_FAIL(recvmsg, ECONNRESET, ETIMEDOUT, ENDED, INTR)
	return real(fd, message, flags);
}

ssize_t
read(int fd, void *data, size_t size)
{
	OR_FAIL(read, ECONNRESET, EIO, ENDED, INTR)
	return real(fd, data, size);
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
	OR_FAIL(poll, ENOMEM, INTR)
	return real(fds, count, timeout);
}

int
epoll_create1(int flags)
{
	OR_FAIL(epoll_create1, EMFILE, ENOMEM)
	return real(flags);
}

int
epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	OR_FAIL(epoll_ctl, ENOSPC, ENOMEM)
	return real(epoll, operation, fd, event);
}

int
eventfd(unsigned value, int flags)
{
	OR_FAIL(eventfd, EMFILE, ENOMEM)
	return real(value, flags);
}

int
dup(int fd)
{
	OR_FAIL(dup, EMFILE)
	return real(fd);
}

int
pipe2(int fds[2], int flags)
{
	OR_FAIL(pipe2, EMFILE, ENFILE)
	return real(fds, flags);
}

int
getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
	OR_FAIL(getsockopt, ENOBUFS, ENOPROTOOPT)
	return real(fd, level, name, value, size);
}

int
setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	OR_FAIL(setsockopt, ENOBUFS, ENOPROTOOPT)
	return real(fd, level, name, value, size);
}

/* Once at most: libcurl loses a connection's memory when this goes on, which it does for nobody. */
#define NAMELESS ENOBUFS | PASSING

int
getsockname(int fd, __SOCKADDR_ARG address, socklen_t *restrict size)
{
	OR_FAIL(getsockname, NAMELESS)
	return real(fd, address, size);
}

int
getpeername(int fd, __SOCKADDR_ARG address, socklen_t *restrict size)
{
	OR_FAIL(getpeername, NAMELESS, ENOTCONN | PASSING)
	return real(fd, address, size);
}

int
shutdown(int fd, int how)
{
	OR_FAIL(shutdown, ENOTCONN)
	return real(fd, how);
}

int
fstat(int fd, struct stat *status)
{
	OR_FAIL(fstat, EIO, ENOMEM)
	return real(fd, status);
}

int
access(const char *path, int mode)
{
	OR_FAIL(access, EACCES, ENOENT, EIO)
	return real(path, mode);
}

ssize_t
getrandom(void *data, size_t size, unsigned flags)
{
	OR_FAIL(getrandom, ENOSYS, INTR)
	return real(data, size, flags);
}

int
setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	OR_FAIL(setrlimit, EPERM)
	return real(resource, limit);
}

static bool
is_programs_own(const void *caller)
{
	Dl_info info;

	return control != NULL && dladdr(caller, &info) != 0 && info.dli_fname != NULL &&
		strstr(info.dli_fname, PROGRAM) != NULL;
}

/* The next three take one more argument, or none; passing one that is not looked at does no harm. */
#define TAKE_ARGUMENT(last)                                                                        \
	va_list arguments;                                                                         \
	void *argument;                                                                            \
	va_start(arguments, last);                                                                 \
	argument = va_arg(arguments, void *);                                                      \
	va_end(arguments);

/* On a socket this cannot fail, and libcurl takes that for granted; our own is the listener's. */
#define FCNTL_LIKE(name)                                                                           \
	int name(int fd, int command, ...)                                                         \
	{                                                                                          \
		TAKE_ARGUMENT(command)                                                             \
		if (is_programs_own(CALLER)) {                                                     \
			OR_FAIL(name, EINVAL, EPERM)                                               \
			return real(fd, command, argument);                                        \
		}                                                                                  \
		REAL(name)                                                                         \
		return real(fd, command, argument);                                                \
	}

FCNTL_LIKE(fcntl)
FCNTL_LIKE(fcntl64)

int
ioctl(int fd, unsigned long command, ...)
{
	TAKE_ARGUMENT(command)
	OR_FAIL(ioctl, EINVAL)
	return real(fd, command, argument);
}

static mode_t
mode_of(int flags, va_list arguments)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_LIKE(name)                                                                            \
	int name(const char *path, int flags, ...)                                                 \
	{                                                                                          \
		va_list arguments;                                                                 \
		mode_t mode;                                                                       \
		va_start(arguments, flags);                                                        \
		mode = mode_of(flags, arguments);                                                  \
		va_end(arguments);                                                                 \
		OR_FAIL(name, EACCES, ENOENT, EMFILE, EIO)                                         \
		return real(path, flags, mode);                                                    \
	}

OPEN_LIKE(open)
OPEN_LIKE(open64)

#define FOPEN_LIKE(name)                                                                           \
	FILE *name(const char *restrict path, const char *restrict mode)                           \
	{                                                                                          \
		static const int errors[] = { EACCES, ENOENT, EMFILE, ENOMEM, EIO };               \
		int error = call_fails(#name, errors, 5, CALLER);                                  \
		REAL(name)                                                                         \
		if (error == 0)                                                                    \
			return real(path, mode);                                                   \
		errno = error;                                                                     \
		return NULL;                                                                       \
	}

FOPEN_LIKE(fopen)
FOPEN_LIKE(fopen64)

/* A descriptor whose close() failed is closed all the same. */
int
close(int fd)
{
	static const int errors[] = { EIO, INTR };
	int error = call_fails("close", errors, 2, CALLER);
	int result;
	REAL(close)

	result = real(fd);
	if (error == 0)
		return result;
	errno = error & ~PASSING;
	return -1;
}

int
getaddrinfo(const char *restrict node, const char *restrict service,
	const struct addrinfo *restrict hints, struct addrinfo **restrict found)
{
	static const int errors[] = { EAI_AGAIN, EAI_MEMORY, EAI_NONAME, EAI_FAIL };
	int error = call_fails("getaddrinfo", errors, 4, CALLER);
	REAL(getaddrinfo)

	return error != 0 ? error : real(node, service, hints, found);
}

/* A thread that is started while the start counts, counts from its first step. */
struct beginning {
	void *(*routine)(void *);
	void *argument;
};

static void *
begin(void *argument)
{
	struct beginning *beginning = argument;

	counting = true;
	return beginning->routine(beginning->argument);
}

int
pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
	void *(*routine)(void *), void *restrict argument)
{
	static struct beginning beginnings[64];
	static size_t used;
	static const int errors[] = { EAGAIN };
	int error = call_fails("pthread_create", errors, 1, CALLER);
	REAL(pthread_create)

	if (error != 0)
		return error;
	if (counting && control->scope == SCOPE_START && used < 64) {
		beginnings[used] = (struct beginning){ routine, argument };
		return real(thread, attributes, begin, &beginnings[used++]);
	}
	return real(thread, attributes, routine, argument);
}

/* What a fortified object calls instead. */
int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t size);
ssize_t __read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *data, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *restrict data, size_t size, size_t room, int flags,
	__SOCKADDR_ARG from, socklen_t *restrict len);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

int
__poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t size)
{
	OR_FAIL(__poll_chk, ENOMEM, INTR)
	return real(fds, count, timeout, size);
}

ssize_t
__read_chk(int fd, void *data, size_t size, size_t room)
{
	OR_FAIL(__read_chk, ECONNRESET, EIO, ENDED, INTR)
	return real(fd, data, size, room);
}

ssize_t
__recv_chk(int fd, void *data, size_t size, size_t room, int flags)
{
	OR_FAIL(__recv_chk, ECONNRESET, ETIMEDOUT, ENDED, INTR, AGAIN)
	return real(fd, data, size, room, flags);
}

ssize_t
__recvfrom_chk(int fd, void *restrict data, size_t size, size_t room, int flags,
	__SOCKADDR_ARG from, socklen_t *restrict len)
{
	OR_FAIL(__recvfrom_chk, ECONNRESET, ETIMEDOUT, ENDED, INTR, AGAIN)
	return real(fd, data, size, room, flags, from, len);
}

int
__open_2(const char *path, int flags)
{
	OR_FAIL(__open_2, EACCES, ENOENT, EMFILE, EIO)
	return real(path, flags);
}

int
__open64_2(const char *path, int flags)
{
	OR_FAIL(__open64_2, EACCES, ENOENT, EMFILE, EIO)
	return real(path, flags);
}

/* --- when to count ------------------------------------------------------------------------------ */

/* A worker waits: what it did before is over, and what comes may be what is to be counted. */
int
epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
	int got;
	REAL(epoll_wait)

	if (counting) {
		counting = false;
		atomic_store(&control->done, 1);
	}
	got = real(epoll, events, most, timeout);
	if (got > 0 && control != NULL && atomic_load(&control->armed) != 0 &&
		control->scope == SCOPE_REQUEST && atomic_load(&control->done) == 0)
		counting = true;
	return got;
}

/* The main thread waits: the start is over. */
int
sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info,
	const struct timespec *restrict limit)
{
	REAL(sigtimedwait)

	counting = false;
	return real(set, info, limit);
}

void
__assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
	if (control != NULL)
		snprintf(control->asserted, sizeof(control->asserted), "%s:%u: %s: %s", file, line,
			function, assertion);
	abort();
}

static int
find_crypto(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	if (strstr(info->dlpi_name, "libcrypto") == NULL)
		return 0;
	crypto_start = (uintptr_t)info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD)
			crypto_end = crypto_start + info->dlpi_phdr[i].p_vaddr +
				info->dlpi_phdr[i].p_memsz;
	return 1;
}

/* Whose fault a crash or an abort is: the first on the stack who is neither us nor the C library, and
   what he had called of that. */
static void
on_crash(int signal, siginfo_t *info, void *context)
{
	const char *called = "nothing";
	void *stack[64];
	int depth, i;
	Dl_info found;

	(void)info;
	(void)context;
	inside = true;
	depth = backtrace(stack, 64);
	for (i = 0; i < depth; i++) {
		if (dladdr(stack[i], &found) == 0 || found.dli_fname == NULL ||
			strstr(found.dli_fname, "/fail.so") != NULL)
			continue;
		if (strstr(found.dli_fname, "/libc.so") == NULL)
			break;
		called = found.dli_sname != NULL ? found.dli_sname : called;
	}
	if (control->asserted[0] == '\0')
		snprintf(control->asserted, sizeof(control->asserted), "%s in %s calling %s",
			signal == SIGABRT ? "abort" : "crash",
			i < depth ? found.dli_fname : "nowhere", called);
	inside = false;
}

static void
watch_crashes(void)
{
	struct sigaction action = { .sa_sigaction = on_crash,
		.sa_flags = SA_SIGINFO | (int)SA_RESETHAND };
	void *stack[1];

	backtrace(stack, 1); /* it loads a library when it is first called */
	sigaction(SIGABRT, &action, NULL);
	/* A sanitizer has its own handler, which tells more. */
	if (dlsym(RTLD_DEFAULT, "__asan_init") == NULL)
		sigaction(SIGSEGV, &action, NULL);
}

__attribute__((constructor)) static void
set_up(void)
{
	const char *path = getenv("FAIL_CONTROL");
	int fd;

	if (path == NULL || strcmp(program_invocation_short_name, PROGRAM) != 0)
		return;
	inside = true;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		void *shared =
			mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		close(fd);
		if (shared == MAP_FAILED)
			_exit(96);
		control = shared;
		counting = control->scope == SCOPE_START;
		dl_iterate_phdr(find_crypto, NULL);
		watch_crashes();
	}
	inside = false;
}
