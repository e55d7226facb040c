/*
 * killat.c: runs a program and kills it with SIGKILL at the entry of its n-th system call, which
 * then does not happen.  strace's inject counts each call by its own; this counts them all.
 *
 *   killat REPORT N -- PROGRAM...          from the exec on, in all threads
 *   killat REPORT N worker -- PROGRAM...   what the first thread that is started does between one
 *                                          epoll_wait() and the next: a FastCGI request
 *
 * N = 0: never.  Lines on descriptor REPORT: "ready" (worker: it waits for a request), then
 * "killed COUNT LAST" or "ended COUNT LAST STATUS".  LAST is 1 if the last call counted was the one
 * that ends it: exit_group(), or the worker's next epoll_wait().  After that, and when N is 0, the
 * worker's program is killed as well, but nothing is left to happen.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_S 60 /* for the whole run */

struct run {
	int report;
	long at; /* the call at which to kill; 0 = never */
	bool worker;
	pid_t pid, counted; /* the program; the thread whose calls count, 0 = all */
	bool counting;
	long count;
	bool last; /* the call counted last is the one that ends it */
};

static bool
is_wait(long call)
{
#ifdef SYS_epoll_wait
	if (call == SYS_epoll_wait)
		return true;
#endif
	return call == SYS_epoll_pwait;
}

static int
finish(const struct run *run, const char *how, int status)
{
	dprintf(run->report, "%s %ld %d %d\n", how, run->count, run->last, status);
	kill(run->pid, SIGKILL);
	while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
		;
	return EXIT_SUCCESS;
}

/* A stop at the entry of a call; true if this run is over. */
static bool
enter(struct run *run, long call)
{
	if (run->counting) {
		run->count++;
		run->last = run->worker ? is_wait(call) : call == SYS_exit_group;
	} else if (run->worker && is_wait(call)) {
		run->counting = true;
		dprintf(run->report, "ready\n");
		return false;
	}
	return run->counting && (run->count == run->at || (run->worker && run->last));
}

/* What a stopped thread is to do next: from call to call, or on. */
static void
resume(const struct run *run, pid_t thread, int signal)
{
	bool steps = run->worker ? thread == run->counted : run->counting;

	ptrace(steps ? PTRACE_SYSCALL : PTRACE_CONT, thread, NULL, (long)signal);
}

static int
follow(struct run *run)
{
	struct __ptrace_syscall_info info;
	int status, signal, event;
	pid_t thread;

	while ((thread = waitpid(-1, &status, __WALL)) > 0) {
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			if (thread == run->pid)
				return finish(run, "ended", status);
			continue;
		}
		signal = WSTOPSIG(status);
		event = status >> 16;
		if (event == PTRACE_EVENT_EXEC && !run->worker)
			run->counting = true;
		if (thread != run->pid && run->counted == 0 && run->worker)
			run->counted = thread;
		if (signal == (SIGTRAP | 0x80)) {
			memset(&info, 0, sizeof(info));
			ptrace(PTRACE_GET_SYSCALL_INFO, thread, (long)sizeof(info), &info);
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY && enter(run, (long)info.entry.nr))
				return finish(run, run->count == run->at ? "killed" : "ended", 0);
		}
		if (signal == (SIGTRAP | 0x80) || event != 0)
			signal = 0;
		resume(run, thread, signal);
	}
	return EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
	struct run run = { 0 };
	int status;

	run.worker = argc > 3 && strcmp(argv[3], "worker") == 0;
	if (argc < 5 + run.worker || strcmp(argv[3 + run.worker], "--") != 0)
		return EXIT_FAILURE;
	run.report = atoi(argv[1]);
	run.at = atol(argv[2]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(LIMIT_S);
	run.pid = fork();
	if (run.pid == 0) {
		close(run.report);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execv(argv[4 + run.worker], argv + 4 + run.worker);
		_exit(127);
	}
	if (run.pid < 0 || waitpid(run.pid, &status, 0) != run.pid ||
		ptrace(PTRACE_SETOPTIONS, run.pid, NULL,
			(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
				PTRACE_O_EXITKILL)) != 0)
		return EXIT_FAILURE;
	resume(&run, run.pid, 0);
	return follow(&run);
}
