/* Communicators as they come from outside: whole or not, of one mind or not. */
#include "ranks.h"

#include <stddef.h>
#include <string.h>

heed_status_t heed_comm_fail(const char *sentence)
{
    return hd_fail(HEED_ERROR_COMM, "%s", sentence ? sentence : "a rank failed");
}

heed_status_t hd_comm_enter(const heed_comm_t *from, heed_comm_t *to)
{
    HD_TRY(hd_struct_copy(to, sizeof(*to), from, offsetof(heed_comm_t, barrier), "comm"));
    if (!to->send || !to->recv || !to->wait)
        return hd_fail(HEED_ERROR_NULL, "comm.%s is null",
                       !to->send   ? "send"
                       : !to->recv ? "recv"
                                   : "wait");
    if (to->size < 1 || to->rank < 0 || to->rank >= to->size)
        return hd_fail(HEED_ERROR_VALUE, "comm.rank=%d is not below size=%d, or one is negative",
                       to->rank, to->size);
    return HEED_OK;
}

/* ---- agreement ------------------------------------------------------------------------------- */

static heed_status_t compare(const hd_greeting_t *own, const hd_greeting_t *other, int32_t rank,
                             const char *const *names, int count)
{
    if (other->bad)
        return hd_fail(HEED_ERROR_COMM, "rank %d cannot take part", rank);
    for (int i = 0; i < count; i++)
        if (own->numbers[i] != other->numbers[i])
            return hd_fail(HEED_ERROR_COMM, "%s is %lld here, but %lld on rank %d", names[i],
                           (long long)own->numbers[i], (long long)other->numbers[i], rank);
    if (memcmp(&own->real, &other->real, sizeof(float)) != 0)
        return hd_fail(HEED_ERROR_COMM, "%s is %g here, but %g on rank %d", names[count],
                       (double)own->real, (double)other->real, rank);
    return HEED_OK;
}

enum { AT_ONCE = 8 };

/* Where greetings lie while they are sent. */
typedef struct mail {
    heed_context_t *context;
    const heed_comm_t *comm;
    const void *own;
    char *others; /* room for AT_ONCE of them */
} mail_t;

/* Those of the ranks `first` places before this one up to `end`, into got. */
static heed_status_t greet(const mail_t *mail, int32_t first, int32_t end, hd_greeting_t *got)
{
    const heed_comm_t *comm = mail->comm;
    const size_t bytes = sizeof(*got);
    char *to = mail->others;
    for (int32_t t = first; t < end; t++, to += bytes) {
        HD_TRY(comm->send(comm->user, hd_rank_after(comm, t), mail->own, bytes));
        HD_TRY(comm->recv(comm->user, hd_rank_before(comm, t), to, bytes));
    }
    HD_TRY(comm->wait(comm->user));
    if (hd_comm_on_host(comm))
        return HEED_OK;
    heed_stream_t stream = hd_comm_stream(comm);
    HD_TRY(heed_memory_copy(mail->context, got, (heed_device_t){HEED_DEVICE_CPU, 0}, mail->others,
                            comm->device, (size_t)(end - first) * bytes, &stream));
    return heed_stream_synchronize(mail->context, &stream);
}

static heed_status_t greet_all(const mail_t *mail, const hd_greeting_t *own, hd_greeting_t *got,
                               const char *const *names, int count)
{
    const heed_comm_t *comm = mail->comm;
    heed_status_t seen = HEED_OK;
    for (int32_t first = 1; first < comm->size; first += AT_ONCE) {
        int32_t end = (int32_t)hd_min(first + AT_ONCE, comm->size);
        HD_TRY(greet(mail, first, end, got));
        for (int32_t t = first; t < end && !own->bad && seen == HEED_OK; t++)
            seen = compare(own, &got[t - first], hd_rank_before(comm, t), names, count);
    }
    return seen;
}

heed_status_t hd_comm_agree(heed_context_t *context, const heed_comm_t *comm,
                            const hd_greeting_t *own, const char *const *names, int count)
{
    hd_greeting_t got[AT_ONCE];
    mail_t mail = {context, comm, own, (char *)got};
    heed_stream_t stream = hd_comm_stream(comm);
    void *there;
    if (hd_comm_on_host(comm) || comm->size == 1)
        return greet_all(&mail, own, got, names, count);
    HD_TRY(hd_device_alloc(context, comm->device, "greetings", sizeof(*own) + sizeof(got), &stream,
                           &there));
    mail.own = there;
    mail.others = (char *)there + sizeof(*own);
    heed_status_t status =
        heed_memory_copy(context, there, comm->device, own, (heed_device_t){HEED_DEVICE_CPU, 0},
                         sizeof(*own), &stream);
    if (status == HEED_OK)
        status = greet_all(&mail, own, got, names, count);
    heed_status_t freed = hd_device_free(context, comm->device, there, &stream);
    return status == HEED_OK ? freed : status;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void *wait_beside(void *at)
{
    hd_waiter_t *waiter = at;
    hd_keep(&waiter->waited, waiter->comm->wait(waiter->comm->user));
    return NULL;
}

void hd_waiter_start(hd_waiter_t *waiter, const heed_comm_t *comm)
{
    waiter->comm = comm;
    waiter->started = true;
    waiter->beside = pthread_create(&waiter->thread, NULL, wait_beside, waiter) == 0;
}

heed_status_t hd_waiter_finish(hd_waiter_t *waiter, heed_status_t computed)
{
    hd_kept_t own;
    hd_keep(&own, computed);
    if (!waiter->started)
        return computed;
    waiter->started = false;
    if (waiter->beside)
        pthread_join(waiter->thread, NULL);
    else
        hd_keep(&waiter->waited, waiter->comm->wait(waiter->comm->user));
    return hd_kept(own.status == HEED_OK ? &waiter->waited : &own);
}
