#define _GNU_SOURCE
#include "run_job.h"

#include "run_spans.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

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
static int prepare_host(run_job_t *job)
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
static void choose_device(run_job_t *job, const char *device)
{
    job->device = (heed_device_t){HEED_DEVICE_CPU, 0};
    if (device && strncmp(device, "cuda", 4) == 0 &&
        !heed_device_missing(job->context, HEED_DEVICE_CUDA))
        (void)kit_device_parse(device, &job->device);
    for (int i = 0; i < job->run.count; i++)
        heed_problem_tensor(job->run.problem, i)->device = job->device;
}

static heed_status_t prepare_device(run_job_t *job)
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

int run_job_prepare(run_job_t *job, const char *device)
{
    int code = prepare_host(job);
    if (code != TOOL_OK)
        return code;
    choose_device(job, device);
    heed_status_t status = prepare_device(job);
    return status ? tool_fail_status(status) : TOOL_OK;
}

/* Outputs start from the state in the input file, or as NaN, which shows what is not written. */
static void reset_outputs(const run_job_t *job)
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

static heed_status_t move_outputs(const run_job_t *job, heed_status_t (*move)(const kit_block_t *))
{
    heed_status_t status = HEED_OK;
    for (int i = 0; i < job->run.count && !status; i++)
        if (job->run.operands[i].info.output && job->buffers[i])
            status = move(&job->blocks[i]);
    return status;
}

/* One run and its time; on a card from the call to the end of the work. */
static heed_status_t execute_once(run_job_t *job, double *ns)
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

int run_job_execute(run_job_t *job, int repeat, double *median_ns)
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

void run_job_free(run_job_t *job)
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
