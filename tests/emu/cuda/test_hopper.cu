/* Hopper's units against plain loops, and faults that must be noticed. */
#include "test.h"

#include "../../../src/cuda/tensor_map.h"

/* ---- helpers --------------------------------------------------------------------------------- */

static hd_tensor_map_t make_map(const hd_map_desc_t &desc)
{
    hd_tensor_map_t map;
    const char *complaint = emu::encode_map(&map, &desc);
    expect(!complaint, complaint ? complaint : "");
    return map;
}

/* rows x columns, elements of one type, boxes of box_rows x box_columns. */
static hd_tensor_map_t matrix_map(heed_dtype_t dtype, int bytes, const void *data, int rows,
                                  int columns, int box_rows, int box_columns)
{
    hd_map_desc_t desc = {};
    desc.dtype = dtype;
    desc.data = data;
    desc.swizzle = 128;
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = i == 0 ? columns : i == 1 ? rows : 1;
        desc.strides[i] = i == 0 ? bytes : (int64_t)columns * bytes;
        desc.box[i] = i == 0 ? box_columns : i == 1 ? box_rows : 1;
    }
    return make_map(desc);
}

/* ---- wgmma: d (64 x N) = a (64 x K) b, K four steps ------------------------------------------ */

struct product_params {
    hd_tensor_map_t a_map, b_map;
    const unsigned char *a;
    float *d;
};

/* Two chained groups; the second product of the first one starts the sum anew. */
template <hd_mma_type type, int N, bool RS, hd_major major>
static __global__ void multiply(const __grid_constant__ product_params p)
{
    enum { BYTES = type == HD_MMA_E4M3 ? 1 : 2, SLABS = (N + 63) / 64 };
    HD_SHARED(memory);
    unsigned char *a = memory, *b = memory + 8192;
    uint64_t *bar = (uint64_t *)(memory + 8192 + SLABS * 64 * 128);
    int t = (int)threadIdx.x;
    if (t == 0) {
        hd_mbarrier_init(bar, 1);
        hd_fence_mbarrier_init();
    }
    __syncthreads();
    if (t == 0) {
        hd_mbarrier_expect(bar, 8192 + (major == HD_MN_MAJOR ? SLABS * 8192 : N * 128));
        hd_tma_load(a, &p.a_map, bar, 0, 0, 0, 0);
        for (int s = 0; s < (major == HD_MN_MAJOR ? SLABS : 1); s++)
            hd_tma_load(b + s * 8192, &p.b_map, bar, 64 * s, 0, 0, 0, hd_l2_evict_last());
    }
    hd_mbarrier_wait(bar, 0);

    float d[N / 2];
    for (int i = 0; i < N / 2; i++)
        d[i] = 1;
    int row = 16 * (t / 32) + t % 32 / 4, column = 2 * (t % 4);
    uint64_t from_a = hd_wgmma_descriptor(a, 16, 1024);
    uint64_t from_b = hd_wgmma_descriptor(b, major == HD_MN_MAJOR ? 8192 : 16, 1024);
    hd_wgmma_fence();
    for (int k = 0; k < 4; k++) {
        uint64_t step_b = from_b + (uint64_t)(k * (major == HD_MN_MAJOR ? 128 : 2));
        if (RS) {
            uint32_t r[4];
            for (int i = 0; i < 4; i++)
                memcpy(&r[i], p.a + (row + i % 2 * 8) * 128 + k * 32 + i / 2 * 16 + column * 2,
                       sizeof(r[i]));
            hd_wgmma<type, N>::template rs<major>(d, r, step_b, k > 1);
        } else {
            hd_wgmma<type, N>::template ss<major>(d, from_a + (uint64_t)(2 * k), step_b, k > 1);
        }
        if (k == 1)
            hd_wgmma_commit();
    }
    hd_wgmma_commit();
    hd_wgmma_wait<1>();
    bool early = d[0] == d[0]; /* the chain goes on in the second group */
    hd_wgmma_wait<0>();
    for (int i = 0; i < N / 2; i++)
        p.d[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + column + i % 2] = early ? NAN : d[i];
}

static float element(hd_mma_type type, const unsigned char *at, int index)
{
    uint16_t half;
    if (type == HD_MMA_E4M3)
        return emu::from_e4m3(at[index]);
    memcpy(&half, at + 2 * index, sizeof(half));
    return type == HD_MMA_BF16 ? emu::from_bf16(half) : emu::from_f16(half);
}

static unsigned char *random_elements(hd_mma_type type, int count)
{
    unsigned char *at = array<unsigned char>((size_t)count * 2);
    for (int i = 0; i < count; i++) {
        float x = random_unit();
        uint16_t half = (uint16_t)(type == HD_MMA_BF16 ? emu::to_bf16(x) : emu::to_f16(x));
        if (type == HD_MMA_E4M3)
            at[i] = (unsigned char)emu::to_e4m3(x);
        else
            memcpy(at + 2 * i, &half, sizeof(half));
    }
    return at;
}

template <hd_mma_type type, int N, bool RS, hd_major major>
static void test_product(double bound, int e4m3_bits)
{
    enum { BYTES = type == HD_MMA_E4M3 ? 1 : 2, K = 128 / BYTES, SLABS = (N + 63) / 64 };
    const heed_dtype_t dtypes[] = {HEED_BF16, HEED_F16, HEED_E4M3};
    bool mn = major == HD_MN_MAJOR;
    unsigned char *a = random_elements(type, 64 * K), *b = random_elements(type, N * K);
    float *d = array<float>(64 * N);
    product_params p = {matrix_map(dtypes[type], BYTES, a, 64, K, 64, K),
                        mn ? matrix_map(dtypes[type], BYTES, b, K, N, K, 64)
                           : matrix_map(dtypes[type], BYTES, b, N, K, N, K),
                        a, d};
    char name[80];
    snprintf(name, sizeof(name), "wgmma type %d N %d %s %s bits %d", (int)type, N, RS ? "rs" : "ss",
             mn ? "MN-major" : "K-major", e4m3_bits);
    size_t shared = 8192 + SLABS * 64 * 128 + 8;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        emu::config config;
        config.seed = seed;
        config.e4m3_bits = e4m3_bits;
        emu::set_config(config);
        emu::result result = emu_launch(multiply<type, N, RS, major>, 1, 128, shared, NULL, p);
        expect(result.ok(), name);
        expect(result.tensor_macs == 64 * N * K, "multiply-adds are counted");
        double worst = 0;
        for (int i = 0; i < 64; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = K / 4; k < K; k++) /* the second product starts the sum */
                    sum += (double)element(type, a, i * K + k) *
                           (double)element(type, b, mn ? k * N + j : j * K + k);
                double error = fabs(sum - (double)d[i * N + j]);
                worst = error <= worst ? worst : error;
            }
        if (!(worst <= bound))
            printf("%s: %g\n", name, worst);
        expect(worst <= bound, name);
    }
}

template <hd_mma_type type, int N> static void test_16_bits()
{
    test_product<type, N, false, HD_K_MAJOR>(1e-4, 0);
    test_product<type, N, false, HD_MN_MAJOR>(1e-4, 0);
    test_product<type, N, true, HD_K_MAJOR>(1e-4, 0);
    test_product<type, N, true, HD_MN_MAJOR>(1e-4, 0);
}

int main()
{
    test_16_bits<HD_MMA_BF16, 16>();
    test_16_bits<HD_MMA_BF16, 64>();
    test_16_bits<HD_MMA_F16, 80>();
    test_16_bits<HD_MMA_F16, 128>();
    test_16_bits<HD_MMA_BF16, 176>();
    test_16_bits<HD_MMA_BF16, 256>();
    test_product<HD_MMA_E4M3, 128, false, HD_K_MAJOR>(1e-4, 0);
    test_product<HD_MMA_E4M3, 96, true, HD_K_MAJOR>(1e-4, 0);
    test_product<HD_MMA_E4M3, 256, true, HD_K_MAJOR>(0.02, 13);
    return test_end("test_hopper");
}
