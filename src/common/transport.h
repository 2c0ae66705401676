/* A transport: a plugin that carries messages between processes, libheed-mpi.so or libheed-nccl.so.
 * It exports heed_transport_v1 alone and takes nothing from libheed but hd_host_t. */
#ifndef HD_TRANSPORT_H
#define HD_TRANSPORT_H

#include "backend.h"

/* To be raised with any change of the structs below, of heed_comm_t or heed_comm_config_t. */
enum { HD_TRANSPORT_ABI = 2 };

typedef struct hd_transport {
    uint32_t abi;
    uint32_t struct_size;
    const char *version; /* of Heed, which must be libheed's */
    const char *name;    /* "mpi" */
    /* What it runs on, "Open MPI v4.1.4, MPI 3.1"; may be called before anything is opened. */
    void (*library)(char *text, size_t size);
    /* Fills rank, size, functions, device and user. A status other than HEED_OK comes with a
     * sentence. Memory comes from malloc: it lives as long as the communicator, not the context. */
    heed_status_t (*open)(const heed_comm_config_t *config, heed_comm_t *comm);
    void (*close)(heed_comm_t *comm);
} hd_transport_t;

#define HD_TRANSPORT_ENTER "heed_transport_v1"
typedef const hd_transport_t *hd_transport_enter_t(const hd_host_t *host);

/* The end of a transport's file: what it exports. The file has the pointer `host`, which is set
 * when libheed enters. */
#define HD_TRANSPORT_DEFINE(text, library_of, open_one, close_one)                 \
    static const hd_transport_t transport = {.abi = HD_TRANSPORT_ABI,              \
                                             .struct_size = sizeof(transport),     \
                                             .version = HEED_VERSION_STRING,       \
                                             .name = text,                         \
                                             .library = library_of,                \
                                             .open = open_one,                     \
                                             .close = close_one};                  \
                                                                                   \
    __attribute__((visibility("default"))) hd_transport_enter_t heed_transport_v1; \
                                                                                   \
    const hd_transport_t *heed_transport_v1(const hd_host_t *from)                 \
    {                                                                              \
        host = from;                                                               \
        return from ? &transport : NULL;                                           \
    }

#endif
