/* heed tune: what the library reads, refuses and says of it; the command that writes it. */
#define _GNU_SOURCE
#include "cli.h"

#include "internal.h"
#include "peaks.h"
#include "tune.h"

#include <math.h>
#include <sys/stat.h>

static char logged[1024];
static int lines;

static void log_line(void *user, heed_log_level_t level, const char *line)
{
    (void)user, (void)level;
    lines++;
    snprintf(logged, sizeof(logged), "%s", line);
}

static heed_context_t *make(const char *file)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *context;
    config.log = log_line;
    config.tune_file = file;
    lines = 0;
    logged[0] = '\0';
    assert_int_equal(heed_context_create(&config, &context), HEED_OK);
    return context;
}

static heed_device_info_t cpu_of(const heed_context_t *context)
{
    heed_device_info_t info = {.struct_size = sizeof(info)};
    assert_int_equal(heed_device_info(context, 0, &info), HEED_OK);
    return info;
}

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Numbers that no machine has, so that they are told from assumptions. */
static heed_peaks_t sample(void)
{
    heed_peaks_t peaks = {.threads = 3, .region_ns = 1234, .region_thread_ns = 56};
    double at = 1;
#define FILL(field, unit, about) peaks.field = (heed_rate_t){1e9 * at, 2.5e9 * at}, at++;
    HEED_RATE_LIST(FILL)
#undef FILL
    return peaks;
}

/* ---- round trip ------------------------------------------------------------------------------ */

static void test_round_trip(void **state)
{
    char command[256];
    heed_peaks_t peaks = sample();
    heed_context_t *context = make("none");
    heed_device_info_t cpu = cpu_of(context);
    (void)state;
    heed_context_destroy(context);
    assert_int_equal(cpu.peaks.measured, 0);
    assert_int_equal(cpu.peaks.threads, cpu.threads);
    assert_true(tune_write(path_of("a/new/folder/tune"), &cpu, &peaks));
    assert_true(tune_write(path_of("a/new/folder/tune"), &cpu, &peaks)); /* over the old one */

    context = make(path_of("a/new/folder/tune"));
    cpu = cpu_of(context);
    assert_null(heed_tune_missing(context));
    assert_string_equal(heed_tune_file(context), path_of("a/new/folder/tune"));
    assert_int_equal(lines, 0);
    peaks.measured = 1;
    assert_memory_equal(&cpu.peaks, &peaks, sizeof(peaks));
    heed_context_destroy(context);
    snprintf(command, sizeof(command), "test $(ls %s/a/new/folder | wc -l) = 1", folder);
    assert_int_equal(system(command), 0);
}

/* A rate that a file leaves out is assumed. */
static void test_left_out(void **state)
{
    heed_peaks_t peaks = sample();
    heed_context_t *context = make("none");
    heed_device_info_t cpu = cpu_of(context);
    double assumed = cpu.peaks.dot_bf16.one;
    (void)state;
    heed_context_destroy(context);
    peaks.dot_bf16 = (heed_rate_t){0, 0};
    assert_true(tune_write(path_of("tune"), &cpu, &peaks));
    context = make(path_of("tune"));
    cpu = cpu_of(context);
    heed_context_destroy(context);
    assert_true(assumed > 0);
    assert_true(cpu.peaks.dot_bf16.one == assumed);
    assert_true(cpu.peaks.f32_avx2.one == peaks.f32_avx2.one);
}

/* ---- what is refused ------------------------------------------------------------------------- */

/* Reading `file` leaves the assumptions and one line that says `why`, 0 lines for no file. */
static void expect_refused(const char *file, int expected_lines, const char *why, int line)
{
    heed_context_t *context = make(file);
    heed_device_info_t cpu = cpu_of(context);
    const char *missing = heed_tune_missing(context);
    if (cpu.peaks.measured || !missing || !strstr(missing, why) || lines != expected_lines ||
        (lines && !strstr(logged, why)))
        fail_msg("line %d: measured %d, %d log lines (%s), missing: %s", line, cpu.peaks.measured,
                 lines, logged, missing ? missing : "nothing");
    heed_context_destroy(context);
}

#define REFUSED(why, text)                                \
    do {                                                  \
        write_bytes(path_of("bad"), text, strlen(text));  \
        expect_refused(path_of("bad"), 1, why, __LINE__); \
    } while (0)

static void test_hostile_text(void **state)
{
    char head[256], text[512], *at;
    heed_context_t *context = make("none");
    heed_device_info_t cpu = cpu_of(context);
    (void)state;
    heed_context_destroy(context);
    snprintf(head, sizeof(head), "heed-tune 1\nversion %s\ncpu %s\n", heed_version(), cpu.name);
#define AFTER_HEAD(why, tail)                             \
    do {                                                  \
        snprintf(text, sizeof(text), "%s%s", head, tail); \
        REFUSED(why, text);                               \
    } while (0)
    REFUSED("line 1: is not \"heed-tune ...\"", "");
    REFUSED("line 1: is not \"heed-tune ...\"", "\n\n\n");
    REFUSED("line 1: has heed-tune \"2\", this is \"1\"", "heed-tune 2\n");
    REFUSED("line 2: has version \"0.0.7\"", "heed-tune 1\nversion 0.0.7\n");
    snprintf(text, sizeof(text), "heed-tune 1\nversion %s\ncpu Z80\n", heed_version());
    REFUSED("line 3: has cpu \"Z80\"", text);
    AFTER_HEAD("has no line for threads", "");
    AFTER_HEAD("has no line for region", "threads 2\n");
    AFTER_HEAD("line 4: speed is unknown", "speed 1 2\n");
    AFTER_HEAD("line 5:  is unknown", "threads 2\n\n");
    AFTER_HEAD("line 5: threads comes twice", "threads 2\nthreads 2\n");
    AFTER_HEAD("threads takes a whole number from 1 to 4096", "threads 0\n");
    AFTER_HEAD("threads takes a whole number from 1 to 4096", "threads 99999999999999999999\n");
    AFTER_HEAD("region takes two whole numbers", "region 5\n");
    AFTER_HEAD("region takes two whole numbers", "region -1 5\n");
    AFTER_HEAD("read takes two whole numbers", "read 1e9 1e9\n");
    AFTER_HEAD("read takes two whole numbers", "read nan inf\n");
    AFTER_HEAD("read takes two whole numbers", "read 0 1000000000\n");
    AFTER_HEAD("read takes two whole numbers", "read 1000000000 1000000000 7\n");
    AFTER_HEAD("read takes two whole numbers", "read 1000000000 99999999999999999\n");
    /* Unbroken words of great length are cut, not copied. */
    at = text + snprintf(text, sizeof(text), "%s", head);
    memset(at, 'x', (size_t)(text + sizeof(text) - 1 - at));
    text[sizeof(text) - 1] = '\0';
    REFUSED("xxxx is unknown", text);
}

static void test_hostile_files(void **state)
{
    char big[10000];
    (void)state;
    memset(big, '\n', sizeof(big));
    write_bytes(path_of("big"), big, sizeof(big));
    expect_refused(path_of("big"), 1, "has more than 8192 bytes", __LINE__);
    write_bytes(path_of("binary"), "heed-tune 1\n\0threads 1\n", 23);
    expect_refused(path_of("binary"), 1, "is no text", __LINE__);
    expect_refused(folder, 1, "is no regular file", __LINE__);
    expect_refused("/dev/zero", 1, "is no regular file", __LINE__);
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    expect_refused(path_of("pipe"), 1, "is no regular file", __LINE__); /* nor waited for */
    assert_int_equal(symlink(path_of("loop"), path_of("loop")), 0);
    expect_refused(path_of("loop"), 1, "cannot be opened", __LINE__);
    expect_refused(path_of("nothing"), 0, "is not there; `heed tune` writes it", __LINE__);
    expect_refused(path_of("no/such/folder"), 0, "is not there", __LINE__);
    expect_refused("none", 0, "no file of heed tune is looked for", __LINE__);
}

static void test_settings(void **state)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *context;
    char expected[256];
    (void)state;
    config.tune_file = "relative/file";
    assert_int_equal(heed_context_create(&config, &context), HEED_ERROR_VALUE);
    assert_non_null(strstr(heed_last_error(), "config.tune_file=relative/file is unknown"));
    config.tune_file = NULL;
    setenv("HEED_TUNE_FILE", "x", 1);
    assert_int_equal(heed_context_create(&config, &context), HEED_ERROR_ENVIRONMENT);
    setenv("HEED_TUNE_FILE", "/somewhere", 1);
    assert_int_equal(heed_context_create(&config, &context), HEED_OK);
    assert_string_equal(heed_tune_file(context), "/somewhere");
    heed_context_destroy(context);
    config.ignore_environment = 1;
    assert_int_equal(heed_context_create(&config, &context), HEED_OK);
    assert_string_equal(heed_tune_file(context), "");
    heed_context_destroy(context);
    config.ignore_environment = 0;
    unsetenv("HEED_TUNE_FILE");

    setenv("XDG_CACHE_HOME", folder, 1);
    assert_int_equal(heed_context_create(&config, &context), HEED_OK);
    snprintf(expected, sizeof(expected), "%s/heed/", folder);
    assert_memory_equal(heed_tune_file(context), expected, strlen(expected));
    heed_context_destroy(context);
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    setenv("HOME", "/home/someone", 1);
    assert_int_equal(heed_context_create(&config, &context), HEED_OK);
    assert_memory_equal(heed_tune_file(context), "/home/someone/.cache/heed/", 26);
    heed_context_destroy(context);
    unsetenv("HOME");
    assert_int_equal(heed_context_create(&config, &context), HEED_OK);
    assert_string_equal(heed_tune_file(context), "");
    heed_context_destroy(context);
}

/* ---- what estimates make of it --------------------------------------------------------------- */

static void test_rates(void **state)
{
    heed_device_info_t cpu = {.cores = 4, .cache_count = 1, .caches = {{2, 1, 1 << 20}}};
    heed_peaks_t *p = &cpu.peaks;
    (void)state;
    *p = (heed_peaks_t){.threads = 4, .region_ns = 100, .region_thread_ns = 10};
    p->read = (heed_rate_t){10e9, 25e9};
    p->l2_read = (heed_rate_t){50e9, 200e9};
    assert_true(hd_rate(p, p->read, 1) == 10);
    assert_true(fabs(hd_rate(p, p->read, 2) - 15) < 1e-9);
    assert_true(fabs(hd_rate(p, p->read, 4) - 25) < 1e-9);
    assert_true(fabs(hd_rate(p, p->read, 8) - 50) < 1e-9);
    assert_true(hd_read_rate(&cpu, 1e5, 1) == 50);
    assert_true(hd_read_rate(&cpu, 1e6, 1) == 10);
    assert_true(fabs(hd_read_rate(&cpu, 1e6, 4) - 200) < 1e-9);
    assert_true(hd_region_ns(&cpu, 1) == 0);
    assert_true(hd_region_ns(&cpu, 2) == 100);
    assert_true(hd_region_ns(&cpu, 4) == 120);
}

/* Estimates follow the figures: a machine that is ten times as fast needs a tenth of the time. */
static void test_estimates(void **state)
{
    static const char *const problems[] = {"attention sq=512 sk=512", "cast n=1000000"};
    double estimate[2][2];
    (void)state;
    for (int fast = 0; fast < 2; fast++) {
        heed_context_t *context = make("none");
        heed_device_info_t cpu = cpu_of(context);
        heed_peaks_t peaks = cpu.peaks;
        heed_context_destroy(context);
        peaks.region_ns = peaks.region_thread_ns = 0;
#define SPEED(field, unit, about) \
    peaks.field.one *= fast ? 10 : 1, peaks.field.all *= fast ? 10 : 1;
        HEED_RATE_LIST(SPEED)
#undef SPEED
        assert_true(tune_write(path_of("speed"), &cpu, &peaks));
        context = make(path_of("speed"));
        for (int i = 0; i < 2; i++) {
            heed_problem_t *problem;
            heed_plan_t *plan;
            heed_plan_info_t info = {.struct_size = sizeof(info)};
            void *desc;
            assert_int_equal(heed_problem_parse(problems[i], &problem), HEED_OK);
            assert_int_equal(heed_problem_desc(problem, &desc), HEED_OK);
            assert_int_equal(heed_plan_create(context, heed_problem_op(problem), desc, &plan), 0);
            assert_int_equal(heed_plan_info(plan, &info), HEED_OK);
            estimate[fast][i] = info.estimate_ns;
            heed_plan_destroy(plan);
            heed_problem_destroy(problem);
        }
        heed_context_destroy(context);
    }
    for (int i = 0; i < 2; i++)
        if (!(fabs(estimate[0][i] / estimate[1][i] - 10) < 2))
            fail_msg("%s: %g ns, ten times as fast %g ns", problems[i], estimate[0][i],
                     estimate[1][i]);
}

/* ---- the command ----------------------------------------------------------------------------- */

static void test_command(void **state)
{
    (void)state;
    setenv("XDG_CACHE_HOME", folder, 1);
    EXPECT_OUT("written to", "tune --seconds 0");
    assert_non_null(strstr(out, "reading from memory"));
    EXPECT_OUT("peaks       measured by heed tune: ", "info");
    EXPECT_OUT("\"measured\": true", "info --json");
    EXPECT_FAILED("", "tune --seconds 0 -o /proc/heed/tune");
    assert_non_null(strstr(err, "cannot be"));
    EXPECT_USAGE("--output takes an absolute path", "tune -o here");
    EXPECT_USAGE("--seconds takes a number", "tune --seconds never");
    EXPECT_USAGE("unexpected argument", "tune fast");
    setenv("HEED_TUNE_FILE", "none", 1);
    EXPECT_FAILED("there is no place for the file", "tune");
    EXPECT_OUT("peaks       assumed: no file of heed tune is looked for", "info");
    write_bytes(path_of("bad"), "nonsense", 8);
    setenv("HEED_TUNE_FILE", path_of("bad"), 1);
    EXPECT_OUT("bad line 1: is not \"heed-tune ...\"", "info");
    setenv("HEED_VERBOSE", "warn", 1);
    EXPECT_OUT("assumed", "info");
    assert_non_null(strstr(err, "tune ignored why="));
    unsetenv("HEED_VERBOSE");
    unsetenv("HEED_TUNE_FILE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_hostile_text), cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_settings),     cmocka_unit_test(test_rates),
        cmocka_unit_test(test_estimates),    cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
