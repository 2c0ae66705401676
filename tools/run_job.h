/* An operation on the tensors of a file: memory, plan, runs. */
#ifndef TOOLS_RUN_JOB_H
#define TOOLS_RUN_JOB_H

#include "kit.h"
#include "run.h"

typedef struct run_job {
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
} run_job_t;

/* Memory for outputs, operands on the device of that name, a plan. An exit code. */
int run_job_prepare(run_job_t *job, const char *device);

/* Runs `repeat` times; outputs are on the host then. An exit code. */
int run_job_execute(run_job_t *job, int repeat, double *median_ns);

void run_job_free(run_job_t *job);

#endif
