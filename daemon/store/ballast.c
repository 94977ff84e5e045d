#include "store/ballast.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"

enum { PLENTY = 4 }; /* times its size that must be free before it is made again */

struct ballast {
    const struct config *config;
    pthread_mutex_t lock;
    bool there;
    char path[PATH_MAX];
};

static bool is_whole(const struct ballast *ballast)
{
    struct stat status;

    return stat(ballast->path, &status) == 0 && (uint64_t)status.st_blocks * 512 >= ballast->config->ballast_bytes;
}

static bool has_plenty(const struct ballast *ballast)
{
    struct statvfs status;

    return statvfs(ballast->config->state_dir, &status) == 0 &&
           (uint64_t)status.f_bavail * status.f_frsize >= PLENTY * ballast->config->ballast_bytes;
}

/* Return: whether it is there now. */
static bool make(struct ballast *ballast)
{
    _cleanup_(close_fd) int fd = -1;
    int error;

    if (ballast->config->ballast_bytes == 0 || is_whole(ballast))
        return ballast->config->ballast_bytes > 0;
    if (!has_plenty(ballast))
        return false;
    fd = open(ballast->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    error = posix_fallocate(fd, 0, (off_t)ballast->config->ballast_bytes);
    if (error)
        (void)unlink(ballast->path);
    return error == 0;
}

int ballast_open(struct ballast **ret, const struct config *config)
{
    struct ballast *ballast = calloc(1, sizeof(*ballast));

    if (!ballast)
        return fault(ENOMEM, "ballast");
    ballast->config = config;
    if (snprintf(ballast->path, sizeof(ballast->path), "%s/ballast", config->state_dir) >= (int)sizeof(ballast->path)) {
        free(ballast);
        return fault(ENAMETOOLONG, config->state_dir);
    }
    pthread_mutex_init(&ballast->lock, NULL);
    ballast->there = make(ballast);
    if (!ballast->there && config->ballast_bytes)
        log_warning("no_ballast why=\"the disk is nearly full\" bytes=%llu", (unsigned long long)config->ballast_bytes);
    *ret = ballast;
    return 0;
}

void ballast_close(struct ballast *ballast)
{
    pthread_mutex_destroy(&ballast->lock);
    free(ballast);
}

bool ballast_release(struct ballast *ballast)
{
    bool released;

    pthread_mutex_lock(&ballast->lock);
    released = ballast->there && unlink(ballast->path) == 0;
    ballast->there = false;
    pthread_mutex_unlock(&ballast->lock);
    if (released)
        log_warning("ballast_released why=\"the disk is full and something is to be removed\"");
    return released;
}

void ballast_restore(struct ballast *ballast)
{
    pthread_mutex_lock(&ballast->lock);
    if (!ballast->there && (ballast->there = make(ballast)))
        log_info("ballast_restored");
    pthread_mutex_unlock(&ballast->lock);
}
