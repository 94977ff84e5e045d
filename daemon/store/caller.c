#include "store/caller.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "sessiond-codes.h"

int caller_new(struct caller **ret, struct registry *registry, uid_t uid, const gid_t *groups, size_t n_groups)
{
    struct caller *caller = calloc(1, sizeof(*caller) + n_groups * sizeof(*groups));

    if (!caller)
        return fault(ENOMEM, "caller");
    caller->n_holders = 1;
    caller->config = registry_config(registry);
    caller->uid = uid;
    caller->account = registry_account(registry, uid);
    if (!caller->account) {
        free(caller);
        return fault(ENOMEM, "account");
    }
    caller->n_groups = n_groups;
    for (size_t i = 0; i < n_groups; i++)
        caller->groups[i] = groups[i];
    *ret = caller;
    return 0;
}

struct caller *caller_hold(struct caller *caller)
{
    caller->n_holders++;
    return caller;
}

void caller_release(struct caller *caller)
{
    if (!caller || --caller->n_holders > 0)
        return;
    free(caller->rights);
    free(caller);
}

bool caller_is_administrator(const struct caller *caller)
{
    return caller->uid == 0 || who_lists(caller->config->administrators, caller->uid, caller->groups, caller->n_groups);
}

int caller_act_as(struct caller *caller, struct registry *registry, uid_t uid)
{
    char text[16];
    int r;

    if (caller->owner && caller->owner->uid == uid)
        return 0;
    if (uid != caller->uid && !caller_is_administrator(caller)) {
        (void)snprintf(text, sizeof(text), "%u", uid);
        caller_audit(caller, "owner", slice_of(text));
        return SESSIOND_NOT_FOUND;
    }
    r = uid == caller->uid ? registry_owner(registry, uid, &caller->owner)
                           : registry_existing_owner(registry, uid, &caller->owner);
    if (r == 0)
        log_info("owner_named uid=%u pid=%d owner=%u", caller->uid, caller->pid, uid);
    return r;
}

static enum right right_of(const struct shared_store *store, const struct caller *caller)
{
    for (enum right right = RIGHT_CHANGE; right > RIGHT_NONE; right--)
        if (who_lists(store->who[right], caller->uid, caller->groups, caller->n_groups))
            return right;
    return RIGHT_NONE;
}

int caller_rights(struct caller *caller, const enum right **ret)
{
    const struct shared_stores *shared = caller->config->shared_stores;
    size_t n = shared ? shared->n : 0;
    enum right *rights = caller->rights;

    if (!rights || caller->rights_of != caller->config->generation) {
        rights = calloc(n + 1, sizeof(*rights));
        if (!rights)
            return fault(ENOMEM, "rights");
        for (size_t i = 0; i < n; i++)
            rights[i] = right_of(&shared->stores[i], caller);
        free(caller->rights);
        caller->rights = rights;
        caller->rights_of = caller->config->generation;
    }
    *ret = rights;
    return 0;
}

static void write_down(struct caller *caller, const char *event, const char *what, struct slice thing)
{
    char key[128];
    int size = snprintf(key, sizeof(key), "%s %.*s", what, (int)thing.size, thing.data);
    struct slice whole = {key, size < (int)sizeof(key) ? (size_t)size : sizeof(key) - 1};

    switch (account_audit(caller->account, whole, clock_monotonic_us())) {
    case AUDIT_SILENCE:
        return;
    case AUDIT_LINE:
        log_warning("%s uid=%u pid=%d %s=\"%.*s\"", event, caller->uid, caller->pid, what, (int)thing.size, thing.data);
        return;
    case AUDIT_LAST_LINE:
        log_warning("%s uid=%u pid=%d more=\"many; no further lines this minute\"", event, caller->uid, caller->pid);
        return;
    }
}

void caller_audit(struct caller *caller, const char *what, struct slice thing)
{
    write_down(caller, "access_refused", what, thing);
}

void caller_note_limit(struct caller *caller, enum account_resource of)
{
    write_down(caller, "limit_reached", "of", slice_of(account_resource_name(of)));
}
