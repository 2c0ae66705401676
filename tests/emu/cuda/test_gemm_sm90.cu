/* C (M x N) = A (M x K) * B (N x K)^T in bf16 as Hopper's kernels do it: one warpgroup whose
 * elected thread fills a ring of three stages by TMA, two warpgroups that multiply 64 rows each by
 * wgmma, an epilogue that stores by TMA. Each fault breaks it in one way, and must turn it red. */
#include "test_sm90.h"

enum fault {
    NONE,
    NO_WGMMA_WAIT,
    RELEASE_BEFORE_WAIT,
    WAIT_ONE_SHORT,
    NO_COMMIT,
    NO_WGMMA_FENCE,
    TOUCH_ACCUMULATOR,
    NO_FULL_WAIT,
    NO_EMPTY_WAIT,
    PARITY_CONSUMER,
    PARITY_PRODUCER,
    COUNT_TOO_SMALL,
    COUNT_TOO_BIG,
    BYTES_TOO_FEW,
    BYTES_TOO_MANY,
    NO_BARRIER_AFTER_INIT,
    NO_FENCE_AFTER_INIT,
    NO_PROXY_FENCE,
    LATE_PROXY_FENCE,
    NO_STORE_BARRIER,
    NO_STORE_WAIT,
    NO_STORE_COMMIT,
    WRONG_STRIDE,
    WRONG_STEP,
    NO_SWIZZLE,
    SHARED_OVERRUN,
    BARRIER_COUNT,
    ONE_WARP_WAITS,
    GLOBAL_OVERRUN,
    NO_REGISTERS,
    BLOCKS_COLLIDE,
    FAULTS
};
static const char *const fault_names[] = {"correct",
                                          "no wgmma wait",
                                          "stage released before the wait",
                                          "wgmma wait one too many",
                                          "no wgmma commit",
                                          "no wgmma fence",
                                          "accumulator touched in flight",
                                          "no wait for a full stage",
                                          "no wait for an empty stage",
                                          "wrong parity, consumer",
                                          "wrong parity, producer",
                                          "empty: count 1 of 2",
                                          "empty: count 3 of 2",
                                          "too few bytes expected",
                                          "too many bytes expected",
                                          "no __syncthreads after init",
                                          "no fence after init",
                                          "no proxy fence before the store",
                                          "proxy fence by others, too late",
                                          "no barrier before the store",
                                          "no wait for the store",
                                          "no commit of the store",
                                          "descriptor: stride",
                                          "descriptor: step along K",
                                          "epilogue without swizzle",
                                          "shared overrun",
                                          "barrier count",
                                          "one warp waits for a full stage",
                                          "global overrun",
                                          "no registers given back",
                                          "blocks write the same place"};

enum { M = 200, N = 136, K = 456 };
enum { ROWS = 128, COLUMNS = 128, DEPTH = 64, STAGES = 3 };
enum { OPERAND = ROWS * DEPTH * 2, STAGE = 2 * OPERAND };
enum { OUT = STAGES * STAGE, BARS = OUT + ROWS * COLUMNS * 2, SHARED = BARS + 16 * STAGES };
enum { STEPS = (K + DEPTH - 1) / DEPTH };

struct gemm {
    hd_tensor_map_t a, b, c;
    float *corners; /* one number from each math warpgroup */
    int fault;
};

struct ring {
    unsigned char *memory;
    uint64_t *full, *empty;
};

static __device__ void init(const gemm &p, const ring &r)
{
    int warpgroups = p.fault == COUNT_TOO_SMALL ? 1 : p.fault == COUNT_TOO_BIG ? 3 : 2;
    for (int s = 0; s < STAGES; s++) {
        hd_mbarrier_init(&r.full[s], 1);
        hd_mbarrier_init(&r.empty[s], (uint32_t)warpgroups);
    }
    if (p.fault != NO_FENCE_AFTER_INIT)
        hd_fence_mbarrier_init();
}

static __device__ void produce(const gemm &p, const ring &r)
{
    uint32_t bytes = p.fault == BYTES_TOO_FEW    ? STAGE / 2
                     : p.fault == BYTES_TOO_MANY ? STAGE + 16
                                                 : STAGE;
    for (int i = 0; i < STEPS; i++) {
        int s = i % STAGES;
        unsigned char *stage = r.memory + s * STAGE;
        if (p.fault != NO_EMPTY_WAIT)
            hd_mbarrier_wait(&r.empty[s],
                             (uint32_t)(i / STAGES & 1) ^ (p.fault != PARITY_PRODUCER));
        hd_mbarrier_expect(&r.full[s], bytes);
        hd_tma_load(stage, &p.a, &r.full[s], i * DEPTH, (int)blockIdx.x * ROWS, 0, 0);
        hd_tma_load(stage + OPERAND, &p.b, &r.full[s], i * DEPTH, (int)blockIdx.y * COLUMNS, 0, 0);
    }
}

static __device__ void multiply(const gemm &p, const ring &r, int group, float (&d)[COLUMNS / 2])
{
    int t = (int)threadIdx.x;
    uint32_t stride = p.fault == WRONG_STRIDE ? 512 : 1024;
    uint64_t step = p.fault == WRONG_STEP ? 1 : 2;
    for (int i = 0; i < STEPS; i++) {
        int s = i % STAGES;
        if (p.fault != NO_FULL_WAIT && (p.fault != ONE_WARP_WAITS || t / 32 % 4 == 0))
            hd_mbarrier_wait(&r.full[s], p.fault == PARITY_CONSUMER ? 0 : i / STAGES & 1);
        unsigned char *stage = r.memory + s * STAGE;
        uint64_t a = hd_wgmma_descriptor(stage + group * OPERAND / 2, 16, stride);
        uint64_t b = hd_wgmma_descriptor(stage + OPERAND, 16, stride);
        if (p.fault != NO_WGMMA_FENCE)
            hd_wgmma_fence();
        for (uint64_t k = 0; k < 4; k++)
            hd_wgmma<HD_MMA_BF16, COLUMNS>::ss<HD_K_MAJOR>(d, a + k * step, b + k * step,
                                                           i + k > 0);
        if (p.fault != NO_COMMIT)
            hd_wgmma_commit();
        if (p.fault == TOUCH_ACCUMULATOR)
            d[5] *= 2;
        if (p.fault == RELEASE_BEFORE_WAIT && t % 128 == 0)
            hd_mbarrier_arrive(&r.empty[s]);
        if (p.fault == WAIT_ONE_SHORT)
            hd_wgmma_wait<1>();
        else if (p.fault != NO_WGMMA_WAIT)
            hd_wgmma_wait<0>();
        if (p.fault != RELEASE_BEFORE_WAIT && t % 128 == 0)
            hd_mbarrier_arrive(&r.empty[s]);
    }
    if (p.fault == WAIT_ONE_SHORT)
        hd_wgmma_wait<0>();
}

/* Two slabs of 64 columns in rows of 128 bytes, swizzled as the store expects. */
static __device__ void store(const gemm &p, unsigned char *out, int group,
                             const float (&d)[COLUMNS / 2])
{
    int t = (int)threadIdx.x;
    for (int i = 0; i < COLUMNS / 2; i += 2) {
        int row = group * 64 + t % 128 / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8;
        int column = i / 4 * 8 + t % 4 * 2;
        int piece = column / 8 % 8 ^ (p.fault == NO_SWIZZLE ? 0 : row % 8);
        int overrun = p.fault == SHARED_OVERRUN && t == 255 ? ROWS * 64 : 0;
        *(uint32_t *)(out + column / 64 * ROWS * 128 + row * 128 + piece * 16 + column % 8 * 2 +
                      overrun) = hd_pack_bf16(d[i], d[i + 1]);
    }
    if (p.fault != NO_PROXY_FENCE && p.fault != LATE_PROXY_FENCE)
        hd_fence_async();
    if (p.fault != NO_STORE_BARRIER)
        hd_barrier_sync(1, p.fault == BARRIER_COUNT ? 288 : 256);
    if (p.fault == LATE_PROXY_FENCE && t > 31)
        hd_fence_async();
    if (t != 0)
        return;
    for (int slab = 0; slab < 2; slab++)
        hd_tma_store(&p.c, out + slab * ROWS * 128, (int)blockIdx.y * COLUMNS + slab * 64,
                     (int)blockIdx.x * ROWS, 0, 0);
    if (p.fault != NO_STORE_COMMIT)
        hd_tma_commit();
    if (p.fault != NO_STORE_WAIT)
        hd_tma_wait_read<0>();
}

static __global__ void gemm_kernel(const __grid_constant__ gemm p)
{
    HD_SHARED(memory);
    ring r = {memory, (uint64_t *)(memory + BARS), (uint64_t *)(memory + BARS) + STAGES};
    int t = (int)threadIdx.x, group = t / 128;
    if (t == 0)
        init(p, r);
    if (p.fault != NO_BARRIER_AFTER_INIT)
        __syncthreads();
    if (group == 2) {
        if (p.fault != NO_REGISTERS)
            hd_setmaxnreg_dec<40>();
        if (t / 32 % 4 == 0 && hd_elect_one())
            produce(p, r);
        return;
    }
    hd_setmaxnreg_inc<232>();
    float d[COLUMNS / 2];
    multiply(p, r, group, d);
    store(p, memory + OUT, group, d);
    if (t % 128 == 0) {
        int column = p.fault == BLOCKS_COLLIDE ? 0 : (int)blockIdx.y;
        int at = ((int)(blockIdx.x * gridDim.y) + column) * 2 + group;
        p.corners[at + (p.fault == GLOBAL_OVERRUN ? 8 : 0)] = d[0];
    }
}

/* ---- the host's side ------------------------------------------------------------------------- */

struct operands {
    unsigned char *a, *b;
    uint16_t *c;
};

static bool is_right(const operands &x)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < K; k++)
                sum += (double)element(HD_MMA_BF16, x.a, i * K + k) *
                       element(HD_MMA_BF16, x.b, j * K + k);
            if (!(fabs(sum - emu::from_bf16(x.c[i * N + j])) <= fabs(sum) / 256 + 1e-3))
                return false;
        }
    return true;
}

/* Without hooks the numbers come out right, or an address sanitizer ends the program. */
static bool needs_instruments(int fault)
{
    return fault == BLOCKS_COLLIDE || fault == NO_PROXY_FENCE || fault == LATE_PROXY_FENCE ||
           fault == SHARED_OVERRUN;
}

static void try_fault(gemm p, const operands &x, int fault, uint64_t seeds)
{
    if (needs_instruments(fault) && !emu::is_instrumented())
        return;
    p.fault = fault;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        memset(x.c, 0xff, sizeof(*x.c) * M * N);
        use_seed(seed, (int)(seed % 3) + 1);
        emu::result result = emu_launch(gemm_kernel, dim3(2, 2), dim3(384), SHARED, NULL, p);
        bool right = is_right(x);
        expect((right && result.ok()) == (fault == NONE), fault_names[fault]);
        if (seed == 1)
            printf("%-32s %-12s %.150s\n", fault_names[fault],
                   right ? "right values" : "wrong values", emu::message(0) ? emu::message(0) : "");
        if (fault != NONE)
            continue;
        expect(result.tensor_macs == (uint64_t)4 * ROWS * COLUMNS * DEPTH * STEPS,
               "work: products");
        expect(result.load_bytes == (uint64_t)4 * STAGE * STEPS, "work: bytes loaded");
        expect(result.store_bytes == (uint64_t)4 * ROWS * COLUMNS * 2, "work: bytes stored");
    }
}

/* gemm_sm90 [SEEDS [FAULT]]: how many schedules, and which fault alone. */
int main(int argc, char **argv)
{
    uint64_t seeds = argc > 1 ? (uint64_t)atoi(argv[1]) : 2;
    operands x = {random_elements(HD_MMA_BF16, M * K), random_elements(HD_MMA_BF16, N * K),
                  array<uint16_t>(M * N)};
    gemm p = {matrix_map(HD_MMA_BF16, x.a, M, K, ROWS, DEPTH),
              matrix_map(HD_MMA_BF16, x.b, N, K, COLUMNS, DEPTH),
              matrix_map(HD_MMA_BF16, x.c, M, N, ROWS, 64), array<float>(8), NONE};
    for (int fault = 0; fault < FAULTS; fault++)
        if (argc < 3 || fault == atoi(argv[2]))
            try_fault(p, x, fault, fault == NONE ? 2 * seeds : seeds);
    emu::take_failed();
    return test_end("gemm_sm90");
}
