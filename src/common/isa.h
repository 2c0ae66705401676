/* Instruction sets from the words that CPUID and XGETBV answer, or the kernel's HWCAP on ARM, and
 * CPU names made readable. Not called cpuid.h: the compiler has a header of that name, which a
 * folder on the include path would hide. */
#ifndef HD_ISA_H
#define HD_ISA_H

#include "internal.h"

/* What a CPU answered. Words of a leaf above the highest one may hold anything: they are not read.
 */
typedef struct hd_cpuid {
    uint32_t leaf0_eax; /* highest basic leaf */
    uint32_t leaf1_ecx;
    uint32_t leaf7_eax; /* highest subleaf of leaf 7 */
    uint32_t leaf7_ebx;
    uint32_t leaf7_1_eax;
    uint32_t ext0_eax; /* highest extended leaf */
    uint32_t ext1_ecx;
    uint64_t xcr0; /* register files that the operating system saves; read only with OSXSAVE */
    uint32_t leaf7_ecx, leaf7_edx;
} hd_cpuid_t;

/* HEED_ISA_* that such a CPU may run. */
uint64_t hd_cpuid_levels(const hd_cpuid_t *cpuid);

/* Copies a name without leading, trailing and repeated blanks and control characters. */
void hd_cpuid_tidy(const char *from, char *to, size_t size);

/* HEED_ISA_* of a 64-bit ARM system with these words in its auxiliary vector, AT_HWCAP and
 * AT_HWCAP2. cpu_arm.c */
uint64_t hd_hwcap_levels(uint64_t hwcap, uint64_t hwcap2);

/* The name of an ARM core by its main ID register, "Arm Neoverse N1"; its numbers where it is not
 * known here. cpu_arm.c */
void hd_midr_name(uint64_t midr, char *name, size_t size);

#endif
