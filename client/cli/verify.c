#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* The directory of this very program comes first: a build finds its own daemon, an installation too. */
void exec_sessiond(const char *const arguments[])
{
    char path[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - sizeof("sessiond"));
    char *slash = size > 0 ? memrchr(path, '/', (size_t)size) : NULL;

    if (slash) {
        memcpy(slash + 1, "sessiond", sizeof("sessiond"));
        (void)execv(path, (char *const *)arguments);
    }
    (void)execvp("sessiond", (char *const *)arguments);
}

/* Only the daemon's program knows SQLite. */
int command_verify(const struct invocation *invocation)
{
    const char *arguments[] = {"sessiond", "--verify", invocation->arguments[0], NULL};

    exec_sessiond(arguments);
    return complain(EXIT_NO_DAEMON, "the program sessiond is neither beside sessionctl nor in $PATH: %s",
                    strerrordesc_np(errno));
}
