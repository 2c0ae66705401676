/* `heed inspect`: what a safetensors file holds: names, dtypes, shapes, ranges, and for each tensor
 * a picture of how its values are spread. */
#define _GNU_SOURCE
#include "options.h"
#include "text.h"
#include "values.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_INCLUDE = 0x3100, KEY_ASCII, KEY_JSON, KEY_NO_VALUES, BINS = 24 };

typedef struct arguments {
    const char *path;
    const char *include; /* NULL: all */
    bool ascii, json, no_values;
    tool_options_t options;
} arguments_t;

static const struct argp_option options[] = {
    {"include", KEY_INCLUDE, "GLOB", 0, "only the tensors whose name matches", 0},
    {"no-values", KEY_NO_VALUES, 0, 0, "names, dtypes and shapes alone: reads the header only", 0},
    {"ascii", KEY_ASCII, 0, 0, "pictures without block characters", 0},
    {"json", KEY_JSON, 0, 0, "the same as JSON", 0},
    {0},
};

static const char doc[] =
    "Lists the tensors of a safetensors file with their dtypes, shapes and ranges, and draws how "
    "their values are spread: a column for each power of two of floating-point numbers, for "
    "integers equal steps from the smallest to the largest."
    "\v"
    "Examples:\n"
    "  heed inspect model.safetensors\n"
    "  heed inspect model.safetensors --include '*.q_proj.weight'";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->options;
        return 0;
    case KEY_INCLUDE:
        to->include = arg;
        return 0;
    case KEY_ASCII:
        to->ascii = true;
        return 0;
    case KEY_JSON:
        to->json = true;
        return 0;
    case KEY_NO_VALUES:
        to->no_values = true;
        return 0;
    case ARGP_KEY_ARG:
        if (to->path)
            argp_error(state, "one file at a time: %s is one too many", arg);
        to->path = arg;
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!to->path)
            argp_error(state, "a file is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- one tensor ------------------------------------------------------------------------------ */

typedef struct survey {
    bool known; /* the values could be read */
    double low, high, sum, squares;
    int64_t finite, zeros, nans, infinities;
    int low_power, high_power; /* of two, of the values that are not zero */
    int64_t powers[2200];      /* values in [2^(i - 1100), twice that) */
    int64_t bins[BINS];
} survey_t;

static void count_value(survey_t *to, double value)
{
    if (isnan(value)) {
        to->nans++;
        return;
    }
    if (isinf(value)) {
        to->infinities++;
        return;
    }
    if (to->finite++ == 0)
        to->low = to->high = value;
    to->low = fmin(to->low, value);
    to->high = fmax(to->high, value);
    to->sum += value;
    to->squares += value * value;
    if (value == 0)
        to->zeros++;
    else
        to->powers[ilogb(value) + 1100]++;
}

/* Calls visit for every value. */
static heed_status_t each_value(heed_context_t *context, const st_tensor_t *tensor, survey_t *to,
                                void (*visit)(survey_t *, double))
{
    static double piece[VALUES_PIECE];
    for (int64_t from = 0; from < tensor->elements; from += VALUES_PIECE) {
        int64_t left = tensor->elements - from, count = left < VALUES_PIECE ? left : VALUES_PIECE;
        heed_status_t status = values_read(context, tensor, from, count, piece);
        if (status != HEED_OK)
            return status;
        for (int64_t i = 0; i < count; i++)
            visit(to, piece[i]);
    }
    return HEED_OK;
}

static void bin_value(survey_t *to, double value)
{
    double span = to->high - to->low;
    int bin = span > 0 ? (int)((value - to->low) / span * BINS) : 0;
    to->bins[bin < BINS ? bin : BINS - 1]++;
}

/* Powers of two in at most BINS columns of the same width. */
static void bin_powers(survey_t *to)
{
    int first = 0, last = 2199;
    while (first < last && !to->powers[first])
        first++;
    while (last > first && !to->powers[last])
        last--;
    int width = (last - first) / BINS + 1;
    for (int i = first; i <= last; i++)
        to->bins[(i - first) / width] += to->powers[i];
    to->low_power = first - 1100;
    to->high_power = last - 1100;
}

static heed_status_t survey(heed_context_t *context, const st_tensor_t *tensor, survey_t *to)
{
    memset(to, 0, sizeof *to);
    to->known = values_known(context, tensor->dtype);
    if (!to->known)
        return HEED_OK;
    heed_status_t status = each_value(context, tensor, to, count_value);
    if (status != HEED_OK || to->finite == 0)
        return status;
    if (!values_are_float(tensor->dtype))
        return each_value(context, tensor, to, bin_value);
    bin_powers(to);
    return HEED_OK;
}

/* ---- showing --------------------------------------------------------------------------------- */

static void draw(const survey_t *of, bool ascii)
{
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const marks[] = {" ", ".", ":", "-", "=", "+", "*", "#", "@"};
    int64_t most = 1;
    for (int i = 0; i < BINS; i++)
        most = of->bins[i] > most ? of->bins[i] : most;
    for (int i = 0; i < BINS; i++) {
        int level = (int)ceil((double)of->bins[i] * 8 / (double)most);
        fputs((ascii ? marks : blocks)[level], stdout);
    }
}

static void print_values(const st_tensor_t *tensor, const survey_t *of, bool ascii)
{
    if (!of->known) {
        printf("    values of this dtype are not read\n");
        return;
    }
    if (tensor->elements == 0)
        return;
    double mean = of->finite ? of->sum / (double)of->finite : NAN;
    printf("    %.6g .. %.6g  mean %.4g  rms %.4g", of->finite ? of->low : NAN,
           of->finite ? of->high : NAN, mean,
           of->finite ? sqrt(of->squares / (double)of->finite) : NAN);
    if (of->zeros)
        printf("  zero %lld", (long long)of->zeros);
    if (of->nans)
        printf("  NaN %lld", (long long)of->nans);
    if (of->infinities)
        printf("  Inf %lld", (long long)of->infinities);
    if (of->finite == of->zeros) {
        printf("\n");
        return;
    }
    printf("\n    |");
    draw(of, ascii);
    if (values_are_float(tensor->dtype))
        printf("| 2^%d .. 2^%d\n", of->low_power, of->high_power);
    else
        printf("| %.6g .. %.6g\n", of->low, of->high);
}

static json_t *json_of(const st_tensor_t *tensor, const survey_t *of, bool values)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->ndim; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    json_t *made = json_pack("{s:s,s:s,s:o,s:I,s:I}", "name", tensor->name, "dtype",
                             tensor->dtype->name, "shape", shape, "elements",
                             (json_int_t)tensor->elements, "bytes", (json_int_t)tensor->bytes);
    if (!values || !of->known || of->finite == 0)
        return made;
    json_t *bins = json_array();
    for (int i = 0; i < BINS; i++)
        json_array_append_new(bins, json_integer(of->bins[i]));
    json_object_update_new(made,
                           json_pack("{s:f,s:f,s:f,s:f,s:I,s:I,s:I,s:o}", "min", of->low, "max",
                                     of->high, "mean", of->sum / (double)of->finite, "rms",
                                     sqrt(of->squares / (double)of->finite), "zeros",
                                     (json_int_t)of->zeros, "nans", (json_int_t)of->nans,
                                     "infinities", (json_int_t)of->infinities, "histogram", bins));
    return made;
}

/* Text of the file, without what a terminal would take for commands. */
static void print_plain(const char *text)
{
    for (const char *c = text; *c; c++)
        putchar((unsigned char)*c < ' ' || *c == 127 ? '?' : *c);
}

static void print_tensor(const st_tensor_t *tensor, int width)
{
    char shape[128], bytes[TOOL_NUMBER_SIZE];
    print_plain(tensor->name);
    printf("%*s  %-8s %-20s %s\n", width - (int)strlen(tensor->name), "", tensor->dtype->name,
           st_shape_text(tensor, shape, sizeof shape), tool_bytes((double)tensor->bytes, bytes));
}

static bool wanted(const arguments_t *arguments, const st_tensor_t *tensor)
{
    return !arguments->include || fnmatch(arguments->include, tensor->name, 0) == 0;
}

static void print_metadata(const st_file_t *file)
{
    const char *key;
    const json_t *value;
    json_t *metadata = (json_t *)(uintptr_t)st_metadata(file);
    json_object_foreach(metadata, key, value)
    {
        print_plain(key);
        printf(": ");
        print_plain(json_string_value(value));
        printf("\n");
    }
}

/* Prints one tensor, or adds it to the list. */
static heed_status_t show_tensor(const arguments_t *arguments, heed_context_t *context,
                                 const st_tensor_t *tensor, int width, json_t *list)
{
    static survey_t found;
    heed_status_t status = arguments->no_values ? HEED_OK : survey(context, tensor, &found);
    if (status != HEED_OK)
        return status;
    if (arguments->json) {
        json_array_append_new(list, json_of(tensor, &found, !arguments->no_values));
        return HEED_OK;
    }
    print_tensor(tensor, width);
    if (!arguments->no_values)
        print_values(tensor, &found, arguments->ascii);
    return HEED_OK;
}

static void print_json(const st_file_t *file, json_t *list)
{
    json_t *all = json_pack("{s:s,s:O}", "file", st_path(file), "tensors", list);
    json_dumpf(all, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(all);
}

static int show(const arguments_t *arguments, const st_file_t *file, heed_context_t *context)
{
    const st_tensor_t *tensor;
    heed_status_t status = HEED_OK;
    int width = 4, count = 0;
    double bytes = 0;
    char text[TOOL_NUMBER_SIZE];
    json_t *list = json_array();
    for (int i = 0; (tensor = st_at(file, i)); i++)
        if (wanted(arguments, tensor) && (int)strlen(tensor->name) > width)
            width = (int)strlen(tensor->name);
    if (!arguments->json)
        print_metadata(file);
    for (int i = 0; status == HEED_OK && (tensor = st_at(file, i)); i++) {
        if (!wanted(arguments, tensor))
            continue;
        count++;
        bytes += (double)tensor->bytes;
        status = show_tensor(arguments, context, tensor, width, list);
    }
    if (status == HEED_OK && arguments->json)
        print_json(file, list);
    else if (status == HEED_OK)
        printf("%d tensor%s, %s\n", count, count == 1 ? "" : "s", tool_bytes(bytes, text));
    json_decref(list);
    if (status != HEED_OK)
        return tool_fail_status(status);
    return count || !arguments->include
               ? TOOL_OK
               : tool_fail("%s: no tensor matches %s", st_path(file), arguments->include);
}

int cmd_inspect(int argc, char **argv)
{
    static const struct argp_child children[] = {{&tool_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, "FILE", doc, children, NULL, NULL};
    arguments_t arguments = {0};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments) != 0)
        return TOOL_USAGE;
    st_error_t error;
    st_file_t *file = st_open(arguments.path, &error);
    if (!file)
        return tool_fail("%s", error.text);
    heed_context_t *context = tool_context(&arguments.options);
    int code = context ? show(&arguments, file, context) : TOOL_FAILED;
    heed_context_destroy(context);
    st_close(file);
    return code;
}
