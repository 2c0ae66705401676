#define _GNU_SOURCE
#include "run_ranks.h"
#include "text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 600000 };

int ranks_of_processes(void)
{
    /* Open MPI, MPICH and Intel MPI, whatever speaks PMIx (srun --mpi=pmix). */
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (int i = 0; i < 2; i++) {
        const char *text = getenv(names[i]);
        int count = 0;
        if (text)
            return tool_parse_int(text, 1, INT_MAX, &count) ? count : 1;
    }
    return getenv("PMIX_RANK") != NULL;
}

int ranks_open(heed_comm_t *comm)
{
    heed_comm_config_t config = heed_comm_config("mpi");
    config.timeout_ms = TIMEOUT_MS;
    heed_status_t status = heed_comm_open(&config, comm);
    return status ? tool_fail_status(status) : TOOL_OK;
}

int ranks_agree(heed_context_t *context, const heed_comm_t *comm, int code)
{
    int32_t worst = code;
    if (comm->size == 0)
        return code;
    heed_status_t status =
        heed_comm_all_reduce(context, comm, HEED_I32, HEED_REDUCE_MAX, 1, &worst);
    if (status)
        return tool_fail_status(status);
    return worst && !code ? tool_fail("another rank has failed") : worst;
}

bool ranks_writes(const heed_comm_t *comm)
{
    return comm->size == 0 || comm->rank == 0;
}

/* ---- collecting ------------------------------------------------------------------------------ */

typedef struct rows {
    heed_ring_run_t runs[2];
    int count;
    int64_t all;
} rows_t;

static rows_t rows_of(const heed_comm_t *comm, heed_ring_layout_t layout, int32_t rank,
                      int64_t tokens)
{
    rows_t rows = {.count = 0};
    rows.count = heed_ring_runs(layout, rank, comm->size, tokens, rows.runs);
    for (int i = 0; i < rows.count; i++)
        rows.all += rows.runs[i].count;
    return rows;
}

/* Copies between a message and the rows of a block: one head's values, then its lse. */
static void copy_rows(const rows_t *rows, int64_t batch, const long_output_t *output,
                      long_block_t *block, char *message, bool to_block)
{
    size_t element = heed_dtype_size(output->dtype), bytes = (size_t)output->dv * element;
    for (int64_t b = 0; b < batch; b++)
        for (int n = 0; n < rows->count; n++)
            for (int64_t i = 0; i < rows->runs[n].count; i++)
                for (int64_t h = 0; h < output->heads; h++) {
                    int64_t row = rows->runs[n].first + i * rows->runs[n].distance;
                    const int64_t *out = block->out_axes[1], *lse = block->lse_axes[1];
                    char *value = (char *)block->out +
                                  (size_t)(b * out[0] + row * out[1] + h * out[2]) * element;
                    float *of = block->lse + b * lse[0] + h * lse[1] + row * lse[2];
                    memcpy(to_block ? value : message, to_block ? message : value, bytes);
                    message += bytes;
                    memcpy(to_block ? (char *)of : message, to_block ? message : (char *)of,
                           sizeof *of);
                    message += sizeof *of;
                }
}

static heed_status_t move(const heed_comm_t *comm, int32_t other, char *message, size_t bytes)
{
    heed_status_t status = comm->rank == 0 ? comm->recv(comm->user, other, message, bytes)
                                           : comm->send(comm->user, 0, message, bytes);
    return status ? status : comm->wait(comm->user);
}

int ranks_collect(const heed_comm_t *comm, heed_ring_layout_t layout, int64_t batch,
                  const long_output_t *output, long_block_t *block)
{
    size_t row = (size_t)(batch * output->heads) *
                 ((size_t)output->dv * heed_dtype_size(output->dtype) + sizeof(float));
    int32_t first = comm->rank ? comm->rank : 1, end = comm->rank ? comm->rank + 1 : comm->size;
    int code = TOOL_OK;
    for (int32_t rank = first; rank < end && code == TOOL_OK; rank++) {
        rows_t rows = rows_of(comm, layout, rank, output->rows);
        size_t bytes = (size_t)rows.all * row;
        char *message = malloc(bytes + 1);
        if (!message)
            return tool_fail("out of memory for %lld rows of rank %d", (long long)rows.all, rank);
        if (comm->rank)
            copy_rows(&rows, batch, output, block, message, false);
        heed_status_t status = move(comm, rank, message, bytes);
        if (status)
            code = tool_fail_status(status);
        else if (comm->rank == 0)
            copy_rows(&rows, batch, output, block, message, true);
        free(message);
    }
    return code;
}
