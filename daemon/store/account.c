#include "store/account.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "config/config.h"

enum {
    RESERVED_PART = 8, /* this part of what all may have is kept for the modest */
    MINUTE_US = 60000000,
};

/* ---- who ---- */

static int compare(const void *a, const void *b)
{
    uid_t x = ((const struct account *)a)->uid, y = ((const struct account *)b)->uid;

    return x < y ? -1 : x > y;
}

void accounts_init(struct accounts *accounts, const struct config *config)
{
    *accounts = (struct accounts){.config = config, .many = config->system};
}

void accounts_deinit(struct accounts *accounts)
{
    tdestroy(accounts->by_uid, free);
    accounts->by_uid = NULL;
}

struct account *account_new(struct accounts *accounts)
{
    struct account *account = calloc(1, sizeof(*account));

    if (account) {
        account->uid = (uid_t)-1;
        account->all = accounts;
    }
    return account;
}

struct account *accounts_of(struct accounts *accounts, uid_t uid)
{
    struct account wanted = {.uid = uid}, *account, **found = tfind(&wanted, &accounts->by_uid, compare);

    if (found)
        return *found;
    account = account_new(accounts);
    if (!account)
        return NULL;
    account->uid = uid;
    if (!tsearch(account, &accounts->by_uid, compare)) {
        free(account);
        return NULL;
    }
    return account;
}

struct walk {
    void (*each)(const struct account *account, void *arg);
    void *arg;
};

static void visit(const void *node, VISIT order, void *arg)
{
    const struct walk *walk = arg;

    if (order == postorder || order == leaf) /* that is: between its children, or it has none */
        walk->each(*(const struct account *const *)node, walk->arg);
}

void accounts_each(const struct accounts *accounts, void (*each)(const struct account *account, void *arg), void *arg)
{
    struct walk walk = {each, arg};

    twalk_r(accounts->by_uid, visit, &walk);
}

/* ---- how much ---- */

uint64_t account_limit(const struct accounts *accounts, enum account_resource what, enum account_whose whose)
{
    static const size_t offsets[][ACCOUNT_N_WHOSE] = {
#define ACCOUNT_OFFSETS(name, wire, words, own, all) {offsetof(struct config, own), offsetof(struct config, all)},
        ACCOUNT_RESOURCES(ACCOUNT_OFFSETS)
#undef ACCOUNT_OFFSETS
    };

    return config_value_at(accounts->config, offsets[what][whose]);
}

/* Return: false if the sum would be over `max`, or be no number any more. */
static bool add(_Atomic uint64_t *used, uint64_t amount, uint64_t max, uint64_t *ret_before)
{
    uint64_t before = atomic_load(used), after;

    do
        if (__builtin_add_overflow(before, amount, &after) || after > max)
            return false;
    while (!atomic_compare_exchange_weak(used, &before, after));
    *ret_before = before;
    return true;
}

/* Return: what is left. */
static uint64_t subtract(_Atomic uint64_t *used, uint64_t amount)
{
    uint64_t before = atomic_fetch_sub(used, amount);

    assert(before >= amount);
    return before - amount;
}

/* How far all together may go, of `limit`, for the sake of this uid, which would then have `own`. */
static uint64_t share(const struct accounts *accounts, enum account_resource what, uint64_t limit, uint64_t own)
{
    uint64_t n = atomic_load(&accounts->n_users[what]) + 1; /* there is always one who has not come yet */

    return !accounts->many || own <= limit / n ? limit : limit - limit / RESERVED_PART;
}

static uint64_t common_limit(const struct accounts *accounts, enum account_resource what, uint64_t own)
{
    return share(accounts, what, account_limit(accounts, what, ACCOUNT_OF_ALL), own);
}

uint64_t account_share(const struct account *account, enum account_resource what, uint64_t limit)
{
    return share(account->all, what, limit, atomic_load(&account->used[what]));
}

static void give_back_own(struct account *account, enum account_resource what, uint64_t amount)
{
    if (amount > 0 && subtract(&account->used[what], amount) == 0)
        (void)subtract(&account->all->n_users[what], 1);
}

static bool take(struct account *account, enum account_resource what, uint64_t amount, bool anyway)
{
    struct accounts *all = account->all;
    uint64_t before, ignored;

    if (amount == 0)
        return true;
    if (!add(&account->used[what], amount, anyway ? UINT64_MAX : account_limit(all, what, ACCOUNT_OF_ONE), &before))
        return false;
    if (before == 0)
        (void)atomic_fetch_add(&all->n_users[what], 1);
    if (add(&all->used[what], amount, anyway ? UINT64_MAX : common_limit(all, what, before + amount), &ignored))
        return true;
    give_back_own(account, what, amount);
    return false;
}

bool account_take(struct account *account, enum account_resource what, uint64_t amount)
{
    return take(account, what, amount, false);
}

bool account_is_full(const struct account *account, enum account_resource what)
{
    struct accounts *all = account->all;
    uint64_t own = atomic_load(&account->used[what]);

    return own >= account_limit(all, what, ACCOUNT_OF_ONE) ||
           atomic_load(&all->used[what]) >= common_limit(all, what, own);
}

void account_take_anyway(struct account *account, enum account_resource what, uint64_t amount)
{
    bool taken = take(account, what, amount, true);

    assert(taken);
}

void account_give_back(struct account *account, enum account_resource what, uint64_t amount)
{
    if (amount == 0)
        return;
    (void)subtract(&account->all->used[what], amount);
    give_back_own(account, what, amount);
}

void account_settle(struct account *account, enum account_resource what, uint64_t *charged, uint64_t now)
{
    if (now > *charged)
        account_take_anyway(account, what, now - *charged);
    else
        account_give_back(account, what, *charged - now);
    *charged = now;
}

static const struct {
    const char *name, *words;
} resources[] = {
#define ACCOUNT_NAMES(name, wire, words, ...) {wire, words},
    ACCOUNT_RESOURCES(ACCOUNT_NAMES)
#undef ACCOUNT_NAMES
};

const char *account_resource_name(enum account_resource what)
{
    return resources[what].name;
}

const char *account_resource_words(enum account_resource what)
{
    return resources[what].words;
}

/* ---- refusals ---- */

enum account_audit account_audit(struct account *account, struct slice thing, uint64_t now_us)
{
    uint64_t minute = now_us / MINUTE_US,
             what = XXH3_64bits(thing.data, thing.size); /* who shares a hash shares a line */

    if (minute != account->audit_minute) {
        account->audit_minute = minute;
        account->n_audited = 0;
    }
    if (account->n_audited > ACCOUNT_AUDITED)
        return AUDIT_SILENCE;
    for (unsigned i = 0; i < account->n_audited; i++)
        if (account->audited[i] == what)
            return AUDIT_SILENCE;
    if (account->n_audited == ACCOUNT_AUDITED) {
        account->n_audited++;
        return AUDIT_LAST_LINE;
    }
    account->audited[account->n_audited++] = what;
    return AUDIT_LINE;
}
