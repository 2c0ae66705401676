/* wgmma in all its types and forms, and 8-bit floats, against plain loops. */
#include "test_sm90.h"

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

template <hd_mma_type type, int N, bool RS, hd_major major>
static void test_product(double bound, int e4m3_bits)
{
    enum { BYTES = type == HD_MMA_E4M3 ? 1 : 2, K = 128 / BYTES, SLABS = (N + 63) / 64 };
    bool mn = major == HD_MN_MAJOR;
    unsigned char *a = random_elements(type, 64 * K), *b = random_elements(type, N * K);
    float *d = array<float>(64 * N);
    product_params p = {matrix_map(type, a, 64, K, 64, K),
                        mn ? matrix_map(type, b, K, N, K, 64) : matrix_map(type, b, N, K, N, K), a,
                        d};
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

/* ---- 8-bit floats ---------------------------------------------------------------------------- */

static void test_e4m3()
{
    bool right = true;
    for (uint32_t code = 0; code < 256; code++) {
        float value = emu::from_e4m3(code);
        right = right && (code % 128 == 127 ? value != value : emu::to_e4m3(value) == code);
        if (code % 128 >= 126)
            continue;
        float next = emu::from_e4m3(code + 1), middle = (value + next) / 2;
        right = right && emu::to_e4m3(middle) == code + code % 2 &&
                emu::to_e4m3(value + (next - value) * 0.501f) == code + 1;
    }
    right = right && emu::to_e4m3(1e30f) == 0x7e && emu::to_e4m3(-INFINITY) == 0xfe &&
            emu::to_e4m3(NAN) == 0x7f;
    expect(right, "E4M3");
    expect(hd_pack_e4m3(1, -2) == 0xc038, "pairs of E4M3");
    float most = hd_max_nan(NAN, 1);
    expect(most != most && hd_max_nan(-1, 2) == 2, "max.NaN");
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
    test_e4m3();
    return test_end("wgmma");
}
