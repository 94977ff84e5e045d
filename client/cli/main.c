#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the flags ---- */

enum flag_bit {
    FLAG_SOCKET = 1 << 0,
    FLAG_STORE = 1 << 1,
    FLAG_JSON = 1 << 2,
    FLAG_LIMIT = 1 << 3,
    FLAG_HELP = 1 << 4,
    FLAG_VERSION = 1 << 5,
    FLAG_OWNER = 1 << 6,
    FLAG_EVERY = 1 << 7,
    FLAG_TIMES = 1 << 8,
};

static int set_true(void *into, const char *value)
{
    (void)value;
    *(bool *)into = true;
    return 0;
}

static int set_text(void *into, const char *value)
{
    *(const char **)into = value;
    return 0;
}

static int set_number(void *into, const char *value)
{
    char *end;
    unsigned long long number;

    errno = 0;
    number = strtoull(value, &end, 10);
    if (errno || *end || *value < '0' || *value > '9' || number >= 1ULL << 53)
        return complain(EXIT_USAGE, "\"%s\" is no number from 0 to 2^53-1", value);
    *(struct sessiond_number *)into = SESSIOND_SOME(number);
    return 0;
}

static const struct flag {
    const char *name;
    const char *value; /* what it takes, for people; NULL: nothing */
    enum flag_bit bit;
    size_t offset; /* into struct invocation */
    int (*set)(void *into, const char *value);
    const char *help;
} flags[] = {
    {"--socket", "PATH", FLAG_SOCKET, offsetof(struct invocation, socket), set_text,
     "of the daemon (default: $SESSIOND_SOCKET, else the user's, else the system's)"},
    {"--store", "NAME", FLAG_STORE, offsetof(struct invocation, store), set_text,
     "of the sessions (default: $SESSIOND_STORE, else \"default\")"},
    {"--owner", "UID", FLAG_OWNER, offsetof(struct invocation, owner), set_number,
     "whose stores (for administrators; the daemon's log notes it)"},
    {"--limit", "N", FLAG_LIMIT, offsetof(struct invocation, limit), set_number, "only the latest N items"},
    {"--every", "SECONDS", FLAG_EVERY, offsetof(struct invocation, every), set_number,
     "how long top waits between two looks (default: 1)"},
    {"--times", "N", FLAG_TIMES, offsetof(struct invocation, times), set_number,
     "print N pages of top, one below the other, and end (0: go on)"},
    {"--json", NULL, FLAG_JSON, offsetof(struct invocation, json), set_true, "all of the answer, as one JSON object"},
    {"--help", NULL, FLAG_HELP, offsetof(struct invocation, help), set_true, "this text, or that of a command"},
    {"--version", NULL, FLAG_VERSION, offsetof(struct invocation, version), set_true, "of this program"},
};

/* ---- the commands ---- */

enum {
    OF_THE_DAEMON = FLAG_SOCKET | FLAG_JSON | FLAG_OWNER,
    OF_A_STORE = OF_THE_DAEMON | FLAG_STORE,
    ARGUMENTS_MANY = 1 << 30,
};

static const struct command {
    const char *name;
    const char *arguments;
    int n_min, n_max;
    unsigned flags;                                  /* besides --help */
    command_fn *ask;                                 /* asks the daemon; NULL: */
    int (*run)(const struct invocation *invocation); /* needs none */
    const char *help;
    const char *more; /* what --help of the command says besides */
} commands[] = {
    {"get", "SESSION", 1, 1, OF_A_STORE | FLAG_LIMIT, command_get, NULL, "its items as JSON lines", ""},
    {"add", "SESSION [FILE]", 1, 2, OF_A_STORE, command_add, NULL, "append JSON lines from FILE or stdin, all or none",
     "Every line is one item and is stored byte for byte, without its newline. An empty line is no item and\n"
     "is refused, and so is a carriage return; nothing is stored then.\n"},
    {"pop", "SESSION", 1, 1, OF_A_STORE, command_pop, NULL, "remove the newest item and print it",
     "Prints nothing if there is none.\n"},
    {"clear", "SESSION", 1, 1, OF_A_STORE, command_clear, NULL, "remove all items; the session stays", ""},
    {"delete", "SESSION", 1, 1, OF_A_STORE, command_delete, NULL, "remove the session with all that is known of it",
     ""},
    {"list", "[PREFIX]", 0, 1, OF_A_STORE, command_list, NULL, "the sessions, their items, bytes and last change", ""},
    {"stores", "", 0, 0, OF_THE_DAEMON, command_stores, NULL, "the stores, their sessions and bytes", ""},
    {"ping", "", 0, 0, OF_THE_DAEMON, command_ping, NULL, "does the daemon answer?", ""},
    {"info", "", 0, 0, OF_THE_DAEMON, command_info, NULL, "what the daemon says of itself", ""},
    {"metrics", "", 0, 0, FLAG_SOCKET, command_metrics, NULL, "rates, latencies, queues and use, for Prometheus",
     "Counters since the daemon's start, in Prometheus' text format. On a daemon of many users, administrators see\n"
     "all of it, and everybody else what concerns himself.\n"},
    {"top", "", 0, 0, FLAG_SOCKET | FLAG_JSON | FLAG_EVERY | FLAG_TIMES, command_top, NULL,
     "a live screen: rates, latencies, queues, busy uids and sessions",
     "What happened since the last look, each second; first, what did since the daemon's start. `q` or Ctrl-C\n"
     "ends it. Where stdout is no terminal, and with --json, it is one page of what happens in a second, as lines\n"
     "or as an object on one line. SESSION shows the store, with an @ if it is shared, and the session's id;\n"
     "\"lately\" is the number of requests, halved every ten seconds. On a daemon of many users, administrators see\n"
     "all of it, and everybody else what concerns himself.\n"},
    {"recover", "", 0, 0, OF_A_STORE, command_recover, NULL, "accept that a store has less than was acknowledged",
     "A store that lost something (a damaged log, an old copy put back) refuses changes as rolled_back, and `get`\n"
     "shows what it has. When you have looked, and there is no better copy, this lets it go on.\n"},
    {"backup", "FILE", 1, 1, OF_A_STORE, command_backup, NULL,
     "a verified copy of the store, while the daemon works on",
     "FILE takes its name, in place of an older one, when it is whole and on disk. To restore, stop the daemon,\n"
     "put FILE in the place of the store's items.db, remove items.db-wal beside it, start the daemon, and accept\n"
     "with `recover` that the store is older than it was.\n"},
    {"verify", "FILE", 1, 1, 0, NULL, command_verify, "is this a whole and undamaged store?", ""},
    {"run", "-- COMMAND ...", 1, ARGUMENTS_MANY, 0, NULL, command_run,
     "a private daemon for one command, for tests and CI",
     "The command finds the daemon through $SESSIOND_SOCKET. Both the daemon and its data are gone when the\n"
     "command has ended; the exit status is the command's, or 128 and the number of the signal that ended it.\n"},
};

/* ---- help ---- */

int complain(int status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("sessionctl: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    return status;
}

static void print_flags(unsigned mask)
{
    char column[32];

    (void)puts("\nFlags:");
    for (size_t i = 0; i < N_ELEMENTS(flags); i++) {
        if (!(mask & flags[i].bit))
            continue;
        (void)snprintf(column, sizeof(column), "%s %s", flags[i].name, flags[i].value ? flags[i].value : "");
        (void)printf("  %-24s%s\n", column, flags[i].help);
    }
}

static int help_all(void)
{
    char column[32];

    (void)puts("sessionctl [--socket PATH] [--store NAME] [--owner UID] [--json] COMMAND ...\n\n"
               "Looks into and changes the sessions that sessiond keeps.\n\nCommands:");
    for (size_t i = 0; i < N_ELEMENTS(commands); i++) {
        (void)snprintf(column, sizeof(column), "%s %s", commands[i].name, commands[i].arguments);
        (void)printf("  %-24s%s\n", column, commands[i].help);
    }
    print_flags(~0U);
    (void)puts("\nWhat follows `--` is no flag. Exit status: 0 done, 1 refused (code and message on stderr), 2 usage, "
               "3 no daemon.");
    return EXIT_DONE;
}

static int help_command(const struct command *command)
{
    (void)printf("sessionctl %s %s\n\n%s: %s\n%s", command->name, command->arguments, command->name, command->help,
                 command->more);
    print_flags(command->flags | FLAG_HELP);
    return EXIT_DONE;
}

/* ---- the command line ---- */

/* Whether `word` is this flag, alone or as --flag=value (then *ret_value is set). */
static bool is_flag(const struct flag *flag, const char *word, const char **ret_value)
{
    size_t size = strlen(flag->name);

    if (strncmp(word, flag->name, size) != 0 || (word[size] && word[size] != '='))
        return false;
    *ret_value = word[size] ? word + size + 1 : NULL;
    return true;
}

static const struct flag *find_flag(const char *word, const char **ret_value)
{
    for (size_t i = 0; i < N_ELEMENTS(flags); i++)
        if (is_flag(&flags[i], word, ret_value))
            return &flags[i];
    return NULL;
}

/* Reads the flag at words[0]. Return: how many words it took; 0: wrong, and said so. */
static int read_flag(struct invocation *invocation, char **words, unsigned *given)
{
    const char *value;
    const struct flag *flag = find_flag(words[0], &value);
    int n = 1;

    if (!flag)
        return complain(0, "there is no flag %s; see --help", words[0]);
    if (!flag->value && value)
        return complain(0, "%s takes no value", flag->name);
    if (flag->value && !value) {
        value = words[1];
        n = 2;
    }
    if (flag->value && !value)
        return complain(0, "%s needs a value: %s", flag->name, flag->value);
    *given |= flag->bit;
    return flag->set((char *)invocation + flag->offset, value) ? 0 : n;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < N_ELEMENTS(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Flags may stand anywhere before `--`; the command of `run` begins with its first word that is no flag. The words
 * that are no flags are moved to the front: first the command, then its arguments. */
static int read_words(struct invocation *invocation, char **words, unsigned *given)
{
    char **in = words, **out = words;

    while (*in) {
        bool flag = **in == '-' && (*in)[1];
        int n;

        if (strcmp(*in, "--") == 0) {
            in++;
            break;
        }
        if (!flag && out > words && strcmp(words[0], "run") == 0)
            break;
        n = flag ? read_flag(invocation, in, given) : 1;
        if (n == 0)
            return EXIT_USAGE;
        if (!flag)
            *out++ = *in;
        in += n;
    }
    while (*in)
        *out++ = *in++;
    *out = NULL;
    invocation->arguments = words + 1;
    invocation->n_arguments = (int)(out - words) - 1;
    return 0;
}

static int check_usage(const struct invocation *invocation, unsigned given)
{
    const struct command *command = invocation->command;

    for (size_t i = 0; i < N_ELEMENTS(flags); i++)
        if (given & flags[i].bit & ~(command->flags | FLAG_HELP))
            return complain(EXIT_USAGE, "%s is of no use to %s; see `sessionctl %s --help`", flags[i].name,
                            command->name, command->name);
    if (invocation->n_arguments < command->n_min || invocation->n_arguments > command->n_max)
        return complain(EXIT_USAGE, "usage: sessionctl %s %s", command->name, command->arguments);
    return 0;
}

/* What was printed must have arrived, on a full disk too. */
static int check_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    return complain(EXIT_REFUSED, "the output could not be written: %s", strerrordesc_np(errno));
}

static int run(struct invocation *invocation, char **words)
{
    unsigned given = 0;
    int status = read_words(invocation, words, &given);

    if (status)
        return status;
    if (invocation->version)
        return printf("sessionctl %s\n", sessiond_version()) < 0;
    if (invocation->n_arguments < 0)
        return invocation->help ? help_all() : complain(EXIT_USAGE, "which command? See `sessionctl --help`");
    invocation->command = find_command(words[0]);
    if (!invocation->command)
        return complain(EXIT_USAGE, "there is no command %s; see `sessionctl --help`", words[0]);
    if (invocation->help)
        return help_command(invocation->command);
    status = check_usage(invocation, given);
    if (status)
        return status;
    if (invocation->command->ask)
        return ask_daemon(invocation, invocation->command->ask);
    return invocation->command->run(invocation);
}

int main(int argc, char **argv)
{
    const char *store = getenv("SESSIOND_STORE");
    struct invocation invocation = {.store = store && *store ? store : NULL};

    return argc < 1 ? EXIT_USAGE : check_output(run(&invocation, argv + 1));
}
