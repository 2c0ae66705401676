/* Steps of a schedule: attentions on parts of some tensors, run one after the other. Plans are made
 * once, and steps of equal shape share one. */
#ifndef HD_STEPS_H
#define HD_STEPS_H

#include "internal.h"

enum { HD_STEP_OPERANDS = HEED_ATTENTION_LSE + 1 };

/* Tokens that a stream or a ring may have, so that no sum of positions overflows. */
#define HD_MOST_TOKENS (INT64_C(1) << 40)

/* desc's tensors have their shapes and strides in axes; operand n begins at[n] bytes after the
 * buffer that it is a part of. */
typedef struct hd_step {
    heed_attention_desc_t desc;
    hd_axes_t axes[HD_STEP_OPERANDS];
    int64_t at[HD_STEP_OPERANDS];
    heed_plan_t *plan;
    bool owns; /* the plan is this step's, not an earlier one's */
} hd_step_t;

typedef struct hd_steps {
    hd_step_t **steps;
    int64_t count, room;
    size_t workspace; /* of one step at most */
} hd_steps_t;

/* A zeroed step at the end of the list, NULL without memory (the sentence is set). It counts once
 * hd_steps_plan has succeeded. */
hd_step_t *hd_steps_new(heed_context_t *context, hd_steps_t *steps);
heed_status_t hd_steps_plan(heed_context_t *context, hd_steps_t *steps);
void hd_steps_free(heed_context_t *context, hd_steps_t *steps);

static inline heed_tensor_t *hd_step_tensor(hd_step_t *step, int operand)
{
    heed_tensor_t *const tensors[] = {&step->desc.q, &step->desc.k, &step->desc.v, &step->desc.out,
                                      &step->desc.lse};
    return tensors[operand];
}

/* Runs the steps first .. end-1 on these buffers. */
heed_status_t hd_steps_run(const hd_steps_t *steps, int64_t first, int64_t end,
                           char *const *buffers, void *workspace);

/* Appends the attention of `part` under a band: query row i of part sees its key rows i + low .. i
 * + high. Rows that see nothing are left out; so is the step, where none sees anything. part has
 * data offsets in bytes in at, as a step has. Steps merge into the state in out and lse. */
heed_status_t hd_steps_band(heed_context_t *context, hd_steps_t *steps, const hd_step_t *part,
                            int64_t low, int64_t high);

/* The rows first, first + step, ... of a tensor's axis, `count` of them, as operand of a step. */
void hd_step_rows(hd_step_t *step, int operand, const heed_tensor_t *from, int axis, int64_t first,
                  int64_t distance, int64_t count);

/* ---- the state that steps merge into (state.c) ----------------------------------------------- */

/* out and lse as the steps see them: the caller's, or f32 of their own in some memory. It holds
 * axes that its tensors point to: not to be copied. */
typedef struct hd_state {
    heed_tensor_t out, lse;
    hd_axes_t axes[2];
    size_t out_bytes, lse_bytes; /* of its own, 0: the caller's */
} hd_state_t;

/* Which rows of other tensors the rows from, from + apart, ... of the state are. */
typedef struct hd_rows {
    int64_t from, count; /* of the state */
    int64_t first, distance;
    int64_t apart;
} hd_rows_t;

/* The tensors must be complete and outlive the state; lse->ndim may be 0. wide: out is one of its
 * own where the caller's is narrower than f32, so that merging does not round each time. rows: -1,
 * or so many rows of its own, whatever the caller's are. */
void hd_state_describe(const heed_tensor_t *out, const heed_tensor_t *lse, bool wide, int64_t rows,
                       hd_state_t *state);

/* Where the state's out and lse lie, of the caller's and its own memory. */
void hd_state_buffers(const hd_state_t *state, void *out, void *lse, char *memory, char **out_at,
                      char **lse_at);

/* All rows of the state: out 0, lse -inf. */
void hd_state_clear(const hd_state_t *state, char *out_at, char *lse_at, int threads);

/* Writes what is the state's own to rows of the caller's. */
void hd_state_store(const hd_state_t *state, char *const *buffers, const hd_rows_t *rows,
                    const heed_tensor_t *out, void *out_data, const heed_tensor_t *lse,
                    void *lse_data, int threads);

#endif
