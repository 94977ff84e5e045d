/* hello, ping, info: about the daemon itself. */
#include <unistd.h>

#include "base/mem.h"
#include "config/config.h"
#include "rpc/memory.h"
#include "rpc/methods.h"

static bool speaks_our_protocol(const struct value *range)
{
    struct number min = message_number(message_element(range, 0)), max = message_number(message_element(range, 1));

    return min.value <= PROTO_VERSION && PROTO_VERSION <= max.value;
}

static bool is_range(const struct value *range)
{
    return message_n_elements(range) == 2 && message_number(message_element(range, 0)).present &&
           message_number(message_element(range, 1)).present;
}

static void pack_limits(struct buf *reply, const struct config *config)
{
    const struct {
        const char *name;
        uint64_t value;
    } limits[] = {
        {"frame_bytes", config->frame_bytes},
        {"frame_values", PROTO_FRAME_VALUES_MAX},
        {"frame_depth", PROTO_FRAME_DEPTH_MAX},
        {"item_bytes", config->item_bytes},
        {"items", PROTO_ITEMS_MAX},
        {"meta_bytes", PROTO_META_MAX},
        {"json_depth", PROTO_JSON_DEPTH_MAX},
        {"session_bytes", PROTO_SESSION_MAX},
        {"key_bytes", PROTO_KEY_MAX},
        {"answer_bytes", PROTO_ANSWER_MAX},
        {"answer_items", PROTO_ANSWER_ITEMS_MAX},
        {"in_flight", config->in_flight},
    };

    pack_map(reply, N_ELEMENTS(limits));
    for (size_t i = 0; i < N_ELEMENTS(limits); i++)
        pack_pair_number(reply, limits[i].name, limits[i].value);
}

/* From here on the connection acts as that owner. */
static int act_as(struct request *request, uid_t uid)
{
    int r = caller_act_as(request->caller, request->daemon->registry, uid);

    if (r == SESSIOND_NOT_FOUND)
        return request_refuse(request, r, "there is no such owner, or none that you may name");
    request->owner = request->caller->owner;
    return r;
}

int hello_answer(struct request *request)
{
    const struct value *range = request->params.protocol;
    struct number owner = request->params.owner;
    struct buf *reply;
    int r;

    if (range && !is_range(range))
        return request_refuse(request, SESSIOND_INVALID, "protocol: [min, max], two numbers");
    if (range && !speaks_our_protocol(range))
        return request_refuse(request, SESSIOND_INVALID, "protocol: this daemon, version %s, speaks protocol %d alone",
                              SESSIOND_VERSION, PROTO_VERSION);
    if (owner.present && (r = act_as(request, (uid_t)owner.value)))
        return r;
    reply = request_answer(request);
    pack_map(reply, 6);
    pack_pair_text(reply, "server", slice_of("sessiond"));
    pack_pair_text(reply, "version", slice_of(SESSIOND_VERSION));
    pack_pair_number(reply, "protocol", PROTO_VERSION);
    pack_pair_text(reply, "instance", slice_of(request->daemon->instance));
    pack_pair_number(reply, "uid", request->owner->uid);
    pack_text(reply, slice_of("limits"));
    pack_limits(reply, request->daemon->config);
    return 0;
}

int ping_answer(struct request *request)
{
    pack_map(request_answer(request), 0);
    return 0;
}

static void pack_libraries(struct buf *reply, const struct daemon *daemon)
{
    pack_map(reply, N_ELEMENTS(daemon->libraries));
    for (size_t i = 0; i < N_ELEMENTS(daemon->libraries); i++)
        pack_pair_text(reply, daemon->libraries[i].name, slice_of(daemon->libraries[i].version));
}

/* Who may what is for administrators to know: it names stores that others must not know of. */
static bool is_secret(const struct setting *setting)
{
    return setting->kind == SETTING_WHO || setting->kind == SETTING_SHARED;
}

static void pack_settings(struct buf *reply, const struct config *config, bool for_administrator)
{
    pack_map(reply, CONFIG_N_SETTINGS);
    for (const struct setting *setting = config_settings; setting->name; setting++)
        if (setting->kind == SETTING_NUMBER)
            pack_pair_number(reply, setting->name, config_value(config, setting));
        else if (is_secret(setting) && !for_administrator)
            pack_pair_nil(reply, setting->name);
        else
            pack_pair_text(reply, setting->name, slice_of(config_text(config, setting)));
}

static void pack_histories(struct buf *reply, struct memory_use use)
{
    pack_map(reply, 4);
    pack_pair_number(reply, "bytes", use.bytes);
    pack_pair_number(reply, "sessions", use.sessions);
    pack_pair_number(reply, "hits", use.hits);
    pack_pair_number(reply, "misses", use.misses);
}

/* What the caller has taken, and how far it may go; of what is on the disk, the owner whose stores are meant. */
static void pack_use(struct buf *reply, const struct request *request)
{
    const struct accounts *all = request->caller->account->all;

    pack_map(reply, ACCOUNT_N_RESOURCES);
    for (enum account_resource what = 0; what < ACCOUNT_N_RESOURCES; what++) {
        bool is_kept = what >= ACCOUNT_SESSIONS;
        const struct account *account = is_kept ? request->owner->account : request->caller->account;

        pack_text(reply, slice_of(account_resource_name(what)));
        pack_map(reply, 4);
        pack_pair_number(reply, "used", account->used[what]);
        pack_pair_number(reply, "limit", account_limit(all, what, ACCOUNT_OF_ONE));
        pack_pair_number(reply, "used_by_all", all->used[what]);
        pack_pair_number(reply, "limit_of_all", account_limit(all, what, ACCOUNT_OF_ALL));
    }
}

int info_answer(struct request *request)
{
    const struct daemon *daemon = request->daemon;
    struct buf *reply = request_answer(request);

    pack_map(reply, 12);
    pack_pair_text(reply, "version", slice_of(SESSIOND_VERSION));
    pack_pair_number(reply, "protocol", PROTO_VERSION);
    pack_pair_text(reply, "instance", slice_of(daemon->instance));
    pack_pair_number(reply, "pid", (uint64_t)getpid());
    pack_pair_number(reply, "uid", request->owner->uid);
    pack_pair_number(reply, "uptime_us", clock_monotonic_us() - daemon->started_us);
    pack_pair_number(reply, "connections", daemon->n_connections);
    pack_text(reply, slice_of("libraries"));
    pack_libraries(reply, daemon);
    pack_text(reply, slice_of("settings"));
    pack_settings(reply, daemon->config, caller_is_administrator(request->caller));
    pack_text(reply, slice_of("histories"));
    pack_histories(reply, memory_use(daemon->memory));
    pack_text(reply, slice_of("use"));
    pack_use(reply, request);
    pack_text(reply, slice_of("stores"));
    pack_array(reply, request->n);
    buf_append(reply, request->rows.data, request->rows.size);
    return 0;
}
