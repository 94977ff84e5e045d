/*
 * The log: one line an event, `event key=value …` on stderr, with the journal's priority where stderr is the journal.
 * Never a byte of an item, a session id or a key. Any thread: a line is one write.
 */
#ifndef SESSIOND_LOG_H
#define SESSIOND_LOG_H

#include <stdbool.h>

enum log_level { /* syslog's numbers */
                 LOG_LEVEL_ERROR = 3,
                 LOG_LEVEL_WARNING = 4,
                 LOG_LEVEL_INFO = 6,
                 LOG_LEVEL_DEBUG = 7,
};

/* Reads a level's name: error, warning, info, debug. */
bool log_level_of(const char *name, enum log_level *ret);
const char *log_level_name(enum log_level level);

/* Once, at start, before there are threads. */
void log_setup(enum log_level level);

/* Later, on the loop thread. */
void log_set_level(enum log_level level);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
