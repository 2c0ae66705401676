/* `heed plan split` and `heed plan mesh`. */
#define _GNU_SOURCE
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_PARTS = 0x3000, KEY_POLICY, KEY_ALIGN, KEY_RANKS, MOST_PARTS = 1 << 16 };

/* ---- split ----------------------------------------------------------------------------------- */

typedef struct split {
    int64_t n, align;
    int32_t parts;
    heed_split_policy_t policy;
    bool json;
} split_t;

static const struct argp_option split_options[] = {
    {"parts", KEY_PARTS, "N", 0, "parts", 0},
    {"policy", KEY_POLICY, "NAME", 0, "equal, ceil, balanced or aligned (balanced)", 0},
    {"align", KEY_ALIGN, "N", 0, "what parts are multiples of, aligned (1)", 0},
    PLAN_JSON,
    {0},
};

static const char split_doc[] =
    "Cuts N things into parts: equal ones or none; as large as the first needs, the last shorter "
    "(ceil); different by one at most (balanced); in whole blocks (aligned)."
    "\v"
    "Examples:\n"
    "  heed plan split 10 --parts 3 --policy ceil\n"
    "  heed plan split 14336 --parts 6 --policy aligned --align 128";

static const plan_field_t split_fields[] = {
    PLAN_FIELD(KEY_PARTS, "--parts", split_t, parts, 1, MOST_PARTS),
    PLAN_FIELD(KEY_ALIGN, "--align", split_t, align, 1, INT64_MAX),
    {0},
};

static heed_split_policy_t read_policy(const char *text, struct argp_state *state)
{
    static const char *const names[] = {"equal", "ceil", "balanced", "aligned"};
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], text) == 0)
            return (heed_split_policy_t)i;
    argp_error(state, "--policy '%s' is not equal, ceil, balanced or aligned", text);
    return HEED_SPLIT_EQUAL;
}

static error_t parse_split(int key, char *arg, struct argp_state *state)
{
    split_t *to = state->input;
    switch (key) {
    case KEY_POLICY:
        to->policy = read_policy(arg, state);
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            break;
        to->n = plan_number(state, "N", arg, 1, INT64_C(1) << 62);
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!to->n || !to->parts)
            argp_error(state, "N and --parts are needed");
        return 0;
    default:
        break;
    }
    return plan_parse(split_fields, &to->json, key, arg, state);
}

static int print_split(const split_t *split, const heed_range_t *ranges)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < split->parts; i++) {
        if (!split->json && ranges[i].count)
            printf("part %d: %lld, %lld to %lld\n", i, (long long)ranges[i].count,
                   (long long)ranges[i].first, (long long)(ranges[i].first + ranges[i].count - 1));
        else if (!split->json)
            printf("part %d: 0\n", i);
        json_array_append_new(list, plan_json_range(ranges[i]));
    }
    if (split->json)
        return plan_print_json(json_pack("{s:o}", "parts", list));
    json_decref(list);
    return TOOL_OK;
}

int plan_split(int argc, char **argv)
{
    split_t split = {.policy = HEED_SPLIT_BALANCED, .align = 1};
    const struct argp argp = {split_options, parse_split, "N", split_doc, NULL, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &split))
        return TOOL_USAGE;
    heed_range_t *ranges = malloc(sizeof(*ranges) * (size_t)split.parts);
    if (!ranges)
        return tool_fail("out of memory");
    heed_status_t status = heed_split(split.n, split.parts, split.policy, split.align, ranges);
    int code = status ? tool_fail_status(status) : print_split(&split, ranges);
    free(ranges);
    return code;
}

/* ---- mesh ------------------------------------------------------------------------------------ */

typedef struct mesh {
    const char *text;
    int32_t ranks;
    bool json;
    heed_mesh_t mesh;
} mesh_t;

static const struct argp_option mesh_options[] = {
    {"ranks", KEY_RANKS, "N", 0, "how many ranks there are (as many as the mesh has)", 0},
    PLAN_JSON,
    {0},
};

static const char mesh_doc[] =
    "Lays ranks out on a grid, the last axis fastest, and shows each rank's point and its group "
    "along each axis: the ranks that it talks to there."
    "\v"
    "Examples:\n"
    "  heed plan mesh 2x2x2 --ranks 8\n"
    "  heed plan mesh 4x8 --json";

static const plan_field_t mesh_fields[] = {
    PLAN_FIELD(KEY_RANKS, "--ranks", mesh_t, ranks, 1, MOST_PARTS),
    {0},
};

static error_t parse_mesh(int key, char *arg, struct argp_state *state)
{
    mesh_t *to = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            break;
        to->text = arg;
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!to->text)
            argp_error(state, "a mesh is missing, such as 2x2x2");
        return 0;
    default:
        break;
    }
    return plan_parse(mesh_fields, &to->json, key, arg, state);
}

/* The group along one axis, as text or as a list. */
static heed_status_t show_group(const mesh_t *mesh, int32_t rank, int32_t axis, int32_t *members,
                                json_t *groups)
{
    int32_t count, place;
    heed_status_t status = heed_mesh_group(&mesh->mesh, rank, 1u << axis, &count, members, &place);
    json_t *list = json_array();
    for (int32_t i = 0; i < count && !status; i++) {
        if (!mesh->json)
            printf("%s%d", i ? "," : "  ", members[i]);
        json_array_append_new(list, json_integer(members[i]));
    }
    json_array_append_new(groups, list);
    return status;
}

static heed_status_t show_rank(const mesh_t *mesh, int32_t rank, int32_t *members, json_t *ranks)
{
    int32_t point[HEED_MESH_MAX_AXES];
    json_t *groups = json_array(), *at = json_array();
    heed_status_t status = heed_mesh_point(&mesh->mesh, rank, point);
    if (!mesh->json)
        printf("rank %d at ", rank);
    for (int32_t axis = 0; axis < mesh->mesh.axes && !status; axis++) {
        if (!mesh->json)
            printf("%s%d", axis ? "," : "", point[axis]);
        json_array_append_new(at, json_integer(point[axis]));
    }
    if (!mesh->json)
        printf("; along each axis");
    for (int32_t axis = 0; axis < mesh->mesh.axes && !status; axis++)
        status = show_group(mesh, rank, axis, members, groups);
    if (!mesh->json)
        printf("\n");
    json_array_append_new(ranks, json_pack("{s:o,s:o}", "point", at, "groups", groups));
    return status;
}

int plan_mesh(int argc, char **argv)
{
    mesh_t mesh = {0};
    const struct argp argp = {mesh_options, parse_mesh, "MESH", mesh_doc, NULL, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &mesh))
        return TOOL_USAGE;
    heed_status_t status = heed_mesh_parse(mesh.text, mesh.ranks, &mesh.mesh);
    if (status)
        return tool_fail_status(status);
    if (mesh.mesh.ranks > MOST_PARTS)
        return tool_fail("mesh '%s' has %d ranks: %d are shown at most", mesh.text, mesh.mesh.ranks,
                         MOST_PARTS);
    int32_t *members = malloc(sizeof(*members) * (size_t)mesh.mesh.ranks);
    if (!members)
        return tool_fail("out of memory");
    json_t *ranks = json_array();
    for (int32_t rank = 0; rank < mesh.mesh.ranks && !status; rank++)
        status = show_rank(&mesh, rank, members, ranks);
    free(members);
    int code = status ? tool_fail_status(status) : TOOL_OK;
    if (code == TOOL_OK && mesh.json)
        return plan_print_json(json_pack("{s:o}", "ranks", ranks));
    json_decref(ranks);
    return code;
}
