/*
 * Removing a directory with all that is in it: what every test that makes one ends with. No state, any thread.
 */
#ifndef SESSIOND_TEST_TREE_H
#define SESSIOND_TEST_TREE_H

#include <ftw.h>
#include <stdio.h>

static inline int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

/* Links are removed and not followed. */
static inline void remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
