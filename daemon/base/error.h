/*
 * Where faults are born. Everywhere in the daemon: 0 is done, > 0 an outcome for the client (enum sessiond_code),
 * < 0 a fault, -errno. A fault begins in fault(), which logs it once; callers pass it on and never match on it.
 * Any thread.
 */
#ifndef SESSIOND_ERROR_H
#define SESSIOND_ERROR_H

/* Logs that `error` (errno or -errno) happened to `what`. Return: -errno, always negative. */
#define fault(error, what) fault_at(error, what, __FILE__, __LINE__)

int fault_at(int error, const char *what, const char *file, int line);

#endif
