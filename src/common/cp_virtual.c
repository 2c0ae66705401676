/* Attention over ranks within one process: a thread for each rank. */
#define _GNU_SOURCE
#include "context_parallel.h"

#include <pthread.h>
#include <string.h>

typedef struct member {
    heed_context_t *context;
    heed_comm_t comm;
    const heed_context_parallel_desc_t *desc;
    pthread_t thread;
    hd_kept_t result;
} member_t;

static void *run(void *at)
{
    member_t *member = at;
    hd_keep(&member->result,
            heed_context_parallel_attention(member->context, &member->comm, member->desc));
    heed_comm_threads_free(&member->comm);
    return NULL;
}

/* A context like the caller's, with its part of the threads. */
static heed_status_t make_context(const heed_context_t *from, int32_t ranks,
                                  heed_context_t **context)
{
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.threads = (int32_t)hd_max(from->devices[0].threads / ranks, 1);
    config.impl = from->settings.impl;
    config.skip_impl = from->settings.skip_impl;
    config.allocator = from->allocator;
    config.log = from->log;
    config.log_user = from->log_user;
    HD_TRY(heed_context_create(&config, context));
    (*context)->devices[0].isa = from->devices[0].isa;
    heed_status_t status = HEED_OK;
    for (int i = from->user_impl_count - 1; i >= 0 && status == HEED_OK; i--)
        status = heed_register_impl(*context, from->user_impls[i]);
    if (status != HEED_OK)
        heed_context_destroy(*context);
    return status;
}

/* The reason that came first: that of a rank which did not fail because of another. */
static heed_status_t outcome(const member_t *members, int32_t ranks)
{
    const hd_kept_t *worst = &members[0].result;
    for (int32_t i = 1; i < ranks; i++)
        if (members[i].result.status != HEED_OK &&
            (worst->status == HEED_OK || worst->status == HEED_ERROR_COMM))
            worst = &members[i].result;
    return hd_kept(worst);
}

heed_status_t heed_context_parallel_virtual(heed_context_t *context, int32_t ranks,
                                            const heed_context_parallel_desc_t *desc)
{
    enum { MOST = 64 };
    member_t members[MOST];
    heed_comm_t comms[MOST];
    heed_context_t *inner;
    if (!context || !desc)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "desc" : "context");
    if (ranks < 1 || ranks > MOST)
        return hd_fail(HEED_ERROR_VALUE, "ranks=%d is not 1 to %d", ranks, MOST);
    if (desc->whole != 1 || desc->everywhere)
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.whole=%d, everywhere=%d: ranks of one process work on whole tensors, "
                       "each on its own queries",
                       desc->whole, desc->everywhere);
    HD_TRY(make_context(context, ranks, &inner));
    heed_status_t status = heed_comm_threads(inner, ranks, 0, comms);
    int32_t started = 0;
    for (; status == HEED_OK && started < ranks; started++) {
        members[started] = (member_t){.context = inner, .comm = comms[started], .desc = desc};
        if (pthread_create(&members[started].thread, NULL, run, &members[started]))
            break;
    }
    if (status == HEED_OK && started < ranks) { /* the others must not wait for those */
        for (int32_t i = started; i < ranks; i++)
            heed_comm_threads_free(&comms[i]);
        status =
            hd_fail(HEED_ERROR_OUT_OF_MEMORY, "rank %d of %d cannot be started", started, ranks);
    }
    for (int32_t i = 0; i < started; i++)
        pthread_join(members[i].thread, NULL);
    heed_context_destroy(inner);
    return status != HEED_OK ? status : outcome(members, ranks);
}

heed_status_t heed_ring_virtual(heed_context_t *context, int32_t ranks,
                                const heed_ring_desc_t *desc)
{
    heed_ring_desc_t ring;
    heed_context_parallel_desc_t parallel;
    HD_TRY(hd_struct_copy(&ring, sizeof(ring), desc, sizeof(ring), "desc"));
    hd_ring_describe(&ring, &parallel);
    return heed_context_parallel_virtual(context, ranks, &parallel);
}
