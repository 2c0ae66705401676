/* Limits of control groups, read from made-up /proc and /sys trees in a temporary folder. */
#define _GNU_SOURCE 1
#include "cgroup.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>
#include <cmocka.h>

#define V2_MOUNT  "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
#define CPU_MOUNT "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
#define MEMORY_MOUNT \
    "35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory\n"
#define OTHER_MOUNTS                                                    \
    "23 1 8:1 / / rw - ext4 /dev/root rw\n"                             \
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" \
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"

#define MIB (INT64_C(1) << 20)

static char root[64];

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/heed-cgroup-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Writes a file below the root, with its folders. */
static void put(const char *path, const char *text)
{
    char full[2048];
    assert_true(snprintf(full, sizeof(full), "%s%s", root, path) < (int)sizeof(full));
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *stream = fopen(full, "w");
    assert_non_null(stream);
    assert_true(fputs(text, stream) >= 0);
    assert_int_equal(fclose(stream), 0);
}

static void put_process(const char *membership, const char *mounts)
{
    put("/proc/self/cgroup", membership);
    put("/proc/self/mountinfo", mounts);
}

static void check(int cpus, int64_t memory_bytes)
{
    hd_cgroup_t limits = hd_cgroup_read(root);
    assert_int_equal(limits.cpus, cpus);
    assert_int_equal(limits.memory_bytes, memory_bytes);
}

static void no_groups(void **state)
{
    (void)state;
    check(0, 0);
    put("/proc/self/cgroup", "0::/\n");
    check(0, 0);
    put("/proc/self/mountinfo", OTHER_MOUNTS);
    check(0, 0);
    put("/proc/self/mountinfo", V2_MOUNT);
    check(0, 0);
}

static void version_2_takes_the_smallest_up_the_path(void **state)
{
    (void)state;
    put_process("0::/user/app\n", OTHER_MOUNTS V2_MOUNT);
    put("/sys/fs/cgroup/user/app/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/user/app/memory.max", "max\n");
    check(0, 0);
    put("/sys/fs/cgroup/user/cpu.max", "300000 100000\n");
    put("/sys/fs/cgroup/user/memory.max", "1073741824\n");
    check(3, 1024 * MIB);
    put("/sys/fs/cgroup/user/app/cpu.max", "200000 100000\n");
    put("/sys/fs/cgroup/user/app/memory.max", "1048576\n");
    check(2, MIB);
    put("/sys/fs/cgroup/user/app/cpu.max", "900000 100000\n");
    put("/sys/fs/cgroup/user/app/memory.max", "2147483648\n");
    check(3, 1024 * MIB);
    /* A container sees its own group as the mount point. */
    put("/sys/fs/cgroup/cpu.max", "50000 50000\n");
    check(1, 1024 * MIB);
    /* Neither siblings nor what lies above the mount count, nor the files of version 1. */
    put("/sys/fs/cgroup/user/other/memory.max", "4096\n");
    put("/sys/fs/memory.max", "4096\n");
    put("/sys/fs/cgroup/user/memory.limit_in_bytes", "4096\n");
    check(1, 1024 * MIB);
}

static void quotas_round_up(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int cpus;
    } cases[] = {
        {"100000 100000\n", 1},
        {"100001 100000\n", 2},
        {"150000 100000\n", 2},
        {"1000 100000\n", 1},
        {"1600000 100000\n", 16},
        {"25000 10000", 3},
        {"9223372036854775807 1\n", INT32_MAX},
    };
    put_process("0::/\n", V2_MOUNT);
    for (int i = 0; i < HD_COUNT(cases); i++) {
        put("/sys/fs/cgroup/cpu.max", cases[i].text);
        check(cases[i].cpus, 0);
    }
}

static void version_1(void **state)
{
    (void)state;
    put_process("9:name=systemd:/a\n4:memory:/box/in\n3:cpuset:/c\n1:cpu,cpuacct:/app/jobs\n",
                OTHER_MOUNTS CPU_MOUNT MEMORY_MOUNT);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    check(0, 0);
    put("/sys/fs/cgroup/cpu,cpuacct/app/jobs/cpu.cfs_quota_us", "450000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/jobs/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/box/in/memory.limit_in_bytes", "4194304\n");
    check(5, 4 * MIB);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "40000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "20000\n");
    put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2097152\n");
    check(2, 2 * MIB);
    /* Each hierarchy has its own path, and its own files. */
    put("/sys/fs/cgroup/cpuset/box/in/memory.limit_in_bytes", "4096\n");
    put("/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "1000\n"); /* cpuset's path */
    put("/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "1000\n");
    put("/sys/fs/cgroup/memory/app/memory.limit_in_bytes", "4096\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/memory.limit_in_bytes", "4096\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.max", "1 1\n");
    check(2, 2 * MIB);
}

static void both_versions_together(void **state)
{
    (void)state;
    put_process("4:memory:/box\n0::/leaf\n",
                MEMORY_MOUNT "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "2097152\n");
    put("/sys/fs/cgroup/unified/leaf/cpu.max", "700000 100000\n");
    check(7, 2 * MIB);
    put("/sys/fs/cgroup/unified/leaf/memory.max", "1048576\n");
    check(7, MIB);
}

/* Version 1 in a container: the path is the host's, and the mount shows the container's part. */
static void mounts_of_a_part(void **state)
{
    (void)state;
    static const char mount[] =
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    put_process("4:memory:/docker/abc\n", mount);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8388608\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "4096\n");
    check(0, 8 * MIB);
    put_process("4:memory:/docker/abc/job\n", mount);
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1048576\n");
    check(0, MIB);
    /* Not ours: another container, and one whose name only begins like ours. */
    put_process("4:memory:/docker/xyz\n", mount);
    check(0, 0);
    put_process("4:memory:/docker/abcdef\n", mount);
    put("/sys/fs/cgroup/memorydef/memory.limit_in_bytes", "4096\n");
    check(0, 0);
    put_process("4:memory:/\n", mount);
    check(0, 0);
}

static void namespaces(void **state)
{
    (void)state;
    put("/sys/fs/cgroup/memory.max", "8388608\n");
    put("/sys/fs/cgroup/job/memory.max", "4096\n");
    put("/sys/fs/memory.max", "4096\n");
    /* The mount begins above the namespace: its top is above us too, more is not known. */
    put_process("0::/job\n", "30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    check(0, 8 * MIB);
    /* We are outside the namespace that the mount shows. */
    put_process("0::/../job\n", V2_MOUNT);
    check(0, 0);
    put_process("0::/..\n", V2_MOUNT);
    check(0, 0);
    /* Dots are fine in a name. */
    put_process("0::/..job\n", V2_MOUNT);
    put("/sys/fs/cgroup/..job/memory.max", "1048576\n");
    check(0, MIB);
}

static void odd_lines(void **state)
{
    (void)state;
    char mounts[16384] = "";
    hd_text_t text = hd_text(mounts, sizeof(mounts));
    hd_text_add(&text, "\n - \nx\n1 2 3 - cgroup2 a b\n1 2 3 4 5 6\n1 2 3 / /p rw - cgroup2\n");
    hd_text_add(&text,
                "1 2 3 / /p rw -\n1 2 3 / /p rw - cgroup2 \n24 1 0:9 / /merged rw - overlay o ");
    for (int i = 0; i < 1000; i++)
        hd_text_add(&text, "lower%d:", i);
    hd_text_add(&text, "\n30 23 0:26 / /");
    for (int i = 0; i < 500; i++)
        hd_text_add(&text, "too/long/");
    hd_text_add(&text, " rw - cgroup2 cgroup2 rw\n");
    hd_text_add(&text, "30 23 0:26 / /my\\040own\\134group rw - cgroup2 cgroup2 rw");
    assert_true(text.length < text.size);
    put_process("\n:\n::\n0:\nzero\n0::relative\n7::/\n0::/a", mounts);
    put("/my own\\group/a/cpu.max", "300000 100000");
    check(3, 0);
}

static void odd_values(void **state)
{
    (void)state;
    static const char *const quotas[] = {
        "",
        "\n",
        " ",
        "max",
        "max max",
        "100000",
        "100000 ",
        "abc 100000",
        "100000 abc",
        "-1 100000",
        "0 100000",
        "100000 0",
        "100000 -5",
        "1e5 100000",
        "99999999999999999999 100000",
        "100000 99999999999999999999",
        "100000 100000 100000",
    };
    static const char *const amounts[] = {"",
                                          "\n",
                                          "max",
                                          "-1",
                                          "0",
                                          "abc",
                                          "12k",
                                          "1.5",
                                          " 4096",
                                          "9223372036854775807",
                                          "99999999999999999999999"};
    put_process("0::/a\n", V2_MOUNT);
    for (int i = 0; i < HD_COUNT(quotas); i++) {
        put("/sys/fs/cgroup/a/cpu.max", quotas[i]);
        check(0, 0);
    }
    for (int i = 0; i < HD_COUNT(amounts); i++) {
        put("/sys/fs/cgroup/a/memory.max", amounts[i]);
        check(0, 0);
    }
    /* Rubbish in one group does not hide its parent's limit. */
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    put("/sys/fs/cgroup/memory.max", "1048576\n");
    check(2, MIB);
}

static void limits_are_applied(void **state)
{
    (void)state;
    heed_device_info_t info = {.cpu_quota = 77, .memory_bytes = 16 * MIB};
    hd_cgroup_apply(root, &info);
    assert_int_equal(info.cpu_quota, 0);
    assert_int_equal(info.memory_bytes, 16 * MIB);
    put_process("0::/\n", V2_MOUNT);
    put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/memory.max", "33554432\n");
    hd_cgroup_apply(root, &info);
    assert_int_equal(info.cpu_quota, 2);
    assert_int_equal(info.memory_bytes, 16 * MIB);
    put("/sys/fs/cgroup/memory.max", "1048576\n");
    hd_cgroup_apply(root, &info);
    assert_int_equal(info.memory_bytes, MIB);
    /* A limit is better than not knowing. */
    info.memory_bytes = 0;
    hd_cgroup_apply(root, &info);
    assert_int_equal(info.memory_bytes, MIB);
}

static void the_real_files(void **state)
{
    (void)state;
    hd_cgroup_t limits = hd_cgroup_read("");
    assert_true(limits.cpus >= 0);
    assert_true(limits.memory_bytes >= 0);
}

#define IN_A_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_ROOT(no_groups),
        IN_A_ROOT(version_2_takes_the_smallest_up_the_path),
        IN_A_ROOT(quotas_round_up),
        IN_A_ROOT(version_1),
        IN_A_ROOT(both_versions_together),
        IN_A_ROOT(mounts_of_a_part),
        IN_A_ROOT(namespaces),
        IN_A_ROOT(odd_lines),
        IN_A_ROOT(odd_values),
        IN_A_ROOT(limits_are_applied),
        cmocka_unit_test(the_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
