/* What a 64-bit ARM core is and has: from the system's HWCAP and the main ID register. */
#include "isa.h"

#include <stdio.h>

#if HD_ARM
#include <sys/auxv.h>
#endif

/* Linux: Documentation/arm64/elf_hwcaps.rst and cpu-feature-registers.rst. */
enum {
    HWCAP_IS_FP = 1 << 0,
    HWCAP_IS_ASIMD = 1 << 1,
    HWCAP_IS_CRC32 = 1 << 7,
    HWCAP_IS_ATOMICS = 1 << 8,
    HWCAP_IS_CPUID = 1 << 11,
    HWCAP_IS_RDM = 1 << 12,
    HWCAP2_IS_BF16 = 1 << 14
};

uint64_t hd_hwcap_levels(uint64_t hwcap, uint64_t hwcap2)
{
    /* What the compiler may emit under -march=armv8.2-a+bf16. */
    const uint64_t both = HWCAP_IS_FP | HWCAP_IS_ASIMD,
                   more = HWCAP_IS_ATOMICS | HWCAP_IS_CRC32 | HWCAP_IS_RDM;
    if ((hwcap & both) != both)
        return 0;
    return HEED_ISA_NEON |
           ((hwcap & more) == more && hwcap2 & HWCAP2_IS_BF16 ? HEED_ISA_NEONBF16 : 0);
}

/* Implementer in bits 24 to 31, part in bits 4 to 15; of each maker's manuals. */
static const struct {
    uint16_t implementer, part;
    const char *name;
} cores[] = {
    {0x41, 0xd03, "Arm Cortex-A53"},    {0x41, 0xd05, "Arm Cortex-A55"},
    {0x41, 0xd07, "Arm Cortex-A57"},    {0x41, 0xd08, "Arm Cortex-A72"},
    {0x41, 0xd09, "Arm Cortex-A73"},    {0x41, 0xd0a, "Arm Cortex-A75"},
    {0x41, 0xd0b, "Arm Cortex-A76"},    {0x41, 0xd0c, "Arm Neoverse N1"},
    {0x41, 0xd0d, "Arm Cortex-A77"},    {0x41, 0xd40, "Arm Neoverse V1"},
    {0x41, 0xd41, "Arm Cortex-A78"},    {0x41, 0xd44, "Arm Cortex-X1"},
    {0x41, 0xd46, "Arm Cortex-A510"},   {0x41, 0xd47, "Arm Cortex-A710"},
    {0x41, 0xd48, "Arm Cortex-X2"},     {0x41, 0xd49, "Arm Neoverse N2"},
    {0x41, 0xd4d, "Arm Cortex-A715"},   {0x41, 0xd4e, "Arm Cortex-X3"},
    {0x41, 0xd4f, "Arm Neoverse V2"},   {0x51, 0x001, "Qualcomm Oryon"},
    {0x61, 0x022, "Apple M1 Icestorm"}, {0x61, 0x023, "Apple M1 Firestorm"},
    {0x61, 0x032, "Apple M2 Blizzard"}, {0x61, 0x033, "Apple M2 Avalanche"},
};

void hd_midr_name(uint64_t midr, char *name, size_t size)
{
    unsigned implementer = midr >> 24 & 0xff, part = midr >> 4 & 0xfff;
    char numbers[48];
    for (int i = 0; i < HD_COUNT(cores); i++)
        if (cores[i].implementer == implementer && cores[i].part == part) {
            hd_cpuid_tidy(cores[i].name, name, size);
            return;
        }
    snprintf(numbers, sizeof(numbers), "64-bit ARM, implementer 0x%02x, part 0x%03x", implementer,
             part);
    hd_cpuid_tidy(numbers, name, size);
}

#if HD_ARM

uint64_t hd_cpuid_isa(void)
{
    return hd_hwcap_levels(getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
}

/* With cores of several kinds the name is that of the core which asks. */
void hd_cpuid_name(char *name, size_t size)
{
    uint64_t midr = 0;
    if (!(getauxval(AT_HWCAP) & HWCAP_IS_CPUID)) {
        hd_cpuid_tidy("", name, size);
        return;
    }
    __asm__("mrs %0, midr_el1" : "=r"(midr));
    hd_midr_name(midr, name, size);
}

#endif
