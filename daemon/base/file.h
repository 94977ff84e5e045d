/*
 * Files and directories that must survive: made private, synced together with the directory that names them, locked
 * for the life of the process. Blocking; called at start, and on the threads of stores.
 *
 * Never open a database's own file with these while SQLite has it open: closing it would drop SQLite's locks.
 */
#ifndef SESSIOND_FILE_H
#define SESSIOND_FILE_H

#include <stddef.h>

/* mkdir -p with mode 0700; each directory that is new is synced into its parent. Return: 0 or a fault. */
int file_make_directory(const char *path);

/* Syncs a file or directory by its path. A missing one is fine. Return: 0 or a fault. */
int file_sync(const char *path);

/* Syncs the directory that `path` stands in. */
int file_sync_parent(const char *path);

/* Takes an exclusive lock on a file, which it makes if needed and which stays. The lock goes with the process.
 * Return: 0 and the descriptor that holds it, SESSIOND_BUSY if another process has it, or a fault. */
int file_lock(const char *path, int *ret_fd);

/* Reads a whole small file (below `size` bytes) as text with a NUL. Return: 0, SESSIOND_NOT_FOUND, SESSIOND_TOO_LARGE
 * or a fault. */
int file_read(const char *path, char *ret, size_t size);

/* Writes a small file so that it is there whole or not at all. Return: 0 or a fault. */
int file_write(const char *path, const char *text);

#endif
