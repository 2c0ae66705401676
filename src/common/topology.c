#define _GNU_SOURCE 1
#include "topology.h"
#include "cgroup.h"
#include "isa.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Set by CMake. */
#ifndef HD_HWLOC
#define HD_HWLOC 1
#endif
#if HD_HWLOC
#include <hwloc.h>
#endif

/* ---- text ------------------------------------------------------------------------------------ */

/* Adds "3" or "0-15" to a list of processors; a list that gets too long ends in ",..." rather than
 * in half a number. False when it is full. */
static bool add_range(hd_text_t *list, int first, int last)
{
    static const char cut[] = ",...";
    char range[32];
    int length = first == last ? snprintf(range, sizeof(range), "%d", first)
                               : snprintf(range, sizeof(range), "%d-%d", first, last);
    bool fits = list->length + 1 + (size_t)length + sizeof(cut) <= list->size;
    hd_text_add(list, "%s%s", fits && list->length ? "," : "", fits ? range : cut);
    return fits;
}

static void set_name(heed_device_info_t *info, const char *model)
{
    hd_cpuid_name(info->name, sizeof(info->name));
    if (!info->name[0] && model)
        hd_cpuid_tidy(model, info->name, sizeof(info->name));
    if (!info->name[0])
        hd_cpuid_tidy("unknown CPU", info->name, sizeof(info->name));
}

static int64_t system_memory(void)
{
    int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE), bytes;
    return pages > 0 && page > 0 && hd_mul(pages, page, &bytes) ? bytes : 0;
}

/* ---- without hwloc --------------------------------------------------------------------------- */

/* The affinity mask of the calling thread, to be freed with CPU_FREE, and its size in bytes. NULL:
 * the system does not say. */
static cpu_set_t *read_affinity(size_t *size)
{
    /* The kernel refuses masks shorter than its own, so grow until it agrees. */
    for (size_t processors = 1024; processors <= 1 << 20; processors *= 2) {
        cpu_set_t *set = CPU_ALLOC(processors);
        *size = CPU_ALLOC_SIZE(processors);
        if (set && sched_getaffinity(0, *size, set) == 0)
            return set;
        CPU_FREE(set);
    }
    return NULL;
}

/* Lists the processors that may be used and returns their number, 0 if unknown. */
static int list_affinity(hd_text_t *list)
{
    size_t size;
    cpu_set_t *set = read_affinity(&size);
    if (!set)
        return 0;
    int first = -1, end = (int)(size * 8), number = CPU_COUNT_S(size, set);
    bool room = true;
    for (int i = 0; i <= end && room; i++) {
        bool usable = i < end && CPU_ISSET_S((size_t)i, size, set);
        if (usable && first < 0)
            first = i;
        if (!usable && first >= 0) {
            room = add_range(list, first, i - 1);
            first = -1;
        }
    }
    CPU_FREE(set);
    return number;
}

static void describe_plainly(const char *root, heed_device_info_t *info)
{
    hd_text_t list = hd_text(info->cpuset, sizeof(info->cpuset));
    int64_t number = list_affinity(&list);
    if (number == 0)
        number = sysconf(_SC_NPROCESSORS_ONLN);
    /* Which of them share a core is not known; a core too many costs less than one too few. */
    info->hardware_threads = (int32_t)hd_max(number, 1);
    info->cores = info->hardware_threads;
    info->memory_bytes = system_memory();
    set_name(info, NULL);
    hd_cgroup_apply(root, info);
}

/* ---- with hwloc ------------------------------------------------------------------------------ */

#if HD_HWLOC

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

/* Names the source of the topology: "native", "synthetic" or "xml"; NULL where it is broken. hwloc
 * reads these variables too, but takes this machine instead where their value is broken. */
static const char *set_source(hwloc_topology_t topology)
{
    const char *synthetic = setting("HWLOC_SYNTHETIC"), *xml = setting("HWLOC_XMLFILE");
    if (synthetic)
        return hwloc_topology_set_synthetic(topology, synthetic) ? NULL : "synthetic";
    if (xml)
        return hwloc_topology_set_xml(topology, xml) ? NULL : "xml";
    return "native";
}

/* A loaded topology without devices, or NULL. Binding this thread to every processor in turn, as
 * hwloc may do to ask each for its CPUID, is nothing a library should do to its caller. */
static hwloc_topology_t load(const char **source)
{
    hwloc_topology_t topology;
    if (hwloc_get_api_version() >> 16 != HWLOC_API_VERSION >> 16)
        return NULL;
    if (hwloc_topology_init(&topology))
        return NULL;
    *source = set_source(topology);
    if (*source && !hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING) &&
        !hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_NONE) &&
        !hwloc_topology_load(topology))
        return topology;
    hwloc_topology_destroy(topology);
    return NULL;
}

/* Leaves only what the calling thread may run on: threads that it starts inherit its mask. False
 * where that is nothing at all. */
static bool restrict_to_affinity(hwloc_topology_t topology)
{
    hwloc_bitmap_t mask = hwloc_bitmap_alloc();
    if (!mask)
        return false;
    bool known = hwloc_get_cpubind(topology, mask, HWLOC_CPUBIND_THREAD) == 0;
    bool left =
        !known || hwloc_topology_restrict(topology, mask, HWLOC_RESTRICT_FLAG_REMOVE_CPULESS) == 0;
    hwloc_bitmap_free(mask);
    return left;
}

/* Memory of the NUMA nodes that may be used. Where that is all of them, the system knows the sum
 * better than its nodes do, which may miss memory that a hypervisor added. */
static int64_t usable_memory(hwloc_topology_t topology, bool this_system)
{
    int64_t sum = (int64_t)hwloc_get_root_obj(topology)->total_memory;
    bool all = hwloc_bitmap_isequal(hwloc_topology_get_complete_nodeset(topology),
                                    hwloc_topology_get_allowed_nodeset(topology));
    return this_system && (all || sum == 0) ? system_memory() : sum;
}

static int32_t count(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    return (int32_t)hd_max(hwloc_get_nbobjs_by_type(topology, type), 0);
}

/* The cache of a level that leaves each of its cores the least: sizes and sharing differ on
 * machines with two kinds of cores, and where the affinity mask cuts a cache's cores apart. */
static heed_cache_info_t tightest_cache(hwloc_topology_t topology, int level, hwloc_obj_type_t type)
{
    heed_cache_info_t best = {0};
    hwloc_obj_type_t unit = count(topology, HWLOC_OBJ_CORE) ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    hwloc_obj_t cache = NULL;
    while ((cache = hwloc_get_next_obj_by_type(topology, type, cache))) {
        int64_t bytes = (int64_t)cache->attr->cache.size;
        int sharing = hwloc_get_nbobjs_inside_cpuset_by_type(topology, cache->cpuset, unit);
        sharing = (int)hd_max(sharing, 1);
        if (bytes > 0 && (!best.level || bytes / sharing < best.bytes / best.sharing))
            best = (heed_cache_info_t){level, sharing, bytes};
    }
    return best;
}

static void describe_caches(hwloc_topology_t topology, heed_device_info_t *info)
{
    static const hwloc_obj_type_t levels[] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE,
                                              HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE,
                                              HWLOC_OBJ_L5CACHE};
    for (int i = 0; i < HD_COUNT(levels) && info->cache_count < HD_COUNT(info->caches); i++) {
        heed_cache_info_t cache = tightest_cache(topology, i + 1, levels[i]);
        if (cache.level)
            info->caches[info->cache_count++] = cache;
    }
}

static void describe_cpuset(hwloc_topology_t topology, heed_device_info_t *info)
{
    hwloc_const_bitmap_t set = hwloc_topology_get_topology_cpuset(topology);
    hd_text_t list = hd_text(info->cpuset, sizeof(info->cpuset));
    int last;
    for (int first = hwloc_bitmap_first(set); first >= 0; first = hwloc_bitmap_next(set, last)) {
        last = hwloc_bitmap_next_unset(set, first) - 1;
        if (last < first || !add_range(&list, first, last))
            return;
    }
}

static void describe(hwloc_topology_t topology, heed_device_info_t *info)
{
    hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    set_name(info, package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL);
    info->packages = count(topology, HWLOC_OBJ_PACKAGE);
    info->numa_nodes = count(topology, HWLOC_OBJ_NUMANODE);
    info->hardware_threads = count(topology, HWLOC_OBJ_PU);
    info->cores = count(topology, HWLOC_OBJ_CORE);
    if (info->cores == 0) /* some virtual machines tell of processors only */
        info->cores = info->hardware_threads;
    describe_caches(topology, info);
    describe_cpuset(topology, info);
}

/* False, with nothing written, where hwloc cannot tell. */
static bool describe_by_hwloc(const char *root, heed_device_info_t *info)
{
    const char *source;
    hwloc_topology_t topology = load(&source);
    if (!topology)
        return false;
    bool this_system = hwloc_topology_is_thissystem(topology);
    int64_t memory = usable_memory(topology, this_system);
    bool usable = !this_system || restrict_to_affinity(topology);
    if (usable) {
        describe(topology, info);
        info->memory_bytes = memory;
        if (this_system)
            hd_cgroup_apply(root, info);
        hd_text_t origin = hd_text(info->topology, sizeof(info->topology));
        hd_text_add(&origin, "%s", source);
    }
    hwloc_topology_destroy(topology);
    return usable;
}

#else

static bool describe_by_hwloc(const char *root, heed_device_info_t *info)
{
    (void)root, (void)info;
    return false;
}

#endif

void hd_topology_detect_at(const char *root, heed_device_info_t *info)
{
    heed_device_info_t found = {
        .struct_size = info->struct_size,
        .device = {HEED_DEVICE_CPU, 0},
        .isa = info->isa,
        .isa_cpu = info->isa_cpu,
        .threads = info->threads,
        .topology = "none",
    };
    if (!describe_by_hwloc(root, &found))
        describe_plainly(root, &found);
    *info = found;
}

void hd_topology_detect(heed_device_info_t *info)
{
    hd_topology_detect_at("", info);
}
