/*
 * A listening Unix socket at a path: locked, so that two daemons never take it from each other, and with its mode from
 * the first instant. At start; no state of its own, any thread.
 */
#ifndef SESSIOND_NET_LISTEN_H
#define SESSIOND_NET_LISTEN_H

#include <sys/types.h>

/* Makes the directory if need be, takes the lock beside the socket (for as long as the process lives), removes what a
 * dead daemon left, and binds. The caller owns the descriptor, and removes the path when it stops to listen. Return: 0;
 * SESSIOND_BUSY if another daemon has the path, or SESSIOND_INVALID, after a line in the log; or a fault. */
int listen_at(const char *path, mode_t mode, int *ret_fd);

#endif
