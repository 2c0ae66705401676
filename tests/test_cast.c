/* Casts: every implementation against the definition of src/common/fp8.h in every floating-point
 * environment, at every alignment, at the end of memory, in place; and what is refused. */
#define _GNU_SOURCE
#include "each_cast.h"
#include "fp8_faults.h"

#include "environment.h"
#include "kit.h"

#include <math.h>
#include <sys/mman.h>

static void cast(heed_context_t *context, heed_cast_desc_t desc, heed_dtype_t from, const void *src,
                 heed_dtype_t to, void *dst, int64_t n)
{
    int64_t shape[] = {n};
    desc.src = heed_tensor((void *)(uintptr_t)src, from, 1, shape, NULL);
    desc.dst = heed_tensor(dst, to, 1, shape, NULL);
    expect_ok(heed_cast(context, &desc));
    char *result = dst;
    if (fault == FAULT_BEFORE && n == 257)
        result[-1] = 0;
    bool broken = (fault == FAULT_LAST) || (fault == FAULT_MODE && fegetround() != FE_TONEAREST) ||
                  (fault == FAULT_IN_PLACE && dst == src) ||
                  (fault == FAULT_LARGE && n * (int64_t)heed_dtype_size(to) > 4 << 20);
    if (broken && n > 0)
        result[(size_t)n * heed_dtype_size(to) - 1] ^= 1;
}

static void in_any_environment(heed_context_t *context)
{
    static const heed_dtype_t dtypes[] = {HEED_E4M3, HEED_E5M2, HEED_F16, HEED_BF16};
    static float source[65536];
    static uint16_t got[65536], want[65536];
    kit_random_t random = {21};
    for (int i = 0; i < 65536; i++) {
        uint32_t bits = i % 2 ? (uint32_t)kit_random_next(&random) : widen(HEED_F16, i) + 0x800;
        memcpy(&source[i], &bits, sizeof(bits));
    }
    heed_context_t *reference = expect_context("cast=cpu:standard");
    for (size_t t = 0; t < COUNT(dtypes); t++)
        for (int scaled = 0; scaled < 2; scaled++) {
            heed_cast_desc_t desc = heed_cast_desc();
            float scale = 0x1.3579bep-3f;
            int64_t one[] = {1};
            desc.scaling = scaled ? HEED_SCALE_TENSOR : HEED_SCALE_NONE;
            if (scaled)
                desc.scale = heed_tensor(&scale, HEED_F32, 1, one, NULL);
            cast(reference, desc, HEED_F32, source, dtypes[t], want, 65536);
            for (int mode = 0; mode < ENVIRONMENTS; mode++) {
                fenv_t before;
                fegetenv(&before);
                set_environment(mode);
                int rounding = fegetround();
                cast(context, desc, HEED_F32, source, dtypes[t], got, 65536);
                int after = fegetround();
                fesetenv(&before);
                assert_int_equal(after, rounding);
                assert_memory_equal(got, want, 65536 * heed_dtype_size(dtypes[t]));
            }
        }
    heed_context_destroy(reference);
}

static void environments(void **state)
{
    (void)state;
    for_each(in_any_environment);
}

/* Everything of 16 bits and of 8 through the implementations. */
static void all_of(heed_context_t *context)
{
    static const heed_dtype_t wide[] = {HEED_F16, HEED_BF16};
    static uint16_t source[65536];
    static uint8_t got[65536];
    static const hd_fp8_rule_t rules[] = {{HEED_OVERFLOW_SATURATE, HEED_NAN_POSITIVE, 0},
                                          {HEED_OVERFLOW_NOSAT, HEED_NAN_SIGNED, 0},
                                          {HEED_OVERFLOW_FINITE, HEED_NAN_QUIET, 0}};
    for (int i = 0; i < 65536; i++)
        source[i] = (uint16_t)i;
    for (size_t w = 0; w < COUNT(wide); w++)
        for (size_t f = 0; f < COUNT(formats); f++)
            for (size_t r = 0; r < COUNT(rules); r++) {
                heed_cast_desc_t desc = heed_cast_desc();
                desc.overflow = rules[r].overflow, desc.nan = rules[r].nan;
                cast(context, desc, wide[w], source, formats[f].dtype, got, 65536);
                for (int i = 0; i < 65536; i++)
                    assert_int_equal(got[i], encode(formats[f].dtype, widen(wide[w], i), rules[r]));
            }
}

static void all_of_sixteen_bits(void **state)
{
    (void)state;
    for_each(all_of);
}

static void all_codes(heed_context_t *context)
{
    static const heed_dtype_t results[] = {HEED_F32, HEED_BF16, HEED_F16, HEED_E5M2};
    uint8_t codes[256];
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)i;
    for (size_t f = 0; f <= COUNT(formats); f++)
        for (size_t t = 0; t < COUNT(results); t++) {
            uint32_t got[256];
            heed_dtype_t from = f < COUNT(formats) ? formats[f].dtype : HEED_E8M0;
            size_t size = heed_dtype_size(results[t]);
            cast(context, heed_cast_desc(), from, codes, results[t], got, 256);
            for (int i = 0; i < 256; i++) {
                const hd_fp8_rule_t rule = {0, 0, 0};
                uint32_t bits = decode(from, codes[i]), word = 0;
                memcpy(&word, (char *)got + (size_t)i * size, size);
                assert_int_equal(word, hd_cast_round(results[t], bits, rule, 0));
            }
        }
}

static void all_of_eight_bits(void **state)
{
    (void)state;
    for_each(all_codes);
}

/* Lengths 0 to 257 at each misalignment, the last element at the end of readable memory. */
static void at_the_end_of_memory(heed_context_t *context)
{
    long page = sysconf(_SC_PAGESIZE);
    char *maps[2];
    static uint8_t want[300];
    for (int i = 0; i < 2; i++) {
        maps[i] = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
        assert_true(maps[i] != MAP_FAILED);
        assert_int_equal(mprotect(maps[i] + page, (size_t)page, PROT_NONE), 0);
    }
    const hd_fp8_rule_t rule = {0, 0, 0};
    for (int64_t n = 0; n <= 257; n++)
        for (int aside = 0; aside < 8; aside++) {
            float *src = (float *)(void *)(maps[0] + page) - n - (aside ? 3 * aside : 0);
            uint8_t *dst = (uint8_t *)maps[1] + page - n - aside;
            for (int64_t i = 0; i < n; i++) {
                src[i] = (float)(i - 100) * 1.37f;
                want[i] = encode(HEED_E4M3, hd_to_bits(src[i]), rule);
            }
            dst[-1] = 0xa5;
            cast(context, heed_cast_desc(), HEED_F32, src, HEED_E4M3, dst, n);
            assert_memory_equal(dst, want, (size_t)n);
            assert_int_equal(dst[-1], 0xa5);
            /* And back: a narrow source at the end. */
            cast(context, heed_cast_desc(), HEED_E4M3, dst, HEED_F32, src, n);
            for (int64_t i = 0; i < n; i++)
                assert_int_equal(hd_to_bits(src[i]),
                                 hd_fp8_decode(hd_fp8_format(HEED_E4M3), want[i]));
        }
    for (int i = 0; i < 2; i++)
        munmap(maps[i], (size_t)page * 2);
}

static void lengths_and_alignments(void **state)
{
    (void)state;
    for_each(at_the_end_of_memory);
}

static void onto_itself(heed_context_t *context)
{
    enum { ROWS = 500, COLUMNS = 400, N = ROWS * COLUMNS };
    static float source[N], memory[N];
    static uint8_t want[N];
    static float scales[ROWS], other[ROWS];
    kit_random_t random = {31};
    for (int i = 0; i < N; i++)
        source[i] = (float)kit_random_normal(&random);
    for (int scaling = HEED_SCALE_NONE; scaling <= HEED_SCALE_ROW; scaling++) {
        heed_cast_desc_t desc = heed_cast_desc();
        int64_t groups[] = {scaling == HEED_SCALE_ROW ? ROWS : 1};
        desc.scaling = scaling;
        desc.src = HEED_TENSOR(source, HEED_F32, ROWS, COLUMNS);
        desc.dst = HEED_TENSOR(want, HEED_E4M3, ROWS, COLUMNS);
        if (scaling)
            desc.scale_out = heed_tensor(scales, HEED_F32, 1, groups, NULL);
        expect_ok(heed_cast(context, &desc));
        memcpy(memory, source, sizeof(source));
        desc.src.data = desc.dst.data = memory;
        if (scaling)
            desc.scale_out.data = other;
        expect_ok(heed_cast(context, &desc));
        assert_memory_equal(memory, want, N);
        assert_memory_equal(other, scales, sizeof(scales));
    }
    /* Elements of one size. */
    static uint16_t halves[N], wanted[N];
    cast(context, heed_cast_desc(), HEED_F32, source, HEED_F16, halves, N);
    cast(context, heed_cast_desc(), HEED_F16, halves, HEED_BF16, wanted, N);
    cast(context, heed_cast_desc(), HEED_F16, halves, HEED_BF16, halves, N);
    assert_memory_equal(halves, wanted, sizeof(halves));
}

static void in_place(void **state)
{
    (void)state;
    for_each(onto_itself);
}

/* Outputs that are large enough to be written past the caches, at an odd address. */
static int64_t large_elements(heed_context_t *context)
{
    heed_device_info_t info = {.struct_size = sizeof(info)};
    int64_t bytes = 8 << 20;
    expect_ok(heed_device_info(context, 0, &info));
    for (int i = 0; i < info.cache_count; i++)
        bytes = info.caches[i].bytes > bytes ? info.caches[i].bytes : bytes;
    return (bytes < 256 << 20 ? bytes : 256 << 20) / 4 + 1000001;
}

static void large(heed_context_t *context)
{
    const int64_t N = large_elements(context);
    float *source = malloc((size_t)N * sizeof(*source));
    uint8_t *got = malloc((size_t)N + 3), *want = malloc((size_t)N);
    float *back = malloc((size_t)(N + 1) * sizeof(*back)), most = 0;
    heed_context_t *reference = expect_context("cast=cpu:cast_scalar");
    heed_cast_desc_t desc = heed_cast_desc();
    int64_t one[] = {1};
    assert_true(source && got && want && back);
    for (int64_t i = 0; i < N; i++)
        source[i] = (float)(i % 70001 - 35000) * 0.0137f;
    cast(reference, desc, HEED_F32, source, HEED_E4M3, want, N);
    got[N + 2] = 0xa5;
    desc.amax = heed_tensor(&most, HEED_F32, 1, one, NULL);
    cast(context, desc, HEED_F32, source, HEED_E4M3, got + 2, N);
    assert_memory_equal(got + 2, want, (size_t)N);
    assert_true(got[N + 2] == 0xa5 && most == 35000 * 0.0137f);
    cast(context, heed_cast_desc(), HEED_E4M3, got + 2, HEED_F32, back + 1, N);
    for (int64_t i = 0; i < N; i++)
        assert_int_equal(hd_to_bits(back[i + 1]), hd_fp8_decode(hd_fp8_format(HEED_E4M3), want[i]));
    heed_context_destroy(reference);
    free(source);
    free(got);
    free(want);
    free(back);
}

static void large_outputs(void **state)
{
    (void)state;
    for_each(large);
}

static const control_t controls[] = {
    {"environments", FAULT_MODE},
    {"all_of_sixteen_bits", FAULT_DOWN},
    {"all_of_sixteen_bits", FAULT_OVERFLOW},
    {"all_of_sixteen_bits", FAULT_NAN},
    {"all_of_eight_bits", FAULT_SUBNORMAL},
    {"all_of_eight_bits", FAULT_LAST},
    {"lengths_and_alignments", FAULT_LAST},
    {"lengths_and_alignments", FAULT_BEFORE},
    {"in_place", FAULT_IN_PLACE},
    {"large_outputs", FAULT_LARGE},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environments),      cmocka_unit_test(all_of_sixteen_bits),
        cmocka_unit_test(all_of_eight_bits), cmocka_unit_test(lengths_and_alignments),
        cmocka_unit_test(in_place),          cmocka_unit_test(large_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
