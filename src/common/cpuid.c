#define _GNU_SOURCE /* syscall */
#include "isa.h"

#include <string.h>

#if HD_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

/* Intel SDM volume 2A, "CPUID"; AMD APM volume 3, appendix E. */
enum {
    LEAF1_ECX_FMA = 1 << 12,
    LEAF1_ECX_POPCNT = 1 << 23,
    LEAF1_ECX_OSXSAVE = 1 << 27,
    LEAF1_ECX_AVX = 1 << 28,
    LEAF1_ECX_F16C = 1 << 29,
    LEAF7_EBX_BMI1 = 1 << 3,
    LEAF7_EBX_AVX2 = 1 << 5,
    LEAF7_EBX_BMI2 = 1 << 8,
    LEAF7_EBX_AVX512F = 1 << 16,
    LEAF7_EBX_AVX512DQ = 1 << 17,
    LEAF7_EBX_AVX512BW = 1 << 30,
    LEAF7_ECX_AVX512VBMI = 1 << 1,
    LEAF7_EDX_AMX_BF16 = 1 << 22,
    LEAF7_EDX_AMX_TILE = 1 << 24,
    LEAF7_1_EAX_AVX512BF16 = 1 << 5,
    EXT1_ECX_LZCNT = 1 << 5,
    XCR0_YMM = 0x06, /* SSE and AVX state */
    XCR0_ZMM = 0xe0, /* opmask, upper halves of zmm0-15, zmm16-31 */
    XCR0_TILE = 0x60000
};
#define LEAF7_EBX_AVX512VL (UINT32_C(1) << 31)

static bool has(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}

/* Everything that the compiler may emit under -mavx2 -mfma -mf16c -mbmi -mbmi2, and LZCNT, which a
 * CPU without it would silently run as another instruction. */
static bool has_avx2(const hd_cpuid_t *cpuid)
{
    return cpuid->leaf0_eax >= 7 && cpuid->ext0_eax >= 0x80000001u &&
           has(cpuid->leaf1_ecx, LEAF1_ECX_OSXSAVE | LEAF1_ECX_AVX | LEAF1_ECX_FMA |
                                     LEAF1_ECX_F16C | LEAF1_ECX_POPCNT) &&
           has(cpuid->xcr0, XCR0_YMM) &&
           has(cpuid->leaf7_ebx, LEAF7_EBX_AVX2 | LEAF7_EBX_BMI1 | LEAF7_EBX_BMI2) &&
           has(cpuid->ext1_ecx, EXT1_ECX_LZCNT);
}

static bool has_avx512(const hd_cpuid_t *cpuid)
{
    return has(cpuid->xcr0, XCR0_ZMM) &&
           has(cpuid->leaf7_ebx,
               LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512DQ | LEAF7_EBX_AVX512BW | LEAF7_EBX_AVX512VL);
}

uint64_t hd_cpuid_levels(const hd_cpuid_t *cpuid)
{
    if (!has_avx2(cpuid))
        return 0;
    if (!has_avx512(cpuid))
        return HEED_ISA_AVX2;
    /* Some CPUs answer a subleaf that does not exist with words of another one. */
    bool bf16 = cpuid->leaf7_eax >= 1 && has(cpuid->leaf7_1_eax, LEAF7_1_EAX_AVX512BF16);
    bool vbmi = has(cpuid->leaf7_ecx, LEAF7_ECX_AVX512VBMI);
    bool amx = bf16 && vbmi && has(cpuid->leaf7_edx, LEAF7_EDX_AMX_BF16 | LEAF7_EDX_AMX_TILE) &&
               has(cpuid->xcr0, XCR0_TILE);
    return HEED_ISA_AVX2 | HEED_ISA_AVX512 | (bf16 ? HEED_ISA_AVX512BF16 : 0) |
           (vbmi ? HEED_ISA_AVX512VBMI : 0) | (amx ? HEED_ISA_AMX : 0);
}

void hd_cpuid_tidy(const char *from, char *to, size_t size)
{
    size_t length = 0;
    bool blank = false;
    for (; *from; from++) {
        unsigned char c = (unsigned char)*from;
        if (c <= ' ' || c > '~') {
            blank = length > 0;
            continue;
        }
        if (length + blank + 1 >= size)
            break;
        if (blank)
            to[length++] = ' ';
        to[length++] = (char)c;
        blank = false;
    }
    if (size)
        to[length] = 0;
}

#if HD_X86

static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux saves tiles only for processes that have asked for it (Documentation/arch/x86/xstate.rst).
 * Other systems are not known to. The C library has no call for it. */
static bool request_tiles(void)
{
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

uint64_t hd_cpuid_isa(void)
{
    hd_cpuid_t cpuid = {0};
    uint32_t eax, ebx, ecx, edx;
    __cpuid(0, cpuid.leaf0_eax, ebx, ecx, edx);
    __cpuid(1, eax, ebx, cpuid.leaf1_ecx, edx);
    __cpuid_count(7, 0, cpuid.leaf7_eax, cpuid.leaf7_ebx, cpuid.leaf7_ecx, cpuid.leaf7_edx);
    __cpuid_count(7, 1, cpuid.leaf7_1_eax, ebx, ecx, edx);
    __cpuid(0x80000000u, cpuid.ext0_eax, ebx, ecx, edx);
    __cpuid(0x80000001u, eax, ebx, cpuid.ext1_ecx, edx);
    if (has(cpuid.leaf1_ecx, LEAF1_ECX_OSXSAVE))
        cpuid.xcr0 = read_xcr0();
    uint64_t levels = hd_cpuid_levels(&cpuid);
    if ((levels & HEED_ISA_AMX) && !request_tiles())
        levels &= ~(uint64_t)HEED_ISA_AMX;
    return levels;
}

void hd_cpuid_name(char *name, size_t size)
{
    char brand[49] = "";
    uint32_t last, ebx, ecx, edx;
    __cpuid(0x80000000u, last, ebx, ecx, edx);
    if (last >= 0x80000004u) {
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t words[4];
            __cpuid(0x80000002u + i, words[0], words[1], words[2], words[3]);
            memcpy(brand + 16 * i, words, sizeof(words));
        }
    }
    hd_cpuid_tidy(brand, name, size);
}

#elif !HD_ARM

uint64_t hd_cpuid_isa(void)
{
    return 0;
}

void hd_cpuid_name(char *name, size_t size)
{
    hd_cpuid_tidy("", name, size);
}

#endif
