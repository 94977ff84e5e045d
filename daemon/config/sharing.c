#include "config/sharing.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "sessiond-codes.h"

/* ---- who ---- */

void who_free(struct who *who)
{
    if (who)
        free(who->text);
    free(who);
}

/* A number is a uid, "alice" a user, "%staff" a group, "%50" a gid. Return: false if there is none of this name. */
static bool read_id(const json_t *value, bool *ret_is_group, unsigned *ret)
{
    const char *name = json_string_value(value), *digits;
    const struct passwd *user;
    const struct group *group;

    *ret_is_group = name && name[0] == '%';
    if (json_is_integer(value) && json_integer_value(value) >= 0 && json_integer_value(value) <= PROTO_UID_MAX) {
        *ret = (unsigned)json_integer_value(value);
        return true;
    }
    if (!name)
        return false;
    digits = name + 1;
    if (*ret_is_group && *digits && strspn(digits, "0123456789") == strlen(digits) && strlen(digits) < 10) {
        *ret = (unsigned)strtoul(digits, NULL, 10);
        return true;
    }
    user = *ret_is_group ? NULL : getpwnam(name);
    group = *ret_is_group ? getgrnam(digits) : NULL;
    *ret = user ? user->pw_uid : group ? group->gr_gid : 0;
    return user || group;
}

static int compare_ids(const void *a, const void *b)
{
    const struct who_id *x = a, *y = b;

    return x->is_group != y->is_group ? x->is_group - y->is_group : (x->id > y->id) - (x->id < y->id);
}

int who_read(struct who **ret, const json_t *value, const char **ret_why)
{
    size_t n = json_array_size(value);
    struct who *who;

    if (!json_is_array(value)) {
        *ret_why = "it has to be a list of uids, \"user\" and \"%group\"";
        return SESSIOND_INVALID;
    }
    who = calloc(1, sizeof(*who) + n * sizeof(who->ids[0]));
    if (!who || !(who->text = json_dumps(value, 0))) {
        who_free(who);
        return fault(ENOMEM, "configuration");
    }
    for (; who->n < n; who->n++)
        if (!read_id(json_array_get(value, who->n), &who->ids[who->n].is_group, &who->ids[who->n].id)) {
            who_free(who);
            *ret_why = "there is no such user or group on this host";
            return SESSIOND_INVALID;
        }
    qsort(who->ids, n, sizeof(who->ids[0]), compare_ids);
    *ret = who;
    return 0;
}

static bool lists(const struct who *who, bool is_group, unsigned id)
{
    struct who_id wanted = {is_group, id};

    return bsearch(&wanted, who->ids, who->n, sizeof(wanted), compare_ids);
}

bool who_lists(const struct who *who, uid_t uid, const gid_t *groups, size_t n_groups)
{
    bool found = who && lists(who, false, uid);

    for (size_t i = 0; who && !found && i < n_groups; i++)
        found = lists(who, true, groups[i]);
    return found;
}

/* ---- what they may ---- */

void shared_free(struct shared_stores *shared)
{
    for (size_t i = 0; shared && i < shared->n; i++)
        for (enum right right = 0; right < N_RIGHTS; right++)
            who_free(shared->stores[i].who[right]);
    if (shared)
        free(shared->text);
    free(shared);
}

static int read_rights(struct shared_store *store, const json_t *value, const char **ret_why)
{
    static const char *const names[] = {[RIGHT_READ] = "read", [RIGHT_APPEND] = "append", [RIGHT_CHANGE] = "change"};
    const json_t *list;
    size_t n = 0;
    int r;

    for (enum right right = RIGHT_READ; right < N_RIGHTS; right++) {
        list = json_object_get(value, names[right]);
        if (!list)
            continue;
        n++;
        if ((r = who_read(&store->who[right], list, ret_why)))
            return r;
    }
    if (json_is_object(value) && n == json_object_size(value))
        return 0;
    *ret_why = "a shared store has \"read\", \"append\" and \"change\", and nothing else";
    return SESSIOND_INVALID;
}

static int read_stores(struct shared_stores *shared, const json_t *value, const char **ret_why)
{
    const char *name;
    json_t *rights;
    int r;

    json_object_foreach((json_t *)value, name, rights)
    {
        struct shared_store *store = &shared->stores[shared->n++];

        if (!proto_is_store_name(name, strlen(name))) {
            *ret_why = "a name is 1 to 127 of a-z 0-9 . _ -, and begins with a-z 0-9; the @ is left out";
            return SESSIOND_INVALID;
        }
        memcpy(store->name, name, strlen(name) + 1);
        if ((r = read_rights(store, rights, ret_why)))
            return r;
    }
    return 0;
}

int shared_read(struct shared_stores **ret, const json_t *value, const char **ret_why)
{
    struct shared_stores *shared;
    int r;

    if (!json_is_object(value)) {
        *ret_why = "it has to be an object with an object for each store";
        return SESSIOND_INVALID;
    }
    shared = calloc(1, sizeof(*shared) + json_object_size(value) * sizeof(shared->stores[0]));
    r = shared && (shared->text = json_dumps(value, 0)) ? read_stores(shared, value, ret_why)
                                                        : fault(ENOMEM, "configuration");
    if (r)
        shared_free(shared);
    else
        *ret = shared;
    return r;
}
