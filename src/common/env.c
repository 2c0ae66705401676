#define _GNU_SOURCE
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* A setting has the same grammar in the config and in the environment; `source` is the name to put
 * into sentences, `bad` the status of a wrong value. */
typedef struct setting {
    const char *source;
    const char *value;
    heed_status_t bad;
} setting_t;

static const char *const verbose_names[] = {"none", "error", "warn", "select", "exec", "all"};
static const char *const fallback_names[] = {"deny", "warn", "allow"};

#define ISA_NAME(name, bit, text, about) " | " text

enum {
    VERBOSE,
    IMPL,
    SKIP_IMPL,
    MAX_CPU_ISA,
    NUM_THREADS,
    DEVICE,
    FALLBACK,
    PLUGIN_PATH,
    TUNE_FILE
};

static const heed_env_info_t variables[] = {
    [VERBOSE] = {"HEED_VERBOSE", "none | error | warn | select | exec | all",
                 "log lines up to that level", NULL},
    [IMPL] = {"HEED_IMPL", "[op=]pattern,...", "only these implementations; * matches anything",
              NULL},
    [SKIP_IMPL] = {"HEED_SKIP_IMPL", "[op=]pattern,...", "never these implementations", NULL},
    [MAX_CPU_ISA] = {"HEED_MAX_CPU_ISA", "scalar" HEED_ISA_LIST(ISA_NAME),
                     "pretend that the CPU has no more", NULL},
    [NUM_THREADS] = {"HEED_NUM_THREADS", "a number from 1 to 4096", "threads of a plan", NULL},
    [DEVICE] = {"HEED_DEVICE", "auto | cpu | cuda | cuda:N", "where to run", NULL},
    [FALLBACK] = {"HEED_FALLBACK", "deny | warn | allow", "when that device cannot be used", NULL},
    [PLUGIN_PATH] = {"HEED_PLUGIN_PATH", "an absolute path | none",
                     "the CUDA backend's file, in place of the one beside libheed", NULL},
    [TUNE_FILE] = {"HEED_TUNE_FILE", "an absolute path | none",
                   "the figures of heed tune, in place of the file in the user's cache", NULL},
};

int heed_env_info(int index, heed_env_info_t *info)
{
    if (index < 0 || index >= HD_COUNT(variables) || !info)
        return 0;
    *info = variables[index];
    info->current = secure_getenv(info->name);
    return 1;
}

static heed_status_t bad_value(const setting_t *setting, int variable)
{
    return hd_fail(setting->bad, "%s=%s is unknown: it takes %s", setting->source, setting->value,
                   variables[variable].values);
}

static int find_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* The config's value if there is one, else the environment's. False where neither is. */
static bool setting_of(const heed_context_config_t *config, const char *from_config,
                       const char *config_name, int variable, setting_t *setting)
{
    if (from_config && *from_config) {
        *setting = (setting_t){config_name, from_config, HEED_ERROR_VALUE};
        return true;
    }
    const char *value = config->ignore_environment ? NULL : secure_getenv(variables[variable].name);
    *setting = (setting_t){variables[variable].name, value, HEED_ERROR_ENVIRONMENT};
    return value && *value;
}

static heed_status_t read_verbose(const heed_context_config_t *config, hd_settings_t *settings)
{
    setting_t setting;
    if (config->log_level < HEED_LOG_NONE || config->log_level > HEED_LOG_ALL)
        return hd_fail(HEED_ERROR_VALUE, "config.log_level=%d is not 0 to %d", config->log_level,
                       HEED_LOG_ALL);
    settings->log_level = config->log_level;
    if (!setting_of(config, NULL, "", VERBOSE, &setting)) {
        if (config->log && settings->log_level == HEED_LOG_NONE)
            settings->log_level = HEED_LOG_WARN;
        return HEED_OK;
    }
    int level = find_name(verbose_names, HD_COUNT(verbose_names), setting.value);
    if (level < 0)
        return bad_value(&setting, VERBOSE);
    if (settings->log_level == HEED_LOG_NONE)
        settings->log_level = (heed_log_level_t)level;
    settings->log_to_stderr = !config->log;
    return HEED_OK;
}

static heed_status_t read_threads(const heed_context_config_t *config, hd_settings_t *settings)
{
    enum { MOST = 4096 };
    setting_t setting;
    int64_t threads = config->threads;
    if (threads < 0 || threads > MOST)
        return hd_fail(HEED_ERROR_VALUE, "config.threads=%d is not 0 to %d", config->threads, MOST);
    if (threads == 0 && setting_of(config, NULL, "", NUM_THREADS, &setting))
        if (!hd_parse_int(setting.value, &threads) || threads < 1 || threads > MOST)
            return bad_value(&setting, NUM_THREADS);
    settings->threads = (int32_t)threads;
    return HEED_OK;
}

static heed_status_t read_fallback(const heed_context_config_t *config, hd_settings_t *settings)
{
    setting_t setting;
    if (config->fallback < HEED_FALLBACK_DEFAULT || config->fallback > HEED_FALLBACK_ALLOW)
        return hd_fail(HEED_ERROR_VALUE, "config.fallback=%d is not 0 to 3", config->fallback);
    settings->fallback = config->fallback ? config->fallback : HEED_FALLBACK_WARN;
    if (config->fallback || !setting_of(config, NULL, "", FALLBACK, &setting))
        return HEED_OK;
    int policy = find_name(fallback_names, HD_COUNT(fallback_names), setting.value);
    if (policy < 0)
        return bad_value(&setting, FALLBACK);
    settings->fallback = (heed_fallback_t)(HEED_FALLBACK_DENY + policy);
    return HEED_OK;
}

static heed_status_t read_device(const heed_context_config_t *config, hd_settings_t *settings)
{
    setting_t setting;
    int64_t id = 0;
    if (!setting_of(config, config->device, "config.device", DEVICE, &setting) ||
        strcmp(setting.value, "auto") == 0)
        return HEED_OK;
    if (strcmp(setting.value, "cpu") == 0)
        settings->device = (heed_device_t){HEED_DEVICE_CPU, -1};
    else if (strcmp(setting.value, "cuda") == 0)
        settings->device = (heed_device_t){HEED_DEVICE_CUDA, -1};
    else if (strncmp(setting.value, "cuda:", 5) == 0 && hd_parse_int(setting.value + 5, &id) &&
             id >= 0 && id <= INT32_MAX)
        settings->device = (heed_device_t){HEED_DEVICE_CUDA, (int32_t)id};
    else
        return bad_value(&setting, DEVICE);
    return HEED_OK;
}

static heed_status_t read_isa(const heed_context_config_t *config, hd_settings_t *settings)
{
    static const struct {
        const char *name;
        uint64_t mask;
    } caps[] = {{"scalar", 0},
#define CAP(isa, bit, text, about) {text, (UINT64_C(2) << bit) - (UINT64_C(1) << bit / 8 * 8)},
                HEED_ISA_LIST(CAP)
#undef CAP
    };
    setting_t setting;
    settings->isa_cap = UINT64_MAX;
    if (!setting_of(config, config->max_cpu_isa, "config.max_cpu_isa", MAX_CPU_ISA, &setting))
        return HEED_OK;
    for (int i = 0; i < HD_COUNT(caps); i++) {
        if (strcmp(caps[i].name, setting.value) == 0) {
            settings->isa_cap = caps[i].mask;
            return HEED_OK;
        }
    }
    return bad_value(&setting, MAX_CPU_ISA);
}

static heed_status_t read_list(const heed_context_config_t *config, const char *from_config,
                               const char *config_name, int variable, char *list, size_t size)
{
    setting_t setting;
    if (!setting_of(config, from_config, config_name, variable, &setting) ||
        strcmp(setting.value, "auto") == 0)
        return HEED_OK;
    if (strlen(setting.value) >= size)
        return hd_fail(setting.bad, "%s is longer than %zu characters", setting.source, size - 1);
    strcpy(list, setting.value);
    return HEED_OK;
}

static heed_status_t read_tune_file(const heed_context_config_t *config, hd_settings_t *settings)
{
    setting_t setting;
    settings->tune_file[0] = '\0';
    if (!setting_of(config, config->tune_file, "config.tune_file", TUNE_FILE, &setting)) {
        settings->tune_default = !config->ignore_environment;
        return HEED_OK;
    }
    if (strcmp(setting.value, "none") == 0)
        return HEED_OK;
    if (setting.value[0] != '/')
        return bad_value(&setting, TUNE_FILE);
    if (strlen(setting.value) >= sizeof(settings->tune_file))
        return hd_fail(setting.bad, "%s is longer than %zu characters", setting.source,
                       sizeof(settings->tune_file) - 1);
    strcpy(settings->tune_file, setting.value);
    return HEED_OK;
}

heed_status_t hd_settings_read(const heed_context_config_t *config, hd_settings_t *settings)
{
    HD_TRY(read_verbose(config, settings));
    HD_TRY(read_threads(config, settings));
    HD_TRY(read_fallback(config, settings));
    HD_TRY(read_device(config, settings));
    HD_TRY(read_isa(config, settings));
    HD_TRY(read_tune_file(config, settings));
    HD_TRY(read_list(config, config->impl, "config.impl", IMPL, settings->impl,
                     sizeof(settings->impl)));
    return read_list(config, config->skip_impl, "config.skip_impl", SKIP_IMPL, settings->skip_impl,
                     sizeof(settings->skip_impl));
}
