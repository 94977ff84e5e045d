/*
 * Keys in the form of UUIDv7: 48 bits of milliseconds, then chance. Keys that begin with the time arrive nearly sorted,
 * which keeps the daemon's table of receipts fast. Nothing is kept between calls, so a fork cannot make two alike.
 */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

static int fill_random(uint8_t *bytes, size_t size)
{
    ssize_t n;

    do
        n = getrandom(bytes, size, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return (size_t)n == size ? 0 : -EIO; /* the kernel never gives less than 256 bytes in part */
}

int sessiond_make_key(char ret_key[SESSIOND_KEY_SIZE])
{
    struct timespec now;
    uint8_t b[16];
    uint64_t ms;
    int r = fill_random(b, sizeof(b));

    if (r)
        return r;
    clock_gettime(CLOCK_REALTIME, &now);
    ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    for (unsigned i = 0; i < 6; i++)
        b[i] = (uint8_t)(ms >> (40 - 8 * i));
    b[6] = (b[6] & 0x0f) | 0x70; /* the version */
    b[8] = (b[8] & 0x3f) | 0x80; /* the variant */
    (void)snprintf(ret_key, SESSIOND_KEY_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                   b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
                   b[15]);
    return 0;
}
