/*
 * `sessionctl run -- COMMAND`: a private daemon for one command.
 *
 *     sessionctl ──┬── COMMAND            with SESSIOND_SOCKET set; signals are passed on to it
 *                  └── keeper             makes the directory, starts the daemon, waits for it to be ready
 *                        └── sessiond
 *
 * The keeper holds one end of a socket pair. When the other end is gone, because the command has ended or sessionctl
 * itself was killed, it ends the daemon and removes the directory. The daemon dies with the keeper.
 */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    START_MS = 60000, /* how long the daemon may take to be ready */
    STOP_MS = 10000,  /* and to end, before it is killed */
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
    EXIT_SIGNALLED = 128,
};

#define DIRECTORY_PATTERN "/tmp/sessionctl-XXXXXX" /* short: a socket's path has 107 bytes at most */

/* What the daemon has; the paths are in the directory. */
struct place {
    char directory[sizeof(DIRECTORY_PATTERN)];
    char socket[64], state[64], notify[64], log[64];
};

/* ---- the keeper: the place ---- */

static int place_make(struct place *place)
{
    memcpy(place->directory, DIRECTORY_PATTERN, sizeof(DIRECTORY_PATTERN));
    if (!mkdtemp(place->directory))
        return complain(EXIT_REFUSED, "cannot make %s: %s", DIRECTORY_PATTERN, strerrordesc_np(errno));
    (void)snprintf(place->socket, sizeof(place->socket), "%s/sessiond.sock", place->directory);
    (void)snprintf(place->state, sizeof(place->state), "%s/state", place->directory);
    (void)snprintf(place->notify, sizeof(place->notify), "%s/notify", place->directory);
    (void)snprintf(place->log, sizeof(place->log), "%s/log", place->directory);
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void place_remove(const struct place *place)
{
    if (nftw(place->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
        (void)complain(0, "cannot remove %s: %s", place->directory, strerrordesc_np(errno));
}

static void print_log(const struct place *place)
{
    FILE *file = fopen(place->log, "re");
    char part[4096];
    size_t n;

    while (file && (n = fread(part, 1, sizeof(part), file)) > 0)
        (void)fwrite(part, 1, n, stderr);
    if (file)
        (void)fclose(file);
}

/* ---- the keeper: the daemon ---- */

/* Return: a socket on which the daemon says that it is ready; < 0: -errno. */
static int open_notify(const struct place *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, place->notify, sizeof(place->notify));
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    return -errno;
}

static _Noreturn void become_daemon(const struct place *place, pid_t keeper, const sigset_t *mask)
{
    const char *arguments[] = {"sessiond", "--socket", place->socket, "--state-dir", place->state, NULL};
    int in = open("/dev/null", O_RDONLY), out = open(place->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

    (void)sigprocmask(SIG_SETMASK, mask, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != keeper)
        _exit(EXIT_NO_DAEMON);
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
        _exit(EXIT_NO_DAEMON);
    if (setenv("NOTIFY_SOCKET", place->notify, 1) || unsetenv("LISTEN_FDS") || unsetenv("LISTEN_PID"))
        _exit(EXIT_NO_DAEMON);
    exec_sessiond(arguments);
    (void)complain(0, "the program sessiond is neither beside sessionctl nor in $PATH: %s", strerrordesc_np(errno));
    _exit(EXIT_NO_DAEMON);
}

static bool says_ready(int notify)
{
    char text[4096];
    ssize_t size = recv(notify, text, sizeof(text) - 1, 0);

    if (size < 0)
        return false;
    text[size] = '\0';
    return strncmp(text, "READY=1", 7) == 0 || strstr(text, "\nREADY=1");
}

/* Waits until the daemon is ready. Return: false if it ended, took too long, or nobody waits for it any more. */
static bool await_ready(int notify, int daemon, int control)
{
    struct pollfd fds[] = {{notify, POLLIN, 0}, {daemon, POLLIN, 0}, {control, POLLIN, 0}};

    while (poll(fds, 3, START_MS) > 0) {
        if (fds[0].revents && says_ready(notify))
            return true;
        if (fds[1].revents || fds[2].revents)
            return false;
    }
    return false;
}

/* Waits until nobody needs the daemon any more, or it has ended. */
static void await_end(const struct place *place, int daemon, int control)
{
    struct pollfd fds[] = {{control, POLLIN, 0}, {daemon, POLLIN, 0}};

    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    if (!fds[0].revents) {
        (void)complain(0, "the private daemon has ended before the command; its log:");
        print_log(place);
    }
}

static void end_daemon(pid_t pid, int daemon)
{
    struct pollfd fd = {daemon, POLLIN, 0};

    (void)kill(pid, SIGTERM);
    if (poll(&fd, 1, STOP_MS) <= 0)
        (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

/* Starts the daemon, hands the place to sessionctl, and keeps it as long as that lives. */
static int keep_daemon(const struct place *place, int notify, int control, const sigset_t *mask)
{
    pid_t keeper = getpid(), pid = fork();
    int daemon;
    bool ready;

    if (pid == 0)
        become_daemon(place, keeper, mask);
    daemon = pid < 0 ? -1 : pidfd_open(pid, 0);
    if (daemon < 0)
        return complain(EXIT_NO_DAEMON, "cannot start the daemon: %s", strerrordesc_np(errno));
    ready = await_ready(notify, daemon, control);
    if (ready && send(control, place, sizeof(*place), MSG_NOSIGNAL) == (ssize_t)sizeof(*place)) {
        await_end(place, daemon, control);
    } else {
        (void)complain(0, "the private daemon did not start; its log:");
        print_log(place);
    }
    end_daemon(pid, daemon);
    close(daemon);
    return ready ? EXIT_DONE : EXIT_NO_DAEMON;
}

static int keep(int control, const sigset_t *mask)
{
    struct place place;
    int notify, status = place_make(&place);

    if (status)
        return status;
    notify = open_notify(&place);
    if (notify < 0)
        status = complain(EXIT_REFUSED, "cannot make %s: %s", place.notify, strerrordesc_np(-notify));
    else
        status = keep_daemon(&place, notify, control, mask);
    place_remove(&place);
    return status;
}

/* ---- sessionctl itself ---- */

/* The keeper has a session of its own, so that the keys of the terminal reach the command alone. */
static pid_t start_keeper(int *ret_control, const sigset_t *mask)
{
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -1;
    pid = fork();
    if (pid == 0) {
        close(pair[0]);
        (void)setsid();
        _exit(keep(pair[1], mask));
    }
    close(pair[1]);
    *ret_control = pair[0];
    return pid;
}

static _Noreturn void become_command(char **arguments, const struct place *place, const sigset_t *mask)
{
    int error;

    (void)sigprocmask(SIG_SETMASK, mask, NULL);
    if (setenv("SESSIOND_SOCKET", place->socket, 1) == 0)
        (void)execvp(arguments[0], arguments);
    error = errno;
    (void)complain(0, "cannot run %s: %s", arguments[0], strerrordesc_np(error));
    _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

/* Waits for the command and passes signals on to it, except those that the terminal has sent to it as well. */
static int await_command(pid_t pid, const sigset_t *signals)
{
    siginfo_t info;
    int status;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (sigwaitinfo(signals, &info) > 0 && info.si_signo != SIGCHLD && info.si_code != SI_KERNEL)
            (void)kill(pid, info.si_signo);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNALLED + WTERMSIG(status);
}

static int run_command(char **arguments, const struct place *place, const sigset_t *signals, const sigset_t *mask)
{
    pid_t pid = fork();

    if (pid < 0)
        return complain(EXIT_REFUSED, "cannot run %s: %s", arguments[0], strerrordesc_np(errno));
    if (pid == 0)
        become_command(arguments, place, mask);
    return await_command(pid, signals);
}

/* Blocks what is passed on: until the command runs, a signal waits. The keeper is not to be ended by these at all. */
static void block_signals(sigset_t *ret_signals, sigset_t *ret_mask)
{
    static const int passed_on[] = {SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

    sigemptyset(ret_signals);
    for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
        sigaddset(ret_signals, passed_on[i]);
    (void)sigprocmask(SIG_BLOCK, ret_signals, ret_mask);
}

int command_run(const struct invocation *invocation)
{
    sigset_t signals, mask;
    struct place place;
    int control, status;
    pid_t keeper;

    block_signals(&signals, &mask);
    keeper = start_keeper(&control, &mask);
    if (keeper < 0)
        return complain(EXIT_REFUSED, "cannot start: %s", strerrordesc_np(errno));
    if (recv(control, &place, sizeof(place), 0) != (ssize_t)sizeof(place))
        status = EXIT_NO_DAEMON; /* the keeper has said why */
    else
        status = run_command(invocation->arguments, &place, &signals, &mask);
    close(control);
    (void)waitpid(keeper, NULL, 0);
    return status;
}
