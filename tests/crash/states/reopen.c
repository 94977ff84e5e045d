/*
 * Opens a store with the daemon's own code and writes down all that it holds, again and again: a driver puts the files
 * of the store into the directory, and asks by lines on stdin:
 *
 *     receipt KEY SESSION    is there a receipt for this key? (asked along with what follows)
 *     reopen                 open the store and read it all
 *     use                    the same, then make a change; close it and see whether the change is there when reopened
 *
 * The answer is on stdout, as text; an R is 0, an outcome (> 0) or a fault (< 0):
 *
 *     opened R MISSING
 *     unlisted R                                     the list of sessions broke off
 *     session ID COUNT HEAD_SEQ REVISION EPOCH       as in verify.py, and so are items
 *     item SEQ ITEM
 *     unread ID R                                    reading this session broke off
 *     receipt KEY R                                  1: there, 0: not there, < 0: a fault
 *     used R                                         0: as it should be
 *     verified R WHY                                 quick_check, after the store was closed
 *     end
 */
#include <errno.h>
#include <unistd.h>

#include "config/config.h"
#include "proto.h"
#include "store/engine.h"

#include "../item.h"

enum { ASK_MAX = 4096, LINE_SIZE = 1024, LIMIT_SECONDS = 60 };

struct asked {
    char key[64];
    char session[64];
};

static const char *directory;
static struct config config;
static struct asked asked[ASK_MAX];
static size_t n_asked;

/* ---- reading ---- */

static int print_item(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    char name[ITEM_NAME_SIZE], *copy = strndup(item.data, item.size);

    (void)arg;
    (void)meta;
    if (!copy)
        abort();
    item_identify(copy, item.size, name);
    free(copy);
    (void)printf("item %" PRIu64 " %s\n", seq, name);
    return 0;
}

static int print_items(struct engine *engine, struct slice session)
{
    struct selection selection = {.session = session, .max_bytes = PROTO_NUMBER_MAX};
    struct selection_result result = {.more = true};
    int r = 0;

    while (r == 0 && result.more) {
        r = sqlite_engine.get_items(engine, &selection, print_item, NULL, &result);
        selection.after = (struct number){true, result.last_seq};
    }
    return r;
}

struct sessions {
    size_t n;
    struct session_info *info;
};

static int on_session(void *arg, const struct session_info *info)
{
    struct sessions *sessions = arg;
    char *id = strndup(info->id.data ? info->id.data : "", info->id.size);

    sessions->info = realloc(sessions->info, (sessions->n + 1) * sizeof(sessions->info[0]));
    if (!id || !sessions->info)
        abort();
    sessions->info[sessions->n] = *info;
    sessions->info[sessions->n++].id = slice_of(id);
    return 0;
}

/* A damaged name may have any bytes; it stays one word. */
static void print_id(const char *id)
{
    for (; *id; id++)
        (void)(*id > ' ' && *id < 0x7f ? printf("%c", *id) : printf("\\%02x", (unsigned char)*id));
}

static void print_session(struct engine *engine, const struct session_info *info)
{
    int r;

    (void)printf("session ");
    print_id(info->id.data);
    (void)printf(" %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", info->count, info->head_seq, info->revision,
                 info->epoch);
    r = print_items(engine, info->id);
    if (r) {
        (void)printf("unread ");
        print_id(info->id.data);
        (void)printf(" %d\n", r);
    }
}

static void print_all(struct engine *engine)
{
    struct session_range range = {.limit = 1000};
    struct sessions sessions = {0};
    bool more;
    int r = sqlite_engine.list_sessions(engine, &range, on_session, &sessions, &more);

    if (r)
        (void)printf("unlisted %d\n", r);
    for (size_t i = 0; i < sessions.n; i++) {
        print_session(engine, &sessions.info[i]);
        free((char *)sessions.info[i].id.data);
    }
    free(sessions.info);
}

/* ---- receipts ---- */

/* A key that has a receipt does not take another change: one without items and with another fingerprint. */
static int has_receipt(struct engine *engine, const struct asked *ask)
{
    struct change change = {.session = slice_of(ask->session), .key = slice_of(ask->key)};
    struct change_result result;
    int r = sqlite_engine.add_items(engine, &change, NULL, 0, &result);

    return r == SESSIOND_KEY_REUSED ? 1 : r > 0 ? -EBADMSG : r;
}

static void print_receipts(struct engine *engine)
{
    int r = n_asked ? sqlite_engine.begin(engine, true) : 0;

    for (size_t i = 0; i < n_asked; i++)
        (void)printf("receipt %s %d\n", asked[i].key, r ? r : has_receipt(engine, &asked[i]));
    if (n_asked && r == 0)
        sqlite_engine.rollback(engine);
}

/* ---- using it ---- */

static int change_it(struct engine *engine, struct slice session, struct slice item)
{
    struct change change = {.session = session, .now_us = 1};
    struct change_result result;
    int r = sqlite_engine.begin(engine, true);

    if (r)
        return r;
    r = sqlite_engine.add_items(engine, &change, &item, 1, &result);
    if (r) {
        sqlite_engine.rollback(engine);
        return r;
    }
    return sqlite_engine.commit(engine);
}

static int compare_item(void *arg, uint64_t seq, struct slice item, struct slice meta)
{
    (void)seq;
    (void)meta;
    return slice_equal(item, *(struct slice *)arg) ? 0 : -EBADMSG;
}

static int find_it(struct engine *engine, struct slice session, struct slice item)
{
    struct selection selection = {.session = session, .limit = {true, 1}, .max_bytes = PROTO_NUMBER_MAX};
    struct selection_result result;
    int r = sqlite_engine.get_items(engine, &selection, compare_item, &item, &result);

    return r == 0 && result.n != 1 ? -ENOENT : r;
}

/* Changes the store, closes it, and opens it again to see whether the change is there. Takes the engine. */
static int use(struct engine *engine)
{
    struct slice session = slice_of("used"), item = slice_of("{\"used\":true}");
    int r = change_it(engine, session, item);

    sqlite_engine.close(engine);
    if (r || (r = sqlite_engine.open(&engine, directory, &config)))
        return r;
    r = find_it(engine, session, item);
    sqlite_engine.close(engine);
    return r;
}

/* ---- the program ---- */

static void print_verified(void)
{
    char path[4096], why[256] = "";
    int r;

    (void)snprintf(path, sizeof(path), "%s/items.db", directory);
    r = sqlite_verify(path, why, sizeof(why));
    for (char *c = why; *c; c++)
        if (*c < ' ')
            *c = ' ';
    (void)printf("verified %d %s\n", r, why);
}

static void reopen(bool and_use)
{
    struct store_sizes sizes = {0};
    struct engine *engine = NULL;
    int r = sqlite_engine.open(&engine, directory, &config);

    if (r == 0)
        r = sqlite_engine.sizes(engine, &sizes);
    (void)printf("opened %d %" PRIu64 "\n", r, sizes.missing);
    if (r == 0) {
        print_all(engine);
        print_receipts(engine);
    }
    if (r == 0 && and_use)
        (void)printf("used %d\n", use(engine));
    else
        sqlite_engine.close(engine);
    if (r == 0)
        print_verified();
}

static void take_line(const char *line)
{
    (void)alarm(LIMIT_SECONDS); /* a store in which we would search for ever is a crash */
    if (sscanf(line, "receipt %63s %63s", asked[n_asked].key, asked[n_asked].session) == 2) {
        if (++n_asked == ASK_MAX)
            abort();
        return;
    }
    reopen(strcmp(line, "use\n") == 0);
    (void)printf("end\n");
    (void)fflush(stdout);
    n_asked = 0;
}

int main(int argc, char **argv)
{
    char line[LINE_SIZE];

    if (argc != 2) {
        (void)fputs("usage: reopen DIRECTORY\n", stderr);
        return EXIT_FAILURE;
    }
    directory = argv[1];
    config_init(&config);
    if (sqlite_setup(&config))
        return EXIT_FAILURE;
    while (fgets(line, sizeof(line), stdin))
        take_line(line);
    config_deinit(&config);
    return EXIT_SUCCESS;
}
