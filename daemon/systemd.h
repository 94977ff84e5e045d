/*
 * The two things that systemd's side of the contract needs: telling it how we are (sd_notify's datagrams) and taking
 * the sockets it has opened for us. Without systemd both do nothing. At start and on the loop thread.
 */
#ifndef SESSIOND_SYSTEMD_H
#define SESSIOND_SYSTEMD_H

/* Sends a state such as "READY=1" to $NOTIFY_SOCKET. Whether somebody listens is not our business. */
void systemd_notify(const char *state);

/* The listening socket that we were started with, close-on-exec; -1: none. */
int systemd_listen_fd(void);

#endif
