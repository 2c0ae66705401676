/* `heed convert`: a checkpoint in another dtype, tensor by tensor. */
#define _GNU_SOURCE
#include "convert.h"
#include "safetensors_internal.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_TO = 0x3200, KEY_SCALE, KEY_INCLUDE, KEY_EXCLUDE, KEY_PRESET, KEY_QUIET };

typedef struct word {
    const char *name;
    const char *dtype; /* of safetensors */
    convert_scale_t scale;
} word_t;

typedef struct arguments {
    const char *input, *output;
    convert_target_t target;
    const word_t *format;
    bool quiet;
    tool_options_t options;
} arguments_t;

static const struct argp_option options[] = {
    {"to", KEY_TO, "FORMAT", 0,
     "e4m3, e5m2, bf16, f16, f32, mxfp8 (blocks of 32 with E8M0 scales), e4m3fnuz, e5m2fnuz, e8m0",
     0},
    {"scale", KEY_SCALE, "WHAT", 0,
     "what shares a scale: tensor (default with 8 bits), row, block (128 x 128), none", 0},
    {"include", KEY_INCLUDE, "GLOB", 0,
     "cast the tensors whose name matches; default: all floating-point ones, to 8 bits those with "
     "two axes or more",
     0},
    {"exclude", KEY_EXCLUDE, "GLOB", 0, "but copy those whose name matches", 0},
    {"preset", KEY_PRESET, "NAME", 0,
     "how numbers beyond the range, Inf and NaN are encoded: ocp_sat (default), ocp_nosat, "
     "cuda_satfinite, cuda_nosat, torch, ml_dtypes, onnx_sat, onnx_nosat",
     0},
    {"quiet", KEY_QUIET, 0, 0, "no report, and none of the work for it", 0},
    {0},
};

static const char doc[] =
    "Converts the tensors of a safetensors file. Scales stand beside their codes, under the names "
    "that vLLM and Transformers read: NAME_scale, for blocks NAME_scale_inv; they multiply the "
    "codes. Tensors that are stored with such scales are decoded first. All else is copied."
    "\v"
    "Examples:\n"
    "  heed convert model.safetensors fp8.safetensors --to e4m3\n"
    "  heed convert model.safetensors fp8.safetensors --to e4m3 --scale block --exclude "
    "'*lm_head*'\n"
    "  heed convert fp8.safetensors bf16.safetensors --to bf16\n"
    "\n"
    "The report has the signal-to-noise ratio, the largest error and the clipped elements of each "
    "tensor. The output appears whole or not at all.";

/* ---- command line ---------------------------------------------------------------------------- */

static const word_t formats[] = {
    {"e4m3", "F8_E4M3", CONVERT_SCALE_TENSOR},
    {"e5m2", "F8_E5M2", CONVERT_SCALE_TENSOR},
    {"bf16", "BF16", CONVERT_SCALE_NONE},
    {"f16", "F16", CONVERT_SCALE_NONE},
    {"f32", "F32", CONVERT_SCALE_NONE},
    {"mxfp8", "F8_E4M3", CONVERT_SCALE_MX},
    {"e4m3fnuz", "F8_E4M3FNUZ", CONVERT_SCALE_TENSOR},
    {"e5m2fnuz", "F8_E5M2FNUZ", CONVERT_SCALE_TENSOR},
    {"e8m0", "F8_E8M0", CONVERT_SCALE_NONE},
    {0},
};
static const word_t scales[] = {
    {"tensor", NULL, CONVERT_SCALE_TENSOR},
    {"row", NULL, CONVERT_SCALE_ROW},
    {"block", NULL, CONVERT_SCALE_BLOCK},
    {"none", NULL, CONVERT_SCALE_NONE},
    {0},
};

static const word_t *find_word(const word_t *words, const char *option, const char *text,
                               struct argp_state *state)
{
    char known[128] = "";
    for (; words->name; words++) {
        if (strcmp(words->name, text) == 0)
            return words;
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? ", " : "",
                 words->name);
    }
    argp_error(state, "--%s takes %s, not \"%s\"", option, known, text);
    return words;
}

static void finish(arguments_t *to, struct argp_state *state)
{
    if (!to->output)
        argp_error(state, "two files are needed: the input and the output");
    if (!to->format)
        argp_error(state, "--to is missing");
    bool eight = to->format->scale != CONVERT_SCALE_NONE;
    to->target.dtype = st_dtype_find(to->format->dtype);
    if (to->target.scale == CONVERT_SCALE_AUTO)
        to->target.scale = to->format->scale;
    else if (to->format->scale == CONVERT_SCALE_MX)
        argp_error(state, "mxfp8 has scales of its own: --scale does not go with it");
    else if (!eight && to->target.scale != CONVERT_SCALE_NONE)
        argp_error(state, "%s takes no scales", to->format->name);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->options;
        return 0;
    case KEY_TO:
        to->format = find_word(formats, "to", arg, state);
        return 0;
    case KEY_SCALE:
        to->target.scale = find_word(scales, "scale", arg, state)->scale;
        return 0;
    case KEY_INCLUDE:
        to->target.include = arg;
        return 0;
    case KEY_EXCLUDE:
        to->target.exclude = arg;
        return 0;
    case KEY_PRESET:
        if (heed_cast_preset_parse(arg, &to->target.preset) != HEED_OK)
            argp_error(state, "--preset: %s", heed_last_error());
        return 0;
    case KEY_QUIET:
        to->quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        if (to->output)
            argp_error(state, "unexpected argument \"%s\"", arg);
        *(to->input ? &to->output : &to->input) = arg;
        return 0;
    case ARGP_KEY_SUCCESS:
        finish(to, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- report ---------------------------------------------------------------------------------- */

/* How far it is; the bar goes away when a line of the report comes. */
static void progress(double done, double all, const char *name)
{
    char now[TOOL_NUMBER_SIZE], total[TOOL_NUMBER_SIZE];
    if (name)
        tool_progress(all > 0 ? done / all : 1, "%s of %s  %.40s", tool_bytes(done, now),
                      tool_bytes(all, total), name);
    else
        tool_progress(0, NULL);
}

static void print_report(const convert_job_t *job, const convert_target_t *target,
                         const convert_report_t *report)
{
    char shape[128], ratio[32] = "exact";
    if (report->noise > 0)
        snprintf(ratio, sizeof ratio, "%.1f dB", 10 * log10(report->signal / report->noise));
    printf("%s  %s %s -> %s  SQNR %s  max error %.3g  clipped %lld", job->from->name,
           job->from->dtype->name, st_shape_text(job->from, shape, sizeof shape),
           target->dtype->name, ratio, report->worst, (long long)report->clipped);
    if (report->nans || report->infinities)
        printf("  NaN %lld  Inf %lld", (long long)report->nans, (long long)report->infinities);
    printf("\n");
}

/* ---- converting ------------------------------------------------------------------------------ */

typedef struct totals {
    int cast, copied;
    double done, all; /* bytes of the input */
} totals_t;

static bool convert_all(const arguments_t *arguments, heed_context_t *context,
                        const convert_list_t *list, convert_output_t *output, totals_t *totals,
                        st_error_t *error)
{
    convert_buffers_t buffers = {0};
    convert_report_t report;
    bool good = true;
    for (int i = 0; i < list->job_count; i++)
        totals->all += (double)list->jobs[i].from->bytes;
    for (int i = 0; good && i < list->job_count; i++) {
        const convert_job_t *job = &list->jobs[i];
        progress(totals->done, totals->all, job->from->name);
        good = convert_tensor(context, &arguments->target, job, output, &buffers,
                              arguments->quiet ? NULL : &report, error);
        totals->done += (double)job->from->bytes;
        *(job->cast ? &totals->cast : &totals->copied) += 1;
        if (good && job->cast && !arguments->quiet) {
            progress(0, 0, NULL);
            print_report(job, &arguments->target, &report);
        }
    }
    progress(0, 0, NULL);
    st_error_t late;
    if (!convert_output_end(output, &late) && good) {
        *error = late;
        good = false;
    }
    convert_buffers_free(&buffers);
    return good;
}

static int convert(const arguments_t *arguments, heed_context_t *context, const st_file_t *file)
{
    st_error_t error;
    convert_list_t list = {0};
    totals_t totals = {0};
    st_writer_t *writer = NULL;
    bool good =
        convert_plan(file, &arguments->target, &list, &error) || st_fail_in(&error, st_path(file));
    if (good)
        good = (writer = st_create(arguments->output, list.outputs, list.output_count,
                                   st_metadata(file), &error));
    convert_output_t *output = good ? convert_output_new(writer, &error) : NULL;
    if (good)
        good = output && convert_all(arguments, context, &list, output, &totals, &error);
    if (good)
        good = st_commit(writer, &error);
    else
        st_discard(writer);
    convert_list_free(&list);
    if (!good)
        return tool_fail("%s", error.text);
    char bytes[TOOL_NUMBER_SIZE];
    if (!arguments->quiet)
        printf("%d cast, %d copied, %s read\n", totals.cast, totals.copied,
               tool_bytes(totals.all, bytes));
    return TOOL_OK;
}

int cmd_convert(int argc, char **argv)
{
    static const struct argp_child children[] = {{&tool_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, "INPUT OUTPUT", doc, children, NULL, NULL};
    arguments_t arguments = {.target.preset = HEED_CAST_OCP_SAT};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments) != 0)
        return TOOL_USAGE;
    st_error_t error;
    st_file_t *file = st_open(arguments.input, &error);
    if (!file)
        return tool_fail("%s", error.text);
    heed_context_t *context = tool_context(&arguments.options);
    int code = context ? convert(&arguments, context, file) : TOOL_FAILED;
    heed_context_destroy(context);
    st_close(file);
    return code;
}
