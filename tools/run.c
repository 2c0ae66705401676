/* `heed run`: one operation on the tensors of a safetensors file. */
#define _GNU_SOURCE
#include "run.h"

#include "kit.h"
#include "options.h"
#include "run_files.h"
#include "run_long.h"
#include "run_spans.h"
#include "text.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/* ---- execution ------------------------------------------------------------------------------- */

typedef struct job {
    run_t run;
    heed_context_t *context;
    heed_plan_t *plan;
    heed_device_t device; /* where operands lie while it runs */
    void *workspace;
    size_t workspace_bytes;
    void *buffers[RUN_MAX_OPERANDS];      /* on the host */
    kit_block_t blocks[RUN_MAX_OPERANDS]; /* and on the device */
    void *at[RUN_MAX_OPERANDS];
    st_tensor_t outputs[RUN_MAX_OPERANDS];
    int output_count;
} job_t;

static double now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void *allocate(size_t bytes, size_t alignment)
{
    void *memory;
    return posix_memalign(&memory, alignment < 64 ? 64 : alignment, bytes ? bytes : 1) ? NULL
                                                                                       : memory;
}

/* Inputs stay where they are mapped; outputs get memory. */
static int prepare_host(job_t *job)
{
    for (int i = 0; i < job->run.count; i++) {
        const run_operand_t *operand = &job->run.operands[i];
        if (!operand->info.output && operand->input)
            job->buffers[i] = (void *)operand->input->data;
        if (!operand->info.output || !operand->file.dtype)
            continue;
        st_tensor_t *output = &job->outputs[job->output_count++];
        *output = operand->file;
        output->data = job->buffers[i] = allocate(output->bytes, 64);
        if (!output->data)
            return tool_fail("out of memory for the %zu bytes of %s", output->bytes, output->name);
    }
    return TOOL_OK;
}

/* Where operands are placed: on the card that --device names, if there is one. If not, the library
 * says so by its own policy. */
static void choose_device(job_t *job, const char *device)
{
    job->device = (heed_device_t){HEED_DEVICE_CPU, 0};
    if (device && strncmp(device, "cuda", 4) == 0 &&
        !heed_device_missing(job->context, HEED_DEVICE_CUDA))
        (void)kit_device_parse(device, &job->device);
    for (int i = 0; i < job->run.count; i++)
        heed_problem_tensor(job->run.problem, i)->device = job->device;
}

static heed_status_t prepare_device(job_t *job)
{
    size_t alignment;
    heed_status_t status = heed_plan_create(job->context, job->run.op, job->run.desc, &job->plan);
    if (!status)
        status = heed_plan_workspace(job->plan, &job->workspace_bytes, &alignment);
    if (!status)
        status =
            heed_memory_alloc(job->context, job->device, job->workspace_bytes, &job->workspace);
    for (int i = 0; i < job->run.count && !status; i++) {
        const run_operand_t *operand = &job->run.operands[i];
        if (!job->buffers[i])
            continue;
        size_t bytes = operand->info.output ? operand->file.bytes : operand->input->bytes;
        status = kit_block_new(job->context, job->device, job->buffers[i], bytes, &job->blocks[i]);
        job->at[i] = job->blocks[i].there;
        if (!status)
            status = kit_block_upload(&job->blocks[i]);
    }
    return status;
}

static int prepare(job_t *job, const char *device)
{
    int code = prepare_host(job);
    if (code != TOOL_OK)
        return code;
    choose_device(job, device);
    heed_status_t status = prepare_device(job);
    return status ? tool_fail_status(status) : TOOL_OK;
}

/* Outputs start from the state in the input file, or as NaN, which shows what is not written. */
static void reset_outputs(const job_t *job)
{
    for (int i = 0; i < job->run.count; i++) {
        const run_operand_t *operand = &job->run.operands[i];
        if (!operand->info.output || !job->buffers[i])
            continue;
        if (operand->input)
            memcpy(job->buffers[i], operand->input->data, operand->file.bytes);
        else
            memset(job->buffers[i], 0xff, operand->file.bytes);
    }
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static heed_status_t move_outputs(const job_t *job, heed_status_t (*move)(const kit_block_t *))
{
    heed_status_t status = HEED_OK;
    for (int i = 0; i < job->run.count && !status; i++)
        if (job->run.operands[i].info.output && job->buffers[i])
            status = move(&job->blocks[i]);
    return status;
}

/* One run and its time; on a card from the call to the end of the work. */
static heed_status_t execute_once(job_t *job, double *ns)
{
    const heed_stream_t stream = {job->device, NULL};
    reset_outputs(job);
    heed_status_t status = move_outputs(job, kit_block_upload);
    double start = now_ns();
    int64_t span = run_span(&job->run, job->device);
    if (!status)
        status = span ? run_in_spans(job->context, &job->run, span, job->at)
                      : heed_plan_execute(job->plan, job->at, job->run.count, job->workspace,
                                          job->workspace_bytes, NULL);
    if (!status)
        status = heed_stream_synchronize(job->context, &stream);
    *ns = now_ns() - start;
    return status;
}

static int execute(job_t *job, int repeat, double *median_ns)
{
    double *times = calloc((size_t)repeat, sizeof *times);
    if (!times)
        return tool_fail("out of memory");
    heed_status_t status = HEED_OK;
    for (int i = 0; i < repeat && !status; i++)
        status = execute_once(job, &times[i]);
    qsort(times, (size_t)repeat, sizeof *times, by_value);
    *median_ns = (times[(repeat - 1) / 2] + times[repeat / 2]) / 2;
    free(times);
    if (!status)
        status = move_outputs(job, kit_block_download);
    return status ? tool_fail_status(status) : TOOL_OK;
}

/* ---- results --------------------------------------------------------------------------------- */

static int report(const job_t *job, double ns)
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

static json_t *provenance(const job_t *job)
{
    char problem[1024];
    heed_plan_info_t info = {.struct_size = sizeof info};
    heed_plan_problem(job->plan, problem, sizeof problem);
    if (heed_plan_info(job->plan, &info))
        return NULL;
    return json_pack("{s:s+, s:s, s:s}", "producer", "heed ", heed_version(), "problem", problem,
                     "implementation", info.impl);
}

static int write_outputs(const job_t *job, const char *path)
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

static int work(job_t *job, const arguments_t *arguments)
{
    double ns = 0;
    int code = run_bind(&job->run);
    if (code == TOOL_OK)
        code = prepare(job, arguments->options.device);
    if (code == TOOL_OK)
        code = execute(job, arguments->repeat, &ns);
    if (code == TOOL_OK)
        code = report(job, ns);
    if (code == TOOL_OK && arguments->files.output)
        code = write_outputs(job, arguments->files.output);
    if (code == TOOL_OK && arguments->files.golden)
        code = run_golden(arguments->files.golden, job->outputs, job->output_count,
                          arguments->files.tolerance);
    return code;
}

static void clean_up(job_t *job)
{
    for (int i = 0; i < job->run.count; i++)
        kit_block_free(&job->blocks[i]);
    for (int i = 0; i < job->output_count; i++)
        free((void *)job->outputs[i].data);
    if (job->context)
        (void)heed_memory_free(job->context, job->device, job->workspace);
    heed_plan_destroy(job->plan);
    heed_problem_destroy(job->run.problem);
    heed_context_destroy(job->context);
}

static int run_operation(const char *op, const arguments_t *arguments)
{
    st_error_t error;
    job_t job = {0};
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
    clean_up(&job);
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
