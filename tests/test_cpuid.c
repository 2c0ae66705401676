/* Instruction sets from CPUID words of captured machines, and names. */
#include "isa.h"

#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum {
    UP_TO_AVX2 = HEED_ISA_AVX2,
    UP_TO_AVX512 = UP_TO_AVX2 | HEED_ISA_AVX512,
    UP_TO_AVX512BF16 = UP_TO_AVX512 | HEED_ISA_AVX512BF16,
    ALL = UP_TO_AVX512BF16 | HEED_ISA_AVX512VBMI,
    ALL_WITH_AMX = ALL | HEED_ISA_AMX,
};

/* leaf 0 EAX, leaf 1 ECX, leaf 7 EAX and EBX, leaf 7.1 EAX, leaf 80000000 EAX, leaf 80000001 ECX,
 * XCR0, leaf 7 ECX and EDX. The words are those that these processors answer; XCR0 is what an
 * operating system sets that saves all they have. */
static const hd_cpuid_t haswell = {0x0d,       0x7ffafbff, 0,    0x000027ab, 0,
                                   0x80000008, 0x00000021, 0x07, 0,          0};
static const hd_cpuid_t skylake_x = {0x16,       0x7ffefbbf, 0,    0xd39ffffb, 0,
                                     0x80000008, 0x00000121, 0xff, 0,          0};
static const hd_cpuid_t zen3_guest = {0x0d,       0xfffa3203, 0,    0x219c07ab, 0,
                                      0x80000021, 0x004003f3, 0x07, 0,          0};
static const hd_cpuid_t zen4 = {0x10,       0x7ef8320b, 1,     0xf1bf97a9, 0x20,
                                0x80000028, 0x75c237ff, 0x2e7, 0x00405fce, 0x10000010};
static const hd_cpuid_t emerald_guest = {0x20,       0xfffa3203, 0x2,     0xf1bf27eb, 0x1c30,
                                         0x80000008, 0x121,      0x602e7, 0x1b415fde, 0xbfd14410};

static hd_cpuid_t with_xcr0(hd_cpuid_t cpuid, uint64_t xcr0)
{
    cpuid.xcr0 = xcr0;
    return cpuid;
}

static void captured_machines(void **state)
{
    (void)state;
    assert_int_equal(hd_cpuid_levels(&haswell), UP_TO_AVX2);
    assert_int_equal(hd_cpuid_levels(&skylake_x), UP_TO_AVX512);
    assert_int_equal(hd_cpuid_levels(&zen3_guest), UP_TO_AVX2);
    assert_int_equal(hd_cpuid_levels(&zen4), ALL);
}

/* The CPU has it, but the operating system does not save its registers. */
static void registers_that_are_not_saved(void **state)
{
    (void)state;
    static const struct {
        uint64_t xcr0;
        uint64_t isa;
    } cases[] = {
        {0x2e7, ALL},
        {0x207, UP_TO_AVX2}, /* no opmask, no zmm */
        {0x0e7 & ~0x20, UP_TO_AVX2},
        {0x0e7 & ~0x40, UP_TO_AVX2},
        {0x0e7 & ~0x80, UP_TO_AVX2},
        {0x0e7 & ~0x04, 0}, /* no ymm: nothing above either */
        {0x0e7 & ~0x02, 0},
        {0x01, 0},
        {0, 0},
    };
    for (int i = 0; i < HD_COUNT(cases); i++) {
        hd_cpuid_t cpuid = with_xcr0(zen4, cases[i].xcr0);
        assert_int_equal(hd_cpuid_levels(&cpuid), cases[i].isa);
    }
}

static void without_osxsave_xcr0_means_nothing(void **state)
{
    (void)state;
    hd_cpuid_t cpuid = zen4;
    cpuid.leaf1_ecx &= ~(UINT32_C(1) << 27);
    assert_int_equal(hd_cpuid_levels(&cpuid), 0);
}

/* Every bit that the kernels' compiler flags stand on, taken away one at a time. */
static void each_bit_counts(void **state)
{
    (void)state;
    static const struct {
        size_t word;
        int bit;
        uint64_t isa;
    } cases[] = {
        {offsetof(hd_cpuid_t, leaf1_ecx), 12, 0},          /* FMA */
        {offsetof(hd_cpuid_t, leaf1_ecx), 23, 0},          /* POPCNT */
        {offsetof(hd_cpuid_t, leaf1_ecx), 28, 0},          /* AVX */
        {offsetof(hd_cpuid_t, leaf1_ecx), 29, 0},          /* F16C */
        {offsetof(hd_cpuid_t, leaf7_ebx), 3, 0},           /* BMI1 */
        {offsetof(hd_cpuid_t, leaf7_ebx), 5, 0},           /* AVX2 */
        {offsetof(hd_cpuid_t, leaf7_ebx), 8, 0},           /* BMI2 */
        {offsetof(hd_cpuid_t, ext1_ecx), 5, 0},            /* LZCNT */
        {offsetof(hd_cpuid_t, leaf7_ebx), 16, UP_TO_AVX2}, /* AVX512F */
        {offsetof(hd_cpuid_t, leaf7_ebx), 17, UP_TO_AVX2}, /* DQ */
        {offsetof(hd_cpuid_t, leaf7_ebx), 30, UP_TO_AVX2}, /* BW */
        {offsetof(hd_cpuid_t, leaf7_ebx), 31, UP_TO_AVX2}, /* VL */
        {offsetof(hd_cpuid_t, leaf7_1_eax), 5, UP_TO_AVX512 | HEED_ISA_AVX512VBMI},
        {offsetof(hd_cpuid_t, leaf7_ecx), 1, UP_TO_AVX512BF16}, /* VBMI */
    };
    for (int i = 0; i < HD_COUNT(cases); i++) {
        hd_cpuid_t cpuid = zen4;
        uint32_t word;
        memcpy(&word, (char *)&cpuid + cases[i].word, sizeof(word));
        assert_true(word >> cases[i].bit & 1);
        word &= ~(UINT32_C(1) << cases[i].bit);
        memcpy((char *)&cpuid + cases[i].word, &word, sizeof(word));
        assert_int_equal(hd_cpuid_levels(&cpuid), cases[i].isa);
    }
}

/* Leaves above the highest one answer with words of others. */
static void leaves_that_do_not_exist(void **state)
{
    (void)state;
    hd_cpuid_t cpuid = zen4;
    cpuid.leaf7_eax = 0;
    assert_int_equal(hd_cpuid_levels(&cpuid), UP_TO_AVX512 | HEED_ISA_AVX512VBMI);
    cpuid = zen4;
    cpuid.leaf0_eax = 6;
    assert_int_equal(hd_cpuid_levels(&cpuid), 0);
    cpuid = zen4;
    cpuid.ext0_eax = 0x80000000u;
    assert_int_equal(hd_cpuid_levels(&cpuid), 0);
    cpuid = (hd_cpuid_t){0};
    assert_int_equal(hd_cpuid_levels(&cpuid), 0);
}

/* Tiles need both of their bits, both of their register files, and of AVX-512 bf16 and byte
 * permutes. */
static void tiles(void **state)
{
    (void)state;
    assert_int_equal(hd_cpuid_levels(&emerald_guest), ALL_WITH_AMX);
    for (int bit = 22; bit <= 24; bit += 2) {
        hd_cpuid_t less = emerald_guest;
        less.leaf7_edx &= ~(UINT32_C(1) << bit);
        assert_int_equal(hd_cpuid_levels(&less), ALL);
    }
    for (uint64_t file = 0x20000; file <= 0x40000; file *= 2) {
        hd_cpuid_t less = emerald_guest;
        less.xcr0 &= ~file;
        assert_int_equal(hd_cpuid_levels(&less), ALL);
    }
    hd_cpuid_t less = emerald_guest;
    less.leaf7_ecx &= ~(UINT32_C(1) << 1);
    assert_int_equal(hd_cpuid_levels(&less), UP_TO_AVX512BF16);
    less = emerald_guest;
    less.leaf7_1_eax = 0;
    assert_int_equal(hd_cpuid_levels(&less), UP_TO_AVX512 | HEED_ISA_AVX512VBMI);
}

static void this_cpu(void **state)
{
    (void)state;
    uint64_t isa = hd_cpuid_isa();
#if HD_X86
    /* The compiler's run-time library decides the same question by itself. */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    bool vbmi = avx512 && __builtin_cpu_supports("avx512vbmi");
    assert_int_equal(!!(isa & HEED_ISA_AVX512VBMI), vbmi);
    bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    assert_int_equal(!!(isa & HEED_ISA_AVX2), avx2);
    assert_int_equal(!!(isa & HEED_ISA_AVX512), avx512);
    assert_int_equal(!!(isa & HEED_ISA_AVX512BF16), avx512bf16);
    /* The system may refuse tiles that the CPU has. */
    assert_true(!(isa & HEED_ISA_AMX) || avx512bf16);
#elif HD_ARM
    assert_true(isa & HEED_ISA_NEON); /* every system for 64-bit ARM expects it of the CPU */
#else
    assert_int_equal(isa, 0);
#endif
}

static void arm_systems(void **state)
{
    (void)state;
    const uint64_t both = HEED_ISA_NEON | HEED_ISA_NEONBF16, bf16 = 1 << 14;
    assert_int_equal(hd_hwcap_levels(0, bf16), 0);
    assert_int_equal(hd_hwcap_levels(1, bf16), 0); /* floating point without vectors */
    assert_int_equal(hd_hwcap_levels(2, bf16), 0);
    assert_int_equal(hd_hwcap_levels(3, 0), HEED_ISA_NEON);
    assert_int_equal(hd_hwcap_levels(3, bf16), HEED_ISA_NEON); /* bf16 without Armv8.1 */
    assert_int_equal(hd_hwcap_levels(0xff, 0), HEED_ISA_NEON); /* a Cortex-A72 */
    assert_int_equal(hd_hwcap_levels(0x11ff, bf16), both);
    assert_int_equal(hd_hwcap_levels(0x11ff, ~bf16), HEED_ISA_NEON);
    for (int bit = 0; bit < 13; bit++)
        if (0x1183 >> bit & 1)
            assert_int_not_equal(hd_hwcap_levels(0x11ff & ~(1 << bit), bf16), both);
}

static void arm_names(void **state)
{
    (void)state;
    char name[96], four[5];
    hd_midr_name(0x410fd083, name, sizeof(name));
    assert_string_equal(name, "Arm Cortex-A72");
    hd_midr_name(0x413fd0c1, name, sizeof(name));
    assert_string_equal(name, "Arm Neoverse N1");
    hd_midr_name(0x611f0230, name, sizeof(name));
    assert_string_equal(name, "Apple M1 Firestorm");
    hd_midr_name(0x420fd0c0, name, sizeof(name)); /* another maker's */
    assert_string_equal(name, "64-bit ARM, implementer 0x42, part 0xd0c");
    hd_midr_name(0x410fd083, four, sizeof(four));
    assert_string_equal(four, "Arm");
}

static void check_tidy(const char *from, size_t size, const char *expected)
{
    char to[64];
    memset(to, 'x', sizeof(to));
    hd_cpuid_tidy(from, to, size);
    if (size)
        assert_string_equal(to, expected);
    for (size_t i = size; i < sizeof(to); i++)
        assert_int_equal(to[i], 'x');
}

static void names_are_tidied(void **state)
{
    (void)state;
    check_tidy("AMD Ryzen 5 7600X 6-Core Processor             ", 48,
               "AMD Ryzen 5 7600X 6-Core Processor");
    check_tidy("       Intel(R)  Core(TM)\ti7\n", 48, "Intel(R) Core(TM) i7");
    check_tidy("\x01\x7f\xff", 48, "");
    check_tidy("a\xc3\xa9z", 48, "a z");
    check_tidy("", 48, "");
    check_tidy("   ", 48, "");
    check_tidy("abc def", 8, "abc def");
    check_tidy("abc def", 7, "abc de");
    check_tidy("abc def", 5, "abc"); /* no blank at the end of a name that was cut */
    check_tidy("abc", 1, "");
    check_tidy("abc", 0, "");
}

static void this_name_is_tidy(void **state)
{
    (void)state;
    char name[96], again[96];
    hd_cpuid_name(name, sizeof(name));
    hd_cpuid_tidy(name, again, sizeof(again));
    assert_string_equal(name, again);
    assert_true(strlen(name) <= 48);
    char four[5];
    hd_cpuid_name(four, sizeof(four));
    assert_int_equal(strncmp(four, name, strlen(four)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captured_machines),
        cmocka_unit_test(registers_that_are_not_saved),
        cmocka_unit_test(without_osxsave_xcr0_means_nothing),
        cmocka_unit_test(each_bit_counts),
        cmocka_unit_test(leaves_that_do_not_exist),
        cmocka_unit_test(tiles),
        cmocka_unit_test(this_cpu),
        cmocka_unit_test(arm_systems),
        cmocka_unit_test(arm_names),
        cmocka_unit_test(names_are_tidied),
        cmocka_unit_test(this_name_is_tidy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
