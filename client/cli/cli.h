/*
 * Inside sessionctl: what its files share. main.c reads the command line by two tables and runs one command;
 * commands.c and top.c have those that talk to a daemon, verify.c and run.c those that bring their own. One thread.
 */
#ifndef SESSIOND_CLI_H
#define SESSIOND_CLI_H

#include "sessiond.h"

enum exit_status {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1, /* or failed here */
    EXIT_USAGE = 2,
    EXIT_NO_DAEMON = 3,
};

/* The command line, read. */
struct invocation {
    const char *socket;
    const char *store;
    struct sessiond_number owner;
    struct sessiond_number limit;
    struct sessiond_number every, times;
    bool json;
    bool help;
    bool version;
    const struct command *command;
    char **arguments; /* of the command; ends with NULL */
    int n_arguments;
};

/* A command that asks a daemon, and the way to run it. Both return an exit status. */
typedef int command_fn(struct sessiond *client, const struct invocation *invocation);
int ask_daemon(const struct invocation *invocation, command_fn *command);

command_fn command_get, command_add, command_pop, command_clear, command_delete, command_list, command_stores,
    command_ping, command_info, command_metrics, command_top, command_backup, command_recover;

/* Says why a call failed. Return: the exit status. */
int refused(const struct sessiond *client, int r);

/* A text inside quotes, or for a terminal: what could move the cursor is escaped. */
void print_escaped(struct sessiond_text text);
void print_json_text(struct sessiond_text text);

/* Commands that ask none. */
int command_verify(const struct invocation *invocation);
int command_run(const struct invocation *invocation);

/* Says on stderr what failed. Return: the status. */
__attribute__((format(printf, 2, 3))) int complain(int status, const char *format, ...);

/* Becomes the daemon's program, which is beside ours or in $PATH. Return: only if there is none, with errno set. */
void exec_sessiond(const char *const arguments[]);

#endif
