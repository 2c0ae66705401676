/* The options that every subcommand with a context shares: --impl, --threads, --device, --max-isa,
 * --verbose. */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <heed/heed.h>

#include <argp.h>
#include <stdbool.h>

typedef struct tool_options {
    const char *impl; /* NULL: not given */
    const char *device;
    const char *max_isa;
    const char *verbose;
    int threads; /* 0: not given */
} tool_options_t;

/* A child for a subcommand's argp; its input is a tool_options_t, zeroed before. */
extern const struct argp tool_options_argp;

/* The context that they ask for. After an error it is NULL and the sentence is on stderr. */
heed_context_t *tool_context(const tool_options_t *options);

/* "contiguous", "zigzag" or "striped"; false: another word. */
bool tool_parse_layout(const char *text, heed_ring_layout_t *layout);

#endif
