/* What the test of topology.c needs beside hd_topology_detect. */
#ifndef HD_TOPOLOGY_H
#define HD_TOPOLOGY_H

#include "internal.h"

/* hd_topology_detect, with the control groups of another root: see hd_cgroup_read. */
void hd_topology_detect_at(const char *root, heed_device_info_t *info);

#endif
