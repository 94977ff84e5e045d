#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { INPUT_MAX = 128 * 1024 * 1024 }; /* bytes of a batch: what a daemon takes at most */

/* ---- the daemon ---- */

static const char *const code_names[SESSIOND_N_CODES] = {[SESSIOND_DONE] = "done",
#define CODE_NAME(code, wire, retry, meaning) [SESSIOND_##code] = wire,
                                                         SESSIOND_CODES(CODE_NAME)
#undef CODE_NAME
};

int refused(const struct sessiond *client, int r)
{
    const struct sessiond_error *error = sessiond_last_error(client);
    bool gone = r == -ECONNRESET || r == -ECONNREFUSED || r == -ETIMEDOUT || r == -EPIPE;
    int status = gone ? EXIT_NO_DAEMON : EXIT_REFUSED;

    if (r < 0)
        return complain(status, "%s", error->message);
    if (r == SESSIOND_UNCERTAIN && error->key)
        return complain(status, "%s: %s (key %s)", code_names[r], error->message, error->key);
    return complain(status, "%s: %s", r < SESSIOND_N_CODES ? code_names[r] : "error", error->message);
}

static int ask(struct sessiond *client, const struct invocation *invocation, command_fn *command)
{
    int r = sessiond_ping(client);

    if (r < 0)
        return complain(EXIT_NO_DAEMON, "%s", sessiond_last_error(client)->message);
    return r ? refused(client, r) : command(client, invocation);
}

int ask_daemon(const struct invocation *invocation, command_fn *command)
{
    struct sessiond_options options = {
        .socket = invocation->socket, .store = invocation->store, .owner = invocation->owner, .name = "sessionctl"};
    struct sessiond *client;
    int status, r = sessiond_new(&client, &options);

    if (r)
        return complain(EXIT_USAGE, "%s", r == -EINVAL ? "the socket's path is empty" : sessiond_strerror(r));
    status = ask(client, invocation, command);
    sessiond_free(client);
    return status;
}

/* ---- printing ---- */

/* The bytes of U+0080 to U+009F, which some terminals obey as they do ESC. */
static bool is_control(struct sessiond_text text, size_t i)
{
    return (unsigned char)text.data[i] == 0xc2 && i + 1 < text.size && ((unsigned char)text.data[i + 1] & 0xe0) == 0x80;
}

void print_escaped(struct sessiond_text text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c == '"' || c == '\\')
            (void)printf("\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            (void)printf("\\u%04x", c);
        else if (is_control(text, i))
            (void)printf("\\u%04x", (unsigned char)text.data[++i]);
        else
            (void)putchar(c);
    }
}

void print_json_text(struct sessiond_text text)
{
    (void)putchar('"');
    print_escaped(text);
    (void)putchar('"');
}

/* An item is JSON already. */
static void print_item(struct sessiond_text item)
{
    (void)fwrite(item.data, 1, item.size, stdout);
}

static void print_seq(const char *name, uint64_t seq)
{
    if (seq)
        (void)printf("\"%s\": %" PRIu64 ", ", name, seq);
    else
        (void)printf("\"%s\": null, ", name);
}

static void print_version(uint64_t revision, uint64_t epoch)
{
    (void)printf("\"revision\": %" PRIu64 ", \"epoch\": %" PRIu64 "}\n", revision, epoch);
}

static void print_time(uint64_t us)
{
    time_t seconds = (time_t)(us / 1000000);
    char text[32];
    struct tm tm;

    if (gmtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) > 0)
        (void)fputs(text, stdout);
}

/* ---- items ---- */

static void print_items_json(const struct sessiond_items *items)
{
    (void)fputs("{\"items\": [", stdout);
    for (size_t i = 0; i < items->n_items; i++) {
        (void)fputs(i > 0 ? ", " : "", stdout);
        print_item(items->items[i]);
    }
    (void)fputs("], ", stdout);
    print_seq("first_seq", items->first_seq);
    print_seq("last_seq", items->last_seq);
    (void)printf("\"head_seq\": %" PRIu64 ", ", items->head_seq);
    if (items->missing)
        (void)printf("\"missing\": %" PRIu64 ", ", items->missing);
    print_version(items->revision, items->epoch);
}

static void print_items(const struct sessiond_items *items)
{
    for (size_t i = 0; i < items->n_items; i++) {
        print_item(items->items[i]);
        (void)putchar('\n');
    }
}

int command_get(struct sessiond *client, const struct invocation *invocation)
{
    struct sessiond_range range = {.limit = invocation->limit};
    struct sessiond_items items;
    int r = sessiond_get_items(client, invocation->arguments[0], &range, &items);

    if (r)
        return refused(client, r);
    if (items.missing)
        (void)complain(0,
                       "this store has lost %" PRIu64 " rows that were acknowledged; see `sessionctl recover --help`",
                       items.missing);
    (invocation->json ? print_items_json : print_items)(&items);
    sessiond_items_free(&items);
    return EXIT_DONE;
}

/* ---- add ---- */

struct input {
    char *data; /* owned */
    size_t size;
    struct sessiond_text *lines; /* owned; borrow from data */
    size_t n_lines;
};

static void input_deinit(struct input *input)
{
    free(input->data);
    free(input->lines);
}

/* Reads a file to its end, or one byte more than INPUT_MAX. */
static int read_file(struct input *input, FILE *file)
{
    size_t capacity = 0;

    do {
        char *data;

        capacity = capacity ? capacity * 2 : 65536;
        data = realloc(input->data, capacity);
        if (!data)
            return -ENOMEM;
        input->data = data;
        input->size += fread(input->data + input->size, 1, capacity - input->size, file);
    } while (input->size == capacity && input->size <= INPUT_MAX);
    if (ferror(file))
        return -EIO;
    return input->size > INPUT_MAX ? -EFBIG : 0;
}

static size_t count_lines(const struct input *input)
{
    size_t n = 0;

    for (size_t i = 0; i < input->size; i++)
        n += input->data[i] == '\n';
    return n + (input->size > 0 && input->data[input->size - 1] != '\n');
}

static int split_lines(struct input *input)
{
    const char *at = input->data, *end = input->data + input->size;
    size_t n = count_lines(input);

    input->lines = calloc(n ? n : 1, sizeof(*input->lines));
    if (!input->lines)
        return -ENOMEM;
    while (input->n_lines < n) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline ? newline : end;

        input->lines[input->n_lines++] = (struct sessiond_text){at, (size_t)(line_end - at)};
        at = newline ? newline + 1 : end;
    }
    return 0;
}

static int read_input(struct input *input, const char *path)
{
    bool is_stdin = !path || strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    int r;

    if (!file)
        return complain(EXIT_REFUSED, "%s: %s", path, strerrordesc_np(errno));
    r = read_file(input, file);
    if (r == 0)
        r = split_lines(input);
    if (!is_stdin)
        (void)fclose(file);
    if (r == -EFBIG)
        return complain(EXIT_REFUSED, "too_large: more than %d bytes are no batch", INPUT_MAX);
    if (r)
        return complain(EXIT_REFUSED, "%s: %s", is_stdin ? "stdin" : path, strerrordesc_np(-r));
    return 0;
}

static void print_changed_json(const struct sessiond_changed *changed, bool adds)
{
    (void)putchar('{');
    if (adds) {
        print_seq("first_seq", changed->first_seq);
        print_seq("last_seq", changed->last_seq);
    } else {
        (void)printf("\"removed\": %" PRIu64 ", ", changed->removed);
    }
    print_version(changed->revision, changed->epoch);
}

static int add_lines(struct sessiond *client, const struct invocation *invocation, const struct input *input)
{
    struct sessiond_changed changed;
    int r = sessiond_add_items(client, invocation->arguments[0], input->lines, input->n_lines, NULL, &changed);

    if (r && sessiond_last_error(client)->item >= 0)
        (void)complain(0, "line %" PRId64 " is at fault; nothing was added", sessiond_last_error(client)->item + 1);
    if (r)
        return refused(client, r);
    if (invocation->json)
        print_changed_json(&changed, true);
    else
        (void)printf("added %zu\n", input->n_lines);
    return EXIT_DONE;
}

int command_add(struct sessiond *client, const struct invocation *invocation)
{
    struct input input = {0};
    int status = read_input(&input, invocation->arguments[1]);

    if (status == 0)
        status = add_lines(client, invocation, &input);
    input_deinit(&input);
    return status;
}

/* ---- pop, clear, delete ---- */

static void print_popped_json(const struct sessiond_popped *popped)
{
    (void)fputs("{\"item\": ", stdout);
    if (popped->item.data)
        print_item(popped->item);
    else
        (void)fputs("null", stdout);
    (void)fputs(", ", stdout);
    print_seq("seq", popped->seq);
    print_version(popped->revision, popped->epoch);
}

static void print_popped(const struct sessiond_popped *popped)
{
    if (!popped->item.data)
        return;
    print_item(popped->item);
    (void)putchar('\n');
}

int command_pop(struct sessiond *client, const struct invocation *invocation)
{
    struct sessiond_popped popped;
    int r = sessiond_pop_item(client, invocation->arguments[0], NULL, &popped);

    if (r)
        return refused(client, r);
    (invocation->json ? print_popped_json : print_popped)(&popped);
    sessiond_popped_free(&popped);
    return EXIT_DONE;
}

typedef int removal_fn(struct sessiond *client, const char *session, const struct sessiond_change *change,
                       struct sessiond_changed *ret);

static int remove_by(struct sessiond *client, const struct invocation *invocation, removal_fn *removal)
{
    struct sessiond_changed changed;
    int r = removal(client, invocation->arguments[0], NULL, &changed);

    if (r)
        return refused(client, r);
    if (invocation->json)
        print_changed_json(&changed, false);
    else
        (void)printf("removed %" PRIu64 "\n", changed.removed);
    return EXIT_DONE;
}

int command_clear(struct sessiond *client, const struct invocation *invocation)
{
    return remove_by(client, invocation, sessiond_clear_session);
}

int command_delete(struct sessiond *client, const struct invocation *invocation)
{
    return remove_by(client, invocation, sessiond_delete_session);
}

/* ---- list, stores ---- */

static void print_session_json(const struct sessiond_session *session)
{
    (void)fputs("{\"id\": ", stdout);
    print_json_text(session->id);
    (void)printf(", \"count\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"head_seq\": %" PRIu64 ", \"created_us\": %" PRIu64
                 ", \"updated_us\": %" PRIu64 ", \"revision\": %" PRIu64 ", \"epoch\": %" PRIu64 "}",
                 session->count, session->bytes, session->head_seq, session->created_us, session->updated_us,
                 session->revision, session->epoch);
}

static void print_sessions_json(const struct sessiond_sessions *sessions)
{
    (void)fputs("{\"sessions\": [", stdout);
    for (size_t i = 0; i < sessions->n_sessions; i++) {
        (void)fputs(i > 0 ? ", " : "", stdout);
        print_session_json(&sessions->sessions[i]);
    }
    (void)puts("]}");
}

static void print_sessions(const struct sessiond_sessions *sessions)
{
    (void)printf("%10s %12s  %-20s  %s\n", "ITEMS", "BYTES", "CHANGED", "SESSION");
    for (size_t i = 0; i < sessions->n_sessions; i++) {
        const struct sessiond_session *session = &sessions->sessions[i];

        (void)printf("%10" PRIu64 " %12" PRIu64 "  ", session->count, session->bytes);
        print_time(session->updated_us);
        (void)fputs("  ", stdout);
        print_escaped(session->id);
        (void)putchar('\n');
    }
}

int command_list(struct sessiond *client, const struct invocation *invocation)
{
    struct sessiond_listing listing = {.prefix = invocation->arguments[0]};
    struct sessiond_sessions sessions;
    int r = sessiond_list_sessions(client, &listing, &sessions);

    if (r)
        return refused(client, r);
    (invocation->json ? print_sessions_json : print_sessions)(&sessions);
    sessiond_sessions_free(&sessions);
    return EXIT_DONE;
}

static void print_store_json(const struct sessiond_store *store)
{
    (void)fputs("{\"name\": ", stdout);
    print_json_text(store->name);
    (void)fputs(", \"engine\": ", stdout);
    print_json_text(store->engine);
    if (store->sessions.given)
        (void)printf(", \"sessions\": %" PRIu64, store->sessions.value);
    else
        (void)fputs(", \"sessions\": null", stdout);
    (void)printf(", \"bytes\": %" PRIu64 ", \"missing\": %" PRIu64 "}", store->bytes, store->missing);
}

static void print_stores_json(const struct sessiond_stores *stores)
{
    (void)fputs("{\"stores\": [", stdout);
    for (size_t i = 0; i < stores->n_stores; i++) {
        (void)fputs(i > 0 ? ", " : "", stdout);
        print_store_json(&stores->stores[i]);
    }
    (void)puts("]}");
}

static void print_stores(const struct sessiond_stores *stores)
{
    (void)printf("%10s %12s  %-8s  %s\n", "SESSIONS", "BYTES", "ENGINE", "STORE");
    for (size_t i = 0; i < stores->n_stores; i++) {
        const struct sessiond_store *store = &stores->stores[i];

        if (store->sessions.given)
            (void)printf("%10" PRIu64, store->sessions.value);
        else
            (void)printf("%10s", "?");
        (void)printf(" %12" PRIu64 "  %-8s  ", store->bytes, store->engine.data);
        print_escaped(store->name);
        (void)putchar('\n');
    }
}

int command_stores(struct sessiond *client, const struct invocation *invocation)
{
    struct sessiond_stores stores;
    int r = sessiond_list_stores(client, &stores);

    if (r)
        return refused(client, r);
    (invocation->json ? print_stores_json : print_stores)(&stores);
    sessiond_stores_free(&stores);
    return EXIT_DONE;
}

/* ---- ping, info ---- */

static void print_hello_json(const struct sessiond_hello *hello)
{
    (void)fputs("{\"socket\": ", stdout);
    print_json_text(SESSIOND_TEXT(hello->socket));
    (void)printf(", \"version\": \"%s\", \"protocol\": %" PRIu64 ", \"instance\": \"%s\", \"uid\": %" PRIu64 "}\n",
                 hello->version, hello->protocol, hello->instance, hello->uid);
}

int command_ping(struct sessiond *client, const struct invocation *invocation)
{
    struct sessiond_hello hello;
    int r = sessiond_hello(client, &hello);

    if (r)
        return refused(client, r);
    if (invocation->json)
        print_hello_json(&hello);
    else
        (void)printf("sessiond %s answers at %s\n", hello.version, hello.socket);
    return EXIT_DONE;
}

/* Prints the text that begins with the quote at `at`. Return: its last character. */
static const char *print_quoted(const char *at)
{
    (void)putchar(*at++);
    for (; *at != '"'; at++) {
        if (*at == '\\')
            (void)putchar(*at++);
        (void)putchar(*at);
    }
    (void)putchar(*at);
    return at;
}

static void print_line_break(int depth)
{
    (void)printf("\n%*s", depth * 2, "");
}

/* JSON with a line for each member, for people. What sessiond_info returns is well formed. */
static void print_indented(const char *json)
{
    int depth = 0;

    for (const char *at = json; *at; at++) {
        bool opens = *at == '{' || *at == '[', closes = *at == '}' || *at == ']';

        depth -= closes;
        if (closes && at[-1] != '{' && at[-1] != '[')
            print_line_break(depth);
        if (*at == '"')
            at = print_quoted(at);
        else if (*at != ' ' || at[-1] == ':')
            (void)putchar(*at);
        depth += opens;
        if (*at == ',' || (opens && at[1] != '}' && at[1] != ']'))
            print_line_break(depth);
    }
    (void)putchar('\n');
}

int command_info(struct sessiond *client, const struct invocation *invocation)
{
    char *json;
    int r = sessiond_info(client, &json);

    if (r)
        return refused(client, r);
    if (invocation->json)
        (void)puts(json);
    else
        print_indented(json);
    free(json);
    return EXIT_DONE;
}

int command_metrics(struct sessiond *client, const struct invocation *invocation)
{
    char *text;
    int r = sessiond_stats(client, &text);

    (void)invocation;
    if (r)
        return refused(client, r);
    (void)fputs(text, stdout);
    free(text);
    return EXIT_DONE;
}

/* ---- loss and backup ---- */

int command_recover(struct sessiond *client, const struct invocation *invocation)
{
    uint64_t missing;
    int r = sessiond_recover(client, NULL, &missing);

    if (r)
        return refused(client, r);
    if (invocation->json)
        (void)printf("{\"missing\": %" PRIu64 "}\n", missing);
    else if (missing)
        (void)printf("accepted that %" PRIu64 " rows are missing\n", missing);
    else
        (void)puts("nothing was missing");
    return EXIT_DONE;
}

int command_backup(struct sessiond *client, const struct invocation *invocation)
{
    const char *path = invocation->arguments[0];
    int r = sessiond_backup(client, NULL, path);

    if (r)
        return refused(client, r);
    if (!invocation->json) {
        (void)printf("backed up to %s\n", path);
        return EXIT_DONE;
    }
    (void)fputs("{\"file\": ", stdout);
    print_json_text(SESSIOND_TEXT(path));
    (void)puts("}");
    return EXIT_DONE;
}
