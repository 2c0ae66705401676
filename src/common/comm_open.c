/* Communicators of transports that are plugins, each loaded when it is first asked for. */
#include "plugin.h"
#include "ranks.h"
#include "transport.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct carrier {
    const char *name;
    hd_plugin_kind_t kind;
} carrier_t;

#define KIND(library, thing)                                                               \
    {                                                                                      \
        .file = library, .enter = HD_TRANSPORT_ENTER, .what = thing, .table = "transport", \
        .abi = HD_TRANSPORT_ABI, .size = sizeof(hd_transport_t)                            \
    }

static const carrier_t carriers[] = {
    {"mpi", KIND("libheed-mpi.so", "the MPI transport")},
    {"nccl", KIND("libheed-nccl.so", "the NCCL transport")},
};

typedef struct answer {
    bool tried;
    const hd_transport_t *transport;
    char why[384];
} answer_t;

/* Answers live as long as the process, as what is loaded does. */
static const answer_t *answer_of(int number)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static answer_t answers[HD_COUNT(carriers)];
    answer_t *answer = &answers[number];
    pthread_mutex_lock(&lock);
    if (!answer->tried)
        answer->transport =
            hd_plugin_load(&carriers[number].kind, NULL, answer->why, sizeof(answer->why));
    answer->tried = true;
    pthread_mutex_unlock(&lock);
    return answer;
}

int heed_comm_transport(int index, heed_comm_transport_t *transport)
{
    if (index < 0 || index >= HD_COUNT(carriers) || !transport)
        return 0;
    const answer_t *answer = answer_of(index);
    memset(transport, 0, sizeof(*transport));
    transport->name = carriers[index].name;
    transport->why = answer->why;
    if (answer->transport)
        answer->transport->library(transport->library, sizeof(transport->library));
    return 1;
}

static heed_status_t find(const char *name, const hd_transport_t **transport)
{
    for (int i = 0; i < HD_COUNT(carriers); i++) {
        if (strcmp(carriers[i].name, name) != 0)
            continue;
        const answer_t *answer = answer_of(i);
        *transport = answer->transport;
        return *transport ? HEED_OK : hd_fail(HEED_ERROR_UNSUPPORTED, "%s", answer->why);
    }
    return hd_fail(HEED_ERROR_VALUE, "config.transport=%s is unknown: it is mpi or nccl", name);
}

heed_status_t heed_comm_open(const heed_comm_config_t *config, heed_comm_t *comm)
{
    heed_comm_config_t full;
    const hd_transport_t *transport;
    if (!comm)
        return hd_fail(HEED_ERROR_NULL, "comm is null");
    memset(comm, 0, sizeof(*comm));
    comm->struct_size = sizeof(*comm);
    HD_TRY(hd_struct_copy(&full, sizeof(full), config, sizeof(full), "config"));
    if (!full.transport)
        return hd_fail(HEED_ERROR_NULL, "config.transport is null");
    if (full.timeout_ms < 0)
        return hd_fail(HEED_ERROR_VALUE, "config.timeout_ms=%d is below 0", full.timeout_ms);
    HD_TRY(find(full.transport, &transport));
    HD_TRY(transport->open(&full, comm));
    comm->transport = transport;
    return HEED_OK;
}

void heed_comm_close(heed_comm_t *comm)
{
    if (!comm || comm->struct_size < sizeof(*comm) || !comm->transport)
        return;
    const hd_transport_t *transport = comm->transport;
    comm->transport = NULL;
    transport->close(comm);
}
