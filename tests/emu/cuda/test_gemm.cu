/* C (m x n, f32) = A (m x k) * B (n x k)^T with a ring of three cp.async stages, ldmatrix and
 * mma.sync, for ragged sizes. Each fault breaks it in one way, and must turn it red. */
#include "test.h"

enum fault {
    NONE,
    NO_BARRIER,
    NO_WAIT,
    WAIT_ONE_SHORT,
    NO_COMMIT,
    NO_ZERO_FILL,
    WRONG_ROW,
    WRONG_STAGE,
    TRANSPOSED,
    SHARED_OVERRUN,
    GLOBAL_OVERRUN,
    BLOCKS_COLLIDE,
    WARP_LEAVES,
    NO_LAST_WAIT,
    FAULTS
};
static const char *const fault_names[] = {"correct",         "no __syncthreads",
                                          "no wait_group",   "wait_group one too many",
                                          "no commit_group", "no zero fill",
                                          "wrong row",       "wrong stage",
                                          "B transposed",    "shared overrun",
                                          "global overrun",  "blocks write the same tile",
                                          "a warp leaves",   "copies in flight at the end"};

enum { TILE = 64, STEP = 32, PITCH = 80, STAGES = 3, OPERAND = TILE * PITCH };
enum { SHARED = STAGES * 2 * OPERAND, M = 100, N = 72, K = 136 };

struct gemm {
    const uint16_t *a, *b;
    float *c;
    int m, n, k, fault;
    bool bf16;
};

/* Rows first .. first+63 of an operand, columns from .. from+31, 128 threads. */
static __device__ void load_operand(const gemm &p, unsigned char *to, const uint16_t *x, int rows,
                                    int first, int from)
{
    for (int i = (int)threadIdx.x; i < TILE * STEP / 8; i += 128) {
        int row = i / 4, column = from + i % 4 * 8;
        bool inside = first + row < rows && column < p.k;
        const uint16_t *source = x + (int64_t)(first + row) * p.k + column;
        hd_cp_async_16(to + row * PITCH + i % 4 * 16,
                       inside || p.fault == NO_ZERO_FILL ? source : x,
                       inside || p.fault == NO_ZERO_FILL ? 16 : 0);
    }
}

static __device__ void load_stage(const gemm &p, unsigned char *shared, int step)
{
    unsigned char *stage = shared + step % STAGES * 2 * OPERAND;
    load_operand(p, stage, p.a, p.m, (int)blockIdx.y * TILE, step * STEP);
    load_operand(p, stage + OPERAND, p.b, p.n, (int)blockIdx.x * TILE, step * STEP);
}

/* 16 rows of the warp, 64 columns. */
static __device__ void multiply_stage(const gemm &p, const unsigned char *stage, float (&d)[8][4])
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int row = 16 * warp + lane % 16 + (p.fault == WRONG_ROW && lane == 9 ? -1 : 0);
    for (int k = 0; k < STEP; k += 16) {
        uint32_t a[4], b[4];
        hd_ldmatrix_x4(a, stage + row * PITCH + (k + lane / 16 * 8) * 2);
        for (int n = 0; n < 4; n++) {
            const unsigned char *at = stage + OPERAND +
                                      (16 * n + lane % 8 + lane / 16 * 8) * PITCH +
                                      (k + lane / 8 % 2 * 8) * 2;
            if (p.fault == TRANSPOSED)
                hd_ldmatrix_x4_trans(b, at);
            else
                hd_ldmatrix_x4(b, at);
            const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
            if (p.bf16) {
                hd_mma_bf16(d[2 * n], a, low);
                hd_mma_bf16(d[2 * n + 1], a, high);
            } else {
                hd_mma_f16(d[2 * n], a, low);
                hd_mma_f16(d[2 * n + 1], a, high);
            }
        }
    }
}

static __device__ void store_tile(const gemm &p, const float (&d)[8][4])
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int rows = p.m + (p.fault == GLOBAL_OVERRUN);
    int first = p.fault == BLOCKS_COLLIDE ? 0 : (int)blockIdx.y * TILE;
    for (int n = 0; n < 8; n++)
        for (int i = 0; i < 4; i++) {
            int row = first + 16 * warp + lane / 4 + i / 2 * 8;
            int column = (int)blockIdx.x * TILE + 8 * n + lane % 4 * 2 + i % 2;
            if (row < rows && column < p.n)
                p.c[(int64_t)row * p.n + column] = d[n][i];
        }
}

static __device__ void wait_for_stage(const gemm &p)
{
    if (p.fault == WAIT_ONE_SHORT)
        hd_cp_async_wait<STAGES - 1>();
    else if (p.fault != NO_WAIT)
        hd_cp_async_wait<STAGES - 2>();
    if (p.fault != NO_BARRIER)
        __syncthreads();
}

static __global__ void gemm_kernel(gemm p)
{
    HD_SHARED(shared);
    float d[8][4] = {};
    int steps = (p.k + STEP - 1) / STEP;
    for (int i = 0; i < STAGES - 1; i++) {
        load_stage(p, shared, i);
        hd_cp_async_commit();
    }
    for (int i = 0; i < steps; i++) {
        if (p.fault == WARP_LEAVES && i == 2 && threadIdx.x >= 96)
            break;
        wait_for_stage(p);
        if (i + STAGES - 1 < steps || p.fault == NO_LAST_WAIT)
            load_stage(p, shared, i + STAGES - 1);
        if (p.fault != NO_COMMIT)
            hd_cp_async_commit();
        int stage = (i + (p.fault == WRONG_STAGE)) % STAGES;
        multiply_stage(p, shared + stage * 2 * OPERAND, d);
    }
    if (p.fault == SHARED_OVERRUN && threadIdx.x == 127)
        ((volatile unsigned char *)shared)[SHARED] = 1;
    store_tile(p, d);
}

static float value_of(uint16_t bits, bool bf16)
{
    return bf16 ? emu::from_bf16(bits) : emu::from_f16(bits);
}

static bool is_right(const gemm &p)
{
    for (int i = 0; i < p.m; i++)
        for (int j = 0; j < p.n; j++) {
            double sum = 0;
            for (int k = 0; k < p.k; k++)
                sum +=
                    (double)value_of(p.a[i * p.k + k], p.bf16) * value_of(p.b[j * p.k + k], p.bf16);
            if (!(fabs(sum - p.c[i * p.n + j]) < 1e-4))
                return false;
        }
    return true;
}

static uint16_t *random_matrix(int count, bool bf16)
{
    uint16_t *x = array<uint16_t>((size_t)count);
    for (int i = 0; i < count; i++)
        x[i] = (uint16_t)(bf16 ? emu::to_bf16(random_unit()) : emu::to_f16(random_unit()));
    return x;
}

/* Without hooks the numbers come out right, or an address sanitizer ends the program. */
static bool needs_instruments(int fault)
{
    return fault == BLOCKS_COLLIDE || fault == SHARED_OVERRUN;
}

static void try_fault(gemm p, int fault, uint64_t seeds)
{
    if (needs_instruments(fault) && !emu::is_instrumented())
        return;
    p.fault = fault;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        memset(p.c, 0xff, sizeof(float) * M * N);
        use_seed(seed, (int)(seed % 2) + 1);
        emu::result result = emu_launch(gemm_kernel, dim3(2, 2), dim3(128), SHARED, NULL, p);
        bool right = is_right(p);
        expect((right && result.ok()) == (fault == NONE), fault_names[fault]);
        if (seed == 1)
            printf("%-28s %-12s %.150s\n", fault_names[fault],
                   right ? "right values" : "wrong values", emu::message(0) ? emu::message(0) : "");
        if (fault == NONE)
            expect(result.tensor_macs == (uint64_t)4 * TILE * TILE * ((K + 31) / 32 * 32),
                   "work: multiply-adds");
    }
}

int main()
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        gemm p = {random_matrix(M * K, bf16),
                  random_matrix(N * K, bf16),
                  array<float>(M * N),
                  M,
                  N,
                  K,
                  NONE,
                  bf16 != 0};
        for (int fault = 0; fault < FAULTS; fault++)
            if (bf16 || fault == NONE)
                try_fault(p, fault, fault == NONE ? 4 : 2);
    }
    emu::take_failed();
    return test_end("gemm");
}
