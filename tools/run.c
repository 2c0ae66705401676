/* `heed run`: one operation on the tensors of a safetensors file. */
#define _GNU_SOURCE
#include "run.h"

#include "options.h"
#include "run_files.h"
#include "run_job.h"
#include "run_long.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_REPEAT = 0x3010, KEY_IGNORE_EXTRA };

typedef struct arguments {
    run_files_t files;
    int repeat;
    bool ignore_extra;
    tool_options_t options;
    run_words_t words;
} arguments_t;

/* ---- command line ---------------------------------------------------------------------------- */

static const struct argp_option options[] = {
    {"ignore-extra", KEY_IGNORE_EXTRA, 0, 0, "leave out tensors that are no operands", 30},
    {"repeat", KEY_REPEAT, "N", 0, "run N times and tell the median time (default: 1)", 30},
    {0},
};

static const char doc[] =
    "Runs an operation on the tensors of a safetensors file. The operation's operands are found by "
    "name, and its sizes and dtype are read off their shapes."
    "\v"
    "Examples:\n"
    "  heed run attention -i qkv.safetensors -o out.safetensors --causal\n"
    "  heed run attention -i qkv.safetensors -o out.safetensors --layout bhsd --window 256,0\n"
    "  heed run attention -i qkv.safetensors --golden out.safetensors --tolerance 1e-5\n"
    "  heed run cast -i a.safetensors -o b.safetensors --dst bf16\n"
    "\n"
    "With --device cuda the tensors are copied to the card and the outputs back; times are of the "
    "run alone. "
    "An output that is also in the input file is the state that the operation starts from, for "
    "operations that merge into one.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->files;
        state->child_inputs[1] = &to->words;
        state->child_inputs[2] = &to->options;
        return 0;
    case KEY_IGNORE_EXTRA:
        to->ignore_extra = true;
        return 0;
    case KEY_REPEAT:
        if (!tool_parse_int(arg, 1, 1000000, &to->repeat))
            argp_error(state, "--repeat takes a number from 1 to 1000000, not \"%s\"", arg);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int parse_arguments(arguments_t *arguments, const char *op, int argc, char **argv)
{
    run_words_init(&arguments->words, op);
    const struct argp_child children[] = {{&run_files_argp, 0, NULL, 0},
                                          {&arguments->words.argp, 0, NULL, 0},
                                          {&tool_options_argp, 0, NULL, 0},
                                          {0}};
    const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};
    arguments->files.golden_suffices = true;
    arguments->repeat = 1;
    return argp_parse(&argp, argc, argv, 0, NULL, arguments) ? TOOL_USAGE : TOOL_OK;
}

/* ---- results --------------------------------------------------------------------------------- */

static int report(const run_job_t *job, double ns)
{
    char problem[1024], time[TOOL_NUMBER_SIZE], rate[TOOL_NUMBER_SIZE];
    heed_plan_info_t info = {.struct_size = sizeof info};
    heed_status_t status = heed_plan_info(job->plan, &info);
    if (status)
        return tool_fail_status(status);
    heed_plan_problem(job->plan, problem, sizeof problem);
    double seconds = ns > 0 ? ns * 1e-9 : 1e-9;
    if (info.flops > 0)
        snprintf(rate, sizeof rate, "%.3g GFLOP/s", info.flops / seconds * 1e-9);
    else
        snprintf(rate, sizeof rate, "%.3g GB/s", info.bytes / seconds * 1e-9);
    printf("%s: %s, %d thread%s, %s, %s%s%s\n", problem, info.impl, (int)info.threads,
           info.threads == 1 ? "" : "s", tool_time(ns, time), rate,
           info.fallback ? "; fallback: " : "", info.fallback ? info.fallback_why : "");
    return TOOL_OK;
}

static json_t *provenance(const run_job_t *job)
{
    char problem[1024];
    heed_plan_info_t info = {.struct_size = sizeof info};
    heed_plan_problem(job->plan, problem, sizeof problem);
    if (heed_plan_info(job->plan, &info))
        return NULL;
    return json_pack("{s:s+, s:s, s:s}", "producer", "heed ", heed_version(), "problem", problem,
                     "implementation", info.impl);
}

static int write_outputs(const run_job_t *job, const char *path)
{
    st_error_t error;
    json_t *metadata = provenance(job);
    st_writer_t *writer = st_create(path, job->outputs, job->output_count, metadata, &error);
    json_decref(metadata);
    bool good = writer != NULL;
    for (int i = 0; good && i < job->output_count; i++)
        good = st_append(writer, i, job->outputs[i].data, job->outputs[i].bytes, &error);
    if (good)
        good = st_commit(writer, &error);
    else
        st_discard(writer);
    return good ? TOOL_OK : tool_fail("%s", error.text);
}

static int work(run_job_t *job, const arguments_t *arguments)
{
    double ns = 0;
    int code = run_bind(&job->run);
    if (code == TOOL_OK)
        code = run_job_prepare(job, arguments->options.device);
    if (code == TOOL_OK)
        code = run_job_execute(job, arguments->repeat, &ns);
    if (code == TOOL_OK)
        code = report(job, ns);
    if (code == TOOL_OK && arguments->files.output)
        code = write_outputs(job, arguments->files.output);
    if (code == TOOL_OK && arguments->files.golden)
        code = run_golden(arguments->files.golden, job->outputs, job->output_count,
                          arguments->files.tolerance);
    return code;
}

static int run_operation(const char *op, const arguments_t *arguments)
{
    st_error_t error;
    run_job_t job = {0};
    job.device = (heed_device_t){HEED_DEVICE_CPU, 0};
    job.context = tool_context(&arguments->options);
    if (!job.context)
        return TOOL_FAILED;
    st_file_t *input = st_open(arguments->files.input, &error);
    job.run.op = op;
    job.run.words = &arguments->words;
    job.run.input = input;
    job.run.ignore_extra = arguments->ignore_extra;
    int code = input ? work(&job, arguments) : tool_fail("%s", error.text);
    run_job_free(&job);
    st_close(input);
    return code;
}

/* What is attention in parts has commands of its own. */
static const struct schedule {
    const char *name;
    int (*run)(int argc, char **argv);
} schedules[] = {{"ring", run_ring}, {"sparse", run_sparse}};

static const char *names_of_all(char *text, size_t size)
{
    tool_op_names(text, size);
    for (size_t i = 0; i < sizeof schedules / sizeof schedules[0]; i++)
        snprintf(text + strlen(text), size - strlen(text), ", %s", schedules[i].name);
    return text;
}

static int overview(void)
{
    char names[256];
    printf(
        "Usage: heed run OPERATION [OPTION...]\n\n"
        "Runs an operation on the tensors of a safetensors file.\n\n"
        "Operations: %s\n\n"
        "Examples:\n"
        "  heed run attention -i qkv.safetensors -o out.safetensors --causal\n"
        "  heed run cast -i a.safetensors -o b.safetensors --dst bf16\n"
        "  heed run ring -i qkv.safetensors -o out.safetensors --causal\n"
        "  heed run sparse -i qkv.safetensors -o out.safetensors --pattern random --density 0.1\n\n"
        "`heed run OPERATION --help` lists the options of one operation.\n",
        names_of_all(names, sizeof names));
    return TOOL_OK;
}

int cmd_run(int argc, char **argv)
{
    char name[64], names[256];
    arguments_t arguments = {0};
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
        return overview();
    if (argc < 2 || argv[1][0] == '-')
        return tool_misuse("run takes an operation first: %s", names_of_all(names, sizeof names));
    const char *op = argv[1];
    snprintf(name, sizeof name, "heed run %s", op);
    for (size_t i = 0; i < sizeof schedules / sizeof schedules[0]; i++)
        if (strcmp(op, schedules[i].name) == 0) {
            argv[1] = name;
            return schedules[i].run(argc - 1, argv + 1);
        }
    if (!tool_is_op(op))
        return tool_misuse("there is no operation %s; there are %s", op,
                           names_of_all(names, sizeof names));
    argv[1] = name;
    int code = parse_arguments(&arguments, op, argc - 1, argv + 1);
    return code == TOOL_OK ? run_operation(op, &arguments) : code;
}
