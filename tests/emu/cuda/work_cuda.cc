/* Masked work is left out: with a mask, the tensor cores of each kernel multiply no more than what
 * is visible asks of tiles of 192 rows by 192 keys, the largest that any kernel has. A kernel that
 * walks over all keys, or all up to the diagonal, needs more. cuda:flash_simt and cuda:standard
 * have no tensor cores that could be counted. */
#include "emulated.h"

extern "C" {
#include "kit.h"
}

#include <stdio.h>
#include <string.h>

struct masked {
    const char *sizes, *mask;
    double most; /* of the work without the mask */
};

/* A tile of 192 rows needs the keys that any of its rows sees, and up to 192 more. */
static const masked prefill[] = {
    {"sq=1152 sk=1152 hq=1 d=64", "causal=1", 0.73},    /* 384, 576 .. 1152 of 1152 */
    {"sq=1152 sk=1152 hq=1 d=64", "window=64,0", 0.39}, /* 192 + 64 + 192 */
    {"sq=1152 sk=1152 hq=1 d=64", "window=0,64", 0.39}, /* the same */
    {"sq=1152 sk=1152 hq=1 d=64", "causal=1 window=64,-1", 0.39},
    {"sq=1152 sk=1152 hq=1 d=64", "tiles=blockdiag:192,64,64", 0.34}, /* 192 + 192 */
    {NULL, NULL, 0}};
static const masked prefill_fp8[] = {
    {"sq=576 sk=960 hq=1 d=64", "causal=1 causal-align=top-left", 0.61},
    {"sq=576 sk=960 hq=1 d=64", "window=64,0", 0.47},
    {NULL, NULL, 0}};
static const masked decode[] = {
    {"sq=4 sk=2048 hq=8 hk=1 d=64", "window=256,0", 0.23}, /* 4 + 256 + 192 of 2048 */
    {"sq=4 sk=2048 hq=8 hk=1 d=64", "causal=1 causal-align=top-left", 0.1},
    {"sq=4 sk=2048 hq=8 hk=1 d=64", "window=0,300 causal-align=top-left", 0.25},
    {"sq=4 sk=2048 hq=8 hk=1 d=64", "tiles=blockdiag:300,64,64", 0.16}, /* 5 tiles of 32 */
    {"sq=4 sk=2048 hq=8 hk=1 d=64", "tiles=random:3,20,64,64,shared", 0.3},
    {NULL, NULL, 0}};

static const struct {
    const char *impl, *dtype;
    const masked *problems;
} kernels[] = {{"cpu:emulated_cuda_flash_sm80", "bf16", prefill},
               {"cpu:emulated_cuda_flash_sm90", "bf16", prefill},
               {"cpu:emulated_cuda_flash_sm90_fp8", "e4m3", prefill_fp8},
               {"cpu:emulated_cuda_decode_sm80", "bf16", decode},
               {"cpu:emulated_cuda_decode_sm90", "bf16", decode}};

static heed_context_t *make_context(const heed_impl_t *const *impls, const char *name)
{
    char only[128];
    heed_context_t *context = NULL;
    heed_context_config_t config = heed_context_config();
    snprintf(only, sizeof(only), "attention=%s", name);
    config.threads = 1;
    config.impl = only;
    heed_status_t status = heed_context_create(&config, &context);
    for (int i = 0; status == HEED_OK && impls[i]; i++)
        status = heed_register_impl(context, impls[i]);
    if (status != HEED_OK)
        fprintf(stderr, "%s\n", heed_last_error());
    return context;
}

/* Multiply-adds of the problem, which is checked too; 0: it went wrong. */
static double work(heed_context_t *context, heed_context_t *reference, const char *dtype,
                   const char *sizes, const char *mask)
{
    char text[256];
    kit_verdict_t verdict;
    heed_device_t cpu = {HEED_DEVICE_CPU, 0};
    snprintf(text, sizeof(text), "attention dtype=%s b=1 %s %s", dtype, sizes, mask);
    (void)emu::take_macs();
    if (kit_check(context, cpu, reference, text, 1, KIT_VALUES_PLAIN, &verdict) == KIT_PASSED)
        return (double)emu::take_macs();
    printf("FAIL %s: %s\n", text, verdict.sentence);
    return 0;
}

static int check_kernel(const heed_impl_t *const *impls, const char *impl, const char *dtype,
                        const masked *problems)
{
    heed_context_t *context = make_context(impls, impl);
    heed_context_t *reference = make_context(impls, "cpu:standard");
    int failed = !context || !reference;
    double all = 0;
    for (int i = 0; !failed && problems[i].sizes; i++) {
        const masked *p = &problems[i];
        if (i == 0 || strcmp(p->sizes, p[-1].sizes) != 0)
            all = work(context, reference, dtype, p->sizes, "");
        double part = work(context, reference, dtype, p->sizes, p->mask) / all;
        bool good = all > 0 && part > 0 && part <= p->most;
        printf("%s%s %s %s: %.3f of the work, at most %.2f\n", good ? "" : "FAIL ", impl, p->sizes,
               p->mask, part, p->most);
        fflush(stdout);
        failed |= !good;
    }
    heed_context_destroy(context);
    heed_context_destroy(reference);
    return failed;
}

int main()
{
    const heed_impl_t *const *impls = emulated_impls();
    int failed = !impls;
    for (size_t i = 0; impls && i < sizeof(kernels) / sizeof(kernels[0]); i++)
        failed |= check_kernel(impls, kernels[i].impl, kernels[i].dtype, kernels[i].problems);
    return failed;
}
