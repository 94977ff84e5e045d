/*
 * The kinds of settings: how one is read from JSON and shown, and how it changes hands. For the files of config/ alone;
 * called where the configuration is read, on the loop thread once it runs.
 */
#ifndef SESSIOND_CONFIG_KINDS_H
#define SESSIOND_CONFIG_KINDS_H

#include <jansson.h>

#include "config/config.h"

struct kind {
    /* Sets the field. Return: 0, SESSIOND_INVALID with *ret_why, or a fault. */
    int (*read)(const struct setting *setting, void *field, const json_t *value, const char **ret_why);
    json_t *(*show)(const void *field);     /* Return: a new reference, NULL without memory */
    const char *(*text)(const void *field); /* Return: borrowed from the field. NULL: a number has none */
    void (*take)(void *into, void *from);   /* what it replaces is dropped, or is in `from` */
    void (*drop)(void *field);              /* NULL: it owns nothing */
    const char *form;                       /* for people; NULL: a number */
};

/* By enum setting_kind. */
extern const struct kind config_kinds[];

static inline void *config_field(const struct config *config, const struct setting *setting)
{
    return (char *)config + setting->offset;
}

static inline struct config_origin *config_origin(struct config *config, const struct setting *setting)
{
    return &config->origins[setting - config_settings];
}

#endif
