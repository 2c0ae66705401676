/* Limits that Linux control groups put on this process, versions 1 and 2. */
#ifndef HD_CGROUP_H
#define HD_CGROUP_H

#include "internal.h"

typedef struct hd_cgroup {
    int32_t cpus;         /* whole CPUs, rounded up; 0: no limit */
    int64_t memory_bytes; /* 0: no limit */
} hd_cgroup_t;

/* The smallest limits of the groups that hold this process, from the own one up to the top of each
 * mounted hierarchy. `root` goes before every path that is read ("" for the real files). Never
 * fails: what is missing or cannot be read limits nothing. */
hd_cgroup_t hd_cgroup_read(const char *root);

/* Puts those limits into cpu_quota and memory_bytes. */
void hd_cgroup_apply(const char *root, heed_device_info_t *info);

#endif
