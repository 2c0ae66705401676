/* Heed: pipelines. A model is cut into stages, a batch into microbatches, and a schedule says in
 * which order each stage works on them. Here are the cut, the schedules, what they cost, and a way
 * to run one over the caller's functions.
 *
 *     int32_t starts[5];                                       layers of the four stages
 *     heed_pipeline_partition(costs, 32, embedding, head, 4, starts, &slowest);
 *
 *     heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 4, 8);
 *     heed_pipeline_report_t report;
 *     heed_pipeline_count(&desc, &count);                      then get memory for the actions
 *     heed_pipeline_schedule(&desc, actions, count, first);
 *     heed_pipeline_simulate(&desc, actions, first, &report, NULL);
 *     heed_pipeline_run(context, &desc, &calls);               a thread for each stage
 *
 * All but the running are plain functions: nothing is allocated, nothing is kept, any thread may
 * call them, with 100 KiB of stack. A time is a whole number of any unit. */
#ifndef HEED_PIPELINE_H
#define HEED_PIPELINE_H

#include "context.h"
#include "status.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- stages ---------------------------------------------------------------------------------- */

/* Cuts layers 0 .. layers-1 into `stages` runs so that the slowest stage is as fast as can be:
 * exactly, by a search for its time. The first stage also has the embedding and the last one the
 * head; where these cost anything, that stage may be without a layer, any other has at least one.
 * Stage s gets layers starts[s] .. starts[s+1]-1; starts has stages + 1 places. Earlier stages are
 * filled first, so that ten equal layers in three stages are 4, 4, 2. slowest may be NULL.
 * Errors: NULL; VALUE for costs below 0, beyond 2^62 in all, or more stages than can be filled. */
HEED_API HEED_MUST_USE heed_status_t heed_pipeline_partition(const int64_t *costs, int32_t layers,
                                                             int64_t embedding, int64_t head,
                                                             int32_t stages, int32_t *starts,
                                                             int64_t *slowest);

/* ---- schedules ------------------------------------------------------------------------------- */

/* With p stages, m microbatches, F, B and W the times of a forward, of a backward by inputs and of
 * one by weights, and v chunks. Bubbles and activations are the published ones; those below the
 * line hold for F = B = W.
 *
 *     schedule     needs            bubble                        activations that a stage keeps
 *     GPIPE                         (p-1)(F+B+W)                  m
 *     1F1B                          (p-1)(F+B+W)                  min(m, p-r) on stage r
 *     INTERLEAVED  p | m, p > 1     (p-1)(F+B+W), of chunks       pv + p-1 of chunks on stage 0
 *     ---------------------------------------------------------------------------------------------
 *     ZB_H1        m >= p           (p-1)(F+B-W)                  p
 *     ZB_H2        m >= 2p-1        0                             2p-1
 *     DUALPIPE     2 | p, 2 | m,    (p/2-1)(FB+B-2W), FB the      p+1, and the weights of two
 *                  m >= 2p          time of a pair                stages
 *
 * (ZB_H1 and ZB_H2 are right with fewer microbatches too, but not as good as that.) */
typedef enum heed_schedule {
    HEED_SCHEDULE_GPIPE = 0,       /* Huang et al., GPipe (2019) */
    HEED_SCHEDULE_1F1B = 1,        /* Narayanan et al., PipeDream (2019); memory-efficient form */
    HEED_SCHEDULE_INTERLEAVED = 2, /* Narayanan et al., Efficient Large-Scale Training (2021) */
    HEED_SCHEDULE_ZB_H1 = 3,       /* Qi et al., Zero Bubble Pipeline Parallelism (2024) */
    HEED_SCHEDULE_ZB_H2 = 4,
    HEED_SCHEDULE_DUALPIPE = 5 /* DeepSeek-AI, DeepSeek-V3 (2024) */
} heed_schedule_t;

/* "gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "dualpipe"; "?" for none of them. Static. */
HEED_API const char *heed_schedule_name(heed_schedule_t schedule);
/* The schedule with that name. Errors: NULL; VALUE, with the known names. */
HEED_API HEED_MUST_USE heed_status_t heed_schedule_parse(const char *name,
                                                         heed_schedule_t *schedule);

enum { HEED_MAX_PARTS = 1024, HEED_MAX_CHUNKS = 64 };

typedef struct heed_pipeline_desc {
    uint32_t struct_size;
    heed_schedule_t schedule;
    int32_t stages, microbatches; /* stages * chunks is at most HEED_MAX_PARTS */
    int32_t chunks;               /* of the model on a stage: INTERLEAVED, any number (0: 2);
                                     DUALPIPE 2, the others 1 (0: so many) */
    int32_t queue;                /* messages of a channel that wait for a stage before their
                                     sender does: 1 is enough. 0: no bound in a simulation, 2 in a
                                     run */
    /* For simulations: times of one chunk and one microbatch, up to 2^32. */
    int64_t forward, backward_input, backward_weight;
    int64_t pair;     /* of a forward and a backward that run together (DUALPIPE); 0: their sum */
    int64_t transfer; /* until what was sent is there; stages work meanwhile */
    const int64_t *weights; /* [parts], NULL: all 1. What a part's times are multiplied by */
} heed_pipeline_desc_t;

static inline heed_pipeline_desc_t heed_pipeline_desc(heed_schedule_t schedule, int32_t stages,
                                                      int32_t microbatches)
{
#ifdef __cplusplus
    heed_pipeline_desc_t desc = {};
#else
    heed_pipeline_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.schedule = schedule;
    desc.stages = stages;
    desc.microbatches = microbatches;
    desc.forward = desc.backward_input = desc.backward_weight = 1;
    return desc;
}

typedef enum heed_action_kind {
    HEED_ACTION_FORWARD = 0,
    HEED_ACTION_BACKWARD_INPUT = 1,
    HEED_ACTION_BACKWARD_WEIGHT = 2,
    HEED_ACTION_SEND = 3,
    HEED_ACTION_RECV = 4
} heed_action_kind_t;

/* A model of `parts` parts, one after the other, lies on the stages: part chunk * stages + stage
 * with INTERLEAVED, and with DUALPIPE part stage as chunk 0 and part stages-1-stage as chunk 1 (so
 * that it is there twice, for two directions). Microbatches of DUALPIPE are the first half in
 * chunk 0, the second in chunk 1. */
typedef struct heed_action {
    uint8_t kind;     /* heed_action_kind_t */
    uint8_t gradient; /* SEND, RECV: 1 of a gradient, 0 of activations */
    uint8_t paired;   /* 1: it runs together with its neighbours, a forward and a backward */
    uint8_t chunk;    /* of this stage */
    int32_t microbatch;
    int32_t peer;  /* SEND, RECV: the other stage */
    int32_t match; /* SEND, RECV: the action at the other end, from the first of all stages on */
    int64_t start, end; /* written by heed_pipeline_simulate */
} heed_action_t;

/* How many actions all stages have together. Errors of this and the next: NULL, STRUCT_SIZE, VALUE,
 * where the table above says what a schedule needs. */
HEED_API HEED_MUST_USE heed_status_t heed_pipeline_count(const heed_pipeline_desc_t *desc,
                                                         int64_t *count);

/* Writes them, in the order in which each stage performs them: stage s has actions[first[s]] up to
 * actions[first[s+1] - 1]. `room` is what actions has, first has stages + 1 places. A RECV stands
 * right before what needs it, a SEND right after what made it. Messages between the same chunks in
 * the same direction keep their order. */
HEED_API HEED_MUST_USE heed_status_t heed_pipeline_schedule(const heed_pipeline_desc_t *desc,
                                                            heed_action_t *actions, int64_t room,
                                                            int32_t *first);

/* The part of the model that chunk `chunk` of a stage is, -1 where there is none. */
HEED_API int32_t heed_pipeline_part(const heed_pipeline_desc_t *desc, int32_t stage, int32_t chunk);

typedef struct heed_stage_report {
    int64_t start, end;       /* of its first and its last work, not of messages */
    int64_t busy;             /* in work */
    int32_t peak_activations; /* microbatches, of one chunk each, between their forward and the end
                                 of their backward by weights */
} heed_stage_report_t;

typedef struct heed_pipeline_report {
    int64_t makespan;       /* from the start to the end of all work */
    int64_t bubble;         /* the longest that a stage is idle between its own start and end */
    double bubble_fraction; /* the largest part of the time between its start and end */
    int64_t idle;           /* the longest that a stage is idle within the makespan: the bubble, and
                               what is lost where stages wait for each other between batches */
    int32_t peak_activations; /* of any stage */
} heed_pipeline_report_t;

/* Performs the actions in time: a stage one after the other, each as soon as it can, and writes
 * their start and end. Lists of the caller's own are welcome. `stages` is [stages] or NULL. Whether
 * bounded queues end in a deadlock depends on the lists and the bound alone, never on times, so
 * that what ends here ends in a run too. Errors: NULL, STRUCT_SIZE; VALUE for lists that are none,
 * and for a deadlock, with who waits for whom. */
HEED_API HEED_MUST_USE heed_status_t heed_pipeline_simulate(const heed_pipeline_desc_t *desc,
                                                            heed_action_t *actions,
                                                            const int32_t *first,
                                                            heed_pipeline_report_t *report,
                                                            heed_stage_report_t *stages);

/* ---- running --------------------------------------------------------------------------------- */

typedef struct heed_pipeline_task {
    int32_t stage, chunk, part, parts, microbatch;
} heed_pipeline_task_t;

/* The caller's work. in and out are valid during the call: what a backward will need of them is the
 * callee's to keep, from forward until backward_weight of the same task has returned. in is NULL
 * for a forward of part 0 and a backward of the last part, where the loss is; out is NULL for a
 * forward of the last part and a backward of part 0. Another status than HEED_OK ends the run.
 *
 * Calls of one stage come from one thread, one after the other; those of several stages at the same
 * time. A backward of weights may come long after that of inputs (ZB_H1, ZB_H2, DUALPIPE). */
typedef struct heed_pipeline_calls {
    uint32_t struct_size;
    heed_status_t (*forward)(void *user, const heed_pipeline_task_t *task, const void *in,
                             void *out);
    heed_status_t (*backward_input)(void *user, const heed_pipeline_task_t *task, const void *in,
                                    void *out);
    heed_status_t (*backward_weight)(void *user, const heed_pipeline_task_t *task);
    size_t activation_bytes, gradient_bytes; /* of a message */
    void *user;
    /* Optional. A pair of DUALPIPE as one call, to be overlapped: the forward of one microbatch and
     * the whole backward, by inputs and by weights, of another, in and out as above. NULL: forward,
     * backward_input, backward_weight, one after the other. */
    heed_status_t (*pair)(void *user, const heed_pipeline_task_t *forward, const void *forward_in,
                          void *forward_out, const heed_pipeline_task_t *backward,
                          const void *backward_in, void *backward_out);
    int32_t timeout_ms; /* heed_pipeline_run: that a stage waits for a message or for room, longer
                           than any call takes; then the run ends with COMM. 0: for ever */
} heed_pipeline_calls_t;

/* What carries messages between stages. Both return when `data` may be used again. A channel is a
 * direction into one chunk of the receiver, 0 .. 2 * chunks - 1: messages of one channel between
 * two stages come in the order in which they are sent, those of different channels need not. send
 * may wait for room, but has to take desc.queue messages of a channel before it does. Statuses end
 * the stage; what others then see is the link's affair. */
typedef struct heed_pipeline_link {
    heed_status_t (*send)(void *user, int32_t to, int32_t channel, const void *data, size_t bytes);
    heed_status_t (*recv)(void *user, int32_t from, int32_t channel, void *data, size_t bytes);
    void *user;
} heed_pipeline_link_t;

/* Performs one stage's actions over a link: what a rank does. Memory for a message of each kind in
 * and out is taken from the context. Errors: NULL, STRUCT_SIZE, VALUE, OUT_OF_MEMORY, and those of
 * the calls and the link, with who and what in front of their sentence. */
HEED_API HEED_MUST_USE heed_status_t heed_pipeline_run_stage(heed_context_t *context,
                                                             const heed_pipeline_desc_t *desc,
                                                             const heed_action_t *actions,
                                                             const int32_t *first, int32_t stage,
                                                             const heed_pipeline_calls_t *calls,
                                                             const heed_pipeline_link_t *link);

/* The whole pipeline within this process, a thread for each stage, with queues of desc->queue
 * messages between them. Returns when all have ended, with the first failure if there was one: then
 * the other stages stop at their next message. Where a call hangs, the others stop after
 * calls->timeout_ms, and this returns with COMM as soon as that call does: a thread cannot be ended
 * from outside. Errors: as above. */
HEED_API HEED_MUST_USE heed_status_t heed_pipeline_run(heed_context_t *context,
                                                       const heed_pipeline_desc_t *desc,
                                                       const heed_pipeline_calls_t *calls);

#ifdef __cplusplus
}
#endif
#endif
