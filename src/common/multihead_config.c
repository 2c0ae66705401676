/* Presets of multi-head dilated attention, and their overrides by text. */
#include "internal.h"

#include <heed/multihead.h>

#include <math.h>
#include <string.h>

typedef struct preset {
    const char *name, *changes;
} preset_t;

static const preset_t presets[] = {
    {"development", "impl=standard segment_lengths=64,128 dilation_rates=1,2"},
    {"standard", ""},
    {"high_performance", "dtype=bf16"},
    {"memory_efficient", "batch_step=1"},
    {"research", "batch_step=1 layer_norm=0"},
};

typedef enum key_kind {
    KEY_TEXT,
    KEY_INT32,
    KEY_INT64,
    KEY_FLOAT,
    KEY_CHOICE,
    KEY_LIST
} key_kind_t;

typedef struct key {
    const char *name;
    key_kind_t kind;
    size_t offset;
    int64_t least, most;
    const char *choices; /* CHOICE: "a|b", values 0, 1, ... */
} key_t;

#define KEY(name, kind, ...)                                              \
    {                                                                     \
#name, kind, offsetof(heed_multihead_config_t, name), __VA_ARGS__ \
    }
static const key_t keys[] = {
    KEY(impl, KEY_TEXT, 0, 0, NULL),
    KEY(embed_dim, KEY_INT64, 1, INT32_MAX, NULL),
    KEY(num_heads, KEY_INT64, 1, INT32_MAX, NULL),
    KEY(num_kv_heads, KEY_INT64, 0, INT32_MAX, NULL),
    KEY(bias, KEY_INT32, 0, 1, NULL),
    KEY(layer_norm, KEY_INT32, 0, 1, NULL),
    KEY(layer_norm_eps, KEY_FLOAT, 0, 0, NULL),
    KEY(gamma_init, KEY_FLOAT, 0, 0, NULL),
    KEY(scale, KEY_FLOAT, 0, 0, NULL),
    KEY(mode, KEY_CHOICE, 0, 0, "longnet|torchscale|grouped|grouped_fkodom"),
    KEY(offset_rule, KEY_CHOICE, 0, 0, "paper|torchscale"),
    KEY(causal, KEY_INT32, 0, 1, NULL),
    KEY(segment_lengths, KEY_LIST, 1, INT32_MAX, NULL),
    KEY(dilation_rates, KEY_LIST, 1, INT32_MAX, NULL),
    KEY(dtype, KEY_TEXT, 0, 0, "f32|bf16|f16"),
    KEY(batch_step, KEY_INT32, 0, INT32_MAX, NULL),
};
#undef KEY

/* ---- one value ------------------------------------------------------------------------------- */

static heed_status_t bad_value(const key_t *key, const char *value)
{
    if (key->choices)
        return hd_fail(HEED_ERROR_VALUE, "%s=%s is none of %s", key->name, value, key->choices);
    if (key->kind == KEY_FLOAT)
        return hd_fail(HEED_ERROR_VALUE, "%s=%s is no finite number", key->name, value);
    return hd_fail(HEED_ERROR_VALUE, "%s=%s is not %lld to %lld", key->name, value,
                   (long long)key->least, (long long)key->most);
}

static heed_status_t read_int(const key_t *key, const char *text, const char *value,
                              int64_t *number)
{
    if (!hd_parse_int(text, number) || *number < key->least || *number > key->most)
        return bad_value(key, value);
    return HEED_OK;
}

/* The number of the choice. */
static heed_status_t read_choice(const key_t *key, const char *value, int *number)
{
    const char *list = key->choices;
    char item[24];
    for (*number = 0; hd_next_item(&list, "|", item, sizeof(item)); ++*number)
        if (strcmp(item, value) == 0)
            return HEED_OK;
    return bad_value(key, value);
}

/* Both lists together are checked when all is read: branches is what the longer one has. */
static heed_status_t read_list(const key_t *key, const char *value, int64_t *list)
{
    const char *rest = value;
    char number[24];
    memset(list, 0, HEED_DILATED_BRANCHES * sizeof(*list));
    for (int n = 0; hd_next_item(&rest, ",", number, sizeof(number)); n++) {
        if (n == HEED_DILATED_BRANCHES)
            return hd_fail(HEED_ERROR_VALUE, "%s=%s has more than %d numbers", key->name, value, n);
        HD_TRY(read_int(key, number, value, &list[n]));
    }
    return list[0] && rest ? HEED_OK : bad_value(key, value);
}

static heed_status_t set(const key_t *key, const char *value, heed_multihead_config_t *config)
{
    static const heed_dtype_t dtypes[] = {HEED_F32, HEED_BF16, HEED_F16};
    void *at = (char *)config + key->offset;
    int64_t number = 0;
    double real;
    int choice;
    switch (key->kind) {
    case KEY_INT32:
        HD_TRY(read_int(key, value, value, &number));
        *(int32_t *)at = (int32_t)number;
        return HEED_OK;
    case KEY_INT64:
        return read_int(key, value, value, at);
    case KEY_FLOAT:
        if (!hd_parse_double(value, &real) || !isfinite((float)real))
            return bad_value(key, value);
        *(float *)at = (float)real;
        return HEED_OK;
    case KEY_LIST:
        return read_list(key, value, at);
    default:
        break;
    }
    if (!key->choices) {
        if (strlen(value) >= sizeof(config->impl))
            return hd_fail(HEED_ERROR_VALUE, "impl=%s is too long", value);
        memcpy(config->impl, value, strlen(value) + 1);
        return HEED_OK;
    }
    HD_TRY(read_choice(key, value, &choice));
    if (at == &config->dtype)
        config->dtype = dtypes[choice];
    else
        memcpy(at, &choice, sizeof(choice));
    return HEED_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static heed_status_t set_all(const char *text, heed_multihead_config_t *config)
{
    char item[256];
    _Static_assert(sizeof(heed_dilated_mode_t) == sizeof(int), "choices are ints");
    if (!text)
        return HEED_OK;
    while (hd_next_item(&text, " ", item, sizeof(item))) {
        char *equals = strchr(item, '=');
        const key_t *key = NULL;
        if (!equals)
            return hd_fail(HEED_ERROR_VALUE, "\"%s\" is no key=value", item);
        *equals = 0;
        for (int i = 0; i < HD_COUNT(keys) && !key; i++)
            if (strcmp(keys[i].name, item) == 0)
                key = &keys[i];
        if (!key) {
            char names[400];
            hd_text_t known = hd_text(names, sizeof(names));
            for (int i = 0; i < HD_COUNT(keys); i++)
                hd_text_add(&known, "%s%s", i ? ", " : "", keys[i].name);
            return hd_fail(HEED_ERROR_VALUE, "\"%s\" is no key: %s", item, names);
        }
        HD_TRY(set(key, equals + 1, config));
    }
    return text ? HEED_OK
                : hd_fail(HEED_ERROR_VALUE, "overrides: an item of more than %zu characters",
                          sizeof(item) - 1);
}

static heed_status_t count_branches(heed_multihead_config_t *config)
{
    int segments = 0, rates = 0;
    while (segments < HEED_DILATED_BRANCHES && config->segment_lengths[segments])
        segments++;
    while (rates < HEED_DILATED_BRANCHES && config->dilation_rates[rates])
        rates++;
    config->branches = segments;
    return segments == rates ? HEED_OK
                             : hd_fail(HEED_ERROR_VALUE,
                                       "%d segment_lengths and %d dilation_rates: one of each a "
                                       "branch",
                                       segments, rates);
}

heed_status_t heed_multihead_preset(const char *preset, const char *overrides,
                                    heed_multihead_config_t *config)
{
    const char *changes = NULL;
    if (!preset || !config)
        return hd_fail(HEED_ERROR_NULL, "%s is null", preset ? "config" : "preset");
    for (int i = 0; i < HD_COUNT(presets); i++)
        if (strcmp(presets[i].name, preset) == 0)
            changes = presets[i].changes;
    if (!changes)
        return hd_fail(HEED_ERROR_VALUE,
                       "\"%s\" is no preset: development, standard, high_performance, "
                       "memory_efficient, research",
                       preset);
    memset(config, 0, sizeof(*config));
    config->struct_size = sizeof(*config);
    HD_TRY(set_all("impl=auto embed_dim=768 num_heads=12 bias=1 layer_norm=1 layer_norm_eps=1e-5 "
                   "gamma_init=1 segment_lengths=2048,4096,8192 dilation_rates=1,2,4 dtype=f32",
                   config));
    HD_TRY(set_all(changes, config));
    HD_TRY(set_all(overrides, config));
    return count_branches(config);
}
