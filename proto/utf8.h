/*
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. The one such routine, shared by
 * messages and items. No state, any thread.
 */
#ifndef SESSIOND_UTF8_H
#define SESSIOND_UTF8_H

#include <stdbool.h>

#include "buf.h"

/* The bytes of the character that `text` begins with. Return: 0 if that is none, or none that is complete. */
size_t utf8_character(const char *text, size_t size);

/* Goes over the characters of more than one byte that `at` begins with. Return: the first byte that is none of them:
 * `end`, ASCII, or what is no UTF-8. */
const char *utf8_skip(const char *at, const char *end);

/* Whether all of it is UTF-8; an empty text is, and so is none. */
bool utf8_valid(struct slice text);

#endif
