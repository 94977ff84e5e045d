#include "systemd.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "sessiond-codes.h"

enum { FIRST_PASSED_FD = 3 };

void systemd_notify(const char *state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    _cleanup_(close_fd) int fd = -1;
    size_t size;

    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
        return;
    size = strlen(path);
    memcpy(address.sun_path, path, size);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* an abstract address */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) < 0)
        log_warning("notify_failed state=\"%s\"", state);
}

/* A number of the environment that is meant for this process; 0: there is none. */
static uint64_t read_number(const char *name, const char *name_of_pid)
{
    const char *pid = getenv(name_of_pid), *value = getenv(name);

    if (!value || (pid && strtol(pid, NULL, 10) != getpid()))
        return 0;
    return strtoull(value, NULL, 10);
}

uint64_t systemd_watchdog_us(void)
{
    uint64_t us = read_number("WATCHDOG_USEC", "WATCHDOG_PID");

    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return us;
}

static int option_of(int fd, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}

static int refuse(const char *why)
{
    log_error("passed_socket_refused why=\"%s\"", why);
    return SESSIOND_INVALID;
}

static int check_passed(uint64_t n, int fd)
{
    if (n > 1)
        return refuse("there are several; one socket, with one ListenStream=, is all that is served");
    if (option_of(fd, SO_DOMAIN) != AF_UNIX || option_of(fd, SO_TYPE) != SOCK_STREAM)
        return refuse("it is no stream socket of Unix");
    if (option_of(fd, SO_ACCEPTCONN) != 1)
        return refuse("it does not listen; with Accept=yes there is nothing to listen on");
    return 0;
}

int systemd_listen_fd(int *ret_fd)
{
    uint64_t n = getenv("LISTEN_PID") ? read_number("LISTEN_FDS", "LISTEN_PID") : 0;
    int r = n ? check_passed(n, FIRST_PASSED_FD) : 0;

    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    *ret_fd = -1;
    if (r || n == 0)
        return r;
    fcntl(FIRST_PASSED_FD, F_SETFD, FD_CLOEXEC);
    *ret_fd = FIRST_PASSED_FD;
    return 0;
}
