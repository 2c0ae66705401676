/* Contexts: where settings come from, what a wrong one is told, sizes, logs, fallbacks. */
#define _GNU_SOURCE
#include "expect.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int clear_environment(void **state)
{
    heed_env_info_t info;
    (void)state;
    for (int i = 0; heed_env_info(i, &info); i++)
        unsetenv(info.name);
    return 0;
}

static heed_status_t create(const heed_context_config_t *config, heed_device_info_t *cpu)
{
    heed_context_t *context = NULL;
    heed_status_t status = heed_context_create(config, &context);
    if (status != HEED_OK) {
        assert_null(context);
        return status;
    }
    assert_non_null(context);
    if (cpu) {
        cpu->struct_size = sizeof(*cpu);
        expect_ok(heed_device_info(context, 0, cpu));
    }
    heed_context_destroy(context);
    return HEED_OK;
}

static heed_status_t with(const char *name, const char *value, heed_device_info_t *cpu)
{
    setenv(name, value, 1);
    heed_status_t status = create(NULL, cpu);
    unsetenv(name);
    return status;
}

/* ---- the environment ------------------------------------------------------------------------- */

static void good_values_are_taken(void **state)
{
    static const struct {
        const char *name, *value;
    } good[] = {
        {"HEED_VERBOSE", "none"},
        {"HEED_VERBOSE", "error"},
        {"HEED_VERBOSE", "warn"},
        {"HEED_VERBOSE", "select"},
        {"HEED_VERBOSE", "exec"},
        {"HEED_VERBOSE", "all"},
        {"HEED_IMPL", "cpu:standard"},
        {"HEED_IMPL", "attention=cpu:flash_*,cast=*"},
        {"HEED_SKIP_IMPL", "cpu:flash*"},
        {"HEED_MAX_CPU_ISA", "scalar"},
        {"HEED_MAX_CPU_ISA", "avx2"},
        {"HEED_MAX_CPU_ISA", "avx512"},
        {"HEED_MAX_CPU_ISA", "avx512bf16"},
        {"HEED_MAX_CPU_ISA", "avx512vbmi"},
        {"HEED_NUM_THREADS", "3"},
        {"HEED_DEVICE", "auto"},
        {"HEED_DEVICE", "cpu"},
        {"HEED_DEVICE", "cuda"},
        {"HEED_DEVICE", "cuda:3"},
        {"HEED_FALLBACK", "deny"},
        {"HEED_FALLBACK", "warn"},
        {"HEED_FALLBACK", "allow"},
        {"HEED_FALLBACK", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        expect_ok(with(good[i].name, good[i].value, NULL));
}

/* A wrong value is an error whose sentence has the variable, the value and every known value. */
static void bad_values_list_the_known_ones(void **state)
{
    static const struct {
        const char *name, *value, *known;
    } bad[] = {
        {"HEED_VERBOSE", "loud", "none error warn select exec all"},
        {"HEED_VERBOSE", "1", "none error warn select exec all"},
        {"HEED_MAX_CPU_ISA", "sse2", "scalar avx2 avx512 avx512bf16 avx512vbmi amx"},
        {"HEED_NUM_THREADS", "0", "1"},
        {"HEED_NUM_THREADS", "-2", "1"},
        {"HEED_NUM_THREADS", "many", "1"},
        {"HEED_NUM_THREADS", "3x", "1"},
        {"HEED_NUM_THREADS", "99999999999999999999", "1"},
        {"HEED_DEVICE", "gpu", "auto cpu cuda cuda:N"},
        {"HEED_DEVICE", "cuda:", "auto cpu cuda cuda:N"},
        {"HEED_DEVICE", "cuda:-1", "auto cpu cuda cuda:N"},
        {"HEED_DEVICE", "cuda:1x", "auto cpu cuda cuda:N"},
        {"HEED_FALLBACK", "maybe", "deny warn allow"},
        {"HEED_FALLBACK", "DENY", "deny warn allow"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char known[128], *rest = known, *word;
        expect_fails(with(bad[i].name, bad[i].value, NULL), HEED_ERROR_ENVIRONMENT, bad[i].name);
        assert_non_null(strstr(heed_last_error(), bad[i].value));
        snprintf(known, sizeof(known), "%s", bad[i].known);
        while ((word = strsep(&rest, " ")))
            expect_fails(HEED_ERROR_ENVIRONMENT, HEED_ERROR_ENVIRONMENT, word);
    }
}

static void every_variable_is_told(void **state)
{
    static const char *const names[] = {"HEED_VERBOSE",     "HEED_IMPL",        "HEED_SKIP_IMPL",
                                        "HEED_MAX_CPU_ISA", "HEED_NUM_THREADS", "HEED_DEVICE",
                                        "HEED_FALLBACK",    "HEED_PLUGIN_PATH", "HEED_TUNE_FILE"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        heed_env_info_t info;
        int at = 0;
        while (heed_env_info(at, &info) && strcmp(info.name, names[i]) != 0)
            at++;
        assert_true(heed_env_info(at, &info));
        assert_null(info.current);
        assert_true(info.values[0] && info.about[0]);
        setenv(names[i], "x", 1);
        assert_true(heed_env_info(at, &info));
        assert_string_equal(info.current, "x");
        unsetenv(names[i]);
    }
    heed_env_info_t info;
    assert_false(heed_env_info(-1, &info));
    assert_false(heed_env_info((int)(sizeof(names) / sizeof(names[0])), &info));
    assert_false(heed_env_info(0, NULL));
}

static void variables_act(void **state)
{
    heed_device_info_t cpu;
    (void)state;
    expect_ok(with("HEED_NUM_THREADS", "3", &cpu));
    assert_int_equal(cpu.threads, 3);
    expect_ok(with("HEED_MAX_CPU_ISA", "scalar", &cpu));
    assert_int_equal(cpu.isa, 0);
    expect_ok(with("HEED_MAX_CPU_ISA", "avx2", &cpu));
    assert_int_equal(cpu.isa, cpu.isa_cpu & HEED_ISA_AVX2);
    expect_ok(with("HEED_MAX_CPU_ISA", "neon", &cpu)); /* nothing of another processor's */
    assert_int_equal(cpu.isa, cpu.isa_cpu & HEED_ISA_NEON);
    expect_ok(with("HEED_MAX_CPU_ISA", "neonbf16", &cpu));
    assert_int_equal(cpu.isa, cpu.isa_cpu & (HEED_ISA_NEON | HEED_ISA_NEONBF16));
    expect_ok(create(NULL, &cpu));
    assert_int_equal(cpu.isa, cpu.isa_cpu);
    assert_true(cpu.threads >= 1 && cpu.cores >= 1);
}

static void the_config_beats_the_environment(void **state)
{
    heed_context_config_t config = heed_context_config();
    heed_device_info_t cpu;
    (void)state;
    config.threads = 5;
    config.max_cpu_isa = "scalar";
    setenv("HEED_NUM_THREADS", "3", 1);
    setenv("HEED_MAX_CPU_ISA", "avx512", 1);
    expect_ok(create(&config, &cpu));
    assert_int_equal(cpu.threads, 5);
    assert_int_equal(cpu.isa, 0);
    setenv("HEED_NUM_THREADS", "nonsense", 1);
    config = heed_context_config();
    config.ignore_environment = 1;
    expect_ok(create(&config, &cpu));
    clear_environment(state);
}

/* ---- the config ------------------------------------------------------------------------------ */

static void wrong_fields_are_named(void **state)
{
    (void)state;
    heed_context_config_t config = heed_context_config();
    config.threads = -1;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.threads=-1");
    config.threads = INT32_MAX;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.threads=");
    config = heed_context_config();
    config.ignore_environment = 2;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.ignore_environment=2");
    config = heed_context_config();
    config.fallback = (heed_fallback_t)9;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.fallback=9");
    config = heed_context_config();
    config.log_level = (heed_log_level_t)-3;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.log_level=-3");
    config = heed_context_config();
    config.device = "tpu";
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.device=tpu");
    config = heed_context_config();
    config.max_cpu_isa = "altivec";
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.max_cpu_isa=altivec");
    config = heed_context_config();
    config.allocator.alloc = (void *(*)(void *, size_t, size_t))abort;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.allocator.free");
    expect_fails(heed_context_create(NULL, NULL), HEED_ERROR_NULL, "context");
    heed_context_destroy(NULL);
}

static void a_name_of_any_length(void **state)
{
    char name[4096];
    heed_context_config_t config = heed_context_config();
    (void)state;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    config.device = name;
    expect_fails(create(&config, NULL), HEED_ERROR_VALUE, "config.device");
    config = heed_context_config();
    config.impl = name;
    heed_context_t *context = NULL;
    heed_status_t status = heed_context_create(&config, &context);
    if (status == HEED_OK) { /* then the plan finds that nothing has the name */
        small_t small;
        heed_plan_t *plan = NULL;
        small_init(&small);
        expect_fails(heed_attention_plan(context, &small.desc, &plan), HEED_ERROR_UNKNOWN_IMPL,
                     "HEED_IMPL");
    }
    heed_context_destroy(context);
}

/* A program built against another version of the headers. */
static void struct_sizes(void **state)
{
    struct {
        heed_context_config_t known;
        char later[32];
    } config;
    (void)state;
    memset(&config, 0, sizeof(config));
    config.known.ignore_environment = 1;
    expect_fails(create(&config.known, NULL), HEED_ERROR_STRUCT_SIZE, "config.struct_size=0");
    config.known.struct_size = 8;
    expect_fails(create(&config.known, NULL), HEED_ERROR_STRUCT_SIZE, "config.struct_size=8");
    config.known.struct_size = sizeof(config.known);
    config.later[5] = 1; /* beyond the size: not looked at */
    expect_ok(create(&config.known, NULL));
    config.known.struct_size = sizeof(config);
    expect_fails(create(&config.known, NULL), HEED_ERROR_STRUCT_SIZE, "is set");
    config.later[5] = 0;
    expect_ok(create(&config.known, NULL));
}

static void device_info_sizes(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_device_info_t info = {.struct_size = sizeof(info)};
    (void)state;
    assert_true(heed_device_count(context) >= 1);
    expect_ok(heed_device_info(context, 0, &info));
    assert_int_equal(info.struct_size, sizeof(info));
    assert_int_equal(info.device.type, HEED_DEVICE_CPU);
    assert_int_equal(info.threads, 2);
    info.struct_size = 4;
    expect_fails(heed_device_info(context, 0, &info), HEED_ERROR_STRUCT_SIZE, "struct_size=4");
    info.struct_size = sizeof(info);
    expect_fails(heed_device_info(context, 99, &info), HEED_ERROR_NO_DEVICE, "99");
    expect_fails(heed_device_info(context, -1, &info), HEED_ERROR_NO_DEVICE, "-1");
    expect_fails(heed_device_info(context, 0, NULL), HEED_ERROR_NULL, "info");
    expect_fails(heed_device_info(NULL, 0, &info), HEED_ERROR_NULL, "context");
    assert_null(heed_device_missing(context, HEED_DEVICE_CPU));
    assert_non_null(heed_device_missing(context, 77));
    heed_context_destroy(context);
}

static void isa_names(void **state)
{
    char text[64], tiny[4];
    (void)state;
    assert_string_equal(heed_isa_names(0, text, sizeof(text)), "scalar");
    assert_string_equal(heed_isa_names(HEED_ISA_AVX2, text, sizeof(text)), "avx2");
    assert_string_equal(heed_isa_names(HEED_ISA_AVX2 | HEED_ISA_AVX512, text, sizeof(text)),
                        "avx2 avx512");
    assert_string_equal(heed_isa_names(HEED_ISA_AVX2, tiny, sizeof(tiny)), "avx");
    assert_string_equal(heed_isa_names(HEED_ISA_NEON, text, sizeof(text)), "neon");
    assert_string_equal(heed_isa_names(1 << 5, text, sizeof(text)), "scalar"); /* nobody's bit */
    heed_isa_names(HEED_ISA_AVX2, NULL, 0);
}

/* ---- the log --------------------------------------------------------------------------------- */

typedef struct lines {
    int count[HEED_LOG_ALL + 1];
    char last[HEED_LOG_ALL + 1][1024];
} lines_t;

static void keep_line(void *user, heed_log_level_t level, const char *line)
{
    lines_t *lines = user;
    assert_null(strchr(line, '\n'));
    lines->count[level]++;
    snprintf(lines->last[level], sizeof(lines->last[level]), "%s", line);
}

static heed_status_t attend(const heed_context_config_t *config, heed_plan_info_t *info)
{
    heed_context_t *context = NULL;
    heed_plan_t *plan = NULL;
    small_t small;
    small_init(&small);
    expect_ok(heed_context_create(config, &context));
    heed_status_t status = heed_attention_plan(context, &small.desc, &plan);
    if (status == HEED_OK) {
        info->struct_size = sizeof(*info);
        expect_ok(heed_plan_info(plan, info));
        expect_ok(heed_attention(context, &small.desc));
    }
    heed_context_destroy(context); /* the plan holds a reference */
    heed_plan_destroy(plan);
    return status;
}

static void the_log_goes_to_the_callback(void **state)
{
    lines_t lines = {0};
    heed_plan_info_t info;
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.log = keep_line;
    config.log_user = &lines;
    expect_ok(attend(&config, &info));
    for (int level = 0; level <= HEED_LOG_ALL; level++)
        assert_int_equal(lines.count[level], 0);

    config.log_level = HEED_LOG_SELECT;
    expect_ok(attend(&config, &info));
    assert_true(lines.count[HEED_LOG_SELECT] >= 2);
    assert_int_equal(lines.count[HEED_LOG_EXEC], 0);
    assert_non_null(strstr(lines.last[HEED_LOG_SELECT], info.impl));
    const char *problem = strstr(lines.last[HEED_LOG_SELECT], "attention dtype=f32");
    assert_non_null(problem);
    assert_non_null(strstr(problem, "sq=5 sk=7 hq=4 hk=2 d=16 dv=8"));

    config.log_level = HEED_LOG_EXEC;
    expect_ok(attend(&config, &info));
    assert_true(lines.count[HEED_LOG_EXEC] >= 1);
    assert_non_null(strstr(lines.last[HEED_LOG_EXEC], info.impl));

    /* The variable fills what the config leaves open. */
    memset(&lines, 0, sizeof(lines));
    config.log_level = HEED_LOG_NONE;
    setenv("HEED_VERBOSE", "exec", 1);
    expect_ok(attend(&config, &info));
    clear_environment(state);
    assert_true(lines.count[HEED_LOG_EXEC] >= 1);
}

static void verbose_goes_to_stderr_without_a_callback(void **state)
{
    char text[4096] = "";
    heed_plan_info_t info;
    FILE *file = tmpfile();
    (void)state;
    assert_non_null(file);
    fflush(stderr);
    int saved = dup(2);
    assert_true(saved >= 0 && dup2(fileno(file), 2) == 2);
    setenv("HEED_VERBOSE", "all", 1);
    expect_ok(attend(NULL, &info));
    clear_environment(state);
    expect_ok(attend(NULL, &info)); /* silent again */
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(file);
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[length] = 0;
    assert_non_null(strstr(text, "select"));
    assert_non_null(strstr(text, "exec"));
}

/* ---- fallback -------------------------------------------------------------------------------- */

static bool has_cuda(void)
{
    heed_context_t *context = expect_context(NULL);
    bool has = !heed_device_missing(context, HEED_DEVICE_CUDA);
    heed_context_destroy(context);
    return has;
}

static void fallback_policies(void **state)
{
    static const struct {
        const char *policy;
        heed_fallback_t config;
        heed_status_t status;
        int warnings;
    } cases[] = {{"deny", HEED_FALLBACK_DENY, HEED_ERROR_FALLBACK, 0},
                 {"warn", HEED_FALLBACK_WARN, HEED_OK, 1},
                 {"allow", HEED_FALLBACK_ALLOW, HEED_OK, 0},
                 {NULL, HEED_FALLBACK_DEFAULT, HEED_OK, 1}};
    (void)state;
    if (has_cuda())
        skip();
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        bool from_environment = i % 2;
        lines_t lines = {0};
        heed_plan_info_t info = {0};
        heed_context_config_t config = heed_context_config();
        config.log = keep_line;
        config.log_user = &lines;
        setenv("HEED_DEVICE", "cuda", 1);
        if (from_environment && cases[i / 2].policy)
            setenv("HEED_FALLBACK", cases[i / 2].policy, 1);
        else
            config.fallback = cases[i / 2].config;
        expect_fails(attend(&config, &info), cases[i / 2].status, "");
        clear_environment(state);
        if (cases[i / 2].status == HEED_OK) {
            assert_int_equal(info.fallback, 1);
            assert_true(info.fallback_why[0]);
            assert_int_equal(info.device.type, HEED_DEVICE_CPU);
        } else {
            assert_non_null(strstr(heed_last_error(), "deny"));
        }
        /* attend plans twice: once itself, once in heed_attention */
        assert_int_equal(lines.count[HEED_LOG_WARN], 2 * cases[i / 2].warnings);
        if (cases[i / 2].warnings)
            assert_non_null(strstr(lines.last[HEED_LOG_WARN], "fallback"));
    }
}

static void no_fallback_is_reported_where_none_is(void **state)
{
    heed_plan_info_t info = {0};
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.device = "cpu";
    config.fallback = HEED_FALLBACK_DENY;
    expect_ok(attend(&config, &info));
    assert_int_equal(info.fallback, 0);
    assert_string_equal(info.fallback_why, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_values_are_taken),
        cmocka_unit_test(bad_values_list_the_known_ones),
        cmocka_unit_test(every_variable_is_told),
        cmocka_unit_test(variables_act),
        cmocka_unit_test(the_config_beats_the_environment),
        cmocka_unit_test(wrong_fields_are_named),
        cmocka_unit_test(a_name_of_any_length),
        cmocka_unit_test(struct_sizes),
        cmocka_unit_test(device_info_sizes),
        cmocka_unit_test(isa_names),
        cmocka_unit_test(the_log_goes_to_the_callback),
        cmocka_unit_test(verbose_goes_to_stderr_without_a_callback),
        cmocka_unit_test(fallback_policies),
        cmocka_unit_test(no_fallback_is_reported_where_none_is),
    };
    return cmocka_run_group_tests(tests, clear_environment, NULL);
}
