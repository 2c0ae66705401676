/* The machine as hd_topology_detect sees it: described, broken, this one, and its affinity. */
#define _GNU_SOURCE 1
#include "cgroup.h"
#include "topology.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#define KIB INT64_C(1024)
#define MIB INT64_C(1048576)

/* ---- a hwloc that misbehaves ----------------------------------------------------------------- */

/* The program's own definitions come before the shared library's. */
static unsigned pretended_version;
static bool refuse_to_load;

static void real_function(const char *name, void *pointer)
{
    void *found = dlsym(RTLD_NEXT, name);
    assert_non_null(found);
    memcpy(pointer, &found, sizeof(found));
}

unsigned hwloc_get_api_version(void);
unsigned hwloc_get_api_version(void)
{
    unsigned (*real)(void);
    real_function("hwloc_get_api_version", &real);
    return pretended_version ? pretended_version : real();
}

int hwloc_topology_load(void *topology);
int hwloc_topology_load(void *topology)
{
    int (*real)(void *);
    real_function("hwloc_topology_load", &real);
    return refuse_to_load ? -1 : real(topology);
}

/* ---- setting the scene ----------------------------------------------------------------------- */

static const char *const variables[] = {"HWLOC_SYNTHETIC",  "HWLOC_XMLFILE", "HWLOC_THISSYSTEM",
                                        "HWLOC_COMPONENTS", "HWLOC_FSROOT",  "HWLOC_CPUID_PATH"};

static cpu_set_t original; /* affinity mask */

static int clean(void **state)
{
    (void)state;
    sched_setaffinity(0, sizeof(original), &original);
    for (int i = 0; i < HD_COUNT(variables); i++)
        unsetenv(variables[i]);
    pretended_version = 0;
    refuse_to_load = false;
    return 0;
}

static void use_fixture(const char *file)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/topo/%s", HEED_TEST_DATA, file);
    assert_int_equal(setenv("HWLOC_XMLFILE", path, 1), 0);
}

/* Detects into a struct full of rubbish, and checks what detection must leave alone. */
static heed_device_info_t detect(void)
{
    heed_device_info_t info;
    memset(&info, 0x5a, sizeof(info));
    info.struct_size = sizeof(info);
    hd_topology_detect(&info);
    assert_int_equal(info.struct_size, sizeof(info));
    assert_true(info.isa == UINT64_C(0x5a5a5a5a5a5a5a5a));
    assert_true(info.isa_cpu == UINT64_C(0x5a5a5a5a5a5a5a5a));
    assert_int_equal(info.threads, 0x5a5a5a5a);
    assert_int_equal(info.device.type, HEED_DEVICE_CPU);
    assert_int_equal(info.device.id, 0);
    assert_true(info.name[0]);
    return info;
}

/* The affinity mask, without any of the code under test. */
static cpu_set_t affinity(void)
{
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    return set;
}

/* Binds this thread to the last processor that it may use, and returns its number. */
static int bind_to_one(void)
{
    int last = CPU_SETSIZE - 1;
    while (!CPU_ISSET((size_t)last, &original))
        last--;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)last, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    return last;
}

static int64_t system_bytes(void)
{
    return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

/* ---- described machines ---------------------------------------------------------------------- */

/* Where it comes from, and the machine as one line of everything that is told of it. */
typedef struct machine {
    const char *source;
    const char *line;
} machine_t;

static void check_line(const char *expected)
{
    char line[256];
    heed_device_info_t info = detect();
    hd_text_t text = hd_text(line, sizeof(line));
    hd_text_add(&text, "%s: %d packages, %d nodes, %d cores, %d threads, quota %d, ", info.topology,
                info.packages, info.numa_nodes, info.cores, info.hardware_threads, info.cpu_quota);
    assert_int_equal(info.memory_bytes % MIB, 0);
    hd_text_add(&text, "%dM, cpus %s", (int)(info.memory_bytes / MIB), info.cpuset);
    for (int i = 0; i < info.cache_count; i++) {
        assert_int_equal(info.caches[i].bytes % KIB, 0);
        hd_text_add(&text, ", L%d %dK/%d", info.caches[i].level, (int)(info.caches[i].bytes / KIB),
                    info.caches[i].sharing);
    }
    assert_string_equal(line, expected);
}

static void xml_fixtures(void **state)
{
    (void)state;
    static const machine_t machines[] = {
        {"laptop.xml", "xml: 1 packages, 1 nodes, 4 cores, 8 threads, quota 0, 16384M, cpus 0-7, "
                       "L1 32K/1, L2 256K/1, L3 8192K/4"},
        {"server.xml", "xml: 2 packages, 2 nodes, 16 cores, 16 threads, quota 0, 131072M, "
                       "cpus 0-15, L1 48K/1, L2 1024K/1, L3 32768K/8"},
        {"smt.xml", "xml: 1 packages, 1 nodes, 12 cores, 48 threads, quota 0, 32768M, cpus 0-47, "
                    "L1 64K/1, L2 1024K/2, L3 32768K/6, L4 131072K/12"},
        {"offline.xml", "xml: 1 packages, 1 nodes, 6 cores, 11 threads, quota 0, 16384M, "
                        "cpus 0-5,8-10,12-13, L1 32K/1, L2 512K/1, L3 16384K/6"},
        {"hybrid.xml", "xml: 1 packages, 1 nodes, 6 cores, 8 threads, quota 0, 16384M, cpus 0-7, "
                       "L1 32K/1, L2 2048K/4, L3 12288K/6"},
    };
    for (int i = 0; i < HD_COUNT(machines); i++) {
        use_fixture(machines[i].source);
        check_line(machines[i].line);
    }
}

/* All name their NUMA nodes: where none is named, hwloc 2.9 adds one with an overlapping memcpy. */
static void synthetic_machines(void **state)
{
    (void)state;
    static const machine_t machines[] = {
        {"numa:1 pack:1 core:4 pu:2", "synthetic: 1 packages, 1 nodes, 4 cores, 8 threads, "
                                      "quota 0, 1024M, cpus 0-7"},
        {"pack:2 [numa(memory=34359738368)] l3:2(size=16777216) core:4 pu:2",
         "synthetic: 2 packages, 2 nodes, 16 cores, 32 threads, quota 0, 65536M, cpus 0-31, "
         "L3 16384K/4"},
        /* Processors without cores count as cores. */
        {"numa:1 pu:4", "synthetic: 0 packages, 1 nodes, 4 cores, 4 threads, quota 0, 1024M, "
                        "cpus 0-3"},
        {"numa:1 l2:2(size=1048576) pu:3", "synthetic: 0 packages, 1 nodes, 6 cores, 6 threads, "
                                           "quota 0, 1024M, cpus 0-5, L2 1024K/3"},
        /* Instruction caches are none of ours; of five levels the first four are told. */
        {"numa:1 l5:1(size=67108864) l4:1(size=33554432) l3:1(size=8388608) l2:1(size=262144) "
         "l1d:2(size=32768) l1i:1(size=65536) core:1 pu:1",
         "synthetic: 0 packages, 1 nodes, 2 cores, 2 threads, quota 0, 1024M, cpus 0-1, "
         "L1 32K/1, L2 256K/2, L3 8192K/2, L4 32768K/2"},
        {"numa:1 core:4 pu:1(indexes=3,9,10,40)", "synthetic: 0 packages, 1 nodes, 4 cores, "
                                                  "4 threads, quota 0, 1024M, cpus 3,9-10,40"},
    };
    for (int i = 0; i < HD_COUNT(machines); i++) {
        assert_int_equal(setenv("HWLOC_SYNTHETIC", machines[i].source, 1), 0);
        check_line(machines[i].line);
    }
    /* hwloc's own order: the description wins over the file. */
    use_fixture("server.xml");
    check_line(machines[HD_COUNT(machines) - 1].line);
}

static void long_cpuset_is_cut_between_numbers(void **state)
{
    (void)state;
    char source[1024];
    hd_text_t text = hd_text(source, sizeof(source));
    hd_text_add(&text, "numa:1 core:100 pu:1(indexes=0");
    for (int i = 1; i < 100; i++)
        hd_text_add(&text, ",%d", 2 * i);
    hd_text_add(&text, ")");
    assert_int_equal(setenv("HWLOC_SYNTHETIC", source, 1), 0);
    heed_device_info_t info = detect();
    assert_int_equal(info.cores, 100);
    assert_true(strlen(info.cpuset) > sizeof(info.cpuset) - 10);
    assert_int_equal(strncmp(info.cpuset, "0,2,4,", 6), 0);
    char *cut = strstr(info.cpuset, ",...");
    assert_non_null(cut);
    assert_string_equal(cut, ",...");
    *cut = 0;
    int last = atoi(strrchr(info.cpuset, ',') + 1);
    assert_true(last > 0 && last < 200 && last % 2 == 0);
}

static void name_comes_from_the_cpu_or_the_fixture(void **state)
{
    (void)state;
    char name[96];
    hd_cpuid_name(name, sizeof(name));
    use_fixture("laptop.xml");
    assert_string_equal(detect().name, name[0] ? name : "Laptop CPU of the fixture");
    use_fixture("server.xml");
    assert_string_equal(detect().name, name[0] ? name : "unknown CPU");
}

/* ---- nothing to go by ------------------------------------------------------------------------ */

/* This machine as the system tells of it without hwloc. */
static void check_plain(void)
{
    cpu_set_t set = affinity();
    heed_device_info_t info = detect();
    assert_string_equal(info.topology, "none");
    assert_int_equal(info.cores, CPU_COUNT(&set));
    assert_int_equal(info.hardware_threads, CPU_COUNT(&set));
    assert_int_equal(info.packages, 0);
    assert_int_equal(info.numa_nodes, 0);
    assert_int_equal(info.cache_count, 0);
    assert_true(info.memory_bytes > 0 && info.memory_bytes <= system_bytes());
    assert_true(info.cpuset[0] >= '0' && info.cpuset[0] <= '9');
}

static void broken_fixtures(void **state)
{
    (void)state;
    static const char *const files[] = {"empty.xml", "truncated.xml",    "text.xml",
                                        "other.xml", "no-processor.xml", "no-such-file.xml"};
    for (int i = 0; i < HD_COUNT(files); i++) {
        use_fixture(files[i]);
        check_plain();
    }
    unsetenv("HWLOC_XMLFILE");
    static const char *const sources[] = {"garbage",      "pu:0", "core:-1 pu:2",
                                          "pack:2 core:", ":",    " "};
    for (int i = 0; i < HD_COUNT(sources); i++) {
        assert_int_equal(setenv("HWLOC_SYNTHETIC", sources[i], 1), 0);
        check_plain();
    }
}

static void unusable_hwloc(void **state)
{
    (void)state;
    refuse_to_load = true;
    check_plain();
    refuse_to_load = false;
    pretended_version = 0x00030000;
    check_plain();
    pretended_version = 0x00010b00;
    check_plain();
}

/* ---- this machine ---------------------------------------------------------------------------- */

static void check_native(void)
{
    cpu_set_t set = affinity();
    heed_device_info_t info = detect();
    assert_string_equal(info.topology, "native");
    assert_int_equal(info.hardware_threads, CPU_COUNT(&set));
    assert_in_range(info.cores, 1, info.hardware_threads);
    assert_in_range(info.packages, 0, info.cores);
    assert_true(info.numa_nodes >= 1);
    assert_true(info.cpu_quota >= 0);
    assert_true(info.memory_bytes > 0 && info.memory_bytes <= system_bytes());
    for (int i = 0; i < info.cache_count; i++) {
        assert_true(info.caches[i].level > (i ? info.caches[i - 1].level : 0));
        assert_in_range(info.caches[i].sharing, 1, info.cores);
        assert_true(info.caches[i].bytes > 0);
    }
}

static void native_machine(void **state)
{
    (void)state;
    check_native();
    /* Set but empty is not set. */
    assert_int_equal(setenv("HWLOC_SYNTHETIC", "", 1), 0);
    assert_int_equal(setenv("HWLOC_XMLFILE", "", 1), 0);
    check_native();
}

static void detection_leaves_the_affinity_alone(void **state)
{
    (void)state;
    detect();
    cpu_set_t after = affinity();
    assert_true(CPU_EQUAL(&original, &after));
}

/* One processor, as any source must tell of it. */
static void check_one(const char *topology, int processor)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", processor);
    heed_device_info_t info = detect();
    assert_string_equal(info.topology, topology);
    assert_int_equal(info.cores, 1);
    assert_int_equal(info.hardware_threads, 1);
    assert_string_equal(info.cpuset, number);
    for (int i = 0; i < info.cache_count; i++)
        assert_int_equal(info.caches[i].sharing, 1);
}

static void affinity_limits_this_machine_only(void **state)
{
    (void)state;
    int processor = bind_to_one();
    check_one("native", processor);

    use_fixture("text.xml");
    check_one("none", processor);

    use_fixture("laptop.xml");
    assert_int_equal(detect().hardware_threads, 8);
    unsetenv("HWLOC_XMLFILE");

    /* A description that claims to be of this machine is bound by its mask. */
    char source[64];
    snprintf(source, sizeof(source), "numa:1 core:%d pu:1", processor + 1);
    assert_int_equal(setenv("HWLOC_SYNTHETIC", source, 1), 0);
    assert_int_equal(detect().cores, processor + 1);
    assert_int_equal(setenv("HWLOC_THISSYSTEM", "1", 1), 0);
    check_one("synthetic", processor);

    /* One that does not even have that processor is wrong. */
    snprintf(source, sizeof(source), "numa:1 core:1 pu:1(indexes=%d)", processor + 1);
    assert_int_equal(setenv("HWLOC_SYNTHETIC", source, 1), 0);
    check_one("none", processor);
}

/* ---- control groups -------------------------------------------------------------------------- */

static void put(const char *root, const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s%s", root, file);
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_true(fputs(text, stream) >= 0);
    assert_int_equal(fclose(stream), 0);
}

/* A root whose only group grants one and a half CPUs and a mebibyte. */
static void make_limited(char *root)
{
    static const char *const folders[] = {"/proc", "/proc/self", "/group"};
    assert_non_null(mkdtemp(root));
    for (int i = 0; i < HD_COUNT(folders); i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s%s", root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    put(root, "/proc/self/cgroup", "0::/\n");
    put(root, "/proc/self/mountinfo", "30 23 0:26 / /group rw - cgroup2 cgroup2 rw\n");
    put(root, "/group/cpu.max", "150000 100000\n");
    put(root, "/group/memory.max", "1048576\n");
}

static void remove_limited(const char *root)
{
    static const char *const paths[] = {"/proc/self/cgroup",
                                        "/proc/self/mountinfo",
                                        "/group/cpu.max",
                                        "/group/memory.max",
                                        "/proc/self",
                                        "/proc",
                                        "/group",
                                        ""};
    for (int i = 0; i < HD_COUNT(paths); i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s%s", root, paths[i]);
        assert_int_equal(remove(path), 0);
    }
}

static void check_limits(const char *root, const char *topology, int cpus, int64_t memory)
{
    heed_device_info_t info = {.struct_size = sizeof(info)};
    hd_topology_detect_at(root, &info);
    assert_string_equal(info.topology, topology);
    assert_int_equal(info.cpu_quota, cpus);
    assert_int_equal(info.memory_bytes, memory);
}

static void control_groups_limit_this_machine_only(void **state)
{
    (void)state;
    char root[] = "/tmp/heed-topology-XXXXXX";
    make_limited(root);
    check_limits(root, "native", 2, MIB);
    use_fixture("text.xml");
    check_limits(root, "none", 2, MIB);
    use_fixture("laptop.xml");
    check_limits(root, "xml", 0, 16384 * MIB);
    remove_limited(root);
}

/* The real groups of this process, whatever they are. */
static void own_control_groups(void **state)
{
    (void)state;
    hd_cgroup_t limits = hd_cgroup_read("");
    heed_device_info_t info = detect();
    assert_int_equal(info.cpu_quota, limits.cpus);
    assert_true(!limits.memory_bytes || info.memory_bytes <= limits.memory_bytes);
}

static int remember_affinity(void **state)
{
    (void)state;
    return sched_getaffinity(0, sizeof(original), &original);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(xml_fixtures, clean, clean),
        cmocka_unit_test_setup_teardown(synthetic_machines, clean, clean),
        cmocka_unit_test_setup_teardown(long_cpuset_is_cut_between_numbers, clean, clean),
        cmocka_unit_test_setup_teardown(name_comes_from_the_cpu_or_the_fixture, clean, clean),
        cmocka_unit_test_setup_teardown(broken_fixtures, clean, clean),
        cmocka_unit_test_setup_teardown(unusable_hwloc, clean, clean),
        cmocka_unit_test_setup_teardown(native_machine, clean, clean),
        cmocka_unit_test_setup_teardown(detection_leaves_the_affinity_alone, clean, clean),
        cmocka_unit_test_setup_teardown(affinity_limits_this_machine_only, clean, clean),
        cmocka_unit_test_setup_teardown(control_groups_limit_this_machine_only, clean, clean),
        cmocka_unit_test_setup_teardown(own_control_groups, clean, clean),
    };
    return cmocka_run_group_tests(tests, remember_affinity, NULL);
}
