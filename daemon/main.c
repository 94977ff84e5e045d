/*
 * sessiond: the daemon that keeps the conversation history of agents. This file only puts the parts together, in the
 * order that a clean start needs: settings, locks, lanes and stores, and only then the socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <uv.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/server.h"
#include "rpc/memory.h"
#include "rpc/request.h"
#include "store/engine.h"
#include "store/lane.h"
#include "store/store.h"
#include "systemd.h"

enum {
    EXIT_USAGE = 2,
    EXIT_IN_USE = 4, /* another sessiond has the directory or the socket */
};

enum { HEAP_FREE_MAX = 8 * 1024 * 1024 }; /* twice the largest answer of more than one item */

enum option_code {
    OPTION_SOCKET = 1,
    OPTION_STATE_DIR,
    OPTION_CONFIG,
    OPTION_SYSTEM,
    OPTION_LOG_LEVEL,
    OPTION_DUMPABLE,
    OPTION_CHECK_CONFIG,
    OPTION_PRINT_CONFIG,
    OPTION_HELP_CONFIG,
    OPTION_VERIFY,
    OPTION_VERSION,
    OPTION_HELP
};

struct process {
    struct config config;
    enum option_code only; /* what is to be done instead of serving; 0: nothing */
    bool dumpable;
    struct daemon daemon;
    struct server server;
    uv_loop_t loop;
    uv_signal_t signals[3];
    uv_timer_t watchdog;
    uv_work_t first_work;
    struct lanes *lanes;
    struct registry *registry;
    int exit_status;
};

/* ---- the command line ---- */

static const char usage[] =
    "usage: sessiond [OPTION]...\n"
    "Keeps the conversation history of agents: a daemon on a Unix socket.\n"
    "\n"
    "  --socket PATH     the socket (107 bytes at most);\n"
    "                    default $XDG_RUNTIME_DIR/sessiond/sessiond.sock\n"
    "  --state-dir DIR   where the stores are; default $XDG_STATE_HOME/sessiond,\n"
    "                    else ~/.local/state/sessiond\n"
    "  --config FILE     settings, as one JSON object; with a '-' before its name it may be\n"
    "                    missing. SIGHUP reads it again\n"
    "  --system          serve many users, each peer's uid its own;\n"
    "                    default /run/sessiond/sessiond.sock and /var/lib/sessiond\n"
    "  --log-level L     error, warning, info (default) or debug; the log goes to stderr\n"
    "  --dumpable        let the same user look into its memory and let it leave cores,\n"
    "                    for debugging\n"
    "  --check-config    read the settings and exit: 0 good, 2 not, and where\n"
    "  --print-config    show each setting, its value and who said so, and exit\n"
    "  --help-config     show what can be set, with unit, range and default, and exit\n"
    "  --verify FILE     check a backup and exit: 0 good, 1 not\n"
    "  --version         show the version and exit\n"
    "  --help            show this text and exit\n"
    "\n"
    "It runs in the foreground until SIGTERM or SIGINT. A flag outweighs the file. Exit status:\n"
    "0 stopped cleanly, 1 a fault, 2 usage or configuration, 4 another sessiond has the directory\n"
    "or the socket.\n";

static const struct option options[] = {
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"state-dir", required_argument, NULL, OPTION_STATE_DIR},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"system", no_argument, NULL, OPTION_SYSTEM},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"dumpable", no_argument, NULL, OPTION_DUMPABLE},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"print-config", no_argument, NULL, OPTION_PRINT_CONFIG},
    {"help-config", no_argument, NULL, OPTION_HELP_CONFIG},
    {"verify", required_argument, NULL, OPTION_VERIFY},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

static int verify(const struct config *config, const char *path)
{
    char why[160];
    int r = sqlite_setup(config);

    if (r == 0)
        r = sqlite_verify(path, why, sizeof(why));

    if (r)
        fprintf(stderr, "%s: %s\n", path, r < 0 ? "it could not be checked" : why);
    else
        printf("%s: a whole store of sessiond\n", path);
    return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int replace_text(char **text, const char *value)
{
    free(*text);
    *text = strdup(value);
    return *text ? 0 : fault(ENOMEM, "command line");
}

static int exit_status(int r)
{
    switch (r) {
    case 0:
        return EXIT_SUCCESS;
    case SESSIOND_BUSY:
        return EXIT_IN_USE;
    case SESSIOND_INVALID:
        return EXIT_USAGE;
    default:
        return EXIT_FAILURE;
    }
}

/* Frees the text. */
static int print_text(struct buf *text)
{
    bool done = !text->failed && fwrite(text->data, 1, text->size, stdout) == text->size && fflush(stdout) == 0;

    buf_deinit(text);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int print_config_help(void)
{
    struct buf text = BUF_INIT;

    config_help(&text);
    return print_text(&text);
}

static int print_config(const struct config *config)
{
    struct buf text = BUF_INIT;

    config_print(config, &text);
    return print_text(&text);
}

/* This and what reads options: return -1 to go on, else an exit status. */
static int set_flag(struct config *config, const char *name, const char *value)
{
    int r = config_set_flag(config, name, value);

    return r ? exit_status(r) : -1;
}

static int read_option(struct process *process, int option, const char *value)
{
    struct config *config = &process->config;

    switch ((enum option_code)option) {
    case OPTION_SOCKET:
        return set_flag(config, "socket", value);
    case OPTION_STATE_DIR:
        return set_flag(config, "state_dir", value);
    case OPTION_LOG_LEVEL:
        return set_flag(config, "log_level", value);
    case OPTION_CONFIG:
        return replace_text(&config->file, value) ? EXIT_FAILURE : -1;
    case OPTION_SYSTEM:
        config->system = true;
        return -1;
    case OPTION_DUMPABLE:
        process->dumpable = true;
        return -1;
    case OPTION_CHECK_CONFIG:
    case OPTION_PRINT_CONFIG:
        process->only = (enum option_code)option;
        return -1;
    case OPTION_HELP_CONFIG:
        return print_config_help();
    case OPTION_VERIFY:
        return verify(config, value);
    case OPTION_VERSION:
        puts("sessiond " SESSIOND_VERSION);
        return EXIT_SUCCESS;
    case OPTION_HELP:
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    fputs(usage, stderr);
    return EXIT_USAGE;
}

/* Return: as read_option. */
static int read_configuration(struct process *process)
{
    struct config *config = &process->config;
    int r;

    if ((r = config_read(config, config->file)) || (r = config_complete(config)))
        return exit_status(r);
    if (process->only == OPTION_PRINT_CONFIG)
        return print_config(config);
    return process->only == OPTION_CHECK_CONFIG ? EXIT_SUCCESS : -1;
}

static int read_command_line(struct process *process, int argc, char **argv)
{
    int option, status;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if ((status = read_option(process, option, optarg)) >= 0)
            return status;
    if (optind < argc) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return read_configuration(process);
}

/* ---- what the process needs from the kernel ---- */

/* SQLite must never get descriptor 0, 1 or 2, to which anything in the process may write. */
static int open_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd < 0)
        return fault(errno, "/dev/null");
    close(fd);
    return 0;
}

/* Histories are nobody's business: no core, and no debugger of the same uid, unless somebody asks for it. */
static int hide_memory(const struct process *process)
{
    if (process->dumpable)
        return 0;
    return prctl(PR_SET_DUMPABLE, 0) < 0 ? fault(errno, "PR_SET_DUMPABLE") : 0;
}

/* Descriptors for all connections and stores. libuv 1.44 aborts when its table of watchers cannot grow later, so it is
 * made to grow to its full size now: by watching, for a moment, a descriptor with the highest number. */
static int reserve_descriptors(struct process *process)
{
    const struct config *config = &process->config;
    rlim_t wanted = config->connections + config->lanes * config->open_stores * 4 + 128;
    struct rlimit limit;
    uv_poll_t poll;
    int fds[2], high, r;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return fault(errno, "RLIMIT_NOFILE");
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return fault(errno, "RLIMIT_NOFILE");
    if (pipe(fds) < 0)
        return fault(errno, "pipe");
    high = fcntl(fds[0], F_DUPFD_CLOEXEC, (int)limit.rlim_cur - 1);
    if (high < 0)
        return fault(errno, "the highest descriptor");
    if ((r = uv_poll_init(&process->loop, &poll, high)) || (r = uv_poll_start(&poll, UV_READABLE, NULL)))
        return fault(r, "grow the loop's table");
    uv_close((uv_handle_t *)&poll, NULL);
    uv_run(&process->loop, UV_RUN_NOWAIT);
    close(high);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

static void do_nothing(uv_work_t *work)
{
    (void)work;
}

/* libuv makes the threads of its pool when they are first needed, and aborts if it cannot: better now than later. */
static int start_pool(struct process *process)
{
    int r = uv_queue_work(&process->loop, &process->first_work, do_nothing, NULL);

    return r ? fault(r, "thread pool") : 0;
}

/* Of a large block that is freed glibc learns to take such blocks from its heaps, and to keep twice as much of each
 * heap when it is free, up to 64 MiB; and each of our threads has a heap. So it is told: what no answer needs is the
 * kernel's, and a heap keeps free what one answer needs, which would be slow to get from the kernel each time. */
static void bound_heaps(void)
{
    mallopt(M_MMAP_THRESHOLD, HEAP_FREE_MAX);
    mallopt(M_TRIM_THRESHOLD, HEAP_FREE_MAX);
}

static int set_up_process(struct process *process)
{
    int r;

    bound_heaps();
    umask(0077);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file over RLIMIT_FSIZE is an error of that write, not our end */
    if ((r = open_standard_descriptors()) || (r = hide_memory(process)))
        return r;
    log_setup(process->config.log_level);
    if ((r = uv_loop_init(&process->loop)))
        return fault(r, "event loop");
    if ((r = reserve_descriptors(process)))
        return r;
    return start_pool(process);
}

/* ---- the state directory ---- */

static int lock_state_dir(const struct config *config)
{
    char path[PATH_MAX];
    int fd, r;

    if (snprintf(path, sizeof(path), "%s/lock", config->state_dir) >= (int)sizeof(path))
        return fault(ENAMETOOLONG, config->state_dir);
    if ((r = file_make_directory(config->state_dir)))
        return r;
    r = file_lock(path, &fd); /* the descriptor stays open until the process ends */
    if (r == SESSIOND_BUSY)
        log_error("state_dir_in_use path=\"%s\" why=\"another sessiond has its lock\"", config->state_dir);
    return r;
}

/* The instance is kept with the data: whoever has the data has the receipts. */
static int read_instance(struct process *process)
{
    char path[PATH_MAX], *instance = process->daemon.instance;
    int r;

    if (snprintf(path, sizeof(path), "%s/instance", process->config.state_dir) >= (int)sizeof(path))
        return fault(ENAMETOOLONG, process->config.state_dir);
    r = file_read(path, instance, sizeof(process->daemon.instance));
    if (r == 0 && strlen(instance) == RANDOM_ID_SIZE)
        return 0;
    if (r != SESSIOND_NOT_FOUND)
        return r < 0 ? r : fault(EBADMSG, path);
    if ((r = clock_random_id(instance)))
        return r;
    return file_write(path, instance);
}

/* ---- life ---- */

static void describe(struct process *process)
{
    struct daemon *daemon = &process->daemon;
    const char *const libraries[][2] = {
        {"libuv", uv_version_string()},     {"sqlite", sqlite_version()},           {"sqlite_source", sqlite_source()},
        {"jansson", jansson_version_str()}, {"msgpack", message_library_version()},
    };

    daemon->config = &process->config;
    daemon->started_us = clock_monotonic_us();
    for (size_t i = 0; i < N_ELEMENTS(libraries); i++) {
        daemon->libraries[i].name = libraries[i][0];
        daemon->libraries[i].version = libraries[i][1];
    }
}

/* The connections are gone, and all that was read is answered, or the grace time is over: now the stores close. */
static void on_server_stopped(struct server *server)
{
    struct process *process = CONTAINER_OF(server, struct process, server);
    uint64_t deadline = clock_monotonic_us() + process->config.grace_seconds * 1000000;

    if (lanes_stop(process->lanes, deadline) || server->n_requests) {
        log_error("stopped_hard why=\"work is stuck; all that was acknowledged is on disk\"");
        _exit(EXIT_FAILURE);
    }
    lanes_close(process->lanes);
}

/* Loop thread. */
static void reload(struct process *process)
{
    char state[64];
    int r;

    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_monotonic_us());
    systemd_notify(state);
    r = config_reload(&process->config);
    server_on_reload(&process->server);
    systemd_notify(r ? "READY=1\nSTATUS=The new configuration is wrong, the old one is in force" : "READY=1\nSTATUS=");
}

static void on_signal(uv_signal_t *handle, int signal)
{
    struct process *process = handle->data;

    if (process->server.stopping)
        return;
    if (signal == SIGHUP) {
        reload(process);
        return;
    }
    log_info("stopping signal=%d", signal);
    systemd_notify("STOPPING=1");
    server_stop(&process->server, on_server_stopped);
}

/* To the very end: a second signal that came when nobody watches any more would make a clean stop look like a crash. So
 * the handles are never closed, and do not keep the loop alive. */
static int watch_signals(struct process *process)
{
    const int signals[N_ELEMENTS(process->signals)] = {SIGTERM, SIGINT, SIGHUP};
    int r;

    for (size_t i = 0; i < N_ELEMENTS(signals); i++) {
        process->signals[i].data = process;
        if ((r = uv_signal_init(&process->loop, &process->signals[i])) ||
            (r = uv_signal_start(&process->signals[i], on_signal, signals[i])))
            return fault(r, "signals");
        uv_unref((uv_handle_t *)&process->signals[i]);
    }
    return 0;
}

/* Said by the loop, and only if the lanes get on as well: who waits for us in vain is better served by a new start. */
static void on_watchdog(uv_timer_t *timer)
{
    struct process *process = timer->data;

    if (process->server.stopping || lanes_get_on(process->lanes))
        systemd_notify("WATCHDOG=1");
}

static int start_watchdog(struct process *process)
{
    uint64_t us = systemd_watchdog_us(), ms = us / 1000 / 3;
    int r;

    if (us == 0)
        return 0;
    process->watchdog.data = process;
    if ((r = uv_timer_init(&process->loop, &process->watchdog)) ||
        (r = uv_timer_start(&process->watchdog, on_watchdog, ms, ms ? ms : 1)))
        return fault(r, "watchdog");
    uv_unref((uv_handle_t *)&process->watchdog);
    return 0;
}

/* Locks first, then stores, then the socket: nobody can connect before we can answer. */
static int start(struct process *process)
{
    int r, passed_fd;

    if ((r = systemd_listen_fd(&passed_fd)) ||
        (r = memory_open(&process->daemon.memory, process->config.history_bytes)) ||
        (r = lock_state_dir(&process->config)) || (r = read_instance(process)) ||
        (r = sqlite_setup(&process->config)) || (r = watch_signals(process)) ||
        (r = lanes_open(&process->lanes, &process->loop, &process->config, server_on_jobs, &process->server)) ||
        (r = registry_open(&process->registry, &process->config, process->lanes, &sqlite_engine)))
        return r;
    process->daemon.registry = process->registry;
    process->daemon.lanes = process->lanes;
    if ((r = server_open(&process->server, &process->loop, &process->daemon, process->registry, passed_fd)))
        return r;
    return start_watchdog(process);
}

int main(int argc, char **argv)
{
    static struct process process;
    int r, status;

    config_init(&process.config);
    log_setup(process.config.log_level);
    if ((status = read_command_line(&process, argc, argv)) >= 0)
        return status;

    describe(&process);
    if ((r = set_up_process(&process)) || (r = start(&process)))
        return exit_status(r); /* the log says why; threads and handles end with the process */
    log_info("ready version=" SESSIOND_VERSION " socket=\"%s\" state_dir=\"%s\" instance=%s",
             process.config.socket_path, process.config.state_dir, process.daemon.instance);
    systemd_notify("READY=1");

    uv_run(&process.loop, UV_RUN_DEFAULT);
    memory_close(process.daemon.memory);
    registry_close(process.registry);
    config_deinit(&process.config);
    log_info("stopped");
    return EXIT_SUCCESS;
}
