/*
 * The schema of a SQLite store, as numbered migrations. Run by sqlite.c when it opens a store; the store's lane.
 *
 * The table `log` alone is the truth: a row for each item and each removal, in the order of commit. `session`, `item`
 * and `receipt` are made from it, in the same transaction or later. `clock` maps uptime to log positions.
 */
#ifndef SESSIOND_STORE_SQLITE_SCHEMA_H
#define SESSIOND_STORE_SQLITE_SCHEMA_H

#include <sqlite3.h>

enum {
    SCHEMA_APPLICATION_ID = 0x73657373, /* "sess" */
    SCHEMA_VERSION = 3,                 /* the number of migrations */
};

/* Brings an open database up to SCHEMA_VERSION, each step in a transaction of its own; an empty one from nothing.
 * Return: 0; SESSIOND_UNAVAILABLE after a line in the log if this is no store of ours or a newer one, and then the file
 * is untouched; SESSIOND_FULL; or a fault. */
int schema_migrate(sqlite3 *db, const char *path);

/* The same check without migrating. Return: NULL if it is a store whose version we know, else what is wrong. */
const char *schema_check(sqlite3 *db, int *ret_version);

#endif
