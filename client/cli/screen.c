#include "screen.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* What terminals since the VT220 understand. Without the wrapping of lines a long one is cut at the margin. */
#define OTHER_SCREEN "\033[?1049h\033[?25l\033[?7l"
#define FIRST_SCREEN "\033[?7h\033[?25h\033[?1049l"
#define TO_THE_TOP "\033[H"
#define CLEAR_LINE "\033[K"
#define CLEAR_BELOW "\033[J"
#define INVERSE "\033[7m"
#define NORMAL "\033[0m"

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};

/* ---- the terminal ---- */

static void measure(struct screen *screen)
{
    struct winsize size;

    screen->rows = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

static void enter(struct screen *screen)
{
    struct termios mode = screen->before;

    mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    mode.c_cc[VMIN] = 0;
    mode.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &mode);
    (void)fputs(OTHER_SCREEN, stdout);
    (void)fflush(stdout);
    measure(screen);
}

static void leave(struct screen *screen)
{
    (void)fputs(FIRST_SCREEN, stdout);
    (void)fflush(stdout);
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &screen->before);
}

int screen_open(struct screen *screen, bool is_live)
{
    sigset_t set;

    *screen = (struct screen){.is_live = is_live, .signals = -1};
    if (!is_live)
        return 0;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaddset(&set, signals[i]);
    if (tcgetattr(STDIN_FILENO, &screen->before))
        return -errno;
    screen->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (screen->signals < 0)
        return -errno;
    (void)sigprocmask(SIG_BLOCK, &set, &screen->signals_before);
    (void)setvbuf(stdout, NULL, _IOFBF, 65536); /* a page goes out at once */
    enter(screen);
    return 0;
}

void screen_close(struct screen *screen)
{
    if (!screen->is_live)
        return;
    leave(screen);
    close(screen->signals);
    (void)sigprocmask(SIG_SETMASK, &screen->signals_before, NULL);
}

/* ---- a page ---- */

void screen_begin(struct screen *screen)
{
    if (screen->is_live)
        (void)fputs(TO_THE_TOP, stdout);
    else if (screen->n_pages > 0)
        (void)putchar('\n');
    screen->row = 0;
    screen->n_pages++;
}

int screen_room(const struct screen *screen)
{
    return screen->is_live ? screen->rows - screen->row : INT_MAX;
}

bool screen_line(struct screen *screen)
{
    if (screen_room(screen) <= 0)
        return false;
    if (screen->row++ > 0)
        (void)putchar('\n');
    if (screen->is_live)
        (void)fputs(CLEAR_LINE, stdout);
    return true;
}

bool screen_title(struct screen *screen, const char *title)
{
    if (!screen_line(screen))
        return false;
    if (screen->is_live)
        (void)printf(INVERSE "%s" NORMAL, title);
    else
        (void)fputs(title, stdout);
    return true;
}

void screen_end(struct screen *screen)
{
    (void)fputs(screen->is_live ? CLEAR_BELOW : "\n", stdout);
    (void)fflush(stdout);
}

/* ---- what comes from outside ---- */

/* As it would be if nobody had caught it: with the terminal as it was. */
static void stop(struct screen *screen)
{
    leave(screen);
    (void)raise(SIGSTOP);
    enter(screen);
}

enum screen_wish screen_read_signals(struct screen *screen, int *ret_signal)
{
    enum screen_wish wish = SCREEN_NOTHING;
    struct signalfd_siginfo info;

    while (screen->is_live && read(screen->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        int number = (int)info.ssi_signo;

        if (number == SIGTSTP) {
            stop(screen);
        } else if (number == SIGCONT) {
            enter(screen); /* a shell may have changed the terminal meanwhile */
        } else if (number == SIGWINCH) {
            measure(screen);
        } else {
            *ret_signal = number;
            return SCREEN_QUIT;
        }
        wish = SCREEN_DRAW;
    }
    return wish;
}

enum screen_wish screen_read_keys(void)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? SCREEN_NOTHING : SCREEN_QUIT;
    for (ssize_t i = 0; i < n; i++)
        if (keys[i] == 'q' || keys[i] == 'Q')
            return SCREEN_QUIT;
    return n > 0 ? SCREEN_DRAW : SCREEN_NOTHING;
}
