/*
 * Who is listed in the configuration, and what those who are may do to the stores that owners share. Names of users and
 * groups are looked up when the file is read. Objects are owned by the configuration; they do not change once they are
 * made. The loop thread alone reads them.
 */
#ifndef SESSIOND_SHARING_H
#define SESSIOND_SHARING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <jansson.h>

#include "proto.h"

/* What may be done to a shared store; each includes those before it. */
enum right {
    RIGHT_NONE,   /* it is not there */
    RIGHT_READ,   /* also: see it listed */
    RIGHT_APPEND, /* add_items */
    RIGHT_CHANGE, /* all else */
    N_RIGHTS
};

/* Users and groups as an administrator lists them. Names were looked up when the file was read. */
struct who {
    char *text; /* owned; as JSON */
    size_t n;
    struct who_id {
        bool is_group;
        unsigned id;
    } ids[]; /* sorted */
};

struct shared_store {
    char name[PROTO_STORE_MAX + 1]; /* without the @ */
    struct who *who[N_RIGHTS];      /* owned; NULL: nobody */
};

struct shared_stores {
    char *text; /* owned; as JSON */
    size_t n;
    struct shared_store stores[];
};

/* Reads a list such as [5, "alice", "%staff"]. Return: 0, SESSIOND_INVALID with *ret_why, or a fault. */
int who_read(struct who **ret, const json_t *value, const char **ret_why);
void who_free(struct who *who); /* may be NULL */

/* Whether a uid with these groups is listed. `who` may be NULL: nobody is. */
bool who_lists(const struct who *who, uid_t uid, const gid_t *groups, size_t n_groups);

/* Reads an object with an object for each store. Return: as who_read. */
int shared_read(struct shared_stores **ret, const json_t *value, const char **ret_why);
void shared_free(struct shared_stores *shared); /* may be NULL */

#endif
