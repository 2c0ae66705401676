/* wgmma: products of a warpgroup.
 *
 * An operation waits in the queue of its warpgroup until some thread's wait demands it and all 128
 * threads have issued it; only then it reads shared memory. Its completion counts for the whole
 * warpgroup. Accumulators are taken over at the issue and hold a signalling NaN until the thread's
 * own wait; a in registers is captured at the issue, as the compiler sees to it on a device. */
#include "state.h"

#include <algorithm>

namespace emu
{

constexpr uint32_t IN_FLIGHT = 0x7fa0dead; /* arithmetic on a signalling NaN changes it */

static warpgroup &my_warpgroup(const void *site)
{
    if (m.now->threads % 128)
        fatal(site, "wgmma: %d threads are not whole warpgroups", m.now->threads);
    return m.now->sm90.groups[m.cur->id / 128];
}

/* Where d[i] of thread t lies. */
static size_t place_of(int t, int i, int columns)
{
    int row = 16 * (t / 32) + t % 32 / 4 + i / 2 % 2 * 8;
    return (size_t)(row * columns + i / 4 * 8 + t % 4 * 2 + i % 2);
}

/* ---- issue ----------------------------------------------------------------------------------- */

void wgmma_fence()
{
    maybe_yield();
    m.cur->sm90.registers_free = false;
}

static bool is_same(const product &p, const product &q)
{
    return !memcmp(&p.shape, &q.shape, sizeof(p.shape)) && p.a == q.a && p.b == q.b &&
           p.from_registers == q.from_registers && p.accumulate == q.accumulate;
}

/* Takes part in the warpgroup's product of this number. */
static product &join_product(warpgroup &group, uint64_t number, product mine)
{
    if (number == group.first + group.products.size()) {
        mine.clock = m.cur->clock;
        mine.fence = m.cur->sm90.fence;
        group.products.push_back(mine);
    }
    product &p = group.products[number - group.first];
    if (!is_same(p, mine))
        fatal(mine.site, "wgmma: threads of one warpgroup issue different operations");
    for (size_t i = 0; i < p.clock.size(); i++) {
        p.clock[i] = std::min(p.clock[i], m.cur->clock[i]);
        p.fence[i] = std::min(p.fence[i], m.cur->sm90.fence[i]);
    }
    return p;
}

static taken_registers *find_taken(const float *d, int columns, const void *site)
{
    for (taken_registers &taken : m.cur->sm90.taken) {
        if (taken.d == d && taken.sum->columns == columns)
            return &taken;
        if (taken.d < d + columns / 2 && d < taken.d + taken.sum->columns / 2)
            report(site, "wgmma accumulators: overlap others in flight of another shape");
    }
    return NULL;
}

/* The first of a chain takes the registers. */
static void take(product &p, float *d, uint64_t number)
{
    int columns = p.shape.columns, t = m.cur->id % 128;
    taken_registers *taken = find_taken(d, columns, p.site);
    if (!taken) {
        if (!p.sum)
            p.sum.reset(new accumulator{columns, std::vector<float>(64 * (size_t)columns)});
        m.cur->sm90.taken.push_back({d, p.sum, number});
        taken = &m.cur->sm90.taken.back();
        for (int i = 0; i < columns / 2; i++) {
            memcpy(&p.sum->values[place_of(t, i, columns)], &d[i], sizeof(float));
            memcpy(&d[i], &IN_FLIGHT, sizeof(float));
        }
    }
    if (p.sum && p.sum != taken->sum)
        fatal(p.site, "wgmma: threads of one warpgroup wait differently between operations");
    p.sum = taken->sum;
    taken->last = number;
}

/* Counts the products of a chain, whatever waits are between them. */
static void lengthen(const float *d, bool accumulate, const void *site)
{
    int &length = m.cur->sm90.chains[d];
    length = accumulate ? length + 1 : 1;
    if (length > m.cfg.e4m3_chain)
        report(site, "wgmma of E4M3 without a flush: %d products in one sum, %d are allowed",
               length, m.cfg.e4m3_chain);
}

void wgmma(float *d, product_shape shape, const uint32_t *a, uint64_t descriptor_a,
           uint64_t descriptor_b, bool accumulate)
{
    const void *site = EMU_SITE;
    maybe_yield();
    warpgroup &group = my_warpgroup(site);
    if (m.cur->sm90.registers_free)
        report(site, "wgmma fence missing: registers were free for other instructions");
    if (shape.e4m3 && m.cfg.e4m3_chain && m.cur->id % 128 == 0)
        lengthen(d, accumulate, site);
    product mine = {};
    mine.shape = shape;
    mine.a = a ? 0 : descriptor_a;
    mine.b = descriptor_b;
    mine.from_registers = a != NULL;
    mine.accumulate = accumulate;
    mine.site = site;
    uint64_t number = m.cur->sm90.issued++;
    product &p = join_product(group, number, mine);
    p.registers.resize(a ? 4 * 128 : 0);
    if (a)
        memcpy(&p.registers[4 * (size_t)(m.cur->id % 128)], a, 4 * sizeof(*a));
    take(p, d, number);
    if (++p.issued == 128)
        wake(group.waiters);
}

void wgmma_commit()
{
    maybe_yield();
    m.cur->sm90.groups.push_back(m.cur->sm90.issued);
}

/* ---- operands -------------------------------------------------------------------------------- */

enum { DEPTH_MOST = 32 };

static float decode(const char *at, const product_shape &shape)
{
    uint16_t half;
    if (shape.e4m3)
        return from_e4m3((uint8_t)*at);
    memcpy(&half, at, sizeof(half));
    return shape.f16 ? from_f16(half) : from_bf16(half);
}

/* How an operand lies in shared memory: 128-byte rows, swizzled, with the descriptor's strides. */
struct layout {
    size_t start, lead, stride;
};

static layout read_descriptor(uint64_t descriptor, const void *site)
{
    if (descriptor >> 62 != 1 || descriptor >> 49 & 7)
        fatal(site, "wgmma: descriptor %016llx is not one of hd_wgmma_descriptor",
              (unsigned long long)descriptor);
    return {(descriptor & 0x3fff) << 4, (descriptor >> 16 & 0x3fff) << 4,
            (descriptor >> 32 & 0x3fff) << 4};
}

/* The 16 bytes at this offset from the operand's start; descriptors count from 1024. */
static const char *operand_piece(const layout &at, size_t offset, const accessor &who)
{
    size_t address = (at.start + offset) & 0x3ffff;
    const char *piece = m.now->memory + ((address ^ (address >> 7 & 7) << 4) - 1024);
    saw_unit(piece, 16, false, who);
    return piece;
}

/* out[row * row_step + k * k_step], rows along M or N. */
static void read_k_major(const product &p, uint64_t descriptor, int rows, const accessor &who,
                         float *out, size_t row_step, size_t k_step)
{
    layout at = read_descriptor(descriptor, p.site);
    int bytes = p.shape.e4m3 ? 1 : 2, each = 16 / bytes;
    for (size_t row = 0; row < (size_t)rows; row++)
        for (int piece = 0; piece < 2; piece++) {
            const char *from =
                operand_piece(at, row % 8 * 128 + row / 8 * at.stride + (size_t)piece * 16, who);
            for (int x = 0; x < each; x++)
                out[row * row_step + (size_t)(piece * each + x) * k_step] =
                    decode(from + x * bytes, p.shape);
        }
}

static void read_mn_major(const product &p, uint64_t descriptor, int columns, const accessor &who,
                          float *out)
{
    layout at = read_descriptor(descriptor, p.site);
    for (size_t k = 0; k < 16; k++)
        for (size_t column = 0; column < (size_t)columns; column += 8) {
            const char *from = operand_piece(
                at, column % 64 * 2 + column / 64 * at.lead + k % 8 * 128 + k / 8 * at.stride, who);
            for (size_t x = 0; x < 8; x++)
                out[k * (size_t)columns + column + x] = decode(from + x * 2, p.shape);
        }
}

static void read_registers(const product &p, float *out, int depth)
{
    int each = depth / 8; /* elements of a register */
    for (int t = 0; t < 128; t++)
        for (int r = 0; r < 4; r++)
            for (int x = 0; x < each; x++) {
                const char *from = (const char *)&p.registers[(size_t)(4 * t + r)];
                int row = 16 * (t / 32) + t % 32 / 4 + r % 2 * 8;
                int k = r / 2 * (depth / 2) + t % 4 * each + x;
                out[row * depth + k] = decode(from + x * 4 / each, p.shape);
            }
}

/* ---- products -------------------------------------------------------------------------------- */

/* f32 sums in the order of k: a device rounds in an order of its own. */
static void multiply(const float *a, const float *b, float *__restrict d, int columns, int depth)
{
    for (int row = 0; row < 64; row++)
        for (int k = 0; k < depth; k++) {
            float x = a[row * depth + k];
            float *__restrict to = d + row * columns;
            const float *from = b + k * columns;
            for (int j = 0; j < columns; j += 16)
                for (int i = 0; i < 16; i++)
                    to[j + i] += x * from[j + i];
        }
}

/* Addends are cut to a fixed number of bits below the largest of them. */
static float sum_cut(const float *addends, int count)
{
    float top = 0, plain = 0, sum = 0;
    for (int i = 0; i < count; i++) {
        top = fmaxf(top, fabsf(addends[i]));
        plain += addends[i];
    }
    if (!(top > 0) || !(fabsf(plain) < INFINITY))
        return plain;
    float unit = ldexpf(1, ilogbf(top) - m.cfg.e4m3_bits), per_unit = 1 / unit;
    for (int i = 0; i < count; i++)
        sum += (float)(int)(addends[i] * per_unit);
    return sum * unit;
}

static void multiply_cut(const float *a, const float *b, float *d, int columns)
{
    float addends[DEPTH_MOST + 1];
    for (int row = 0; row < 64; row++)
        for (int j = 0; j < columns; j++) {
            for (int k = 0; k < DEPTH_MOST; k++)
                addends[k] = a[row * DEPTH_MOST + k] * b[k * columns + j];
            addends[DEPTH_MOST] = d[row * columns + j];
            d[row * columns + j] = sum_cut(addends, DEPTH_MOST + 1);
        }
}

static void compute(product &p, uint64_t number)
{
    static float a[64 * DEPTH_MOST], b[DEPTH_MOST * 256];
    int depth = p.shape.e4m3 ? 32 : 16, columns = p.shape.columns;
    accessor who = {"wgmma", 0, &p.clock, &p.fence, p.site};
    who.now = make_epoch(component_of_warpgroup(m.cur->id / 128), (uint32_t)number + 1);
    if (p.from_registers)
        read_registers(p, a, depth);
    else
        read_k_major(p, p.a, 64, who, a, (size_t)depth, 1);
    if (p.shape.b_is_mn_major)
        read_mn_major(p, p.b, columns, who, b);
    else
        read_k_major(p, p.b, columns, who, b, 1, (size_t)columns);
    float *d = p.sum->values.data();
    if (!p.accumulate)
        std::fill(d, d + 64 * columns, 0.0f);
    if (p.shape.e4m3 && m.cfg.e4m3_bits)
        multiply_cut(a, b, d, columns);
    else
        multiply(a, b, d, columns, depth);
    m.res.tensor_macs += (uint64_t)(64 * columns * depth);
    m.spins = 0;
    p.done = true;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Sees to it that the warpgroup's products before `limit` are done. */
static void complete(warpgroup &group, uint64_t limit)
{
    for (uint64_t i = group.first; i < limit; i++) {
        product &p = group.products[i - group.first]; /* stays until this thread has left it */
        while (p.issued < 128)
            block_on(group.waiters, "the rest of the warpgroup to issue wgmma number", (int64_t)i);
        if (!p.done)
            compute(p, i);
    }
}

static void give_back(uint64_t limit, const void *site)
{
    std::vector<taken_registers> &all = m.cur->sm90.taken;
    for (size_t i = 0; i < all.size(); i++) {
        taken_registers taken = all[i];
        int columns = taken.sum->columns;
        if (taken.last >= limit)
            continue;
        for (int j = 0; j < columns / 2; j++) {
            if (memcmp(&taken.d[j], &IN_FLIGHT, sizeof(float)))
                report(site, "wgmma accumulators: touched in flight, register %d", j);
            taken.d[j] = taken.sum->values[place_of(m.cur->id % 128, j, columns)];
        }
        all[i--] = all.back();
        all.pop_back();
    }
}

void wgmma_wait(int groups)
{
    const void *site = EMU_SITE;
    maybe_yield();
    warpgroup &group = my_warpgroup(site);
    sm90_thread &mine = m.cur->sm90;
    uint64_t limit = mine.waited;
    for (; mine.groups.size() > (size_t)groups; mine.groups.pop_front())
        limit = mine.groups.front();
    complete(group, limit);
    uint32_t &seen = m.cur->clock[component_of_warpgroup(m.cur->id / 128)];
    seen = std::max(seen, (uint32_t)limit);
    for (; mine.waited < limit; mine.waited++)
        group.products[mine.waited - group.first].left++;
    for (; !group.products.empty() && group.products.front().left == 128; group.first++)
        group.products.pop_front();
    give_back(limit, site);
    mine.registers_free = true;
}

void wgmma_end(fiber *f)
{
    if (!f->sm90.taken.empty())
        report(NULL, "wgmma: the thread ended with %zu accumulators in flight",
               f->sm90.taken.size());
}

} // namespace emu
