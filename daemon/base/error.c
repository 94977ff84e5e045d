#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int fault_at(int error, const char *what, const char *file, int line)
{
    const char *name;

    error = abs(error);
    if (error == 0)
        error = EIO;
    name = strerrordesc_np(error);
    log_error("fault what=\"%s\" error=\"%s\" at=%s:%d", what, name ? name : "unknown", file, line);
    return -error;
}
