#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "sessiond-codes.h"
#include "store/account.h"
#include "store/caller.h"
#include "store/engine.h"

struct registry {
    const struct config *config;
    struct lanes *lanes;
    const struct engine_table *engine;
    void *owners;         /* tsearch, by uid */
    struct owner *nobody; /* whose are the shared stores; by their names with the @ */
    struct accounts accounts;
    struct store nothing; /* read in place of stores that do not exist */
};

/* ---- names ---- */

static bool is_name(struct slice name)
{
    return proto_is_store_name(name.data, name.size);
}

/* The name of a shared store, without its @. Return: data NULL for any other name. */
static struct slice shared_name(struct slice name)
{
    struct slice rest = {name.data + 1, name.size - 1};

    return name.size > 1 && name.data[0] == '@' && is_name(rest) ? rest : (struct slice){0};
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = memchr(digits, c, sizeof(digits) - 1);

    return found ? (int)(found - digits) : -1;
}

/* Up to 254 digits: the file system's limit for a name is 255. */
static void name_to_hex(const char *name, char *ret)
{
    for (; *name; name++, ret += 2)
        snprintf(ret, 3, "%02x", (unsigned char)*name);
}

static bool name_of_hex(const char *hex, char ret[PROTO_STORE_MAX + 1])
{
    size_t size = strlen(hex);

    if (size % 2 || size / 2 > PROTO_STORE_MAX)
        return false;
    for (size_t i = 0; i < size; i += 2) {
        int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);

        if (high < 0 || low < 0)
            return false;
        ret[i / 2] = (char)(high << 4 | low);
    }
    ret[size / 2] = '\0';
    return is_name((struct slice){ret, size / 2});
}

/* ---- stores ---- */

static int compare_stores(const void *a, const void *b)
{
    return strcmp(((const struct store *)a)->name, ((const struct store *)b)->name);
}

static int compare_owners(const void *a, const void *b)
{
    uid_t x = ((const struct owner *)a)->uid, y = ((const struct owner *)b)->uid;

    return x < y ? -1 : x > y;
}

static void store_free(struct store *store)
{
    free(store->own);
    free(store->directory);
    free(store);
}

static int store_directory(const struct owner *owner, const char *name, char **ret)
{
    char hex[2 * PROTO_STORE_MAX + 1];

    name_to_hex(name + (name[0] == '@'), hex);
    return asprintf(ret, "%s/%s", owner->directory, hex) < 0 ? fault(ENOMEM, "store") : 0;
}

/* All files in its directory: so much it holds while it is closed. */
static void measure(const struct store *store, uint64_t *ret_bytes, uint64_t *ret_backup)
{
    DIR *directory = opendir(store->directory);
    struct dirent *entry;
    struct stat status;

    *ret_bytes = *ret_backup = 0;
    while (directory && (entry = readdir(directory)))
        if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode))
            *(strncmp(entry->d_name, "backup", 6) == 0 ? ret_backup : ret_bytes) += (uint64_t)status.st_size;
    if (directory)
        closedir(directory);
}

/* What an earlier daemon has left in it is its owner's to pay, be it over a limit. */
static void charge_found(struct store *store, const struct engine_table *engine)
{
    struct account *account = store->lane.account;
    struct store_use *paid = &store->lane.paid;
    uint64_t backup;

    measure(store, &paid->bytes, &backup);
    paid->sessions = engine->closed_sessions ? engine->closed_sessions(store->directory) : 0;
    account_take_anyway(account, ACCOUNT_DISK, paid->bytes);
    account_take_anyway(account, ACCOUNT_SESSIONS, paid->sessions);
    store_has_backup(store, backup);
}

void store_has_backup(struct store *store, uint64_t bytes)
{
    account_settle(store->lane.account, ACCOUNT_DISK, &store->backup_bytes, bytes);
}

static int store_new(struct owner *owner, const char *name, struct store **ret)
{
    struct registry *registry = owner->registry;
    struct store *store = calloc(1, sizeof(*store));

    if (!store)
        return fault(ENOMEM, "store");
    memcpy(store->name, name, strlen(name) + 1);
    if (strcmp(name, "memory") != 0 && store_directory(owner, name, &store->directory)) {
        free(store);
        return -ENOMEM;
    }
    if ((!owner->account && !(store->own = account_new(&registry->accounts))) ||
        !tsearch(store, &owner->by_name, compare_stores)) {
        store_free(store);
        return fault(ENOMEM, "store");
    }
    lane_adopt(registry->lanes, &store->lane, registry->engine, store->directory);
    store->lane.account = store->own ? store->own : owner->account;
    list_append(&owner->stores, &store->link);
    owner->n_stores++;
    *ret = store;
    return 0;
}

static struct store *find(struct owner *owner, struct slice name)
{
    struct store wanted, **found;

    memcpy(wanted.name, name.data, name.size);
    wanted.name[name.size] = '\0';
    found = tfind(&wanted, &owner->by_name, compare_stores);
    return found ? *found : NULL;
}

struct store *owner_existing_store(struct owner *owner, struct slice name)
{
    struct store *store = is_name(name) ? find(owner, name) : NULL;

    return store && store->exists ? store : NULL;
}

int owner_store(struct owner *owner, struct slice name, bool create, struct store **ret)
{
    struct store *store;
    int r;

    if (!name.data)
        name = slice_of("default");
    if (shared_name(name).data)
        return SESSIOND_NOT_FOUND; /* or the caller may not know of it; else registry_shared has found it */
    if (!is_name(name))
        return SESSIOND_INVALID;

    store = find(owner, name);
    if (!store && create) {
        char copy[PROTO_STORE_MAX + 1] = {0};

        if (owner->n_stores >= owner->registry->config->stores_per_owner)
            return SESSIOND_TOO_LARGE;
        memcpy(copy, name.data, name.size);
        if ((r = store_new(owner, copy, &store)))
            return r;
    }
    if (store && create)
        store->exists = true;
    *ret = store && store->exists ? store : &owner->registry->nothing;
    return 0;
}

/* ---- owners ---- */

static bool is_store_on_disk(const struct store *store)
{
    char path[PATH_MAX + 16];
    struct stat status;

    snprintf(path, sizeof(path), "%s/items.db", store->directory);
    if (stat(path, &status) == 0)
        return true;
    snprintf(path, sizeof(path), "%s/items.head",
             store->directory); /* its file is gone, and that must not go unnoticed */
    return stat(path, &status) == 0;
}

/* An owner's directory is the daemon's alone, whatever restored it. */
static int keep_private(const struct owner *owner, DIR *directory)
{
    struct stat status;

    if (fstat(dirfd(directory), &status) < 0)
        return fault(errno, owner->directory);
    if (!(status.st_mode & 077))
        return 0;
    log_warning("directory_was_open path=\"%s\" mode=%o", owner->directory, status.st_mode & 07777);
    return fchmod(dirfd(directory), 0700) < 0 ? fault(errno, owner->directory) : 0;
}

/* Finds the stores that earlier daemons made. Blocking, but once for an owner, and at most stores_per_owner names. */
static int scan_owner(struct owner *owner)
{
    char name[PROTO_STORE_MAX + 1];
    struct dirent *entry;
    struct store *store;
    DIR *directory;
    int r = 0;

    directory = opendir(owner->directory);
    if (!directory)
        return errno == ENOENT ? 0 : fault(errno, owner->directory);
    r = keep_private(owner, directory);
    while (r == 0 && (entry = readdir(directory))) {
        if (!name_of_hex(entry->d_name, name))
            continue;
        if ((r = store_new(owner, name, &store)) || !store->directory)
            continue;
        store->exists = is_store_on_disk(store);
        charge_found(store, owner->registry->engine);
    }
    closedir(directory);
    return r;
}

static void owner_free(void *p)
{
    struct owner *owner = p;
    struct list *link;

    while ((link = list_pop(&owner->stores))) {
        struct store *store = CONTAINER_OF(link, struct store, link);

        tdelete(store, &owner->by_name, compare_stores);
        store_free(store);
    }
    free(owner->directory);
    free(owner);
}

static int owner_new(struct registry *registry, uid_t uid, struct owner **ret)
{
    struct owner *owner = calloc(1, sizeof(*owner));
    int r;

    if (!owner)
        return fault(ENOMEM, "owner");
    owner->uid = uid;
    owner->registry = registry;
    owner->account = registry_account(registry, uid);
    list_init(&owner->stores);
    if (!owner->account) {
        r = fault(ENOMEM, "account");
    } else if (asprintf(&owner->directory, "%s/u/%u", registry->config->state_dir, uid) < 0) {
        owner->directory = NULL;
        r = fault(ENOMEM, "owner");
    } else if (strlen(owner->directory) >= PATH_MAX) {
        r = fault(ENAMETOOLONG, registry->config->state_dir);
    } else if (!(r = scan_owner(owner)) && !tsearch(owner, &registry->owners, compare_owners)) {
        r = fault(ENOMEM, "owner");
    }
    if (r) {
        owner_free(owner);
        return r;
    }
    *ret = owner;
    return 0;
}

int registry_owner(struct registry *registry, uid_t uid, struct owner **ret)
{
    struct owner wanted = {.uid = uid}, **found = tfind(&wanted, &registry->owners, compare_owners);

    if (!found)
        return owner_new(registry, uid, ret);
    *ret = *found;
    return 0;
}

int registry_existing_owner(struct registry *registry, uid_t uid, struct owner **ret)
{
    struct owner wanted = {.uid = uid}, **found = tfind(&wanted, &registry->owners, compare_owners);
    char path[PATH_MAX];

    if (!found) {
        (void)snprintf(path, sizeof(path), "%s/u/%u", registry->config->state_dir, uid);
        if (access(path, F_OK) < 0)
            return SESSIOND_NOT_FOUND;
    }
    return registry_owner(registry, uid, ret);
}

/* ---- shared stores ---- */

static int open_nobody(struct registry *registry)
{
    struct owner *nobody = calloc(1, sizeof(*nobody));

    if (!nobody)
        return fault(ENOMEM, "shared stores");
    nobody->uid = (uid_t)-1;
    nobody->registry = registry;
    list_init(&nobody->stores);
    if (asprintf(&nobody->directory, "%s/shared", registry->config->state_dir) < 0) {
        free(nobody);
        return fault(ENOMEM, "shared stores");
    }
    registry->nobody = nobody;
    return 0;
}

/* A declared store is there from the first time that somebody who may see it asks. */
static int meet_shared(struct registry *registry, const char *declared, struct store **ret)
{
    char name[PROTO_STORE_MAX + 2];
    struct store *store;
    int r;

    (void)snprintf(name, sizeof(name), "@%s", declared);
    store = find(registry->nobody, slice_of(name));
    if (!store && (r = store_new(registry->nobody, name, &store)))
        return r;
    if (!store->exists)
        charge_found(store, registry->engine);
    store->exists = true;
    *ret = store;
    return 0;
}

int registry_shared(struct registry *registry, struct slice name, struct caller *caller, enum right *ret_right,
                    struct store **ret)
{
    const struct shared_stores *shared = registry->config->shared_stores;
    size_t n = shared ? shared->n : 0, found = n;
    struct slice wanted = shared_name(name);
    const enum right *rights;
    int r;

    if (!wanted.data)
        return SESSIOND_INVALID;
    if ((r = caller_rights(caller, &rights)))
        return r;
    for (size_t i = 0; i < n; i++) /* to the end, whether it is found or not: the time is not to tell */
        if (slice_equal(slice_of(shared->stores[i].name), wanted))
            found = i;
    *ret_right = rights[found];
    return *ret_right == RIGHT_NONE ? SESSIOND_NOT_FOUND : meet_shared(registry, shared->stores[found].name, ret);
}

struct store *registry_next_shared(struct registry *registry, struct caller *caller, const struct store *after)
{
    const struct shared_stores *shared = registry->config->shared_stores;
    const enum right *rights;
    bool passed = !after;
    struct store *store;

    if (caller_rights(caller, &rights))
        return NULL;
    for (size_t i = 0; shared && i < shared->n; i++) {
        if (passed && rights[i] != RIGHT_NONE && meet_shared(registry, shared->stores[i].name, &store) == 0)
            return store;
        passed |= after && strcmp(after->name + 1, shared->stores[i].name) == 0;
    }
    return NULL;
}

void registry_each_shared(struct registry *registry,
                          void (*each)(const char *name, const struct account *account, void *arg), void *arg)
{
    LIST_FOR_EACH(link, &registry->nobody->stores)
    {
        const struct store *store = CONTAINER_OF(link, struct store, link);

        each(store->name, store->own, arg);
    }
}

/* ---- all there are ---- */

static bool limits_all(const struct registry *registry, const char *name)
{
    const struct setting *setting = config_setting(name);

    return config_value(registry->config, setting) < setting->initial;
}

static void meet_owners(struct registry *registry)
{
    char path[PATH_MAX];
    struct dirent *entry;
    struct owner *owner;
    DIR *directory;
    char *end;

    (void)snprintf(path, sizeof(path), "%s/u", registry->config->state_dir);
    directory = opendir(path);
    if (!directory && errno != ENOENT)
        (void)fault(errno, path);
    while (directory && (entry = readdir(directory))) {
        unsigned long uid = strtoul(entry->d_name, &end, 10);

        if (end != entry->d_name && *end == '\0' && uid <= PROTO_UID_MAX)
            (void)registry_owner(registry, (uid_t)uid, &owner);
    }
    if (directory)
        closedir(directory);
}

void registry_meet_all(struct registry *registry)
{
    const struct shared_stores *shared = registry->config->shared_stores;
    struct store *store;

    if (!limits_all(registry, "sessions") && !limits_all(registry, "disk_bytes"))
        return;
    meet_owners(registry);
    for (size_t i = 0; shared && i < shared->n; i++)
        (void)meet_shared(registry, shared->stores[i].name, &store);
}

uint64_t registry_wait_ms(const struct registry *registry)
{
    return lanes_wait_ms(registry->lanes);
}

const struct config *registry_config(const struct registry *registry)
{
    return registry->config;
}

struct account *registry_account(struct registry *registry, uid_t uid)
{
    return accounts_of(&registry->accounts, uid);
}

void registry_each_account(struct registry *registry, void (*each)(const struct account *account, void *arg), void *arg)
{
    accounts_each(&registry->accounts, each, arg);
}

/* ---- the registry ---- */

int registry_open(struct registry **ret, const struct config *config, struct lanes *lanes,
                  const struct engine_table *engine)
{
    struct registry *registry = calloc(1, sizeof(*registry));
    int r;

    if (!registry)
        return fault(ENOMEM, "registry");
    registry->config = config;
    registry->lanes = lanes;
    registry->engine = engine;
    r = open_nobody(registry);
    if (r) {
        free(registry);
        return r;
    }
    accounts_init(&registry->accounts, config);
    lane_adopt(lanes, &registry->nothing.lane, engine, NULL);
    *ret = registry;
    return 0;
}

void registry_close(struct registry *registry)
{
    tdestroy(registry->owners, owner_free);
    owner_free(registry->nobody);
    accounts_deinit(&registry->accounts);
    free(registry);
}
