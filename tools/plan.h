/* `heed plan`: what its parts share. Each part gets its own argv, as a command does. */
#ifndef TOOLS_PLAN_H
#define TOOLS_PLAN_H

#include "text.h"

#include <argp.h>
#include <jansson.h>
#include <stddef.h>

int plan_pipeline(int argc, char **argv);
int plan_stages(int argc, char **argv);
int plan_layer(int argc, char **argv);
int plan_split(int argc, char **argv);
int plan_mesh(int argc, char **argv);

/* ---- options --------------------------------------------------------------------------------- */

/* The number that an option has, low to high; complains through argp and does not return if it is
 * none. */
int64_t plan_number(struct argp_state *state, const char *option, const char *text, int64_t low,
                    int64_t high);

/* An option that is a number, and the int32_t or int64_t of a struct that it fills. */
typedef struct plan_field {
    int key; /* 0: behind the last */
    const char *option;
    size_t at, size;
    int64_t low, high;
} plan_field_t;

#define PLAN_FIELD(key, option, type, field, low, high)                           \
    {                                                                             \
        key, option, offsetof(type, field), sizeof(((type *)0)->field), low, high \
    }

/* --json, which every part has. */
enum { PLAN_KEY_JSON = 0x3200 };
#define PLAN_JSON                                          \
    {                                                      \
        "json", PLAN_KEY_JSON, 0, 0, "the same as JSON", 0 \
    }

/* What the parsers of all parts end with: numbers for the fields of state->input, --json for *json,
 * a complaint about any argument. ARGP_ERR_UNKNOWN: another key. */
error_t plan_parse(const plan_field_t *fields, bool *json, int key, char *arg,
                   struct argp_state *state);

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Prints the object and gives it back; NULL is out of memory. */
int plan_print_json(json_t *object);

/* {"first", "count"} */
json_t *plan_json_range(heed_range_t range);

/* ---- layers ---------------------------------------------------------------------------------- */

/* What the layers of a model cost, as two parts of the command are told. */
typedef struct plan_costs {
    int32_t layers; /* 0: not told */
    int64_t *costs; /* NULL: all 1; from malloc */
    int64_t embedding, head;
} plan_costs_t;

/* Options --layers, --costs, --embedding, --head as a child of an argp, with a plan_costs_t. */
extern const struct argp plan_costs_argp;

/* Cuts the layers; starts has stages + 1 places, parts (the cost of each stage) as many as stages.
 * Prints the library's sentence and returns its status for the exit code. */
int plan_cut(const plan_costs_t *costs, int32_t stages, int32_t *starts, int64_t *parts);

/* {"first_layer", "layers", "cost"} of one of them. */
json_t *plan_json_layers(const int32_t *starts, const int64_t *parts, int32_t stage);

/* ---- pictures -------------------------------------------------------------------------------- */

/* A schedule that was simulated, for drawing. */
typedef struct plan_picture {
    const heed_pipeline_desc_t *desc; /* with its chunks */
    const heed_action_t *actions;
    const int32_t *first;
    int64_t makespan;
} plan_picture_t;

/* Writes "F12", a letter behind it for the chunk where there are several, "S3" for activations
 * sent, R received, s and r for gradients; text is of PLAN_NAME_SIZE. Returns the length. */
enum { PLAN_NAME_SIZE = 24 };
int plan_name(const heed_pipeline_desc_t *desc, const heed_action_t *action, char *text);

/* A line for each stage: a cell for each unit of time; the beginning where that is too wide. */
void plan_draw_text(const plan_picture_t *picture);
int plan_draw_svg(const plan_picture_t *picture, const char *path);

#endif
