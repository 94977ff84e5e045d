/*
 * A file that is only there to be given up: on a full disk even a removal has to write, so room for it is kept. It is
 * released when a removal finds no space, and made again when there is plenty. One for the whole state directory, owned
 * by the lanes; used by their threads, under a lock.
 */
#ifndef SESSIOND_STORE_BALLAST_H
#define SESSIOND_STORE_BALLAST_H

#include <stdbool.h>

struct ballast;
struct config;

/* Makes the file if there is room. Return: 0, also without room (it is logged), or a fault. */
int ballast_open(struct ballast **ret, const struct config *config);

/* Keeps the file, for the next start. */
void ballast_close(struct ballast *ballast);

/* Gives the room back to the disk. Return: false if there was none left to give. */
bool ballast_release(struct ballast *ballast);

/* Makes the file again if it was released and several times its size is free. */
void ballast_restore(struct ballast *ballast);

#endif
