/*
 * The table of methods: everything that differs between them. Handlers never answer; they return 0, an outcome or a
 * fault. To add one: PROTOCOL.md, a vector, its fields and functions here, its line in the table. See HACKING.md.
 *
 * A request passes these functions in this order, as far as its method has them:
 *
 *     check ─ prepare ─ run on the lane of its store (again and again, if `again` names more stores) ─ settle ─ answer
 *     loop    loop/pool lane                                                                           pool     loop
 */
#ifndef SESSIOND_RPC_METHODS_H
#define SESSIOND_RPC_METHODS_H

#include "rpc/request.h"

struct method {
    const char *name;
    const struct field *fields; /* into struct params */
    enum job_kind kind;         /* of its jobs */
    enum right right;           /* that it takes on a shared store; RIGHT_NONE: it names no store */
    bool frees;                 /* it removes items and adds none */

    /* More than the table of fields can say about the parameters. */
    int (*check)(struct request *request);
    /* What takes long for large requests, and needs no store. */
    int (*prepare)(struct request *request);
    /* Loop: answers without the store, if it can. Return: true if it did (request->outcome is set). */
    bool (*recall)(struct request *request);
    /* Loop: what came of the job, whatever its outcome, while later jobs have not come back yet. */
    void (*learn)(struct request *request);
    /* The job. May run twice; begins with empty rows and reply. Makes the whole answer, unless there is `answer`. */
    int (*run)(struct request *request, const struct engine_table *table, struct engine *engine, bool *ret_more);
    /* For methods that go from store to store: called before the first job, and after each with its outcome. Return:
     * true if request->job.store is the next one. */
    bool (*again)(struct request *request, int outcome);
    /* Slow work with files. */
    int (*settle)(struct request *request);
    int (*answer)(struct request *request);
};

/* Return: NULL if there is no such method. */
const struct method *method_find(struct slice name);

/* Its place in the table, and the name of what stands at a place; NULL after the last. */
size_t method_index(const struct method *method);
const char *method_at(size_t index);

/* The methods' functions, by file. items.c: */
int change_check(struct request *);
int items_prepare(struct request *);
void pack_meta(struct buf *, struct slice meta); /* nil where its data is NULL */
void get_items_answer(struct request *, const struct selection_result *, struct slice rows, struct slice meta);
int conflict_refuse(struct request *, uint64_t revision, uint64_t epoch);
int get_items_run(struct request *, const struct engine_table *, struct engine *, bool *);
int add_items_run(struct request *, const struct engine_table *, struct engine *, bool *);
int pop_item_run(struct request *, const struct engine_table *, struct engine *, bool *);
int clear_session_run(struct request *, const struct engine_table *, struct engine *, bool *);
int replace_items_run(struct request *, const struct engine_table *, struct engine *, bool *);
int delete_session_run(struct request *, const struct engine_table *, struct engine *, bool *);

/* sessions.c: */
int list_sessions_run(struct request *, const struct engine_table *, struct engine *, bool *);
bool stores_again(struct request *, int outcome);
int stores_run(struct request *, const struct engine_table *, struct engine *, bool *);
int list_stores_answer(struct request *);
int recover_check(struct request *);
int recover_run(struct request *, const struct engine_table *, struct engine *, bool *);

/* admin.c: */
int hello_answer(struct request *);
int ping_answer(struct request *);
int info_answer(struct request *);

/* metrics.c: */
int stats_answer(struct request *);

/* backup.c: */
int backup_check(struct request *);
int backup_run(struct request *, const struct engine_table *, struct engine *, bool *);
int backup_settle(struct request *);
int backup_answer(struct request *);
int backup_read_check(struct request *);
int backup_read_settle(struct request *);
int backup_delete_settle(struct request *);
int backup_delete_answer(struct request *);

#endif
