/* `heed run ring` with ranks that are processes, as mpirun starts them. */
#ifndef TOOLS_RUN_RANKS_H
#define TOOLS_RUN_RANKS_H

#include "run_long.h"

/* How many processes an mpirun or srun has started with this one; 1 where it does not say, 0 where
 * there was none. */
int ranks_of_processes(void);

/* Opens this process's end over MPI. An exit code. */
int ranks_open(heed_comm_t *comm);

/* The exit code of the first rank that has none of success, on all ranks. Without a communicator
 * (size 0) one's own. */
int ranks_agree(heed_context_t *context, const heed_comm_t *comm, int code);

/* Rank 0 writes; without a communicator this process. */
bool ranks_writes(const heed_comm_t *comm);

/* Every rank's rows of out and lse, of a block of [batch, tokens], to rank 0. An exit code. */
int ranks_collect(const heed_comm_t *comm, heed_ring_layout_t layout, int64_t batch,
                  const long_output_t *output, long_block_t *block);

#endif
