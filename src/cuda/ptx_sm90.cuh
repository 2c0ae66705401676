/* The PTX of Hopper (sm_90a): mbarriers, the copy engine (TMA), wgmma, register reallocation. Part
 * of ptx.cuh, which includes it; nothing here is compiled for other architectures. */
#ifndef HD_PTX_SM90_CUH
#define HD_PTX_SM90_CUH

/* ---- mbarriers: one 64-bit word in shared memory --------------------------------------------- */

HD_PTX void hd_mbarrier_init(uint64_t *bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(hd_shared_address(bar)), "r"(count)
                 : "memory");
}
HD_PTX void hd_mbarrier_arrive(uint64_t *bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(hd_shared_address(bar))
                 : "memory");
}
/* Arrives once, and announces bytes that copies will bring. */
HD_PTX void hd_mbarrier_expect(uint64_t *bar, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(hd_shared_address(bar)),
        "r"(bytes)
        : "memory");
}
/* Returns when the phase of this parity is complete: 0 the first, 1 the second, 0 the third. */
HD_PTX void hd_mbarrier_wait(uint64_t *bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "WAIT:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra WAIT;\n"
                 "}" ::"r"(hd_shared_address(bar)),
                 "r"(parity)
                 : "memory");
}
/* Makes initialised barriers visible to the copy engine. */
HD_PTX void hd_fence_mbarrier_init()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/* Orders this thread's own accesses to shared memory with those of TMA and wgmma. */
HD_PTX void hd_fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- TMA; c0 is the coordinate along the innermost axis -------------------------------------- */

HD_PTX void hd_tma_prefetch(const hd_tensor_map_t *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"((uint64_t)map) : "memory");
}
/* How long L2 is to keep what a load brings. */
HD_PTX uint64_t hd_l2_evict_first()
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
HD_PTX uint64_t hd_l2_evict_last()
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
HD_PTX void hd_tma_load(void *to, const hd_tensor_map_t *map, uint64_t *bar, int c0, int c1, int c2,
                        int c3)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(hd_shared_address(to)),
                 "l"((uint64_t)map), "r"(hd_shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}
HD_PTX void hd_tma_load(void *to, const hd_tensor_map_t *map, uint64_t *bar, int c0, int c1, int c2,
                        int c3, uint64_t policy)
{
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(hd_shared_address(to)),
        "l"((uint64_t)map), "r"(hd_shared_address(bar)), "r"(c0), "r"(c1), "r"(c2), "r"(c3),
        "l"(policy)
        : "memory");
}
HD_PTX void hd_tma_store(const hd_tensor_map_t *map, const void *from, int c0, int c1, int c2,
                         int c3)
{
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], "
                 "[%1];" ::"l"((uint64_t)map),
                 "r"(hd_shared_address(from)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}
/* Closes a group of this thread's stores; waits until at most `groups` are not done, or have not
 * even been read from shared memory. */
HD_PTX void hd_tma_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
template <int groups> HD_PTX void hd_tma_wait()
{
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"(groups) : "memory");
}
template <int groups> HD_PTX void hd_tma_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(groups) : "memory");
}

/* ---- warps and grids ------------------------------------------------------------------------- */

/* Registers of a thread, in all warps of a warpgroup: a multiple of 8 from 24 to 256. */
template <int registers> HD_PTX void hd_setmaxnreg_inc()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers> HD_PTX void hd_setmaxnreg_dec()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
/* True in one lane of a converged warp. */
HD_PTX bool hd_elect_one()
{
    uint32_t yes;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "elect.sync _|p, 0xffffffff;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(yes));
    return yes;
}
/* For a launch that may begin before the one ahead of it in the stream has ended: waits until that
 * has; lets the next one begin. */
HD_PTX void hd_grid_wait()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
HD_PTX void hd_grid_release()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/* ---- wgmma: d (64 x N, f32) = a * b + (accumulate ? d : 0) ----------------------------------- */

/* Operands in shared memory are slabs of 128-byte rows with a 128-byte swizzle: the 16-byte piece p
 * of row r lies at piece p ^ (r % 8). Rows of 8 make an atom, aligned to 1024 bytes.
 *
 * K-major (rows along M or N; always so for 8-bit elements): `stride` 1024 leads from 8 rows to the
 * next 8, `lead` is not used; 32 bytes further along K are 2 more in the descriptor.
 * MN-major (b of 16 bits with rows along K): `stride` 1024 leads 8 rows further along K, `lead`
 * from one slab of 64 columns to the next; 16 rows further along K are 128 more. */
HD_PTX uint64_t hd_wgmma_descriptor(const void *at, uint32_t lead, uint32_t stride)
{
    return (uint64_t)((hd_shared_address(at) & 0x3ffff) >> 4) | (uint64_t)(lead >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32 | 1ull << 62;
}
/* Before the first wgmma, and whenever registers of a or d were touched by other instructions. */
HD_PTX void hd_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
HD_PTX void hd_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int groups> HD_PTX void hd_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(groups) : "memory");
}
/* The value is computed before this point of the program. No instruction. */
HD_PTX void hd_pin(float &value)
{
    asm volatile("" : "+f"(value));
}

enum hd_major { HD_K_MAJOR = 0, HD_MN_MAJOR = 1 };

/* d, for lane l of warp w: rows 16 w + l / 4 and 8 more; d[4 i], d[4 i + 1] are columns
 * 8 i + 2 (l % 4) and the next of the first row, d[4 i + 2], d[4 i + 3] of the second. a in
 * registers (K = 16, or 32 bytes of 8-bit elements): as the a of mma.sync.
 *
 *     hd_wgmma<type, N>::ss<major of b>(d, a, b, accumulate)     a, b: descriptors
 *     hd_wgmma<type, N>::rs<major of b>(d, a, b, accumulate)     a: registers */
template <hd_mma_type type, int N> struct hd_wgmma;

#define HD_ACC0  "%0,%1,%2,%3,%4,%5,%6,%7"
#define HD_ACC1  HD_ACC0 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define HD_ACC2  HD_ACC1 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define HD_ACC3  HD_ACC2 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define HD_ACC4  HD_ACC3 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define HD_ACC5  HD_ACC4 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define HD_ACC6  HD_ACC5 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define HD_ACC7  HD_ACC6 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define HD_ACC8  HD_ACC7 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define HD_ACC9  HD_ACC8 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define HD_ACC10 HD_ACC9 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define HD_ACC11 HD_ACC10 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define HD_ACC12 HD_ACC11 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define HD_ACC13 HD_ACC12 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define HD_ACC14 HD_ACC13 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define HD_ACC15 HD_ACC14 ",%120,%121,%122,%123,%124,%125,%126,%127"

#define HD_OUT(i)                                                                               \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define HD_OUT0  HD_OUT(0)
#define HD_OUT1  HD_OUT0, HD_OUT(8)
#define HD_OUT2  HD_OUT1, HD_OUT(16)
#define HD_OUT3  HD_OUT2, HD_OUT(24)
#define HD_OUT4  HD_OUT3, HD_OUT(32)
#define HD_OUT5  HD_OUT4, HD_OUT(40)
#define HD_OUT6  HD_OUT5, HD_OUT(48)
#define HD_OUT7  HD_OUT6, HD_OUT(56)
#define HD_OUT8  HD_OUT7, HD_OUT(64)
#define HD_OUT9  HD_OUT8, HD_OUT(72)
#define HD_OUT10 HD_OUT9, HD_OUT(80)
#define HD_OUT11 HD_OUT10, HD_OUT(88)
#define HD_OUT12 HD_OUT11, HD_OUT(96)
#define HD_OUT13 HD_OUT12, HD_OUT(104)
#define HD_OUT14 HD_OUT13, HD_OUT(112)
#define HD_OUT15 HD_OUT14, HD_OUT(120)

/* of: number of the last 8 accumulators; r0, r1, ...: numbers of the operands behind them. 8-bit
 * elements have no major to name: TAIL and MAJOR are what 16-bit ones say of it. */
#define HD_WGMMA(TYPE, type, N, K, of, r0, r1, r2, r3, r4, r5, SS_TAIL, RS_TAIL, MAJOR)       \
    template <> struct hd_wgmma<TYPE, N> {                                                    \
        template <hd_major major>                                                             \
        static HD_PTX void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate)      \
        {                                                                                     \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r2 ", 0;\n"                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k" #K ".f32." type "." type  \
                         " {" HD_ACC##of "}, %" #r0 ", %" #r1 ", p, 1, 1" SS_TAIL ";\n}"      \
                         : HD_OUT##of                                                         \
                         : "l"(a), "l"(b), "r"(accumulate)MAJOR);                             \
        }                                                                                     \
        template <hd_major major>                                                             \
        static HD_PTX void rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,          \
                              int accumulate)                                                 \
        {                                                                                     \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #r5 ", 0;\n"                    \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k" #K ".f32." type "." type  \
                         " {" HD_ACC##of "}, {%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 \
                                         ", p, 1, 1" RS_TAIL ";\n}"                           \
                         : HD_OUT##of                                                         \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                \
                           "r"(accumulate)MAJOR);                                             \
        }                                                                                     \
    };
#define HD_MAJOR_OPERAND , "n"((int)major)
#define HD_NO_OPERAND
#define HD_WGMMA_N(N, of, r0, r1, r2, r3, r4, r5, r6)                                         \
    HD_WGMMA(HD_MMA_BF16, "bf16", N, 16, of, r0, r1, r2, r3, r4, r5, ", 0, %" #r3, ", %" #r6, \
             HD_MAJOR_OPERAND)                                                                \
    HD_WGMMA(HD_MMA_F16, "f16", N, 16, of, r0, r1, r2, r3, r4, r5, ", 0, %" #r3, ", %" #r6,   \
             HD_MAJOR_OPERAND)                                                                \
    HD_WGMMA(HD_MMA_E4M3, "e4m3", N, 32, of, r0, r1, r2, r3, r4, r5, "", "", HD_NO_OPERAND)

HD_WGMMA_N(16, 0, 8, 9, 10, 11, 12, 13, 14)
HD_WGMMA_N(32, 1, 16, 17, 18, 19, 20, 21, 22)
HD_WGMMA_N(48, 2, 24, 25, 26, 27, 28, 29, 30)
HD_WGMMA_N(64, 3, 32, 33, 34, 35, 36, 37, 38)
HD_WGMMA_N(80, 4, 40, 41, 42, 43, 44, 45, 46)
HD_WGMMA_N(96, 5, 48, 49, 50, 51, 52, 53, 54)
HD_WGMMA_N(112, 6, 56, 57, 58, 59, 60, 61, 62)
HD_WGMMA_N(128, 7, 64, 65, 66, 67, 68, 69, 70)
HD_WGMMA_N(144, 8, 72, 73, 74, 75, 76, 77, 78)
HD_WGMMA_N(160, 9, 80, 81, 82, 83, 84, 85, 86)
HD_WGMMA_N(176, 10, 88, 89, 90, 91, 92, 93, 94)
HD_WGMMA_N(192, 11, 96, 97, 98, 99, 100, 101, 102)
HD_WGMMA_N(208, 12, 104, 105, 106, 107, 108, 109, 110)
HD_WGMMA_N(224, 13, 112, 113, 114, 115, 116, 117, 118)
HD_WGMMA_N(240, 14, 120, 121, 122, 123, 124, 125, 126)
HD_WGMMA_N(256, 15, 128, 129, 130, 131, 132, 133, 134)

#undef HD_WGMMA_N
#undef HD_WGMMA

#endif
