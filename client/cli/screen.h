/*
 * A page of lines, drawn again and again: on a terminal in place, as many lines as there is room for; elsewhere one
 * below the other. What is printed to stdout between screen_begin and screen_end goes to the page.
 *
 * On a terminal the screen is another one as long as it is open, keys are read as they come and not shown, and the
 * signals that end, stop or resize are read from screen_signals: none of them leaves the terminal as it should not be.
 * One in a process; one thread.
 */
#ifndef SESSIOND_CLI_SCREEN_H
#define SESSIOND_CLI_SCREEN_H

#include <signal.h>
#include <stdbool.h>
#include <termios.h>

struct screen {
    bool is_live;
    int signals;             /* a descriptor; -1: it is not live */
    int rows, row;           /* of the terminal; begun in this page */
    unsigned n_pages;        /* so far */
    struct termios before;   /* how the terminal was, */
    sigset_t signals_before; /* and what was blocked */
};

/* `is_live`: stdin and stdout are a terminal. Return: 0 or -errno. */
int screen_open(struct screen *screen, bool is_live);
void screen_close(struct screen *screen);

void screen_begin(struct screen *screen);

/* Begins a line. Return: false if there is no room for one more. */
bool screen_line(struct screen *screen);

/* Lines that there is still room for. */
int screen_room(const struct screen *screen);

/* The same as screen_line, for a line that stands out. */
bool screen_title(struct screen *screen, const char *title);

void screen_end(struct screen *screen);

/* What the signals that have come ask for. A stop is over when this returns. */
enum screen_wish { SCREEN_NOTHING, SCREEN_DRAW, SCREEN_QUIT };
enum screen_wish screen_read_signals(struct screen *screen, int *ret_signal);

/* What the keys that were pressed ask for. */
enum screen_wish screen_read_keys(void);

#endif
