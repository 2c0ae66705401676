/* TMA, mbarriers and what goes with them against plain loops, and faults that must be noticed. */
#include "test_sm90.h"

/* ---- TMA: a box in and out, against the definition of the swizzle ---------------------------- */

struct box_params {
    hd_tensor_map_t from, to;
    unsigned char *image; /* the box as it lay in shared memory */
    int bytes, room, at[HD_MAP_AXES];
};

static __global__ void move_box(const __grid_constant__ box_params p)
{
    HD_SHARED(memory);
    uint64_t *bar = (uint64_t *)(memory + p.room);
    if (threadIdx.x != 0)
        return;
    hd_tma_prefetch(&p.from);
    hd_mbarrier_init(bar, 1);
    hd_fence_mbarrier_init();
    hd_mbarrier_expect(bar, (uint32_t)p.bytes);
    hd_tma_load(memory, &p.from, bar, p.at[0], p.at[1], p.at[2], p.at[3], hd_l2_evict_first());
    hd_mbarrier_wait(bar, 0);
    for (int i = 0; i < p.bytes; i++)
        p.image[i] = memory[i];
    hd_tma_store(&p.to, memory, p.at[0], p.at[1], p.at[2], p.at[3]);
    hd_tma_commit();
    hd_tma_wait<0>();
}

/* The tensor has gaps between its rows, which nobody may touch. */
static hd_map_desc_t box_desc(int bytes, int swizzle, const int *box, unsigned char *data)
{
    hd_map_desc_t desc = {};
    const int sizes[HD_MAP_AXES] = {40, 9, 5, 3};
    desc.dtype = bytes == 4 ? HEED_F32 : bytes == 2 ? HEED_F16 : HEED_E4M3;
    desc.data = data;
    desc.swizzle = swizzle;
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = sizes[i];
        desc.box[i] = box[i];
        desc.strides[i] = i == 0   ? bytes
                          : i == 1 ? (40 * bytes + 31) / 16 * 16
                                   : desc.strides[i - 1] * sizes[i - 1];
    }
    return desc;
}

/* The tensor's byte that belongs to byte n of the dense box, or -1 where that is outside. */
static int64_t box_byte(const hd_map_desc_t &desc, const int *at, int bytes, int n)
{
    int64_t index = n / bytes, place = n % bytes;
    for (int i = 0; i < HD_MAP_AXES; i++) {
        int64_t x = at[i] + index % desc.box[i];
        index /= desc.box[i];
        if (x < 0 || x >= desc.sizes[i])
            return -1;
        place += x * desc.strides[i];
    }
    return place;
}

static void test_box(int bytes, int swizzle, const int *box, const int *at)
{
    int count = box[0] * box[1] * box[2] * box[3] * bytes, wrong = 0;
    hd_map_desc_t desc = box_desc(bytes, swizzle, box, NULL);
    int64_t total = desc.sizes[3] * desc.strides[3];
    unsigned char *from = array<unsigned char>((size_t)total);
    unsigned char *to = array<unsigned char>((size_t)total);
    for (int64_t i = 0; i < total; i++)
        from[i] = (unsigned char)(1 + i % 251);
    box_params p = {};
    desc.data = from;
    p.from = make_map(desc);
    desc.data = to;
    p.to = make_map(desc);
    p.image = array<unsigned char>((size_t)count);
    p.bytes = count;
    p.room = (count + 1023) / 1024 * 1024;
    memcpy(p.at, at, sizeof(p.at));
    char name[80];
    snprintf(name, sizeof(name), "TMA: %d bytes, swizzle %d, at %d %d %d %d", bytes, swizzle, at[0],
             at[1], at[2], at[3]);
    run_kernel(name, NULL, move_box, 1, 32, (size_t)p.room + 8, p);
    for (int n = 0; n < count; n++) {
        int piece = n / 16 % 8 ^ (swizzle ? n / 128 % 8 : 0);
        int64_t place = box_byte(desc, at, bytes, n);
        wrong += p.image[n / 128 * 128 + piece * 16 + n % 16] != (place < 0 ? 0 : from[place]);
        if (place >= 0) {
            wrong += to[place] != from[place];
            to[place] = 0;
        }
    }
    for (int64_t i = 0; i < total; i++)
        wrong += to[i] != 0; /* nothing else was written */
    expect(wrong == 0, name);
}

static void test_boxes()
{
    const int places[][HD_MAP_AXES] = {{0, 0, 0, 0}, {8, -3, 3, 2}, {-5, 4, -1, 0}, {64, 0, 0, 0}};
    for (int bytes = 1; bytes <= 4; bytes *= 2)
        for (int swizzle = 0; swizzle <= 128; swizzle += 128)
            for (const int(&at)[HD_MAP_AXES] : places) {
                const int box[HD_MAP_AXES] = {128 / bytes, 8, 3, 2};
                test_box(bytes, swizzle, box, at);
            }
}

static bool complains(hd_map_desc_t desc, const char *of)
{
    hd_tensor_map_t map;
    const char *complaint = emu::encode_map(&map, &desc);
    return complaint && strstr(complaint, of);
}

static void test_maps()
{
    const int box[HD_MAP_AXES] = {64, 8, 1, 1};
    const hd_map_desc_t good = box_desc(2, 128, box, array<unsigned char>(16));
    make_map(good);
    hd_map_desc_t desc = good;
    desc.data = (char *)desc.data + 8;
    expect(complains(desc, "not aligned"), "map: data");
    desc = good;
    desc.box[1] = 257;
    expect(complains(desc, "edge of the box"), "map: box");
    desc = good;
    desc.box[0] = 72;
    expect(complains(desc, "longer than the swizzle"), "map: rows");
    desc = good;
    desc.box[0] = 4;
    expect(complains(desc, "no multiple of 16 bytes"), "map: rows of 8 bytes");
    desc = good;
    desc.strides[2] += 8;
    expect(complains(desc, "stride"), "map: stride");
    desc = good;
    desc.sizes[3] = 0;
    expect(complains(desc, "a size"), "map: size");
    desc = good;
    desc.swizzle = 64;
    expect(complains(desc, "swizzle"), "map: swizzle");
}

/* ---- mbarriers, stores, warps ---------------------------------------------------------------- */

enum unit_fault {
    UNIT_OK,
    STALE_PHASE,
    NO_INIT,
    NOT_ALIGNED,
    TWICE,
    TOO_MANY_ARRIVALS,
    LOST_LOAD,
    BYTES_MISSING,
    OVERWRITTEN,
    REUSED_TOO_EARLY,
    ONE_GROUP_SHORT,
    ELECT_ALONE,
    WRONG_DIRECTION,
    BAD_MAP,
    BAD_BOX,
    GARBAGE_POLICY
};
struct unit_params {
    hd_tensor_map_t map; /* 1 x 64 bf16, boxes of 64 */
    int *out;
    int fault;
};

/* 32 threads hand a number on through a pair of mbarriers, ten phases each. */
static __device__ void phases(const unit_params &p, unsigned char *memory)
{
    uint64_t *bars = (uint64_t *)memory;
    int *box = (int *)(memory + 512), t = (int)threadIdx.x;
    for (int i = 0; i < 10; i++) {
        if (t < 32) {
            hd_mbarrier_wait(&bars[1], (uint32_t)(i & 1) ^ 1);
            box[t] = 100 * i + t;
            hd_mbarrier_arrive(&bars[0]);
        } else {
            hd_mbarrier_wait(&bars[0], p.fault == STALE_PHASE ? 0 : i & 1);
            p.out[t - 32] += box[63 - t];
            hd_mbarrier_arrive(&bars[1]);
        }
    }
}

/* A box of shared memory written three times, stored three times: two groups may be on their way.
 */
static __device__ void stores(const unit_params &p, unsigned char *memory)
{
    uint32_t *boxes = (uint32_t *)(memory + 1024);
    if (threadIdx.x != 0)
        return;
    for (int i = 0; i < 4; i++) {
        uint32_t *box = boxes + i % 2 * 32;
        if (i >= 2 && p.fault == ONE_GROUP_SHORT)
            hd_tma_wait_read<2>();
        else if (i >= 2 && p.fault != REUSED_TOO_EARLY)
            hd_tma_wait_read<1>();
        for (int x = 0; x < 32; x++)
            box[x] = (uint32_t)(i * 0x10001);
        hd_fence_async();
        hd_tma_store(&p.map, box, 0, i, 0, 0);
        hd_tma_commit();
    }
    hd_tma_wait_read<0>();
}

static __device__ void misuse(const unit_params &p, unsigned char *memory)
{
    uint64_t *bars = (uint64_t *)memory;
    int t = (int)threadIdx.x, fault = p.fault;
    if (fault == ELECT_ALONE && (t >= 32 || t % 2))
        return;
    if (fault == ELECT_ALONE)
        p.out[0] += hd_elect_one();
    if (fault == WRONG_DIRECTION)
        hd_setmaxnreg_dec<256>(), hd_setmaxnreg_dec<24>(), hd_setmaxnreg_dec<40>();
    if (t != 0)
        return;
    if (fault == NO_INIT)
        hd_mbarrier_arrive(&bars[2]);
    if (fault == NOT_ALIGNED)
        hd_mbarrier_init((uint64_t *)(memory + 20), 1);
    if (fault == TWICE)
        hd_mbarrier_init(&bars[0], 1);
    if (fault == TOO_MANY_ARRIVALS)
        for (int i = 0; i < 3; i++)
            hd_mbarrier_expect(&bars[3], 128);
    if (fault == OVERWRITTEN) {
        bars[3] = 0;
        hd_mbarrier_arrive(&bars[3]);
    }
    if (fault == BYTES_MISSING)
        hd_mbarrier_expect(&bars[3], 128);
    if (fault == LOST_LOAD) {
        hd_mbarrier_expect(&bars[3], 128);
        hd_tma_load(memory + 1024, &p.map, &bars[3], 0, 0, 0, 0);
    }
    if (fault == BAD_MAP)
        hd_tma_load(memory + 1024, (const hd_tensor_map_t *)p.out, &bars[3], 0, 0, 0, 0);
    if (fault == BAD_BOX)
        hd_tma_load(memory + 1024 + 16, &p.map, &bars[3], 0, 0, 0, 0);
    if (fault == GARBAGE_POLICY)
        hd_tma_load(memory + 1024, &p.map, &bars[3], 0, 0, 0, 0, 7);
}

static __global__ void units(const __grid_constant__ unit_params p)
{
    HD_SHARED(memory);
    uint64_t *bars = (uint64_t *)memory;
    if (threadIdx.x == 0) {
        hd_mbarrier_init(&bars[0], 32);
        hd_mbarrier_init(&bars[1], 32);
        hd_mbarrier_init(&bars[3], 2);
        hd_fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x / 32 == 0 && p.fault != ELECT_ALONE && hd_elect_one())
        p.out[32] = (int)threadIdx.x;
    misuse(p, memory);
    if (p.fault == LOST_LOAD)
        return;
    phases(p, memory);
    stores(p, memory);
}

static unit_params make_units(int fault, uint16_t *stored)
{
    hd_map_desc_t desc = {};
    desc.dtype = HEED_BF16;
    desc.data = stored;
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = i == 0 ? 64 : i == 1 ? 4 : 1;
        desc.strides[i] = 128;
        desc.box[i] = i == 0 ? 64 : 1;
    }
    return {make_map(desc), array<int>(64), fault};
}

static void test_units()
{
    uint16_t *stored = array<uint16_t>(4 * 64);
    for (uint64_t seed = 1; seed <= 8; seed++) {
        unit_params p = make_units(UNIT_OK, stored);
        memset(stored, 0xff, 4 * 64 * sizeof(*stored));
        use_seed(seed, 1);
        expect(emu_launch(units, 1, 64, 2048, NULL, p).ok(), "units");
        bool right = p.out[32] == (int)(seed % 32);
        for (int t = 0; t < 32; t++)
            right = right && p.out[t] == 4500 + 10 * (31 - t);
        for (int i = 0; i < 4 * 64; i++)
            right = right && stored[i] == i / 64;
        expect(right, "units: values");
    }
}

static void must_fail(int fault, const char *message)
{
    uint16_t *stored = array<uint16_t>(4 * 64);
    run_kernel(message, message, units, 1, 64, 2048, make_units(fault, stored));
}

static void test_misuse()
{
    must_fail(NO_INIT, "mbarrier: shared+16 was never initialised");
    must_fail(NOT_ALIGNED, "mbarrier: shared+20 is not aligned");
    must_fail(TWICE, "mbarrier: shared+0 is initialised twice");
    must_fail(TOO_MANY_ARRIVALS, "has more arrivals than its count 2");
    must_fail(LOST_LOAD, "TMA load: the block ended without waiting for mbarrier shared+24");
    must_fail(BYTES_MISSING, "mbarrier: shared+24 ended with 128 bytes missing");
    must_fail(OVERWRITTEN, "mbarrier: shared+24 was overwritten");
    must_fail(ELECT_ALONE, "wait for a warp operation");
    must_fail(WRONG_DIRECTION, "setmaxnreg: from 24 to 40");
    must_fail(BAD_MAP, "TMA: the tensor map at");
    must_fail(BAD_BOX, "is not aligned to 128 bytes");
    must_fail(GARBAGE_POLICY, "is no L2 policy");
    if (!emu::is_instrumented())
        return;
    must_fail(STALE_PHASE, "race: thread ");
    must_fail(REUSED_TOO_EARLY, "race: thread overwrites shared+1024 still read by a TMA store");
    must_fail(ONE_GROUP_SHORT, "race: thread overwrites shared+1024 still read by a TMA store");
}

int main()
{
    test_boxes();
    test_maps();
    test_units();
    test_misuse();
    return test_end("hopper");
}
