#define _GNU_SOURCE 1
#include "cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A process finds its groups in two steps: /proc/self/cgroup names its path in each hierarchy, and
 * /proc/self/mountinfo says where that hierarchy, or the part of it that a container may see, is
 * mounted. See cgroups(7), "/proc files", and proc(5) for both formats. */

/* Version 2 is one hierarchy; version 1 has one for each controller, or for several together. */
typedef enum version { V2, V1_CPU, V1_MEMORY } version_t;

/* What a walk needs: where files lie, what to read there, and the smallest limits so far. */
typedef struct walk {
    const char *root;
    version_t version;
    hd_cgroup_t limits;
} walk_t;

static FILE *open_below(const char *root, const char *directory, const char *file)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s%s/%s", root, directory, file);
    return length > 0 && (size_t)length < sizeof(path) ? fopen(path, "re") : NULL;
}

/* The first line of a file without its newline. */
static bool read_first_line(const char *root, const char *directory, const char *file, char *line,
                            int size)
{
    FILE *stream = open_below(root, directory, file);
    if (!stream)
        return false;
    bool read = fgets(line, size, stream) != NULL;
    fclose(stream);
    if (read)
        line[strcspn(line, "\n")] = 0;
    return read;
}

/* ---- the limits of one group ----------------------------------------------------------------- */

static void limit_cpus(hd_cgroup_t *limits, const char *quota_text, const char *period_text)
{
    int64_t quota, period;
    if (!hd_parse_int(quota_text, &quota) || !hd_parse_int(period_text, &period) || quota <= 0 ||
        period <= 0)
        return;
    int64_t cpus = hd_min((quota - 1) / period + 1, INT32_MAX);
    if (!limits->cpus || cpus < limits->cpus)
        limits->cpus = (int32_t)cpus;
}

/* Version 1 says "no limit" with the largest multiple of the page size. */
static void limit_memory(hd_cgroup_t *limits, const char *text)
{
    int64_t bytes;
    if (!hd_parse_int(text, &bytes) || bytes <= 0 || bytes > INT64_MAX / 2)
        return;
    if (!limits->memory_bytes || bytes < limits->memory_bytes)
        limits->memory_bytes = bytes;
}

static void read_group(walk_t *walk, const char *directory)
{
    char line[128], period[128];
    if (walk->version == V2 &&
        read_first_line(walk->root, directory, "cpu.max", line, sizeof(line))) {
        char *space = strchr(line, ' ');
        if (space) {
            *space = 0;
            limit_cpus(&walk->limits, line, space + 1);
        }
    }
    if (walk->version == V2 &&
        read_first_line(walk->root, directory, "memory.max", line, sizeof(line)))
        limit_memory(&walk->limits, line);
    if (walk->version == V1_CPU &&
        read_first_line(walk->root, directory, "cpu.cfs_quota_us", line, sizeof(line)) &&
        read_first_line(walk->root, directory, "cpu.cfs_period_us", period, sizeof(period)))
        limit_cpus(&walk->limits, line, period);
    if (walk->version == V1_MEMORY &&
        read_first_line(walk->root, directory, "memory.limit_in_bytes", line, sizeof(line)))
        limit_memory(&walk->limits, line);
}

/* ---- from the own group to the top of a mount ------------------------------------------------ */

static void walk_up(walk_t *walk, const char *mount_point, const char *relative)
{
    char directory[PATH_MAX];
    size_t top = strlen(mount_point);
    int length = snprintf(directory, sizeof(directory), "%s%s", mount_point, relative);
    if (length < 0 || (size_t)length >= sizeof(directory))
        return;
    read_group(walk, directory);
    while (strlen(directory) > top) {
        *strrchr(directory, '/') = 0;
        read_group(walk, directory);
    }
}

/* Whether a path consists of "/.." alone: as seen from a cgroup namespace, something above it. */
static bool is_above(const char *path)
{
    while (strncmp(path, "/..", 3) == 0)
        path += 3;
    return *path == 0;
}

/* Whether ".." is a step of a path. */
static bool climbs(const char *path)
{
    while ((path = strstr(path, "/.."))) {
        path += 3;
        if (*path == 0 || *path == '/')
            return true;
    }
    return false;
}

/* Where the group `path` lies below a mount that shows the hierarchy from `mount_root` on: "",
 * "/a/b". NULL where the mount shows groups that this process is not in. */
static const char *below_mount(const char *path, const char *mount_root)
{
    if (climbs(path))
        return NULL;
    if (is_above(mount_root))
        return "";
    size_t length = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
    if (strncmp(path, mount_root, length) != 0)
        return NULL;
    path += length;
    return *path == 0 || *path == '/' ? path : NULL;
}

/* Whether a comma-separated list has the item. */
static bool lists(const char *list, const char *item)
{
    size_t length = strlen(item);
    for (;;) {
        size_t span = strcspn(list, ",");
        if (span == length && memcmp(list, item, length) == 0)
            return true;
        if (!list[span])
            return false;
        list += span + 1;
    }
}

/* Undoes mountinfo's octal escapes of blanks, tabs, newlines and backslashes, in place. */
static void unescape(char *text)
{
    char *to = text;
    while (*text) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' &&
            text[2] <= '7' && text[3] >= '0' && text[3] <= '7') {
            *to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 4;
        } else {
            *to++ = *text++;
        }
    }
    *to = 0;
}

/* One line of mountinfo: "id parent device root point options [tags] - type source super-options".
 */
static void visit_mount(walk_t *walk, char *line, const char *path)
{
    static const char *const controllers[] = {[V2] = "", [V1_CPU] = "cpu", [V1_MEMORY] = "memory"};
    char *fields[5], *rest = line, *tail = strstr(line, " - ");
    if (!tail)
        return;
    *tail = 0;
    for (int i = 0; i < HD_COUNT(fields); i++)
        if (!(fields[i] = strsep(&rest, " ")))
            return;
    tail += 3;
    const char *type = strsep(&tail, " "), *source = strsep(&tail, " ");
    if (!source || !tail || strcmp(type, walk->version == V2 ? "cgroup2" : "cgroup") != 0)
        return;
    if (walk->version != V2 && !lists(tail, controllers[walk->version]))
        return;
    unescape(fields[3]);
    unescape(fields[4]);
    const char *relative = below_mount(path, fields[3]);
    if (relative)
        walk_up(walk, fields[4], relative);
}

static void visit_mounts(walk_t *walk, version_t version, const char *path)
{
    FILE *stream = open_below(walk->root, "/proc/self", "mountinfo");
    char *line = NULL;
    size_t size = 0;
    if (!stream)
        return;
    walk->version = version;
    while (getline(&line, &size, stream) >= 0) {
        line[strcspn(line, "\n")] = 0;
        visit_mount(walk, line, path);
    }
    free(line);
    fclose(stream);
}

/* One line of /proc/self/cgroup: "0::path" for version 2, "number:controllers:path" for version 1.
 */
static void visit_membership(walk_t *walk, char *line)
{
    char *rest = line;
    strsep(&rest, ":");
    const char *controllers = strsep(&rest, ":"), *path = rest;
    if (!path || path[0] != '/')
        return;
    if (controllers[0] == 0)
        visit_mounts(walk, V2, path);
    if (lists(controllers, "cpu"))
        visit_mounts(walk, V1_CPU, path);
    if (lists(controllers, "memory"))
        visit_mounts(walk, V1_MEMORY, path);
}

hd_cgroup_t hd_cgroup_read(const char *root)
{
    walk_t walk = {.root = root};
    FILE *stream = open_below(root, "/proc/self", "cgroup");
    char *line = NULL;
    size_t size = 0;
    if (!stream)
        return walk.limits;
    while (getline(&line, &size, stream) >= 0) {
        line[strcspn(line, "\n")] = 0;
        visit_membership(&walk, line);
    }
    free(line);
    fclose(stream);
    return walk.limits;
}

void hd_cgroup_apply(const char *root, heed_device_info_t *info)
{
    hd_cgroup_t limits = hd_cgroup_read(root);
    info->cpu_quota = limits.cpus;
    if (limits.memory_bytes && (!info->memory_bytes || limits.memory_bytes < info->memory_bytes))
        info->memory_bytes = limits.memory_bytes;
}
