/*
 * What systemd's side of the contract needs: telling it how we are (sd_notify's datagrams, its watchdog) and taking the
 * socket it has opened for us. Without systemd all this does nothing. At start and on the loop thread.
 */
#ifndef SESSIOND_SYSTEMD_H
#define SESSIOND_SYSTEMD_H

#include <stdint.h>

/* Sends a state such as "READY=1" to $NOTIFY_SOCKET. Whether somebody listens is not our business. */
void systemd_notify(const char *state);

/* How often, in microseconds, WATCHDOG=1 is expected of us at least; 0: it is not. */
uint64_t systemd_watchdog_us(void);

/* The listening socket that we were started with, close-on-exec; -1: none. Return: 0, or SESSIOND_INVALID after a line
 * in the log if something else was passed: to go on without it would be to miss what was meant. */
int systemd_listen_fd(int *ret_fd);

#endif
